"""What is wrong with the text of a run, by cause, with what it costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lossprobe.analysis.defects.causes import CAUSES
from lossprobe.analysis.defects.find import Judged, Search
from lossprobe.analysis.defects.options import EVERY, DefectOptions
from lossprobe.analysis.defects.places import excerpt, masked
from lossprobe.analysis.defects.token_blocks import Pages
from lossprobe.analysis.shown import Gated
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural, visible

TABLE: dict[str, Any] = {
    "cause": str, "places": "int64", "documents": "int64", "tokens": "int64", "share_of_tokens": float,
    "share_of_loss": float, "mean_loss_nats": float, "details": str, "example": str,
}  # fmt: skip
PLACES: dict[str, Any] = {
    "cause": str, "detail": str, "document": "int64", "source": str, "line": "int64", "byte_start": "int64",
    "byte_stop": "int64", "tokens": "int64", "total_nats": float, "mean_loss_nats": float, "copy_of": "Int64",
    "first_loss_nats": float, "meant": str, "excerpt": str,
}  # fmt: skip
MEANT_CHARACTERS = 60
REBUILT = "the run has no text: it was put together from the bytes of its tokens"


@dataclass(frozen=True)
class Defects(Gated):
    """What is wrong with a text.

    Attributes:
        documents: documents whose text was looked at.
        tokens_scored: scored tokens of the run.
        places_found: places of all causes.
        share_of_tokens: share of the scored tokens that lie in a place of any cause; None without scored tokens.
        share_of_loss: share of the loss that these have; None without any loss.
        rest_mean_loss_nats: mean loss of the other tokens, in no place; None where there are none.
        cause: the cause whose places are listed; None for all.
        top: how many of them are shown to people.
        failed: the causes of `fail_on` that were found.
        notes: what a reader must know, one line each.
        table: one row a cause that was found, the one with the largest share of the loss first: cause, places,
            documents, tokens (scored ones, each once), share_of_tokens, share_of_loss, mean_loss_nats (to be held
            against `rest_mean_loss_nats`), details (which kinds of it, with their counts), example (the dearest place).
        places: one row a place in the order of the text, of `cause` where it is given: cause, detail, document, source,
            line (of the file), byte_start, byte_stop (in the document), tokens, total_nats, mean_loss_nats, copy_of
            (the document with the first place), first_loss_nats (mean loss there), meant (what the text should be,
            where that is known), excerpt (the place between marks).
    """

    documents: int
    tokens_scored: int
    places_found: int
    share_of_tokens: float | None
    share_of_loss: float | None
    rest_mean_loss_nats: float | None
    cause: str | None
    top: int
    failed: list[str]
    notes: list[str]
    table: pd.DataFrame = field(repr=False)
    places: pd.DataFrame = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        if not len(self.table):
            return f"no defect found in {plural(self.documents, 'document')}"
        first, one = self.table.iloc[0], len(self.table) == 1
        found = f"{plural(self.places_found, 'place')} of {first['cause'] if one else plural(len(self.table), 'cause')}"
        if self.share_of_tokens and self.share_of_loss is not None:
            found += f" {self._hold} {self.share_of_tokens:.2%} of the tokens and {self.share_of_loss:.2%} of the loss"
        elif self.share_of_tokens is not None:
            found += f" {self._hold} no scored token"
        if one:
            return f"{found}: {first['details']}"
        share = "" if np.isnan(first["share_of_loss"]) else f" with {first['share_of_loss']:.2%} of the loss"
        return f"{found}; the dearest is {first['cause']}{share}: {first['details']}"

    @property
    def _hold(self) -> str:
        return "holds" if self.places_found == 1 else "hold"

    @property
    def listed(self) -> pd.DataFrame:
        """The `top` places, the ones with the most loss first."""
        return self.places.sort_values("total_nats", ascending=False, kind="stable").head(self.top)


def find_defects(run: Run, options: DefectOptions | None = None) -> Defects:
    """Return what is wrong with the text of a run, by cause.

    Args:
        run: the run; where it has no text, the bytes of its tokens take its place.
        options: the choices of the command.
    """
    check_runs(run=run)
    options = options or DefectOptions()
    check_options(DefectOptions, **vars(options))
    search = Search(Pages(run))
    search.read()
    collected = _Collected(run, search.origins)
    for judged in search.judged():
        collected.add(judged)
    places = collected.places()
    table = collected.table(places)
    found = set(table["cause"])
    scored, nats = collected.scored, collected.nats
    inside = collected.union
    return Defects(
        documents=collected.documents,
        tokens_scored=scored,
        places_found=len(places),
        share_of_tokens=inside[0] / scored if scored else None,
        share_of_loss=inside[1] / nats if nats else None,
        rest_mean_loss_nats=(nats - inside[1]) / (scored - inside[0]) if scored > inside[0] else None,
        cause=options.cause,
        top=options.top,
        failed=[name for name in CAUSES if name in found and (name in options.fail_on or EVERY in options.fail_on)],
        notes=_notes(search, options, found),
        table=table,
        places=places if options.cause is None else places[places["cause"] == options.cause].reset_index(drop=True),
    )


class _Collected:
    """Collects the rows of places and the sums of causes while documents come by.

    Attributes:
        documents: documents seen.
        scored, nats: scored tokens of the run and their loss.
        union: the same of tokens in any place.
    """

    def __init__(self, run: Run, origins: dict[int, set[tuple[int, int]]]) -> None:
        totals = run.query("SELECT count(*) AS n, sum(loss_nats::DOUBLE) AS s FROM tokens WHERE unscored IS NULL").iloc[
            0
        ]
        self.scored, self.nats = int(totals["n"]), float(totals["s"]) if totals["n"] else 0.0
        self.documents, self.union = 0, (0, 0.0)
        self._origins = origins
        self._first: dict[tuple[int, int, int], float] = {}
        self._of = run.query("SELECT source, line, byte_offset FROM documents ORDER BY document")
        self._rows: dict[str, list[Any]] = {name: [] for name in PLACES}
        self._sums: Counter[str] = Counter()
        self._nats: dict[str, float] = {}

    def add(self, judged: Judged) -> None:
        """Add the places of a document."""
        number, sums = judged.page.number, judged.sums
        self.documents += 1
        for span in self._origins.get(number, ()):
            count, nats, _ = sums.of_spans([span])
            self._first[(number, *span)] = nats / count if count else np.nan
        if not judged.places:
            return
        count, nats = sums.of_union(judged.places)
        self.union = (self.union[0] + count, self.union[1] + nats)
        for cause in {place.cause for place in judged.places}:
            count, nats = sums.of_union([place for place in judged.places if place.cause == cause])
            self._sums[cause] += count
            self._nats[cause] = self._nats.get(cause, 0.0) + nats
        self._add_rows(judged)

    def _add_rows(self, judged: Judged) -> None:
        data = masked(judged.page.data)
        lines = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A)
        source, line, offset = self._of.iloc[judged.page.number]
        for place in judged.places:
            count, nats, _ = judged.sums.of_spans(place.counted)
            within = int(np.searchsorted(lines, place.start)) if offset >= 0 else 0
            row = {
                "cause": place.cause, "detail": place.detail, "document": judged.page.number, "source": source,
                "line": int(line) + within, "byte_start": place.start, "byte_stop": place.stop, "tokens": count,
                "total_nats": nats, "mean_loss_nats": nats / count if count else np.nan,
                "copy_of": place.origin, "first_loss_nats": np.nan,
                "meant": visible(place.repaired, MEANT_CHARACTERS), "excerpt": excerpt(data, place),
            }  # fmt: skip
            for name, value in row.items():
                self._rows[name].append(value)

    def places(self) -> pd.DataFrame:
        """Return all places, in the order of the text."""
        rows = dict(self._rows)
        origins = rows["copy_of"]
        rows["copy_of"] = [None if origin is None else origin[0] for origin in origins]
        rows["first_loss_nats"] = [np.nan if origin is None else self._first.get(origin, np.nan) for origin in origins]
        rows["source"] = [visible(source) for source in rows["source"]]
        return pd.DataFrame(rows).astype(PLACES)

    def table(self, places: pd.DataFrame) -> pd.DataFrame:
        """Return a row a cause, the one with the largest share of the loss first."""
        rows = []
        for cause, held in places.groupby("cause"):
            name = str(cause)
            tokens, nats = self._sums[name], self._nats.get(name, 0.0)
            dearest = held.sort_values("total_nats", ascending=False, kind="stable").iloc[0]
            rows.append({
                "cause": name, "places": len(held), "documents": held["document"].nunique(), "tokens": tokens,
                "share_of_tokens": tokens / self.scored if self.scored else np.nan,
                "share_of_loss": nats / self.nats if self.nats else np.nan,
                "mean_loss_nats": nats / tokens if tokens else np.nan, "details": _counted(held["detail"]),
                "example": dearest["excerpt"],
            })  # fmt: skip
        table = pd.DataFrame(rows, columns=list(TABLE)).astype(TABLE)
        gravest = table["cause"].map(list(CAUSES).index)
        order = np.lexsort((gravest, -table["share_of_loss"].fillna(0.0)))
        return table.iloc[order].reset_index(drop=True)


def _counted(details: pd.Series) -> str:
    """Return the kinds of a cause, the most frequent first, with their counts."""
    return ", ".join(f"{detail} ({format_count(count)})" for detail, count in Counter(details).most_common())


def _notes(search: Search, options: DefectOptions, found: set[str]) -> list[str]:
    notes = []
    if search.pages.rebuilt:
        notes.append(REBUILT)
    if search.pages.unknown:
        unknown = plural(search.pages.unknown, "document")
        notes.append(f"{unknown} not looked at: the entries of the vocabulary are not as long as their tokens")
    if not search.endings.can_judge:
        notes.append(f"truncated: not judged, {search.endings.why_not}")
    share = min(search.repeats.runs.share, search.repeats.lines.share)
    if share < 1:
        notes.append(
            f"duplicate, boilerplate: looked for by {share:.1%} of the runs of words; short ones can be missed"
        )
    if options.cause is not None and options.cause not in found:
        notes.append(f"no place of {options.cause}")
    return notes
