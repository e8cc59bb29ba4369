"""Every cause of defects in a text as a term."""

from __future__ import annotations

from lossprobe.analysis.defects.cause import Cause
from lossprobe.analysis.defects.causes import CAUSES
from lossprobe.terms.term import Term


def _term(cause: Cause) -> Term:
    return Term(
        cause.name, f"{cause.title[0].upper()}{cause.title[1:]}.", "defect", formula=cause.rule,
        how_to_read=f"Its loss: {cause.loss}.", remedy=f"{cause.remedy}.",
        command=f"lossprobe defects --cause {cause.name}",
    )  # fmt: skip


TERMS = tuple(map(_term, CAUSES.values()))
