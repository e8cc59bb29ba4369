"""Addresses of object storage, `s3://BUCKET/KEY`.

A `Path` writes the two slashes as one, `s3:/BUCKET/KEY`. In this program such a path is always the address; a folder of
that name is reached by its absolute path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lossprobe.errors import UsageError
from lossprobe.units import visible

SCHEME = "s3:"


@dataclass(frozen=True)
class Address:
    """An object, or all objects below a place.

    Attributes:
        bucket: the bucket.
        key: the name in it, without slashes at its ends.
    """

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """The address as users write it."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def place(self) -> str:
        """The address as a file system has it: the bucket, a slash and the key."""
        return f"{self.bucket}/{self.key}"

    def below(self, name: str) -> Address:
        """Return the address of a name below this one."""
        return Address(self.bucket, f"{self.key}/{name}")


def address_of(path: Path) -> Address | None:
    """Return the address that a path is; None for a path of this machine.

    Raises:
        UsageError: it holds credentials (which the message does not show) or options, names no key, or has "..".

    >>> address_of(Path("s3://bucket/val.jsonl")).uri, address_of(Path("val.jsonl"))
    ('s3://bucket/val.jsonl', None)
    """
    first, *others = path.parts or ("",)
    if first.lower() != SCHEME:
        return None
    if others and "@" in others[0]:
        where = f"s3://…@{visible(others[0].rpartition('@')[2], 80)}"
        raise UsageError("object.address", f"{where}: credentials do not belong into an address", hint=CREDENTIALS)
    if "?" in "/".join(others) and "=" in "/".join(others).rpartition("?")[2]:
        where = visible("s3://" + "/".join(others).partition("?")[0], 200)
        raise UsageError("object.address", f"{where}: options do not belong into an address", hint=VARIABLES)
    if len(others) < 2 or ".." in others:
        shown = visible("s3://" + "/".join(others), 200)
        raise UsageError("object.address", f"{shown}: is no s3://BUCKET/KEY", hint="name a place in the bucket")
    return Address(others[0], "/".join(others[1:]))


CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile of ~/.aws"
VARIABLES = "set AWS_ENDPOINT_URL and AWS_REGION instead"
