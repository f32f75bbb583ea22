"""The Rademacher complexity of a network, measured, beside that of kernel and linear models, in closed form.

Lines of metrics.jsonl: for every number of images n and draw of signs
`num_train`, `draw`, `correlation` ((1/n) sum_i sigma_i h(x_i), the largest on the way), `epoch` (how many it took),
`loss`, and the trained network's norms and margins; and for every n `num_train`, `dimension`, `linear_span`,
`linear_ball`, `kernel_ball`, `kernel_ball_bound`. See `rethinking.theory.complexity`.
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
from rethinking.experiments import resident, trials
from rethinking.experiments.trials import Line, Log, Trainer
from rethinking.kernels import gram
from rethinking.theory import complexity
from rethinking.training import margins

_LOG = logging.getLogger(__name__)
CLOSED_FORMS = ("linear_span", "linear_ball", "kernel_ball", "kernel_ball_bound")


def measure(config: ConfigDict, log: Log) -> Line | None:
    """Trains on `config.draws` draws of signs at every number of images; the result's fields, None if out of time.

    `rademacher` is the mean over draws at data.num_train images, `rademacher_low` and `rademacher_high` its
    `complexity.interval`; `num_fitted` of `draws` draws had all signs fitted, from which `vc_at_least` follows. Norms
    and margins are means over draws. `curve` has a dictionary for each number of images, linear models' further ones
    included. Raises InputError if there are fewer images than are asked for.
    """
    sizes, further = _sizes(config)
    for n in sizes:
        missing = [draw for draw in range(config.draws) if not log.lines(num_train=n, draw=draw)]
        trainer = Trainer(config, n, num_classes=2) if missing else None
        for draw in missing:
            if log.late():
                return None
            log.append(_fit_signs(config, trainer, _examples(config, n), draw))
    for n in (*sizes, *further):
        if not log.lines(num_train=n, closed_form=True):
            if log.late():
                return None
            log.append(_closed_forms(config, n, with_kernel=n in sizes))
    return _summary(config, log, sizes, further)


def signs(
    indices: Int[np.ndarray, " n"], seed: int, draws: int, draw: int
) -> Int[np.ndarray, " n"]:
    """Number `draw` of `draws` draws of sigma, as classes, 0 for -1 and 1 for +1: random labels of two classes.

    An example's sign depends on its index alone; runs with different seeds draw independently.
    """
    return randomize.corrupt_labels(
        np.zeros(len(indices), np.int32), indices, 2, 1.0, seed * draws + draw
    )


def _sizes(config: ConfigDict) -> tuple[list[int], list[int]]:
    """Numbers of images, ascending: those that networks are trained on, and those that only linear models see."""
    there = arrays.describe(config.data.name, config.data.data_dir or None).num_train
    n = config.data.num_train or there
    if n << config.doublings > there:
        raise InputError(
            f"config.doublings={config.doublings}: {n:,} images doubled so often are more than the "
            f"{there:,} of {config.data.name}. Choose a smaller one, or a smaller config.data.num_train."
        )
    sizes = [n >> halving for halving in range(config.halvings, -1, -1)]
    if sizes[0] < config.batch_size:
        raise InputError(
            f"config.halvings={config.halvings} leaves {sizes[0]} images, fewer than "
            f"config.batch_size={config.batch_size}. Choose smaller ones."
        )
    return sizes, [n << doubling for doubling in range(1, config.doublings + 1)]


def _examples(config: ConfigDict, n: int) -> arrays.Split:
    """The first n of the seeded permutation of the training set, so that larger samples contain the smaller ones."""
    settings = config.copy_and_resolve_references()
    settings.data.num_train = n
    return resident.load_data(settings).train


def _fit_signs(config: ConfigDict, trainer: Trainer, split: arrays.Split, draw: int) -> Line:
    """One draw's line. The sup is over all networks, those on the way included: the best of all epochs is taken."""
    classes = signs(split.indices, config.randomize.seed, config.draws, draw)
    programs, best = trainer.programs, -1.0
    images, labels = programs.place(dataclasses.replace(split, labels=classes))
    for epoch, state in trainer.states(images, labels, split.indices):
        now = {
            name: float(value) for name, value in programs.evaluate(state, images, labels).items()
        }
        best = max(best, 2 * now["accuracy"] - 1)
        fitted = config.stop_when_fit and now["accuracy"] >= config.fit_accuracy
        if fitted or epoch == config.max_epochs or not math.isfinite(now["loss"]):
            break
    _LOG.info("%d images, draw %d of signs: %.4f after %d epochs", len(classes), draw, best, epoch)
    line = {
        "num_train": len(classes),
        "draw": draw,
        "correlation": best,
        "epoch": epoch,
        "loss": now["loss"],
    }
    return line | margins.norms_and_margins(state.params, programs.logits(state, images), classes)


def _closed_forms(config: ConfigDict, n: int, with_kernel: bool) -> Line:
    split = _examples(config, n)
    x = _unit_features(config, split)
    sigma = np.stack(
        [
            2.0 * signs(split.indices, config.randomize.seed, config.draws, draw) - 1
            for draw in range(config.draws)
        ]
    )
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
    _LOG.info("%d images, linear functions: %.4f", n, line["linear_span"])
    return line


def _unit_features(config: ConfigDict, split: arrays.Split) -> Float32[np.ndarray, "n d"]:
    """Images as the network sees them, flat, each divided by its norm."""
    _, see, store = resident.views(config)
    x = np.asarray(see(store(split.images)), np.float32).reshape(len(split.labels), -1)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _summary(config: ConfigDict, log: Log, sizes: list[int], further: list[int]) -> Line:
    curve = [{"num_train": n} | _networks(config, log, n) | _models(log, n) for n in sizes]
    lines = log.lines(num_train=sizes[-1])
    last = [line for line in lines if "draw" in line]
    fields = filter(trials.is_network_field, last[0])
    diverged = any(line["loss"] is None for line in log.lines() if "draw" in line)
    return (
        {"status": "diverged" if diverged else "complete"}
        | curve[-1]
        | trials.means(last, fields)
        | {"curve": curve + [{"num_train": n} | _models(log, n) for n in further]}
    )


def _networks(config: ConfigDict, log: Log, n: int) -> Line:
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
    return np.array(
        [log.lines(num_train=n, draw=draw)[0]["correlation"] for draw in range(config.draws)]
    )


def _models(log: Log, n: int) -> Line:
    (line,) = log.lines(num_train=n, closed_form=True)
    return {field: line[field] for field in CLOSED_FORMS if field in line}
