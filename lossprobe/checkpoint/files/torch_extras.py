"""Harmless things that training programs put beside the tensors of a torch file, read as plain data.

Numbers of numpy, paths, namespaces and small configuration objects are named in the pickle as classes to be called.
None of these is ever imported or called: `torch.load` is given the functions and classes below under their names.
They only keep what they are handed, and of that only a single number is ever used.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from typing import Any

HARMLESS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
    r"|datetime\.(date|datetime|time|timedelta|timezone)"
    r"|numpy\.(dtype|ndarray|(_core|core)\.multiarray\.(scalar|_reconstruct))"
    r"|_codecs\.encode"  # bytes, in torch's own protocol; its arguments are checked in the outline
)
# Configuration objects of a program's own, by what such classes are called.
CONFIGURATION = re.compile(r"(\w+\.)+([A-Z]\w*)?(Config|Args|Arguments|Settings|Params|Options)")
NUMBERS = {  # dtype of numpy → format of struct
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e",
    "f4": "f", "f8": "d",
}  # fmt: skip


def is_harmless(name: str) -> bool:
    """Return whether a name in a pickle is one that `stand_ins` takes the place of."""
    if HARMLESS.fullmatch(name):
        return True
    library = name.partition(".")[0]
    return library not in {"torch", *sys.stdlib_module_names} and CONFIGURATION.fullmatch(name) is not None


class Extra:
    """Stands for an object that is not looked at; keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> Extra:
        """Return a new one, whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Take any arguments."""

    def __setstate__(self, state: object) -> None:
        """Take any state."""


class NumpyType(Extra):
    """Stands for a dtype of numpy: its code and byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        """Keep the code, such as "f8"."""
        self.code = code if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        """Keep the byte order, the second item of numpy's own state."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


def numpy_scalar(kind: object = None, data: object = b"", *_: object) -> object:
    """Return the number that a numpy scalar is, as Python's own; a stand-in when it is none."""
    form = NUMBERS.get(kind.code) if isinstance(kind, NumpyType) else None
    if form is None or not isinstance(kind, NumpyType) or not isinstance(data, bytes):
        return Extra()
    return struct.unpack(kind.order + form, data)[0]


def stand_ins(names: set[str]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what to put in the place of each harmless name, in the form that torch takes."""
    special: dict[str, Callable[..., Any]] = {"dtype": NumpyType, "scalar": numpy_scalar}
    chosen = {name for name in names if name != "_codecs.encode"}  # torch has that one itself
    return [
        (special.get(name.rpartition(".")[2], Extra) if name.startswith("numpy.") else Extra, name)
        for name in sorted(chosen)
    ]
