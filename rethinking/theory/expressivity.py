"""Finite-sample expressivity (section 4, appendix C): networks built, not trained, to take given values on a sample.

`memorize` solves for the weights of Theorem 1's two-layer network, or of Corollary 1's of any depth; `evaluate` runs
them. The sample is projected on a line, z -> x = <a, z>, and the network is piecewise linear in x, a piece for each
point. How a is chosen, so that the gaps between projected points do not vanish: `rethinking.theory.projection`.

Rounding. The pieces' slopes are up to (difference of targets) / (smallest gap), and where many units are active the
sum of w_j max(x - b_j, 0) cancels terms as large as slope * spread of x: some 1e8 targets' worth for all of CIFAR10.
float64 has the digits for that: random labels 0 to 9 come out to within 4e-5 on CIFAR10 and MNIST, one-hot targets to
3e-7. float32 has not. Two layers in it reproduce 1,000 images (to within 0.3), but of 50,000 one label in twenty:
neighbours, 2e-5 of the spread apart on average, differ in their last few bits, and the cancelling terms swamp the
labels. Depth helps, as only the terms of a single block cancel: at depth 32 the largest of 10 one-hot outputs is right
for all of 10,000 images.
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

THETA = 0.125  # Each threshold lies so far on the way from one projected point to the next.
BATCH_ENTRIES = (
    2**20
)  # of a hidden layer, in evaluation: 8 MB in float64, which stay in the processor's caches


@dataclasses.dataclass(frozen=True)
class Memorizer:
    """A network that takes given values on a sample."""

    module: TwoLayer | Deep
    params: dict[str, Float64[np.ndarray, "..."]]
    smallest_eigenvalue: (
        float  # of Lemma 1's matrix A (for Corollary 1 the least of the blocks'): min_i x_i - b_i
    )

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
    """The network of `depth` that maps each point to its target: Theorem 1's for depth 2, Corollary 1's beyond.

    Takes O(n log n + n d) time; beside the points, O(n) numbers are held. Points that occur several times count once.

    Args:
        points: one per row, of any real type.
        targets: [n], or [n, c] for vectors; the network's outputs are [n, 1] or [n, c].
        depth: k, the number of hidden layers plus one for the output.
        seed: of the draws of the projection.

    Raises:
        InputError: if there are no points, their number and the targets' differ, a number is not finite, equal points
            have different targets, the depth is below 2, or points are too close for float64 to separate.
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
        return Memorizer(TwoLayer(*y.shape), {"a": a, "b": b, "w": _solve(x, b, y)}, eigenvalue)
    blocks, params = _blocks(x - b[0], b - b[0], y, depth - 1)
    return Memorizer(Deep(blocks, y.shape[1]), {"a": a, "shift": b[:1, None]} | params, eigenvalue)


def evaluate(
    memorizer: Memorizer, points: Real[np.ndarray, "n d"], dtype: str = "float64"
) -> Iterator[Float[np.ndarray, "batch c"]]:
    """Yields the network's outputs at `points`, batch by batch, weights and arithmetic in float64 or float32.

    All n * width hidden units are evaluated, in batches that keep a layer below 8 MB.
    """
    apply = jax.jit(lambda params, z: memorizer.module.apply({"params": params}, z))
    params = {name: param.astype(dtype) for name, param in memorizer.params.items()}
    rows = max(1, min(len(points), BATCH_ENTRIES // memorizer.module.width))
    for start in range(0, len(points), rows):
        batch = np.arange(start, start + rows) % len(
            points
        )  # full to the last, so that one program serves all
        with jax.enable_x64(
            dtype == "float64"
        ):  # not over a yield, where it would hold for the caller as well
            outputs = apply(params, points[batch].astype(dtype))
        yield np.asarray(outputs)[: len(points) - start]


def _check(points: np.ndarray, targets: np.ndarray, depth: int) -> None:
    if len(points) == 0 or points.shape[1] == 0:
        raise InputError(
            "There are no points to memorize. Give at least one, of at least one coordinate."
        )
    if len(points) != len(targets):
        raise InputError(
            f"{len(points)} points but {len(targets)} targets. Give each point one target."
        )
    if depth < 2:
        raise InputError(
            f"depth={depth}: a network that memorizes has depth 2 at least, one hidden layer."
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
    """Solves A w = y, A_ij = max(x_i - b_j, 0), in O(n): by the slopes s_i = w_1 + ... + w_i right of each threshold.

    Subtracting consecutive rows leaves (x_i - b_i) s_i + (b_i - x_{i-1}) s_{i-1} = y_i - y_{i-1}. As THETA is below
    one half, the second coefficient is the smaller one, so that errors die out from point to point.
    """
    bands = np.stack([x - b, np.append(b[1:] - x[:-1], 0.0)])
    slopes = scipy.linalg.solve_banded((1, 0), bands, np.diff(y, axis=0, prepend=0.0))
    return np.diff(slopes, axis=0, prepend=0.0)


def _blocks(
    x: np.ndarray, b: np.ndarray, y: np.ndarray, count: int
) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
    """The sizes of Corollary 1's blocks and their weights. If there are more blocks than points, some are empty."""
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
    """Where q_j begins, half way to the next block, and c_j, with which it outweighs o_j at every point beyond."""
    if not len(block) or block[-1] + 1 == len(x):
        return x[-1], 0.0  # o_j is zero, or nothing lies beyond
    gap = x[block[-1] + 1] - x[block[-1]]
    # At a distance t >= gap from the block's last point o_j <= largest + slope * t, and q_j >= t / 2; twice the need.
    return x[block[-1]] + gap / 2, 4 * (largest / gap + np.abs(slopes).max())
