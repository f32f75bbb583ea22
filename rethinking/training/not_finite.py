"""Where values that are not finite come from: the first operation of a step that made them.

The step is a JAX program of operations, each with its layer and its line of Python. `find` runs
the program with a count of infinite and undefined values after each operation. A value that is not
finite may be harmless, such as the minus infinity of a mask. So each one inherits its origin from
the operands that are not finite, and the origin of the loss is what is reported.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jaxtyping import Bool

from rethinking import failures
from rethinking.sharding import DATA_AXIS, DataParallel

# Operations that are calls of other programs. Theirs are looked into.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint")
_CALLS += ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
# The phases of a step, which `steps` and `evaluate` name.
PHASES = ("gather", "augment", "forward", "backward", "update", "evaluate")
# Names by which JAX says that an operation belongs to a transformed function.
_TRANSFORMED = re.compile(r"(?:jvp|transpose|vmap|remat|checkpoint|jit)\(([^()]*)\)")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a step: what it is, and where in the network and in its code."""

    name: str  # JAX's name, such as "dot_general"
    phase: str  # such as "forward"; "" if it belongs to none
    layer: str  # such as "MLP/Dense_0"; "" if the network's library names no layers
    line: str  # such as "my_network.py, line 12"; "" if it is not known
    form: str  # of the result, such as "float32[128,512]"

    def __str__(self) -> str:
        layer = f"layer {self.layer}, " if self.layer else ""
        phase = f"phase {self.phase}, " if self.phase else ""
        line = f" at {self.line}" if self.line else ""
        return f"{layer}{phase}operation {self.name} -> {self.form}{line}"


def all_finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite, as an array."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def find(
    step: Callable, devices: DataParallel, split_argnums: tuple[int, ...], *args: Any
) -> Operation | None:
    """The operation from which the values of `step(*args)` that are not finite come.

    None if the result is finite, or if `args` are not. `step` is for use within `devices.compile`.
    """
    if not all_finite(args):
        return None
    walk = _Walk(devices)
    counts = devices.compile(functools.partial(walk.run, step), split_argnums=split_argnums)(*args)
    return walk.origin(np.asarray(counts) > 0)


@dataclasses.dataclass(frozen=True)
class _Value:
    """An array of the program. `number` is that of the result among all that are looked at.

    None: it is finite by its type, or it is an argument or a constant.
    """

    array: Any
    number: int | None = None


class _Walk:
    """Runs a program operation by operation, and keeps where each result comes from."""

    def __init__(self, devices: DataParallel):
        self._devices = devices
        self._counts: list[jax.Array] = []
        self._operations: list[Operation] = []
        self._operands: list[list[int]] = []
        self._results: list[int] = []

    def run(self, step: Callable, *args: Any) -> jax.Array:
        """How many values of each result are not finite. For use within `devices.compile`."""
        program, shape = jax.make_jaxpr(step, return_shape=True)(*args)
        inputs = [_Value(array) for array in jax.tree.leaves(args)]
        constants = [_Value(array) for array in program.consts]
        outputs = self._evaluate(program.jaxpr, constants, inputs, "")
        # The loss comes first, because it explains the rest.
        state, loss = jax.tree.unflatten(jax.tree.structure(shape), outputs)
        values = [loss, *jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, _Value))]
        self._results = [value.number for value in values if value.number is not None]
        return jnp.stack(self._counts)

    def origin(self, is_bad: Bool[np.ndarray, " n"]) -> Operation | None:
        """The first operation on the way to the first result of the program that is not finite."""
        number = next((number for number in self._results if is_bad[number]), None)
        if number is None:
            return None
        while True:
            before = [operand for operand in self._operands[number] if is_bad[operand]]
            if not before:
                return self._operations[number]
            number = min(before)

    def _evaluate(
        self, program: Jaxpr, constants: list[_Value], inputs: list[_Value], scope: str
    ) -> list[_Value]:
        known = dict(zip([*program.constvars, *program.invars], constants + inputs, strict=True))

        def read(variable: Any) -> _Value:
            return _Value(variable.val) if isinstance(variable, Literal) else known[variable]

        for equation in program.eqns:
            operands = [read(variable) for variable in equation.invars]
            path = "/".join(filter(None, [scope, str(equation.source_info.name_stack)]))
            results = self._call(equation, operands, path)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in program.outvars]

    def _call(self, equation: JaxprEqn, operands: list[_Value], path: str) -> list[_Value]:
        """The results of an operation, or of the operations of the program that it calls."""
        inner = _called(equation)
        if inner is not None:
            constants = [_Value(array) for array in inner.consts]
            return self._evaluate(inner.jaxpr, constants, operands, path)
        arrays = [operand.array for operand in operands]
        results = equation.primitive.bind(*arrays, **equation.params)
        if not equation.primitive.multiple_results:
            results = [results]
        numbers = [operand.number for operand in operands if operand.number is not None]
        return [self._note(equation, array, numbers, path) for array in results]

    def _note(self, equation: JaxprEqn, array: Any, operands: list[int], path: str) -> _Value:
        """A result, with its number if it can be infinite or undefined."""
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            return _Value(array)
        count = (~jnp.isfinite(array)).sum()
        if self._devices.axis_name:
            if DATA_AXIS not in jax.typeof(count).manual_axis_type.varying:
                count = self._devices.varying(count)
            count = self._devices.sum(count)
        self._counts.append(count)
        self._operands.append(operands)
        self._operations.append(_describe(equation, array, path))
        return _Value(array, len(self._counts) - 1)


def _called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program that an operation calls once; None if it calls none."""
    if equation.primitive.name not in _CALLS:
        return None
    for name in _PROGRAMS:
        inner = equation.params.get(name)
        if isinstance(inner, Jaxpr):
            inner = ClosedJaxpr(inner, [])
        if isinstance(inner, ClosedJaxpr) and len(inner.jaxpr.invars) == len(equation.invars):
            return inner
    return None


def _describe(equation: JaxprEqn, array: Any, path: str) -> Operation:
    scopes = [scope for scope in plain(path).split("/") if scope]
    phase = scopes.pop(0) if scopes and scopes[0] in PHASES else ""
    # The backward pass repeats the name of the forward pass.
    layer = "/".join(scope for scope in scopes if scope not in PHASES)
    form = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    return Operation(equation.primitive.name, phase, layer, _line(equation), form)


def plain(path: str) -> str:
    """A path of scopes without JAX's names of transformations: transpose(jvp(MLP))/Dense_0."""
    before = ""
    while before != path:
        before, path = path, _TRANSFORMED.sub(r"\1", path)
    return path


def _line(equation: JaxprEqn) -> str:
    """FILE, line N: the innermost line outside of libraries."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not failures.is_library(frame.file_name):
            return f"{pathlib.Path(frame.file_name).name}, line {frame.line_num}"
    return ""
