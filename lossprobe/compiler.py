"""Imports numba without foreign configuration, and caches its compiled code in a folder of this user alone.

By default numba reads `.numba_config.yaml` of the working folder and environment variables, when it is imported and
each time it compiles. These can name the folder whose files it unpickles (which runs code), switch compiling off, or
change the arithmetic. If a program has imported and configured numba before this module, its settings stand, and no
code is cached: another program would load it as if it had been compiled with our settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from lossprobe.compiling import compiling
from lossprobe.isolation import private_folder, unconfigured

IMPORTED_BEFORE = "numba" in sys.modules
with unconfigured("NUMBA_", "LLVMLITE_", file=".numba_config.yaml"):
    import llvmlite.binding  # what numba compiles with
    import llvmlite.ir
    import numba
    from numba.core import config
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
    from numba.core.cgutils import unpack_tuple
    from numba.core.codegen import get_host_cpu_features
    from numba.core.dispatcher import Dispatcher
    from numba.core.event import Event, Listener, register, trigger_event
    from numba.extending import _Intrinsic, intrinsic  # type: ignore[attr-defined]
config.reload_config = lambda: None  # compiling would read the file and the variables again


def with_wide_vectors(features: str) -> str:
    """Return features of a processor, such as "+avx2,+avx512f", without LLVM's preference for half of its vectors.

    For Intel processors with AVX-512 LLVM prefers vectors of 256 bits, since those of 512 once slowed the clock down.
    But the matrix products of a pass use 512 bits all the time. Exponentials compiled for such a processor took 0.6 of
    the time with 512 bits, on a Zen 5.
    """
    return f"{features},-prefer-256-bit" if "+avx512f" in features.split(",") else features


if not IMPORTED_BEFORE:
    config.CPU_FEATURES = with_wide_vectors(get_host_cpu_features())  # type: ignore[attr-defined, no-untyped-call]


class _Compiling(Listener):
    """Tells that a loop is being compiled; loading cached code from disk is no such event."""

    def on_start(self, event: Event) -> None:  # noqa: ARG002 - the name is numba's
        """Tell it."""
        compiling()

    def on_end(self, event: Event) -> None:
        """Do nothing."""


register("numba:compile", _Compiling())  # type: ignore[no-untyped-call]


class _Locator(UserProvidedCacheLocator):
    """Tells numba to cache compiled code in a private folder of this user, whatever its configuration says."""

    _sources: list[str]

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator | None:
        """Return a locator, or None where there is no private folder or the program has configured numba itself."""
        folder = private_folder("numba")
        if folder is None or (IMPORTED_BEFORE and config._env_reloader.old_environ):
            return None
        locator = cls(py_func, py_file)
        place = folder / _processor() / cls.get_suitable_cache_subpath(py_file)  # type: ignore[no-untyped-call]
        locator._cache_path = str(place)
        locator._sources = sorted(_sources(py_func))
        return locator

    def get_source_stamp(self) -> tuple[tuple[float, int], ...]:
        """Return time and size of each file whose code the function has in it: numba itself looks at its own alone."""
        found = [Path(source).stat() for source in self._sources]
        return tuple((each.st_mtime, each.st_size) for each in found)


def _sources(function: Callable[..., Any]) -> set[str]:
    """Return the files of a function, of the compiled functions that its module has when it is made, and of theirs."""
    found, left = {__file__}, [function]
    while left:
        one = left.pop()
        if one.__code__.co_filename not in found:
            found.add(one.__code__.co_filename)
            left += [value.py_func for value in one.__globals__.values() if isinstance(value, Dispatcher)]
            left += [value._defn for value in one.__globals__.values() if isinstance(value, _Intrinsic)]
    return found


def _processor() -> str:
    """Return a folder name for this kind of processor, since a home folder on a network may serve several kinds."""
    named = [llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - as numba has it


class _Cache(FunctionCache):
    """Cache of compiled code on disk; where it cannot be read or written, code is compiled again without an error."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the cached code for a signature, or None."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001 - pickle can raise any exception for a damaged file
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call] # else writing would fail on the same damaged index
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache the code for a signature, if it can be written."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def kept(loop: Any) -> Any:
    """Return a numba function with its compiled code cached on disk, where there is a safe folder for that."""
    with contextlib.suppress(RuntimeError):  # numba raises it where no locator finds a folder
        loop._cache = _Cache(loop.py_func)  # type: ignore[no-untyped-call]
    return loop


def compiled_loop(*, parallel: bool = False, fastmath: Collection[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function with numba, with its code cached on disk where that is safe.

    The function runs without Python's lock, and divides as numpy does.

    Args:
        parallel: whether threads share its outer loop.
        fastmath: LLVM's flags for what may change in its arithmetic; none by default.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compile_ = numba.njit(nogil=True, parallel=parallel, fastmath=set(fastmath), error_model="numpy")
        return kept(compile_(function))

    return decorate


def share_threads(count: Callable[[], int], settle: Callable[[int], None]) -> int:
    """Set numba's number of threads to that of another library, as far as numba allows, and return it.

    Args:
        count: returns the number of threads of the library.
        settle: sets it. numba sets OpenMP's number when it starts its threads, and the library may share it.
    """
    wanted = count()
    threads: int = min(wanted, config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    numba.set_num_threads(threads)
    if count() != wanted:
        settle(wanted)
    return threads


def compile_apart(loop: Any, code: str) -> None:
    """Compile a function in another process, if its code is not cached on disk yet but could be.

    numba optimises code once more when it loads it from disk. So loaded code is faster than code that this process has
    compiled itself, and rounds its sums differently. All passes load the code, to get equal numbers. If the other
    process fails, this one compiles the function when it is called.

    Args:
        loop: the function, from `kept`.
        code: Python code that calls the function, run with the `sys.path` of this process.
    """
    if not isinstance(getattr(loop, "_cache", None), _Cache) or loop.signatures or not sys.executable:
        return
    with contextlib.suppress(Exception):  # pickle can raise any exception for a damaged index; it is written again
        if loop._cache._cache_file._load_index():
            return
    command = [sys.executable, "-I", "-c", f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); {code}"]
    with trigger_event("numba:compile"), contextlib.suppress(OSError):
        subprocess.run(
            [*command, json.dumps(sys.path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip


__all__ = ["compile_apart", "compiled_loop", "intrinsic", "kept", "llvmlite", "numba", "share_threads", "unpack_tuple"]
