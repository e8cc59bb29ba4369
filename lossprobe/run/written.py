"""A folder that keeps the sha256 and the size of the files written into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossprobe.run.files import sha256_of_stream, writing
from lossprobe.run.folder import Folder
from lossprobe.run.new_file import NewFile


class WrittenFolder(Folder):
    """An open folder with the hashes of its files; a file is replaced in one step, so that several may write it.

    Attributes:
        digests: name → sha256 of the bytes written, by this process or, as its stored record says, by another one.
        sizes: name → number of these bytes, for the files that this process has written or found intact.
    """

    def __init__(self, path: Path, handle: int | None = None) -> None:
        super().__init__(path, handle)
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    @classmethod
    def unlocked(cls, path: Path) -> WrittenFolder:
        """Return an existing folder, opened; a folder that is a link is refused.

        Raises:
            OutputError: it is missing, a link, or no folder.
        """
        with writing(path):
            return cls(path, Folder.open(path, follow=False).handle)

    @contextmanager
    def target(self, name: str) -> Iterator[NewFile]:
        """Yield a new file that replaces `name`, and note its sha256.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.path / name):
            with self.replace(name) as target:
                yield target
                self.sizes[name] = target.tell()
            self.digests[name] = target.sha256

    def intact(self, name: str, sha256: str | None = None) -> bool:
        """Return whether a file exists with the bytes that were written, or with the given hash."""
        try:
            with self.open_file(name) as stream:
                same = sha256_of_stream(stream) == (sha256 or self.digests.get(name))
                if same:
                    self.sizes[name] = stream.tell()
        except OSError:
            return False
        return same
