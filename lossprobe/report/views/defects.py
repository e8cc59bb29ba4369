"""What is wrong with the text: a row a cause, or the places of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lossprobe.analysis.defects.causes import CAUSES
from lossprobe.analysis.defects.defects import Defects
from lossprobe.report.formats.csv import table_to_csv
from lossprobe.report.views.places import split_places
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_loss, plural

LEFT_OUT = ("details", "example")  # which stand below the table, where there is room
PLACES_LEFT_OUT = ("cause", "byte_stop", "mean_loss_nats", "first_loss_nats")
ONLY_COPIES, ONLY_KNOWN = ("copy_of", "first_loss_nats"), "meant"


def defects_view(run: Run, result: Defects) -> View:
    """Return the view of what is wrong with a text; the CSV holds every place."""
    shown: dict[str, object] = {
        "left_out": LEFT_OUT,
        "yields": ("tokens", "documents"),
    }
    if result.cause is None:
        shown["findings"] = tuple(_told(result))
    else:
        places = result.listed
        empty = [name for name in ONLY_COPIES if places["copy_of"].isna().all()]
        empty += [ONLY_KNOWN] if places[ONLY_KNOWN].eq("").all() else []
        left_out = tuple(name for name in PLACES_LEFT_OUT if name not in empty)
        first, last = split_places(places)
        places = places.assign(source=_short(places["source"]))
        shown = {"shown": places.drop(columns=empty), "left_out": left_out, "findings": tuple(_told_of(result)),
                 "yields": ("byte_start", *first, "tokens", "document", "total_nats", *last), }  # fmt: skip
    return view_of_runs("defects", [run], result, csv=lambda: table_to_csv(result.places), **shown)


def _told(result: Defects) -> Iterator[str]:
    """Yield what is found, then of each cause what it is, an example and what to do."""
    yield result.finding
    for row in result.table.to_dict("records"):
        cause = CAUSES[row["cause"]]
        yield ""
        yield f"{cause.name}: {cause.title}: {row['details']}"
        yield f"  such as: {_where(result, cause.name)}: {row['example']}"
        yield f"  do: {cause.remedy}"
    if len(result.table) and result.rest_mean_loss_nats is not None:
        yield ""
        yield f"tokens in no such place: mean loss {format_loss(result.rest_mean_loss_nats)} nats"


def _told_of(result: Defects) -> Iterator[str]:
    """Yield what is found, and then what of it is of the cause whose places are listed."""
    yield result.finding
    for row in result.table[result.table["cause"] == result.cause].to_dict("records"):
        if len(result.table) > 1:
            yield (
                f"{row['cause']}: {plural(row['places'], 'place')}, {row['share_of_tokens']:.2%} of the tokens, "
                f"{row['share_of_loss']:.2%} of the loss: {row['details']}"
            )
        yield f"do: {CAUSES[row['cause']].remedy}"


def _short(sources: pd.Series[str]) -> pd.Series[str]:
    """Return files by their names alone where these differ: of a long path a narrow table shows too little."""
    names = sources.map(lambda source: Path(source).name)
    return names if names.nunique() == sources.nunique() else sources


def _where(result: Defects, cause: str) -> str:
    """Return the file and line of the dearest place of a cause, which is its example."""
    places = result.places[result.places["cause"] == cause]
    dearest = places.sort_values("total_nats", ascending=False, kind="stable").iloc[0]
    return f"{Path(dearest['source']).name}, line {dearest['line']}"
