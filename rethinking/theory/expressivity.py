"""Finite-sample expressivity (section 4, appendix C): networks that are built, not trained.

`memorize` solves for the weights of a network that takes given values on a sample. The network is
the one of Theorem 1, with two layers, or the one of Corollary 1, with any depth. `evaluate` runs
it. The sample is projected on a line, z -> x = <a, z>. The network is piecewise linear in x, with
one piece for each point. `rethinking.theory.projection` chooses a so that projected points stay
apart.

Rounding. A piece has a slope of up to (difference of targets) / (smallest gap). Where many units
are active, the sum of w_j max(x - b_j, 0) cancels terms as large as slope * spread of x. For all of
CIFAR10 these terms are some 1e8 times as large as the targets.

- float64 has enough digits. Random labels 0 to 9 come out to within 4e-5 on CIFAR10 and MNIST, and
  one-hot targets to within 3e-7.
- float32 has too few. Two layers reproduce 1,000 images, to within 0.3. Of 50,000 images they
  reproduce one label in twenty. Neighbours are 2e-5 of the spread apart on average, so they differ
  in their last few bits only. The rounding of the cancelling terms exceeds the labels.
- Depth helps, because only the terms of one block cancel. At depth 32, the largest of 10 one-hot
  outputs is right for all of 10,000 images.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64, Real

from rethinking.errors import InputError
from rethinking.theory import projection
from rethinking.theory.networks import Deep, TwoLayer

# Where each threshold lies, as a fraction of the way from one projected point to the next.
THETA = 0.125
# Entries of a hidden layer in evaluation: 8 MB in float64, which stay in the processor's caches.
BATCH_ENTRIES = 2**20


@dataclasses.dataclass(frozen=True)
class Memorizer:
    """A network that takes given values on a sample."""

    module: TwoLayer | Deep
    params: dict[str, Float64[np.ndarray, "..."]]
    # Of the matrix A in Lemma 1: min_i x_i - b_i. For Corollary 1, the smallest of all blocks.
    smallest_eigenvalue: float

    @property
    def num_weights(self) -> int:
        """The number of entries of `params`."""
        return sum(param.size for param in self.params.values())


def memorize(
    points: Real[np.ndarray, "n d"],
    targets: Real[np.ndarray, "m *c"],
    depth: int = 2,
    seed: int = 0,
) -> Memorizer:
    """The network that maps each point to its target.

    Depth 2 gives the network of Theorem 1, a larger depth that of Corollary 1. A point that occurs
    several times counts once. The time is O(n log n + n d). The memory, apart from the points, is
    O(n).

    Args:
        points: one per row, of any real type.
        targets: [n], or [n, c] for vectors. The outputs of the network are [n, 1] or [n, c].
        depth: k, the number of hidden layers plus one for the output.
        seed: seed of the projection.

    Raises:
        InputError: if there are no points; if points and targets differ in number; if a number is
            not finite; if equal points have different targets; if the depth is below 2; or if
            points are too close for float64 to separate.
    """
    _check(points, targets, depth)
    values = targets.reshape(len(targets), -1).astype(np.float64)
    kept = projection.distinct(points, values)
    a, x = projection.separate(points, kept, seed)
    order = np.argsort(x)
    x, y = x[order], values[kept[order]]
    first = (x[-1] - x[0]) / (len(x) - 1) if len(x) > 1 else max(1.0, abs(x[0]))
    b = np.concatenate([x[:1] - first, x[:-1] + THETA * np.diff(x)])
    eigenvalue = float(np.min(x - b))
    if depth == 2:
        params = {"a": a, "b": b, "w": _solve(x, b, y)}
        return Memorizer(TwoLayer(*y.shape), params, eigenvalue)
    blocks, weights = _blocks(x - b[0], b - b[0], y, depth - 1)
    params = {"a": a, "shift": b[:1, None]} | weights
    return Memorizer(Deep(blocks, y.shape[1]), params, eigenvalue)


def evaluate(
    memorizer: Memorizer, points: Real[np.ndarray, "n d"], dtype: str = "float64"
) -> Iterator[Float[np.ndarray, "batch c"]]:
    """Yields the outputs of the network at `points`, batch by batch.

    Weights and arithmetic have type `dtype`, "float64" or "float32". All n * width hidden units are
    evaluated. The batch size keeps a layer below 8 MB.
    """
    apply = jax.jit(lambda params, z: memorizer.module.apply({"params": params}, z))
    params = {name: param.astype(dtype) for name, param in memorizer.params.items()}
    rows = max(1, min(len(points), BATCH_ENTRIES // memorizer.module.width))
    for start in range(0, len(points), rows):
        # The last batch is filled up with the first points, so that one program serves all batches.
        batch = np.arange(start, start + rows) % len(points)
        # This context ends before the yield. Otherwise float64 would be on in the caller, too.
        with jax.enable_x64(dtype == "float64"):
            outputs = apply(params, points[batch].astype(dtype))
        yield np.asarray(outputs)[: len(points) - start]


def _check(points: np.ndarray, targets: np.ndarray, depth: int) -> None:
    if len(points) == 0 or points.shape[1] == 0:
        raise InputError(
            "There are no points to memorize. Give at least one, with at least one coordinate."
        )
    if len(points) != len(targets):
        raise InputError(
            f"{len(points)} points but {len(targets)} targets. Give each point one target."
        )
    if depth < 2:
        raise InputError(
            f"depth={depth}: a network that memorizes has at least one hidden layer. Choose at "
            "least 2."
        )
    for name, array in (("Points", points), ("Targets", targets)):
        bad = np.unique(np.argwhere(~np.isfinite(array))[:, 0])
        if len(bad):
            raise InputError(
                f"{name} {bad[:5].tolist()} are not finite (nan or inf). Drop or replace them."
            )


def _solve(
    x: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"], y: Float64[np.ndarray, "n c"]
) -> Float64[np.ndarray, "n c"]:
    """w with A w = y, A_ij = max(x_i - b_j, 0), in O(n).

    The unknowns are the slopes s_i = w_1 + ... + w_i to the right of each threshold. The difference
    of two consecutive rows is (x_i - b_i) s_i + (b_i - x_{i-1}) s_{i-1} = y_i - y_{i-1}. THETA is
    below one half, so the second coefficient is the smaller one, and errors die out from point to
    point.
    """
    bands = np.stack([x - b, np.append(b[1:] - x[:-1], 0.0)])
    slopes = scipy.linalg.solve_banded((1, 0), bands, np.diff(y, axis=0, prepend=0.0))
    return np.diff(slopes, axis=0, prepend=0.0)


def _blocks(
    x: np.ndarray, b: np.ndarray, y: np.ndarray, count: int
) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
    """The sizes of the blocks of Corollary 1, and their weights.

    If there are more blocks than points, some blocks are empty.
    """
    offset = y.min(axis=0, keepdims=True)
    y = y - offset
    params = {"offset": offset}
    blocks = np.array_split(np.arange(len(x)), count)
    for j, block in enumerate(blocks):
        w = _solve(x[block], b[block], y[block]) if len(block) else y[block]
        params |= {f"b_{j}": b[None, block], f"w_{j}": w}
        if j < count - 1:
            end, steepness = _gate(x, block, y.max(), w.sum(axis=0))
            params |= {f"h_{j}": np.full((1, 1), end), f"c_{j}": np.full((1, 1), steepness)}
    return tuple(map(len, blocks)), params


def _gate(
    x: np.ndarray, block: np.ndarray, largest: float, slopes: np.ndarray
) -> tuple[float, float]:
    """Where q_j begins, half way to the next block, and the weight c_j.

    With c_j, q_j outweighs o_j at every point to the right of the block.
    """
    if not len(block) or block[-1] + 1 == len(x):
        return x[-1], 0.0  # o_j is zero, or there are no points to the right.
    gap = x[block[-1] + 1] - x[block[-1]]
    # At a distance t >= gap from the last point of the block, o_j <= largest + slope * t and
    # q_j >= t / 2. The weight is twice what these two need.
    return x[block[-1]] + gap / 2, 4 * (largest / gap + np.abs(slopes).max())
