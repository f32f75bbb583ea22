"""Section 2.2 on real networks: Rademacher complexity and uniform stability.

The first trains a network on random signs; the second trains it again with one example replaced.
Every line of metrics.jsonl is one measurement, which a continued run does not repeat.
`rethinking.experiments.rademacher` and `rethinking.experiments.stability` describe the lines.
"""

import logging
import math
from typing import Any

from ml_collections import ConfigDict

from rethinking import runs
from rethinking.config import COMMON, refuse_without_effect
from rethinking.config.fields import HUGE, LARGEST, TINY, Field, Fields
from rethinking.errors import require
from rethinking.experiments import training

_LOG = logging.getLogger(__name__)

# The fields of training, and the fields of the two measures.
FIELDS: Fields = training.FIELDS | {
    "kind": COMMON["kind"].replace(default="complexity"),
    "measure": Field("rademacher", "the measure to estimate", choices=("rademacher", "stability")),
    "draws": Field(5, "rademacher: number of draws of the random signs", minimum=1, maximum=1000),
    "halvings": Field(
        0,
        "rademacher: how many times to halve the number of training examples; all sizes are "
        "measured",
        minimum=0,
        maximum=30,
    ),
    "doublings": Field(
        0,
        "rademacher: how many times to double the number of examples, for linear models alone",
        minimum=0,
        maximum=30,
    ),
    "radius": Field(
        1.0,
        "rademacher: largest norm of the functions in the kernel's space",
        minimum=TINY,
        maximum=HUGE,
    ),
    "bandwidth": Field(
        0.5,
        "rademacher: bandwidth of the Gaussian kernel, for examples scaled to norm one",
        minimum=1e-10,
        maximum=1e10,
    ),
    "replacements": Field(
        5,
        "stability: number of training examples to replace, one at a time, by other examples",
        minimum=1,
        below=LARGEST,
    ),
}


# The fields of training and of the other measure that a measure does not use.
IGNORED = {
    "rademacher": ("replacements", "eval_epochs", "data.num_test", "randomize.labels"),
    "stability": (
        "draws",
        "halvings",
        "doublings",
        "radius",
        "bandwidth",
        "eval_epochs",
        "stop_when_fit",
        "fit_accuracy",
    ),
}


def check(config: ConfigDict) -> None:
    """Raises InputError for values that do not go together."""
    training.check(config)
    require(
        not (config.data.stream or config.eval.shifts or config.eval.num_train),
        "config.data.stream, config.eval.shifts and config.eval.num_train have no effect on the "
        "measures of section 2.2. Keep their defaults.",
    )
    because = f"config.measure={config.measure}"
    refuse_without_effect(config, FIELDS, IGNORED[config.measure], because)
    if config.measure == "stability":
        return
    if not config.stop_when_fit:
        refuse_without_effect(
            config, FIELDS, ["fit_accuracy"], f"{because} and config.stop_when_fit=False"
        )
    n, smallest = config.data.num_train, config.data.num_train >> config.halvings
    require(
        not n or smallest >= config.batch_size,
        f"config.halvings={config.halvings} leaves {smallest} examples, fewer than "
        f"config.batch_size={config.batch_size}. Choose fewer halvings or smaller batches.",
    )


def run(
    config: ConfigDict, run_directory: runs.RunDirectory, deadline: float = math.inf
) -> dict[str, Any] | None:
    """Estimates what `config.measure` names; returns the contents of result.json.

    Returns None if `deadline` (of time.monotonic()) comes first. The run stops between two
    trainings, and the same call continues it. Raises InputError for settings, data or a workdir
    that cannot work, before any training.
    """
    from rethinking.experiments import rademacher, stability, trials

    estimator = {"rademacher": rademacher, "stability": stability}[config.measure]
    estimator.check_sizes(config)  # before anything is written
    log = trials.Log(run_directory, deadline)
    result = estimator.estimate(config, log)
    if result is None:
        _LOG.info("Out of time; the same command continues.")
        return None
    return {"seconds": log.seconds()} | result
