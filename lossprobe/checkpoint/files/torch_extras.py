"""Read harmless objects that training programs save beside tensors in a torch file, without importing their classes.

The pickle of such a file calls the classes of numpy numbers, paths, namespaces and small configuration objects. None
of them is imported or called: `torch.load` gets the stand-ins below under the classes' names. A stand-in only stores
its arguments or nothing; only the values of numpy scalars are kept as usable numbers.
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
# Configuration classes of training programs, recognised by their names.
CONFIGURATION = re.compile(r"(\w+\.)+([A-Z]\w*)?(Config|Args|Arguments|Settings|Params|Options)")
NUMBERS = {  # numpy dtype code → format character of `struct`
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e",
    "f4": "f", "f8": "d",
}  # fmt: skip


def is_harmless(name: str) -> bool:
    """Return whether a name that a pickle imports is one that `stand_ins` can replace."""
    if HARMLESS.fullmatch(name):
        return True
    library = name.partition(".")[0]
    return library not in {"torch", *sys.stdlib_module_names} and CONFIGURATION.fullmatch(name) is not None


class Extra:
    """Stand-in for any harmless object; it keeps nothing of it."""

    def __new__(cls, *_: object, **__: object) -> Extra:
        """Return a new stand-in and ignore the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


class NumpyType(Extra):
    """Stand-in for a numpy dtype; it keeps the code and the byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        """Keep the code, such as "f8"."""
        self.code = code if isinstance(code, str) else ""
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        """Keep the byte order, the second item of numpy's own state."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


def numpy_scalar(kind: object = None, data: object = b"", *_: object) -> object:
    """Return a numpy scalar as a Python number, or a stand-in if it is not a number."""
    form = NUMBERS.get(kind.code) if isinstance(kind, NumpyType) else None
    if form is None or not isinstance(kind, NumpyType) or not isinstance(data, bytes):
        return Extra()
    return struct.unpack(kind.order + form, data)[0]


def stand_ins(names: set[str]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return a stand-in for each name, in the form that `torch.serialization.safe_globals` takes."""
    special: dict[str, Callable[..., Any]] = {"dtype": NumpyType, "scalar": numpy_scalar}
    chosen = {name for name in names if name != "_codecs.encode"}  # torch has that one itself
    return [
        (special.get(name.rpartition(".")[2], Extra) if name.startswith("numpy.") else Extra, name)
        for name in sorted(chosen)
    ]
