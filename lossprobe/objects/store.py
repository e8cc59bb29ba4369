"""Reads and writes objects through pyarrow's S3 file system.

Region, endpoint and credentials come from the environment variables and files that AWS's own tools read. An object
appears whole under its name or not at all, unless its writer is stopped: then it may be shorter, or empty.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from lossprobe.objects.address import Address

Given = TypeVar("Given")
Found = TypeVar("Found")
AT_ONCE = 16  # objects read, written or removed at once
CHUNK = 1 << 20
CONNECT_SECONDS, SILENT_SECONDS, ATTEMPTS = 5, 20, 3  # a store that does not answer fails after about a minute
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REASON = re.compile(r"AWS Error ([A-Z_0-9]+) during (\w+) operation: (.*?)(?: \(Request ID.*|$)", re.DOTALL)
NO_BUCKET = "there is no such bucket"
WORDS = {
    "NO_SUCH_BUCKET": NO_BUCKET,
    "ACCESS_DENIED": "access denied; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws",
    "INVALID_ACCESS_KEY_ID": "the store does not know the key in AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the key in AWS_SECRET_ACCESS_KEY is wrong",
    "NETWORK_CONNECTION": "no connection",
}
SAID = ("ACCESS_DENIED", "NO_SUCH_BUCKET")  # what the server adds says no more


class ObjectStore:
    """The object storage that the environment names; nothing is asked of it before it is needed.

    Without `compression=None` pyarrow unpacks an object whose name ends in .gz, and packs what is written to one.
    """

    @cached_property
    def _files(self) -> Any:
        from pyarrow import fs

        endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
        return fs.S3FileSystem(
            endpoint_override=endpoint,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=SILENT_SECONDS,
            allow_delayed_open=True,  # a small object is then one request, and an object that appears whole
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        )

    def size(self, address: Address) -> int | None:
        """Return the size of an object in bytes; None where there is none.

        Raises:
            OSError: the store cannot be asked; so with all methods.
        """
        from pyarrow import fs

        with _reasons():
            info = self._files.get_file_info(address.place)
        return int(info.size) if info.type == fs.FileType.File else None

    def below(self, address: Address) -> dict[str, int]:
        """Return the names below an address, relative to it, with their sizes in bytes."""
        from pyarrow import fs

        with _reasons():
            found = self._files.get_file_info(fs.FileSelector(address.place, recursive=True, allow_not_found=True))
            if not found:  # an empty answer does not tell whether the bucket is there
                with _nothing_there():
                    self._files.get_file_info(fs.FileSelector(address.place))
        start = len(address.place) + 1
        return {each.path[start:]: int(each.size) for each in found if each.type == fs.FileType.File}

    def refuse_no_bucket(self, address: Address) -> None:
        """Raise an error where an address names a bucket that does not exist."""
        from pyarrow import fs

        try:
            found = self._files.get_file_info(address.bucket).type
        except OSError:  # who may read an object of a bucket need not be allowed to ask for the bucket
            return
        if found == fs.FileType.NotFound:
            raise OSError(errno.ENOENT, NO_BUCKET)

    def read(self, address: Address) -> bytes | None:
        """Return the bytes of a small object; None where there is none, or an empty one."""
        with _reasons():
            try:
                with self._files.open_input_stream(address.place, compression=None) as stream:
                    data: bytes = stream.read()
            except FileNotFoundError:
                return None
        return data or None

    def version(self, address: Address) -> str:
        """Return what changes whenever an object does: its ETag and its size."""
        with _reasons(), self._files.open_input_stream(address.place, compression=None) as stream:
            told = stream.metadata()
        return b" ".join(told.get(name, b"") for name in ("ETag", "Content-Length")).decode("ascii", "replace")

    def fetch(self, address: Address, file: Path, size: int) -> None:
        """Copy an object of a known size into a file, which appears whole."""
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        done = 0
        try:
            with (
                temporary.open("wb") as target,
                _reasons(),
                self._files.open_input_stream(address.place, compression=None) as stream,
            ):
                while piece := stream.read(CHUNK):
                    done += len(piece)
                    target.write(piece)
            if done != size:
                raise OSError(errno.EIO, f"ends after {done:,} of {size:,} bytes")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def put(self, file: Path, address: Address) -> None:
        """Copy a file to an object."""
        with (
            file.open("rb") as source,
            _reasons(),
            self._files.open_output_stream(address.place, compression=None) as target,
        ):
            shutil.copyfileobj(source, target, CHUNK)

    def remove(self, address: Address) -> None:
        """Remove an object; does nothing where there is none."""
        with _reasons(), _nothing_there():
            self._files.delete_file(address.place)

    def remove_below(self, address: Address) -> None:
        """Remove all objects below an address."""
        with _reasons(), _nothing_there():
            self._files.delete_dir(address.place)


def all_at_once(work: Callable[[Given], Found], given: Iterable[Given]) -> list[Found]:
    """Return what a function returns for each of some arguments, several at once; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return list(pool.map(work, given))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _nothing_there() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return


@contextmanager
def _reasons() -> Iterator[None]:
    """Give an error of pyarrow a short reason as its `strerror`; it has none of its own."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.strerror is not None:
            raise
        raise OSError(errno.EIO, reason_of(str(error))) from None


def reason_of(message: str) -> str:
    """Return what an error message of pyarrow says, in a few words.

    >>> reason_of("When …: AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: The … (Request ID: X)")
    'there is no such bucket'
    """
    match = REASON.search(message)
    if match is None:
        return message.splitlines()[0]
    code, operation, said = match.groups()
    words = WORDS.get(code, f"{code} during {operation}")
    return words if code in SAID else f"{words}: {said.rpartition('Details: ')[2].strip()}"
