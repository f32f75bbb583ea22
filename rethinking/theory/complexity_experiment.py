"""Section 2.2 on real networks: trained on random signs, or trained again with one example replaced.

Every line of metrics.jsonl is one measurement, which a continued run does not make again. What it holds is said in
`rethinking.theory.rademacher` and `rethinking.theory.stability`.
"""

import logging
import math
from typing import Any

from ml_collections import ConfigDict

from rethinking import runs
from rethinking.theory import rademacher, stability, trials

_LOG = logging.getLogger(__name__)
MEASURES = {"rademacher": rademacher.measure, "stability": stability.measure}


def run(config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf) -> dict[str, Any] | None:
    """Measures what `config.measure` names; returns the contents of result.json.

    Returns None if `deadline` (of time.time()) came first: the run stops between two trainings, and the same call
    continues it. Raises ConfigError for settings, data or a workdir that cannot work, before any time is spent.
    """
    log = trials.Log(run_directory, deadline)
    result = MEASURES[config.measure](config, log)
    if result is None:
        _LOG.info("Out of time; the same command continues.")
        return None
    return run_directory.finish(runs.provenance(config) | {"seconds": log.seconds()} | result)
