"""The Rademacher complexity of a network, estimated by training, beside that of simpler models.

Kernel and linear models have closed forms: see `rethinking.theory.complexity`. metrics.jsonl has

- a line for every number of examples n and every draw of signs: `num_train`, `draw`, `correlation`
  (the largest (1/n) sum_i sigma_i h(x_i) of all epochs), `epoch` (the number of epochs), `loss`,
  and the norms and margins of the trained network;
- a line for every n with the closed forms: `num_train`, `dimension`, `linear_span`, `linear_ball`,
  `kernel_ball`, `kernel_ball_bound`.
"""

import dataclasses
import logging
import math

import numpy as np
from jaxtyping import Float, Float32, Int
from ml_collections import ConfigDict

from rethinking import randomize
from rethinking.data import arrays
from rethinking.errors import InputError
from rethinking.experiments import data_set, examples, trials
from rethinking.experiments.trials import Line, Log, Repetition
from rethinking.kernels import gram
from rethinking.theory import complexity
from rethinking.training import margins

_LOG = logging.getLogger(__name__)
CLOSED_FORMS = ("linear_span", "linear_ball", "kernel_ball", "kernel_ball_bound")


def estimate(config: ConfigDict, log: Log) -> Line | None:
    """The fields of the result, from `config.draws` trainings at every number of examples.

    - `rademacher`: the mean over draws at data.num_train examples; `rademacher_low` and
      `rademacher_high` are its `complexity.interval`.
    - `num_fitted`: in how many of the `draws` draws all signs were fitted. `vc_at_least` follows
      from it.
    - norms and margins: means over draws.
    - `curve`: a dictionary for each number of examples, including those for linear models alone.

    Returns None if time runs out first. Raises InputError if the data set has too few examples.
    """
    sizes, further = check_sizes(config)
    for n in sizes:
        missing = [draw for draw in range(config.draws) if not log.lines(num_train=n, draw=draw)]
        repetition = Repetition(config, n, num_classes=2) if missing else None
        for draw in missing:
            if log.late():
                return None
            log.append(_fit_signs(config, repetition, _examples(config, n), draw))
    for n in (*sizes, *further):
        if not log.lines(num_train=n, closed_form=True):
            if log.late():
                return None
            log.append(_closed_forms(config, n, with_kernel=n in sizes))
    return _summary(config, log, sizes, further)


def signs(
    indices: Int[np.ndarray, " n"], seed: int, draws: int, draw: int
) -> Int[np.ndarray, " n"]:
    """Draw number `draw` of sigma, of `draws` draws, as classes: 0 for -1 and 1 for +1.

    These are random labels of two classes. Within a draw, the sign of an example depends on its
    index alone. Runs with different seeds draw independently.
    """
    return randomize.corrupt_labels(
        np.zeros(len(indices), np.int32), indices, 2, 1.0, seed * draws + draw
    )


def check_sizes(config: ConfigDict) -> tuple[list[int], list[int]]:
    """Two ascending lists of numbers of examples: for networks, and for linear models alone.

    Raises InputError for tokens, and if the data set has too few examples. It reads only the set's
    description.
    """
    info = data_set.describe(config)
    data_set.refuse_tokens(config, info, "config.measure=rademacher")
    there = info.num_train
    n = config.data.num_train or there
    if n << config.doublings > there:
        raise InputError(
            f"config.doublings={config.doublings}: {n:,} examples doubled that many times are more "
            f"than the {there:,} of {config.data.name}. Choose fewer doublings or a smaller "
            "config.data.num_train."
        )
    sizes = [n >> halving for halving in range(config.halvings, -1, -1)]
    if sizes[0] < config.batch_size:
        raise InputError(
            f"config.halvings={config.halvings} leaves {sizes[0]} examples, fewer than "
            f"config.batch_size={config.batch_size}. Choose fewer halvings or smaller batches."
        )
    return sizes, [n << doubling for doubling in range(1, config.doublings + 1)]


def _examples(config: ConfigDict, n: int) -> arrays.Split:
    """The first n examples of a seeded permutation of the training set.

    So a larger sample contains the smaller ones.
    """
    settings = config.copy_and_resolve_references()
    settings.data.num_train = n
    return examples.load(settings).train


def _fit_signs(config: ConfigDict, repetition: Repetition, split: arrays.Split, draw: int) -> Line:
    """Trains on one draw of signs; returns its line.

    The sup is over all networks, so the largest correlation of all epochs counts.
    """
    classes = signs(split.indices, config.randomize.seed, config.draws, draw)
    programs, best = repetition.programs, -1.0
    points, labels = programs.place(dataclasses.replace(split, labels=classes))
    for epoch, state in repetition.states(points, labels, split.indices):
        now = programs.evaluate(state, points, labels)
        best = max(best, 2 * now["accuracy"] - 1)
        fitted = config.stop_when_fit and now["accuracy"] >= config.fit_accuracy
        if fitted or epoch == config.max_epochs or not math.isfinite(now["loss"]):
            break
    _LOG.info(
        "%d examples, draw %d of signs: %.4f after %d epochs", len(classes), draw, best, epoch
    )
    line = {
        "num_train": len(classes),
        "draw": draw,
        "correlation": best,
        "epoch": epoch,
        "loss": now["loss"],
    }
    logits = programs.logits(state, points)
    return line | margins.norms_and_margins(state.evaluated["params"], logits, classes)


def _closed_forms(config: ConfigDict, n: int, with_kernel: bool) -> Line:
    """The line of the linear models and, if asked for, the kernel at n examples."""
    split = _examples(config, n)
    x = _unit_features(config, split)
    draws = []
    for draw in range(config.draws):
        classes = signs(split.indices, config.randomize.seed, config.draws, draw)
        draws.append(2.0 * classes - 1)
    sigma = np.stack(draws)
    line = {
        "num_train": n,
        "epoch": 0,
        "closed_form": True,
        "dimension": x.shape[1],
        "linear_span": complexity.linear_span(x, sigma),
        "linear_ball": complexity.linear_ball(x, config.radius, sigma),
    }
    if with_kernel:
        matrix = gram.Gaussian(config.bandwidth)(x, x)
        line |= {
            "kernel_ball": complexity.kernel_ball(matrix, config.radius, sigma),
            "kernel_ball_bound": complexity.kernel_ball_bound(np.diag(matrix), config.radius),
        }
    _LOG.info("%d examples, linear functions: %.4f", n, line["linear_span"])
    return line


def _unit_features(config: ConfigDict, split: arrays.Split) -> Float32[np.ndarray, "n d"]:
    """The examples as the network sees them, each flattened and divided by its norm."""
    seen = examples.views(config, data_set.describe(config).kind)
    x = np.asarray(seen.test(seen.store(split.images)), np.float32)
    x = x.reshape(len(split.labels), -1)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _summary(config: ConfigDict, log: Log, sizes: list[int], further: list[int]) -> Line:
    curve = []
    for n in sizes:
        curve.append({"num_train": n} | _networks(config, log, n) | _models(log, n))
    largest = curve[-1]
    for n in further:
        curve.append({"num_train": n} | _models(log, n))
    trained = [line for line in log.lines() if "draw" in line]
    last = [line for line in trained if line["num_train"] == sizes[-1]]
    fields = filter(trials.is_network_field, last[0])
    diverged = any(line["loss"] is None for line in trained)
    return {
        "status": "diverged" if diverged else "complete",
        **largest,
        **trials.means(last, fields),
        "curve": curve,
    }


def _networks(config: ConfigDict, log: Log, n: int) -> Line:
    """The estimates from the trainings on n examples."""
    suprema = _correlations(config, log, n)
    low, high = complexity.interval(suprema, n)
    num_fitted = int((suprema == 1).sum())
    return {
        "rademacher": float(suprema.mean()),
        "rademacher_low": low,
        "rademacher_high": high,
        "draws": len(suprema),
        "num_fitted": num_fitted,
        "vc_at_least": complexity.vc_at_least(n, len(suprema), num_fitted),
    }


def _correlations(config: ConfigDict, log: Log, n: int) -> Float[np.ndarray, " draws"]:
    """The largest correlation of each draw at n examples."""
    found = []
    for draw in range(config.draws):
        (line,) = log.lines(num_train=n, draw=draw)
        found.append(line["correlation"])
    return np.array(found)


def _models(log: Log, n: int) -> Line:
    """The closed forms at n examples."""
    (line,) = log.lines(num_train=n, closed_form=True)
    return {field: line[field] for field in CLOSED_FORMS if field in line}
