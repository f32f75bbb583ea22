"""What a GPU program launches, and the bytes that it moves, read from XLA's text of it."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

# Bytes of a number, by its type in XLA's text.
NUMBER_BYTES = {
    "f64": 8,
    "s64": 8,
    "u64": 8,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "u8": 1,
    "s8": 1,
    "pred": 1,
    "token": 0,
}
# Instructions that compute nothing, and those that only hold other instructions.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "copy-done",
    "all-reduce-done",
    "all-gather-done",
    "collective-permute-done",
    "async-done",
}
_HOLDERS = {"while", "conditional", "call", "async-start"}
_COMPUTATION = re.compile(r"(ENTRY )?%([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
# The same without the signs that compiled programs have before names.
_LOWERED = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z-]*)\((.*?)\)")
# Operations of a program that is not compiled, and that XLA does not merge into others.
_SEPARATE = {
    *("convolution", "dot", "reduce", "reduce-window", "select-and-scatter"),
    *("gather", "scatter", "concatenate"),
}
_CALLED = re.compile(r"(?:calls|body|to_apply|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)\}?")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation. `rest` is the text after the opening bracket of its operands."""

    name: str
    type: str
    op: str
    rest: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """The names of the operands."""
        depth = 1
        for position, character in enumerate(self.rest):
            depth += (character == "(") - (character == ")")
            if not depth:
                return re.findall(r"%([\w.\-]+)", self.rest[:position])
        return []

    @property
    def called(self) -> list[str]:
        """The names of the computations that it runs, without the condition of a loop."""
        names = []
        for group in _CALLED.findall(self.rest):
            names.extend(re.findall(r"%([\w.\-]+)", group))
        return names


@dataclasses.dataclass(frozen=True)
class Launches:
    """What a GPU runs: the number of kernels and of convolutions among them, and their bytes."""

    kernels: int
    convolutions: int
    bytes: int


class Program:
    """The computations of a compiled program."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if found := _COMPUTATION.match(line):
                current = self.computations.setdefault(found[2], {})
                if found[1]:
                    self.entry = found[2]
            elif found := _INSTRUCTION.match(line):
                root, name, type_, op, rest = found.groups()
                current[name] = Instruction(name, type_, op, rest, bool(root))

    def launches(self) -> Launches:
        """What the program runs. The body of a loop counts once."""
        return self._launches(self.entry)

    def launches_of_largest_loop(self) -> Launches:
        """What one pass of the loop with the most kernels runs: the loop over an epoch's steps."""
        bodies = [
            name
            for instruction in self.computations[self.entry].values()
            if instruction.op == "while"
            for name in instruction.called
        ]
        return max((self._launches(name) for name in bodies), key=lambda found: found.kernels)

    def _launches(self, computation: str) -> Launches:
        kernels = convolutions = moved = 0
        for instruction in self._run(computation):
            kernels += 1
            convolutions += "__cudnn$conv" in instruction.rest or instruction.op == "convolution"
            moved += self._bytes(instruction)
        return Launches(kernels, convolutions, moved)

    def _run(self, computation: str) -> Iterator[Instruction]:
        """Yields the instructions that are kernels. Others are yielded with their computation."""
        self._scope = self.computations[computation]
        for instruction in self.computations[computation].values():
            if instruction.op in _HOLDERS:
                for name in instruction.called:
                    yield from self._run(name)
                self._scope = self.computations[computation]
            elif instruction.op not in _FREE:
                yield instruction

    def _bytes(self, kernel: Instruction) -> int:
        """Bytes that a kernel reads and writes. Of an array that it indexes, those it uses."""
        operands = [self._scope[name].type for name in kernel.operands]
        if kernel.op != "fusion":
            return size(kernel.type) + sum(map(size, operands))
        fused = self.computations[kernel.called[0]]
        parameters = [each for each in fused.values() if each.op == "parameter"]
        parameters.sort(key=lambda each: int(each.rest.partition(")")[0]))
        users = collections.defaultdict(list)
        for instruction in fused.values():
            for position, name in enumerate(instruction.operands):
                users[name].append((instruction, position))
        read = sum(_bytes_read(parameter, users) for parameter in parameters)
        (root,) = (each for each in fused.values() if each.is_root)
        results = [root]
        if root.op == "tuple":
            results = [fused[name] for name in root.operands]
        return read + sum(_bytes_written(result, fused) for result in results)


def _bytes_read(array: Instruction, users: dict) -> int:
    """Bytes of `array` that its users read. If all of them index it, it is what they take."""
    read = 0
    for user, position in users[array.name]:
        if user.op in ("bitcast", "reshape"):
            read += _bytes_read(user, users)
        elif user.op in ("gather", "dynamic-slice") and not position:
            read += size(user.type)
        elif user.op in ("dynamic-update-slice", "scatter") and not position:
            continue  # it is changed in place
        else:
            return size(array.type)
    return min(read, size(array.type))


def _bytes_written(result: Instruction, fused: dict[str, Instruction]) -> int:
    """Bytes of a result. Of an array that is changed in place, those that change."""
    while result.op == "bitcast":
        result = fused[result.operands[0]]
    if result.op == "dynamic-update-slice":
        return size(fused[result.operands[1]].type)
    return size(result.type)


def separate_operations(text: str) -> list[tuple[str, int]]:
    """The operations that XLA will not merge, in the text of a program before compilation.

    Each one reads its operands and writes its result. The numbers are these bytes.
    """
    sizes: dict[str, int] = {}
    found = []
    for line in text.splitlines():
        match = _LOWERED.match(line)
        if match is None:
            continue
        name, result, operation, operands = match.groups()
        sizes[name] = size(result)
        if operation in _SEPARATE:
            names = re.findall(r"[\w.-]+", operands)
            found.append((operation, sizes[name] + sum(sizes.get(each, 0) for each in names)))
    return found


def size(type_: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, from XLA's text of the type."""
    total = 0
    for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", type_):
        total += NUMBER_BYTES.get(dtype, 4) * math.prod(
            int(side) for side in shape.split(",") if side
        )
    return total
