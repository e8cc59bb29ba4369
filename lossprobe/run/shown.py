"""How messages name a run or a pair: users know a run on object storage by its address, not by its copy here."""

from __future__ import annotations

import os
from pathlib import Path

from lossprobe.objects.folder import address_of_copy, shown_place
from lossprobe.run.schema import PAIR, PAIR_PLAN
from lossprobe.units import visible

LONGEST = 200  # characters of a place


def shown_run(path: Path, longest: int = LONGEST) -> str:
    """Return where a run or a pair is: its address, or its folder. A pair lies beside the copy of a run, and has none.

    >>> shown_run(Path(".lossprobe/objects/s3/bucket/runs/x")), shown_run(Path("runs/x"))
    ('s3://bucket/runs/x', 'runs/x')
    """
    of_pair = any(os.path.lexists(path / name) for name in (PAIR, PAIR_PLAN))
    return visible(str(path) if of_pair else shown_place(path), longest)


def shown_folder(path: Path) -> str:
    """Return a folder here that itself is wrong, such as a link, and the address whose copy it is.

    >>> shown_folder(Path(".lossprobe/objects/s3/bucket/x"))
    '.lossprobe/objects/s3/bucket/x (copy of s3://bucket/x)'
    """
    address = address_of_copy(path)
    copied = "" if address is None else f" (copy of {visible(address.uri, LONGEST)})"
    return f"{visible(str(path), LONGEST)}{copied}"
