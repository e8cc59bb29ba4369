"""What share of the loss lies in defects of the text, without those that another rule tells of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lossprobe.analysis.defects import by_heart, repeats, templates
from lossprobe.analysis.defects.defects import find_defects
from lossprobe.analysis.defects.options import DefectOptions
from lossprobe.analysis.findings.words import share_of
from lossprobe.analysis.once import Once
from lossprobe.run.reader import Run


@dataclass(frozen=True)
class TextDefects:
    """The places of defects that no other rule tells of.

    Left out is what the model knows by heart, whose loss is near 0 by definition. Where the rule `repeated-documents`
    speaks, documents that are exact copies are left out with all that is in them, and where `control-strings` does,
    names of special tokens.

    Attributes:
        unread: documents that were not looked at: there is no text, and their tokens do not say their bytes.
        places: how many places.
        share_of_loss: share of the loss in places of any cause, less the shares of what is left out.
        causes: each cause with its share of the loss, the largest first; tokens in places of two causes count in both.
    """

    unread: int
    places: int
    share_of_loss: float
    causes: tuple[tuple[str, float], ...]


def find_text_defects(run: Run, told: Collection[str], once: Once) -> TextDefects:
    """Return the defects of the text of a run that no other rule tells of.

    Args:
        run: the run; where it has no text, the bytes of its tokens take its place.
        told: the rules that speak of the run.
        once: takes the results from here that were made already, and keeps those that are made.
    """
    found = once(find_defects, run, DefectOptions())
    apart = {by_heart.NAME} | ({templates.NAME} if "control-strings" in told else set())
    shares = dict(zip(found.table["cause"], found.table["share_of_loss"].fillna(0.0), strict=True))
    left, places = sum(shares.get(cause, 0.0) for cause in apart), found.places
    places = places[~places["cause"].isin(apart)]
    if "repeated-documents" in told:
        total = float(run.scalar("SELECT sum(loss_nats::DOUBLE) FROM tokens WHERE unscored IS NULL"))
        copies = places["detail"] == repeats.EXACT
        left += share_of(float(places["total_nats"][copies].sum()), total)  # such a place is the whole document
        copied = places["document"].isin(places["document"][copies])
        for cause, nats in places[copied].groupby("cause")["total_nats"].sum().items():
            shares[cause] -= share_of(float(nats), total)
        places = places[~copied]
    causes = [(cause, max(0.0, shares[cause])) for cause in places["cause"].unique()]
    return TextDefects(
        unread=int(run.counts["documents"]) - found.documents,
        places=len(places),
        share_of_loss=max(0.0, (found.share_of_loss or 0.0) - left),
        causes=tuple(sorted(causes, key=lambda each: -each[1])),
    )
