"""What a user may choose of a report, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.analysis.options import COUNT
from lossprobe.options.declare import option

PAGE_TOKENS = 10**6  # 9 MB of page at most, beside the text


@dataclass(frozen=True)
class ReportOptions:
    """The choices of `report`.

    Attributes:
        max_tokens: most tokens of the text that the page shows.
    """

    max_tokens: int = option(
        PAGE_TOKENS, COUNT, "Most tokens of the text on the page; of more, the worst windows and a sample."
    )
