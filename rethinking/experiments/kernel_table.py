"""The most expensive kernels of a trace, and the phases of training that they belong to."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator

import jax

from rethinking.training.not_finite import PHASES, plain

_MOST = 20
# Lines of a device's plane that repeat the time of others.
_SUMMARIES = ("XLA Modules", "Steps", "Framework", "Source", "Async")
# Operations whose time is that of others inside.
_CONTROL = ("while", "conditional", "call")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An operation of a compiled program."""

    name: str
    program: str
    scope: str  # such as forward/MLP/Dense_0/dot_general

    @property
    def phase(self) -> str:
        """One of `not_finite.PHASES`, or "other"."""
        for part in self.scope.split("/"):
            if part in PHASES:
                return part
        # A program that was compiled before its phases had names.
        return "evaluate" if "evaluate" in self.program or "logits" in self.program else "other"


def make(trace: pathlib.Path) -> str:
    """A table of the time in each phase and in the most expensive kernels, as text.

    `trace` is an XSpace, the file HOST.xplane.pb of jax.profiler. Times are summed over the devices
    of this process and, on a processor, over its threads.
    """
    seconds: collections.Counter[Kernel] = collections.Counter()
    calls: collections.Counter[Kernel] = collections.Counter()
    for kernel, duration in _events(trace):
        seconds[kernel] += duration
        calls[kernel] += 1
    total = sum(seconds.values())
    if not total:
        return "This platform gives no kernels in its trace."
    phases: collections.Counter[str] = collections.Counter()
    for kernel, duration in seconds.items():
        phases[kernel.phase] += duration
    lines = [f"{'ms':>10}  {'share':>6}  phase"]
    for phase, duration in phases.most_common():
        lines.append(f"{1e3 * duration:10.2f}  {duration / total:6.1%}  {phase}")
    lines += ["", f"{'ms':>10}  {'share':>6}  {'calls':>7}  {'phase':8}  kernel, and its layer"]
    for kernel, duration in seconds.most_common(_MOST):
        lines.append(
            f"{1e3 * duration:10.2f}  {duration / total:6.1%}  {calls[kernel]:7,}  "
            f"{kernel.phase:8}  {kernel.name}  {kernel.scope}"
        )
    return "\n".join(lines)


def _events(trace: pathlib.Path) -> Iterator[tuple[Kernel, float]]:
    """Each run of a kernel, with its seconds."""
    programs = _programs(trace.read_bytes())
    places = {}  # the name of an operation -> its program, for events that name no program
    for program, operations in programs.items():
        places.update(dict.fromkeys(operations, program))
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        is_device = plane.name.startswith("/device:")
        for line in plane.lines:
            if is_device and line.name.startswith(_SUMMARIES):
                continue
            for event in line.events:
                stats = dict(event.stats)
                name = str(stats.get("hlo_op") or event.name.split(" ")[0].lstrip("%"))
                program = str(stats.get("hlo_module") or places.get(name, ""))
                if not is_device and "hlo_op" not in stats:
                    continue  # not a kernel, but something that the host does
                opcode, scope = programs.get(program, {}).get(name, ("", ""))
                if opcode not in _CONTROL:
                    yield Kernel(name, program, _short(scope)), event.duration_ns / 1e9


def _short(scope: str) -> str:
    """A scope from its phase on, or without the names that loops and calls add."""
    parts = plain(scope).split("/")
    first = next((place for place, part in enumerate(parts) if part in PHASES), 1)
    added = ("", "while", "body", "cond", "closed_call")
    return "/".join(part for part in parts[first:] if part not in added)


def _programs(trace: bytes) -> dict[str, dict[str, tuple[str, str]]]:
    """Of each compiled program in a trace: name of an operation -> opcode and scope.

    They are XLA's HloProtos, in the metadata of the plane /host:metadata. The numbers of the fields
    are those of xplane.proto and hlo.proto, of which JAX has no Python classes.
    """
    found = {}
    for plane in _fields(trace, 1):
        if b"/host:metadata" not in _fields(plane, 2):
            continue
        for module in _fields(plane, 4, 2, 5, 6, 1):  # event_metadata, value, stats, bytes, module
            operations = {}
            for instruction in _fields(module, 3, 2):  # computations, instructions
                scope = b"".join(_fields(instruction, 7, 2))  # metadata, op_name
                opcode = b"".join(_fields(instruction, 2))
                (name,) = _fields(instruction, 1)
                operations[name.decode()] = (opcode.decode(), scope.decode())
            (name,) = _fields(module, 1)
            found[name.decode()] = operations
    return found


def _fields(message: bytes, *path: int) -> list[bytes]:
    """The values of a field of a protocol buffer that are bytes; of a field of a field, and so on.

    See https://protobuf.dev/programming-guides/encoding.
    """
    values = [message]
    for number in path:
        values = [value for outer in values for found, value in _each(outer) if found == number]
    return values


def _each(message: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(message, place)
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, place = _varint(message, place)
            yield tag >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
