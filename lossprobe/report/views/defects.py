"""What is wrong with the text: a row a cause, or the places of one."""

from __future__ import annotations

from collections.abc import Iterator

from lossprobe.analysis.defects.causes import CAUSES
from lossprobe.analysis.defects.defects import Defects
from lossprobe.report.formats.csv import table_to_csv
from lossprobe.report.views.places import split_places
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_loss

LEFT_OUT = ("details", "example")  # which stand below the table, where there is room
PLACES_LEFT_OUT = ("cause", "byte_stop", "mean_loss_nats", "first_loss_nats")
ONLY_COPIES, ONLY_KNOWN = ("copy_of", "first_loss_nats"), "meant"


def defects_view(run: Run, result: Defects) -> View:
    """Return the view of what is wrong with a text; the CSV holds every place."""
    shown: dict[str, object] = {
        "left_out": LEFT_OUT,
        "yields": ("tokens", "documents"),
        "findings": tuple(_told(result)),
    }
    if result.cause is None:
        shown["findings"] = tuple(_told(result))
    else:
        places = result.listed
        empty = [name for name in ONLY_COPIES if places["copy_of"].isna().all()]
        empty += [ONLY_KNOWN] if places[ONLY_KNOWN].eq("").all() else []
        left_out = tuple(name for name in PLACES_LEFT_OUT if name not in empty)
        first, last = split_places(places)
        shown = {"shown": places.drop(columns=empty), "left_out": left_out,
                 "yields": ("byte_start", *first, "tokens", *last), }  # fmt: skip
    return view_of_runs("defects", [run], result, csv=lambda: table_to_csv(result.places), **shown)


def _told(result: Defects) -> Iterator[str]:
    """Yield what is found, then of each cause what it is, an example and what to do."""
    yield result.finding
    for row in result.table.to_dict("records"):
        cause = CAUSES[row["cause"]]
        yield ""
        yield f"{cause.name}: {cause.title}: {row['details']}"
        yield f"  such as: {row['example']}"
        yield f"  do: {cause.remedy}"
    if len(result.table) and result.rest_mean_loss_nats is not None:
        yield ""
        yield f"tokens in no such place: mean loss {format_loss(result.rest_mean_loss_nats)} nats"
