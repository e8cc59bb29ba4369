"""Find the control groups of this process, by which Linux and its containers limit processors and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def groups_of(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the folders of the control groups of this process that may set a limit, those above them included.

    Args:
        controller: what is limited: "cpu" or "memory".
        root: the folder with `proc` and `sys`.
    """
    base = root / "sys/fs/cgroup"
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = base / controllers  # version 2 has no list of controllers, and one tree
        parts = [part for part in path.split("/") if part not in ("", "..")]
        # Inside a container the group itself is often mounted as the top.
        yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def read_text(file: Path) -> str:
    """Return the content of a file, or "" where it cannot be read, as on other systems than Linux."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
