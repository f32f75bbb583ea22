"""The networks of section 4 and appendix C, as Flax modules. Their weights come from `expressivity.memorize`."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

# Without this, accelerators round the factors of a product to fewer bits.
_product = partial(jnp.matmul, precision="highest")


class TwoLayer(nn.Module):
    """Theorem 1's network c(z) = sum_j w_j max(<a, z> - b_j, 0): d + n + n * outputs weights, n = `units`.

    That is 2n + d for scalar values. Takes z [batch, d] in the type of the weights.
    """

    units: int
    outputs: int

    @property
    def depth(self) -> int:
        """Layers of weights: one of ReLUs and the output."""
        return 2

    @property
    def width(self) -> int:
        """The number of hidden units."""
        return self.units

    @nn.compact
    def __call__(self, z: Float[Array, "batch d"]) -> Float[Array, "batch {self.outputs}"]:
        weight = partial(self.param, init_fn=nn.initializers.zeros, dtype=z.dtype)
        a = weight("a", shape=(z.shape[1],))
        b = weight("b", shape=(self.units,))
        hidden = nn.relu(_product(z, a[:, None]) - b[None])
        return _product(hidden, weight("w", shape=(self.units, self.outputs)))


class Deep(nn.Module):
    """Corollary 1's network of depth k = len(blocks) + 1 >= 3: k - 1 hidden layers of ReLUs and a linear output.

    The points, in order of their projections x, are cut into k - 1 blocks of `blocks[j]` points. Hidden layer j has
    - a unit max(x - b_i, 0) for each point of block j. Their sum with weights w_i, as in Theorem 1, is the block's
      output o_j: zero left of the block and, since targets are shifted by `offset`, not negative on its points.
    - a unit that passes x on, which is never negative: the paper's x in [0, 1], got by the weight `shift`.
    - a unit q_j = max(x - h_j, 0), zero up to the block's right end h_j.
    - the multiplexer, a unit per output: s_j = max(s_{j-1} + o_{j-1} - c_{j-1} q_{j-1}, 0), s_1 = 0. With f_i the
      indicator function of block i, s_j = sum_{i<j} f_i(x) o_i(x) on the sample: o_i vanishes left of the block by
      itself, and right of it because c_i outgrows its slope. Where f_i(x) = 1, q_i is exactly zero, and no digit lost.
    The last block needs no q: nothing lies to its right.

    Weights, of n points in d dimensions with c outputs: d + n + n c + c + 2 (k - 2) + 1, that is O(n + d). As in
    Theorem 1 the units of the first layer share a, and connections of fixed weight 1, at most one to a unit, are not
    counted. Width: at most ceil(n / (k - 1)) + 2 + c, that is O(n / k).
    """

    blocks: tuple[int, ...]
    outputs: int

    @property
    def depth(self) -> int:
        """Layers of weights: those of ReLUs and the output."""
        return len(self.blocks) + 1

    @property
    def width(self) -> int:
        """The number of units of the largest hidden layer."""
        return max(*(units + 2 for units in self.blocks[:-1]), self.blocks[-1]) + self.outputs

    @nn.compact
    def __call__(self, z: Float[Array, "batch d"]) -> Float[Array, "batch {self.outputs}"]:
        weight = partial(self.param, init_fn=nn.initializers.zeros, dtype=z.dtype)
        c, last = self.outputs, len(self.blocks) - 1
        x = _product(z, weight("a", shape=(z.shape[1],))[:, None]) - weight("shift", shape=(1, 1))
        s = jnp.zeros((z.shape[0], c), z.dtype)
        for j, units in enumerate(self.blocks):
            passed = [x, x - weight(f"h_{j}", shape=(1, 1))] if j < last else []
            hidden = nn.relu(
                jnp.concatenate([s, x - weight(f"b_{j}", shape=(1, units)), *passed], axis=1)
            )
            self.sow("intermediates", "hidden", hidden)
            s = hidden[:, :c] + _product(
                hidden[:, c : c + units], weight(f"w_{j}", shape=(units, c))
            )
            if j < last:
                x, q = hidden[:, -2:-1], hidden[:, -1:]
                s -= weight(f"c_{j}", shape=(1, 1)) * q
        return s + weight("offset", shape=(1, c))
