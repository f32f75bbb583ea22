"""Section 2.2 on real networks: trained on random signs, or trained again with one example replaced.

Every line of metrics.jsonl is one measurement, which a continued run does not make again. What it holds is said in
`rethinking.experiments.rademacher` and `rethinking.experiments.stability`.
"""

import logging
import math
from typing import Any

from ml_collections import ConfigDict

from rethinking import runs
from rethinking.config import COMMON, LARGEST, Field, Fields
from rethinking.errors import require
from rethinking.experiments import training

_LOG = logging.getLogger(__name__)

# Those of the trainings, and more.
FIELDS: Fields = training.FIELDS | {
    "kind": COMMON["kind"].replace(default="complexity"),
    "measure": Field("rademacher", "what is measured", choices=("rademacher", "stability")),
    "draws": Field(5, "rademacher: number of draws of the random signs", minimum=1, below=LARGEST),
    "halvings": Field(
        0,
        "rademacher: train also with a half, a quarter, ... of the training images",
        minimum=0,
        maximum=30,
    ),
    "doublings": Field(
        0,
        "rademacher: linear models also with twice, four times, ... as many",
        minimum=0,
        maximum=30,
    ),
    "radius": Field(
        1.0, "rademacher: radius of the kernel's ball of functions, by their norm", above=0
    ),
    "bandwidth": Field(
        0.5, "rademacher: bandwidth of the Gaussian kernel, for images scaled to norm one", above=0
    ),
    "replacements": Field(
        5,
        "stability: number of examples that are replaced, one at a time, by one outside the training set",
        minimum=1,
        below=LARGEST,
    ),
}


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together."""
    training.check(config)
    require(
        not (config.data.stream or config.eval.shifts or config.eval.num_train),
        "config.data.stream and config.eval: the measures of section 2.2 have no use for them. Leave them alone.",
    )


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Measures what `config.measure` names; returns the contents of result.json.

    Returns None if `deadline` (of time.time()) came first: the run stops between two trainings, and the same call
    continues it. Raises InputError for settings, data or a workdir that cannot work, before any time is spent.
    """
    from rethinking.experiments import rademacher, stability, trials

    measures = {"rademacher": rademacher.measure, "stability": stability.measure}
    log = trials.Log(run_directory, deadline)
    result = measures[config.measure](config, log)
    if result is None:
        _LOG.info("Out of time; the same command continues.")
        return None
    return {"seconds": log.seconds()} | result
