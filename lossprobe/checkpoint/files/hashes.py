"""Hash files, and combine the hashes of the files that decide a checkpoint's output into one that identifies it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
from lossprobe.units import visible


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in chunks.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open_plain(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(visible(str(path), 200), error) from None


@contextlib.contextmanager
def hashing(files: Iterable[Path]) -> Iterator[Callable[[], dict[Path, str]]]:
    """Hash files in a thread while the block does other work; yield what waits for their hashes and returns them.

    Raises:
        CheckpointError: a file cannot be read; raised where the hashes are asked for.
    """
    pool = ThreadPoolExecutor(1)
    try:
        found = {file: pool.submit(file_sha256, file) for file in files}
        yield lambda: {file: digest.result() for file, digest in found.items()}
    finally:
        pool.shutdown(cancel_futures=True)


def combined_sha256(files: Mapping[str, str]) -> str:
    """Return one hash over file names and the hashes of their contents."""
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
