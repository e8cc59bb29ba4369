"""Checks conditions before numpy, scipy, DuckDB or torch is imported, which else would abort or hang the process."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType

from lossprobe.errors import ResourceError
from lossprobe.isolation import refuse_deleted_folder

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows: no limits
    resource = None

# Bytes of address space that must be free when a library is imported. With less, the matrix libraries of numpy and of
# scipy, each its own, wait for memory for ever, and DuckDB, which reserves memory for its threads, aborts the process.
NEEDED = {"numpy": 384 << 20, "duckdb": 640 << 20, "scipy": 384 << 20}

RAISE = "raise the limit (ulimit -v)"


class _Conditions(MetaPathFinder):
    """Import hook that checks the conditions of some modules, and finds none."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - Python's
        """Check the conditions of a module and return None, so that Python asks the next finder."""
        if fullname == "torch":  # its matrix library aborts the process if the working folder has been deleted
            refuse_deleted_folder()
        if fullname in NEEDED:
            refuse_small_space(fullname, NEEDED[fullname])


def address_space() -> int | None:
    """Return the limit of this process's address space in bytes, or None where there is none."""
    limit = -1 if resource is None else resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit < 0 else limit


def refuse_small_space(library: str, needed: int) -> None:
    """Refuse to import a library if the address space is limited and less than `needed` bytes of it are free.

    Raises:
        ResourceError: the address space is too small.
    """
    limit = address_space()
    if limit is None:
        return
    try:
        mmap.mmap(-1, needed, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except OSError:
        text = f"{library} needs {needed >> 20} MiB of address space, and less is left of {limit >> 20} MiB"
        raise ResourceError("memory.limit", text, hint=RAISE) from None


@contextmanager
def checked_imports() -> Iterator[None]:
    """Check the conditions of modules that are imported inside the block."""
    finder = _Conditions()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
