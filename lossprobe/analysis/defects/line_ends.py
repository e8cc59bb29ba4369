"""Lines that end as on another system: CR LF, CR alone, or several ways in one document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage

NAME = "line-ends"
RETURN = re.compile(rb"\r+\n?")


def find_line_ends(page: TextPage) -> Iterator[Found]:
    """Yield one place for each kind of wrong line end in a document; only the ends themselves count."""
    if b"\r" not in page.data:
        return
    kinds: dict[str, list[tuple[int, int]]] = {}
    for match in RETURN.finditer(page.data):
        kind = "CR alone" if not match[0].endswith(b"\n") else "CR LF" if len(match[0]) == 2 else "CR CR LF"
        kinds.setdefault(kind, []).append(match.span())
    plain = page.data.count(b"\n") - sum(len(spans) for kind, spans in kinds.items() if kind != "CR alone")
    others = " among LF" if plain else ""
    for kind, spans in kinds.items():
        yield Found(NAME, spans[0][0], spans[-1][1], f"{kind}{others}", spans=tuple(spans))
