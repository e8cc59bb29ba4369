"""List what a pickle would import and load, by reading its instructions without executing them."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

ENCODE: Final = "_codecs.encode"  # pickle protocols below 3 store bytes as a call of this function
MAX_TUPLE_ITEMS = 1000  # hashing deeply nested tuples overflows the C stack or never ends; a tensor needs about 20
STORAGE_ITEM_BYTES: Final[Mapping[str, int]] = {
    f"torch.{kind}Storage": size
    for size, kinds in {
        16: ("ComplexDouble",),
        8: ("ComplexFloat", "Double", "Long"),
        4: ("Float", "Int"),
        2: ("Half", "BFloat16", "Short"),
        1: ("Char", "Byte", "Bool"),
    }.items()
    for kind in kinds
}


@dataclass(frozen=True)
class PickleOutline:
    """What a pickle would import and load.

    Attributes:
        globals: full name of everything that it would import, such as "posix.system".
        opcodes: names of the instructions in it, as in `pickletools`.
        storages: the tensor data that it declares, as (record name such as "data/0", size in bytes).
    """

    globals: set[str] = field(default_factory=set)
    opcodes: set[str] = field(default_factory=set)
    storages: set[tuple[str, int]] = field(default_factory=set)


def outline_pickle(data: bytes) -> PickleOutline:
    """Return what a pickle would import and load, by simulating its stack without building any object.

    Raises:
        ValueError: not a pickle, damaged, declaring sizes beyond its own, or with too deeply nested tuples.
    """
    follower = _Follower(len(data))
    try:
        for opcode, argument, _ in pickletools.genops(data):
            follower.step(opcode, argument)
    except (LookupError, TypeError):
        raise ValueError("the pickle's instructions contradict each other") from None
    return follower.outline


@dataclass(frozen=True)
class _Tuple:
    items: list[object]
    weight: int  # number of items, those of a nested tuple counted each time it occurs


def _check_encode(arguments: object) -> None:
    """Refuse any call of `encode` other than (text, "latin1"), which is how pickle stores bytes.

    Other codecs can expand their input, and chained calls would expand it exponentially.
    """
    items = arguments.items if isinstance(arguments, _Tuple) else []
    if len(items) != 2 or not isinstance(items[0], str) or items[1] not in ("latin1", "latin-1"):
        raise ValueError("encode is called with more than a text and latin1")


class _Follower:
    """Simulates a pickle's stack; it keeps text, numbers and tuples, and None for every other object."""

    def __init__(self, size: int) -> None:
        self.outline = PickleOutline()
        self._size = size
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Apply one instruction to the simulated stack and record what it would import or load."""
        self.outline.opcodes.add(opcode.name)
        if (
            isinstance(argument, int)
            and opcode.name in {"PUT", "BINPUT", "LONG_BINPUT", "FRAME"}
            and argument > self._size
        ):
            raise ValueError(f"{opcode.name} declares {argument}, the pickle has {self._size} bytes")
        if opcode.name == "MARK":
            self._marks.append(len(self._stack))
        elif opcode.name.endswith("PUT") and isinstance(argument, int):
            self._memo[argument] = self._stack[-1]
        elif opcode.name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif opcode.name.endswith("GET") and isinstance(argument, int):
            self._stack.append(self._memo[argument])
        else:
            popped = self._pop(opcode.stack_before)
            self._stack += [self._value(opcode.name, argument, popped)] * len(opcode.stack_after)

    def _pop(self, before: list[pickletools.StackObject]) -> list[object]:
        """Remove an instruction's operands from the stack and return them; with a mark, only those above the mark."""
        marked = pickletools.markobject in before
        start = self._marks.pop() if marked else len(self._stack) - len(before)
        below = before.index(pickletools.markobject) if marked else 0
        if start < below:
            raise ValueError("the pickle takes more items than are on its stack")
        popped = self._stack[start:]
        del self._stack[start - below :]
        return popped

    def _value(self, name: str, argument: object, popped: list[object]) -> object:
        """Return what an instruction pushes, recording imports and tensor data."""
        if name in {"GLOBAL", "INST", "STACK_GLOBAL"} or name.startswith("EXT"):
            parts = popped if name == "STACK_GLOBAL" else str(argument).split(" ", 1)
            imported = ".".join(part if isinstance(part, str) else "?" for part in parts)
            self.outline.globals.add(imported)
            return imported
        if name == "BINPERSID":
            self._declare(popped[0])
        if name == "REDUCE" and popped[0] == ENCODE:
            _check_encode(popped[1])
        if "TUPLE" not in name:
            return argument
        weight = 1 + sum(item.weight if isinstance(item, _Tuple) else 1 for item in popped)
        if weight > MAX_TUPLE_ITEMS and any(isinstance(item, _Tuple) for item in popped):
            raise ValueError(f"tuples nest to more than {MAX_TUPLE_ITEMS} items")
        return _Tuple(popped, weight)

    def _declare(self, id: object) -> None:
        """Record the tensor data that a persistent id names: ("storage", type, record number, device, item count)."""
        items = id.items if isinstance(id, _Tuple) else []
        if len(items) != 5 or items[0] != "storage" or not isinstance(items[1], str) or type(items[4]) is not int:
            raise ValueError("unknown kind of tensor data")
        if items[1] in STORAGE_ITEM_BYTES:  # any other storage type is refused later, as one of the globals
            self.outline.storages.add((f"data/{items[2]}", items[4] * STORAGE_ITEM_BYTES[items[1]]))
