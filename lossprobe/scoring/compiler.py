"""numba, with no configuration but ours, and where its compiled code is kept.

Left alone, numba reads `.numba_config.yaml` of the working folder and variables, when it is imported and whenever it
compiles. They name the folder whose files it unpickles, which runs code; they switch compiling off and change the
arithmetic. A program that has imported numba before this module has configured it itself; then nothing is kept on disk
that other programs would take for ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from lossprobe.isolation import private_folder, unconfigured

IMPORTED_BEFORE = "numba" in sys.modules
with unconfigured("NUMBA_", "LLVMLITE_", file=".numba_config.yaml"):
    import llvmlite.binding  # what numba compiles with
    import numba
    from numba.core import config
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
    from numba.core.event import Event, Listener, install_listener, trigger_event
config.reload_config = lambda: None  # what it has now stays: compiling would look at both again


class _Locator(UserProvidedCacheLocator):
    """Finds the folder for a function's compiled code: one of this user alone, whatever numba is configured for."""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator | None:
        """Return a locator, or None where there is no such folder."""
        folder = private_folder("numba")
        if folder is None or (IMPORTED_BEFORE and config._env_reloader.old_environ):
            return None
        locator = cls(py_func, py_file)
        place = folder / _processor() / cls.get_suitable_cache_subpath(py_file)  # type: ignore[no-untyped-call]
        locator._cache_path = str(place)
        return locator


def _processor() -> str:
    """Return a folder name for this kind of processor: a home on a network may serve unlike ones."""
    named = [llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - as numba has it


class _Cache(FunctionCache):
    """Compiled code on disk, which is a help and no need: what cannot be read or written is compiled anew."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for a signature, or None."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - a file damaged by a crash makes pickle raise anything
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call] # writing would read the same index
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature, if the disk takes it."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def kept(loop: Any) -> Any:
    """Return a compiled function whose code is kept on disk, where there is a place for that."""
    with contextlib.suppress(RuntimeError):  # there is none
        loop._cache = _Cache(loop.py_func)  # type: ignore[no-untyped-call]
    return loop


def compile_apart(loop: Any, code: str) -> None:
    """Let a process of its own compile a function whose code could be kept on disk and is not there yet.

    numba optimises code once more when it loads it: the sums of a function that this process has just compiled are
    rounded otherwise than those of the same function from disk, and take longer. So all passes load it. Where that
    process fails, this one compiles the function when it is called.

    Args:
        loop: from `kept`.
        code: Python that calls the function; `sys.path` is this process's.
    """
    if not isinstance(getattr(loop, "_cache", None), _Cache) or loop.signatures or not sys.executable:
        return
    with contextlib.suppress(Exception):  # a damaged index makes pickle raise anything: it is written anew
        if loop._cache._cache_file._load_index():
            return
    command = [sys.executable, "-I", "-c", f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); {code}"]
    with trigger_event("numba:compile"), contextlib.suppress(OSError):
        subprocess.run(
            [*command, json.dumps(sys.path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip


__all__ = ["Event", "Listener", "compile_apart", "install_listener", "kept", "numba"]
