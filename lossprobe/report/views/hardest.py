"""The hardest tokens, entries, documents, classes or values of a field."""

from __future__ import annotations

from dataclasses import replace

from lossprobe.analysis.hardest import Hardest
from lossprobe.report.views.places import split_places
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

# The table for people leaves these to the CSV, so that a row stays readable.
LEFT_OUT = {"token": ("text", "top_prob"), "type": ("hardest_by",), "class": ("kind", "clusters")}
# Two rankings are two tables, each after its heading: column, and value → heading.
RANKINGS = {
    "type": ("hardest_by", {"total": "by their total loss", "mean": "by their mean loss"}),
    "class": ("kind", {"occurrence": "tokens that are first or repeated in their window", "form": "forms of tokens"}),
}
YIELDS = ("token_id", "context", "rank", "total_nats", "characters", "share_of_loss")


def hardest_view(run: Run, result: Hardest) -> View:
    """Return the view of what is hardest."""
    first, last = split_places(result.rows)
    view = view_of_runs("hardest", [run], result, left_out=LEFT_OUT.get(result.by, ("clusters",)),
                        yields=(*first, *YIELDS, *last, "after"))  # fmt: skip
    if result.by not in RANKINGS:
        return view
    column, headings = RANKINGS[result.by]
    parts = {heading: result.table[result.table[column] == value] for value, heading in headings.items()}
    (title, shown), *others = ((heading, part) for heading, part in parts.items() if len(part))
    more = tuple((heading, part.drop(columns=column)) for heading, part in others)
    return replace(view, heading=f"{view.heading}, {title}", shown=shown, more=more)
