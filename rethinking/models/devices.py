"""Tells JAX what differs between devices, for layers with hand-written gradients."""

import jax
from jax import lax


def vary_like(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """`parameter`, marked as one that may differ between the devices on which `x` differs.

    Its values stay the same. Each device then computes a gradient of its own for the parameter, and
    JAX adds these gradients up.
    """
    axes = jax.typeof(x).manual_axis_type.varying - jax.typeof(parameter).manual_axis_type.varying
    if not axes:
        return parameter
    return lax.pcast(parameter, tuple(axes), to="varying")
