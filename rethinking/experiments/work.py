"""Counts the operations of a program's products and convolutions, on any device, by its jaxpr."""

import math
from typing import Any

import numpy as np
from jax.extend import core


def count(jaxpr: core.Jaxpr, platform: str) -> int:
    """Multiplications and additions in all products and convolutions of `jaxpr`.

    A loop over a known number of steps counts that often, a loop with a condition once, and of
    several branches the largest one counts. Of code that depends on the platform, that for
    `platform` counts: "cpu", "cuda" or "tpu". Within `jax.shard_map` it is the work of one device.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _product(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(count(branch, platform) for branch in _branches(parameters, platform))
        else:
            times = parameters["length"] if name == "scan" else 1
            total += times * sum(count(inner, platform) for inner in _inner(parameters))
    return total


def _branches(parameters: dict[str, Any], platform: str) -> list[core.Jaxpr]:
    """The branches that can run on `platform`."""
    branches = [branch.jaxpr for branch in parameters["branches"]]
    platforms = parameters.get("branches_platforms")
    if platforms is None:
        return branches
    for branch, names in zip(branches, platforms, strict=True):
        if names is None or platform in names:  # None: all platforms that are left
            return [branch]
    return branches


def _inner(parameters: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs among an equation's parameters, without the condition of a loop."""
    found = []
    for name, value in parameters.items():
        if name == "cond_jaxpr":
            continue
        if isinstance(value, core.ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            found.append(value)
    return found


def _product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    (result,) = equation.outvars
    return 2 * result.aval.size * math.prod(left[axis] for axis in contracted)


def _convolution(equation: core.JaxprEqn) -> int:
    """Twice the number of products of a value and a weight, without those in the padding."""
    parameters = equation.params
    form = parameters["dimension_numbers"]
    images, kernel = (variable.aval.shape for variable in equation.invars)
    result = equation.outvars[0].aval.shape
    pairs = 1
    for axis in range(len(parameters["window_strides"])):
        pairs *= _pairs(
            images[form.lhs_spec[2 + axis]],
            kernel[form.rhs_spec[2 + axis]],
            result[form.out_spec[2 + axis]],
            parameters["window_strides"][axis],
            parameters["padding"][axis][0],
            parameters["lhs_dilation"][axis],
            parameters["rhs_dilation"][axis],
        )
    batch, channels = result[form.out_spec[0]], result[form.out_spec[1]]
    inputs = kernel[form.rhs_spec[1]]  # of one group
    return 2 * pairs * batch * channels * inputs


def _pairs(side: int, taps: int, results: int, stride: int, low: int, holes: int, gap: int) -> int:
    """The number of (result, tap) along an axis that meet a value instead of padding or a hole."""
    place = np.arange(results)[:, None] * stride + np.arange(taps) * gap - low
    return int(((place >= 0) & (place % holes == 0) & (place // holes < side)).sum())
