"""The networks of section 4 and appendix C, as Flax modules.

`expressivity.memorize` computes their weights.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

# Without this, accelerators round the factors of a matrix product to fewer bits.
_product = partial(jnp.matmul, precision="highest")


class TwoLayer(nn.Module):
    """The network of Theorem 1, c(z) = sum_j w_j max(<a, z> - b_j, 0).

    With n = `units` it has d + n + n * outputs weights, which is 2n + d for one output. It takes
    z [batch, d] in the type of the weights.
    """

    units: int
    outputs: int

    @property
    def depth(self) -> int:
        """The number of layers of weights: one with ReLUs, and the output."""
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
    """The network of Corollary 1, of depth k = len(blocks) + 1 >= 3.

    It has k - 1 hidden layers of ReLUs and a linear output. The points, sorted by their projections
    x, are cut into k - 1 blocks; block j has `blocks[j]` points. Hidden layer j has these units:

    - One unit max(x - b_i, 0) for each point of block j. Their sum with weights w_i, as in Theorem
      1, is the block's output o_j. It is zero to the left of the block. It is not negative on the
      block's points, because `offset` shifts the targets.
    - One unit that passes x on. The weight `shift` makes x nonnegative; the paper has x in [0, 1].
    - One unit q_j = max(x - h_j, 0), which is zero up to the block's right end h_j. The last block
      has none, because no points lie to its right.
    - One unit of the multiplexer for each output, s_j = max(s_{j-1} + o_{j-1} - c_{j-1} q_{j-1}, 0)
      with s_1 = 0.

    Let f_i be the indicator function of block i. On the sample, s_j = sum_{i<j} f_i(x) o_i(x). To
    the left of block i, o_i is zero. To the right, the multiplexer is zero because c_i q_i
    outweighs o_i. On the block itself q_i is exactly zero, so no digit is lost.

    For n points in d dimensions and c outputs there are d + n + n c + c + 2 (k - 2) + 1 weights.
    This is O(n + d). As in Theorem 1, the units of the first layer share a. This does not count
    connections of fixed weight 1, at most one to a unit. The width is at most ceil(n / (k - 1)) + 2
    + c, which is O(n / k).
    """

    blocks: tuple[int, ...]
    outputs: int

    @property
    def depth(self) -> int:
        """The number of layers of weights: those with ReLUs, and the output."""
        return len(self.blocks) + 1

    @property
    def width(self) -> int:
        """The number of units of the largest hidden layer."""
        *others, last = self.blocks
        return max(max(others) + 2, last) + self.outputs

    @nn.compact
    def __call__(self, z: Float[Array, "batch d"]) -> Float[Array, "batch {self.outputs}"]:
        weight = partial(self.param, init_fn=nn.initializers.zeros, dtype=z.dtype)
        c, last = self.outputs, len(self.blocks) - 1
        x = _product(z, weight("a", shape=(z.shape[1],))[:, None]) - weight("shift", shape=(1, 1))
        s = jnp.zeros((z.shape[0], c), z.dtype)
        for j, units in enumerate(self.blocks):
            inputs = [s, x - weight(f"b_{j}", shape=(1, units))]
            if j < last:
                inputs += [x, x - weight(f"h_{j}", shape=(1, 1))]
            hidden = nn.relu(jnp.concatenate(inputs, axis=1))
            self.sow("intermediates", "hidden", hidden)
            w = weight(f"w_{j}", shape=(units, c))
            s = hidden[:, :c] + _product(hidden[:, c : c + units], w)
            if j < last:
                x, q = hidden[:, -2:-1], hidden[:, -1:]
                s -= weight(f"c_{j}", shape=(1, 1)) * q
        return s + weight("offset", shape=(1, c))
