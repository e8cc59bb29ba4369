"""Tables for people fit 80 columns, with long names, long texts and wide characters; --wide shows all."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from drawn_runs import as_pairs, document_numbers, draw_logits, draw_targets, tempered_logits, write_drawn
from fake_pairs import write_pair
from rich.cells import cell_len
from training_logs import made_log, overfitted

from lossprobe.analysis.calibration.calibration import measure_calibration
from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.compare.measured_divergence import measure_pair
from lossprobe.analysis.curve.curve import curve
from lossprobe.analysis.defects.defects import find_defects
from lossprobe.analysis.findings.findings import find_findings
from lossprobe.analysis.gap.gap import measure_gap
from lossprobe.analysis.hardest import find_hardest
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.analysis.options import CHANGES_BY, HARDEST_BY, SERIES_BY, PreferenceOptions, SeriesOptions
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.analysis.positions import measure_positions
from lossprobe.analysis.preferences.preferences import measure_preferences
from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.analysis.protocols.table import ProtocolTable, Refusal, compare_protocols
from lossprobe.analysis.reconcile.logged_value import typed_value
from lossprobe.analysis.reconcile.stored import reconcile_run
from lossprobe.analysis.selfcheck import SelfCheck
from lossprobe.analysis.series.series import measure_series
from lossprobe.analysis.tokens import measure_tokens
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.report.formats.cells import format_cell
from lossprobe.report.formats.columns import BLANK, ONE_LINE, fitted
from lossprobe.report.formats.terminal import Rest, view_to_terminal
from lossprobe.report.views.calibration import calibration_view
from lossprobe.report.views.compare import YIELDS, compare_view
from lossprobe.report.views.curve import curve_view
from lossprobe.report.views.defects import defects_view
from lossprobe.report.views.findings import findings_view
from lossprobe.report.views.gap import gap_view
from lossprobe.report.views.hardest import hardest_view
from lossprobe.report.views.objectives import objectives_view
from lossprobe.report.views.perplexity import perplexity_view
from lossprobe.report.views.positions import positions_view
from lossprobe.report.views.preferences import preferences_view
from lossprobe.report.views.protocols import protocols_view
from lossprobe.report.views.reconcile import reconcile_view
from lossprobe.report.views.selfcheck import selfcheck_view
from lossprobe.report.views.series import series_view
from lossprobe.report.views.tokens import tokens_view
from lossprobe.report.views.view import View

WIDTH = 80
LONG = "a_model_with_a_very_long_name_of_a_training_that_went_on_and_on-step-000"
NAMES = {
    "plain": ("m0", "m1"),
    "long": (f"{LONG}100", f"{LONG}200"),
    "wide": ("模型" * 20 + "一", "模型" * 20 + "😀二"),
}
PIECES = (" 漢字かな", "😀👍🏽", " internationalisation", "\n\n", "\x1b[2J", " a", "b", "|", "=1+1", "٣")


# Long names need the most room; the texts of the tokens hold wide characters in every case. Other names take 3 s each.
KINDS = [pytest.param(kind, marks=[pytest.mark.thorough] * (kind != "long")) for kind in NAMES]


@pytest.fixture(scope="module", params=KINDS)
def runs(request, tmp_path_factory):
    """Two models on one text, with values of a field that are as long, and as wide, as their names."""
    rng = np.random.default_rng(4)
    folder, names = tmp_path_factory.mktemp(request.param), NAMES[request.param]
    logits = draw_logits(rng, 900, 40)
    targets, documents = draw_targets(rng, logits), document_numbers(rng, 900, 12)
    choices = {
        "fields": [{"lang": names[number % 2] if number % 3 else "x"} for number in range(12)],
        "vocabulary": [PIECES[index].encode() if index < len(PIECES) else b" w%d" % index for index in range(40)],
        "text_name": names[0],
    }
    return [
        write_drawn(
            folder / str(index), tempered_logits(logits, scale), targets, documents, name=names[index], **choices
        ).run
        for index, scale in enumerate((1.0, 0.5))
    ]


def selfcheck(name: str) -> SelfCheck:
    """Return a check with a long setting."""
    rows = pd.DataFrame({
        "check": ["order of documents"], "kind": ["must not matter"], "setting": [f"{name} in place of {name}"],
        "tokens": [1234567], "mean_loss_nats": [12.3456789], "difference_nats": [1e-7], "largest_nats": [2.5],
        "limit_nats": [1e-5], "largest_limit_nats": [1e-3], "verdict": ["not measured: no such device here"],
    })  # fmt: skip
    fields = dict.fromkeys(SelfCheck.__dataclass_fields__) | {"table": rows, "tokens": 1234567, "notes": []}
    return SelfCheck(**fields)


def kl_view(runs) -> View:
    """Return a comparison with the divergence of the distributions."""
    kl = np.random.default_rng(0).exponential(1e-4, runs[0].counts["scored_tokens"])
    kl[3] = math.inf
    pair = write_pair(*runs, kl)
    noted = dataclasses.replace(measure_pair(pair, "class"), notes=["a note about the divergence " * 4])
    return compare_view(runs, compare(*runs).with_divergence(noted), pair)


def bytes_view(runs) -> View:
    """Return the comparison of models that are said to have different tokenizers."""
    manifest = copy.deepcopy(runs[1].manifest)
    manifest["settings"]["tokenizer"] = {"kind": "fake", "sha256": "another"}
    pair = [runs[0], dataclasses.replace(runs[1], manifest=manifest)]
    return compare_view(pair, compare(*pair))


def all_protocols(run) -> ProtocolTable:
    """Return the numbers of every other tool, and why the rest have none."""
    reason = "the tokenizer has no BOS, and the tool needs one " * 5
    measured = ("paloma", "evaluate")
    results = [measure_protocol(run, name) if name in measured else Refusal(name, reason) for name in PROTOCOLS]
    return compare_protocols(run, results)


@pytest.fixture(scope="module")
def views(runs):
    """Return every view of these runs."""
    return list(every_view(runs))


def every_view(runs):
    first = runs[0]
    yield tokens_view(first, measure_tokens(first), ())
    for by in ("context", "document-position"):
        yield positions_view(first, measure_positions(first, by))
    for by in HARDEST_BY:
        yield hardest_view(first, find_hardest(first, by, min_count=1))
    for by in ("document", "lang"):
        yield perplexity_view(first, measure_perplexity(first, by))
    yield calibration_view(runs, measure_calibration(runs, by="lang"))
    yield objectives_view(first, measure_objectives(first), "all")
    yield defects_view(first, find_defects(first))
    yield findings_view(runs[:1], find_findings(first))
    yield findings_view(runs, find_findings(runs))
    for by in (*CHANGES_BY, "lang"):
        yield compare_view(runs, compare(*runs, by))
    for by in (None, *SERIES_BY, "lang"):
        yield series_view(runs, measure_series(runs, None, SeriesOptions(by=by, state="learned")))
    yield kl_view(runs)
    yield bytes_view(runs)
    pairs = tuple(map(as_pairs, runs))
    yield preferences_view(pairs[:1], measure_preferences(pairs[0], options=PreferenceOptions(by="lang")))
    yield preferences_view(pairs, measure_preferences(*pairs))
    yield reconcile_view(first, reconcile_run(first, typed_value("2.5")))
    yield gap_view(first, first, measure_gap(first, first))
    yield protocols_view(first, all_protocols(first))
    yield selfcheck_view(first, selfcheck(first.name))
    logs = [overfitted(f"{first.name}.json"), made_log(f"{runs[1].name}.json")]
    for some in (logs[:1], logs):
        yield curve_view(some, curve(some, vocabulary=50_000))


@pytest.mark.thorough
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(views):
    for view in views:
        text = view_to_terminal(view, WIDTH, Rest("--csv writes all of them", "--wide shows them"))
        for line in text.splitlines():
            assert cell_len(line) <= WIDTH, (view.name, line)
        for _, table in view.people_tables:
            words_are_whole(table, view.yields)


def words_are_whole(table: pd.DataFrame, yields) -> None:
    """Check the cells and headers of a table that is fitted into 80 cells."""
    columns = fitted(table.head(40), WIDTH, yields)
    assert columns.width <= WIDTH
    for column, width in zip(columns.columns, columns.widths, strict=True):
        assert "".join(column.header_lines) == column.header or "…" in "".join(column.header_lines)
        assert max(map(cell_len, column.header_lines)) <= width
        for cell, shown in zip(column.cells, column.lines(width), strict=True):
            assert max(map(cell_len, shown.split("\n"))) <= width
            if column.numeric:
                assert shown == cell, "numbers are never cut"
            elif column.header not in ONE_LINE:
                words = set(BLANK.split(cell))
                for word in BLANK.split(shown.replace("\n", " ")):
                    assert word in words or "…" in word, (column.header, cell, shown)


@pytest.mark.thorough
def test_wide_shows_every_column_and_table(views):
    for view in views:
        text = view_to_terminal(view, WIDTH, Rest("", "--wide shows them"), wide=True)
        assert "--wide" not in text
        for title, table in view.all_tables:
            assert "".join(title.split()) in "".join(text.split())
            assert "  ".join(map(str, table.columns)).split() in [line.split() for line in text.splitlines()]


def test_what_is_left_out_is_named(runs):
    view = hardest_view(runs[0], find_hardest(runs[0], "token"))
    text = view_to_terminal(view, WIDTH, Rest("", "--wide shows them"))
    named = " ".join(text.split("(not shown: columns ")[1].split()).removesuffix("; --wide shows them)").split(", ")
    shown = [column.header for column in fitted(view.people_table.head(40), WIDTH, view.yields).columns]
    assert sorted([*named, *shown]) == sorted(view.whole_table.columns)


def test_compare_is_one_screen(runs, views):
    for view in views:
        if view.name != "compare":
            continue
        text = view_to_terminal(view, WIDTH, Rest("", "--wide shows them"))
        assert text.count("\n") <= (40 if runs[0].name == "m0" else 60), view.brief[-1][0]
        assert text.index("m1 − m0" if runs[0].name == "m0" else "−") < text.index("measure"), "the finding first"


def test_the_largest_changes_show_the_token_itself(runs, views):
    _, table = next(view for view in views if view.name == "compare").people_tables[1]
    shown = [column.header for column in fitted(table, WIDTH, YIELDS).columns]
    assert "characters" in shown
    assert {"first_loss_nats", "second_loss_nats"} <= set(shown) or runs[0].name != "m0"


def test_names_that_are_cut_stay_different():
    table = pd.DataFrame({"model": [f"{LONG}{number}" for number in range(3)], "value": [1.0, 2.0, math.nan]})
    columns = fitted(table, 40, ())
    shown = columns.columns[0].lines(columns.widths[0])
    assert len(set(shown)) == 3
    assert max(map(len, shown)) + 1 + len("2.000000") <= 40
    assert columns.columns[1].cells == [format_cell("value", value) for value in table["value"]]


def test_columns_go_in_the_order_that_the_view_says():
    table = pd.DataFrame({name: [1.5] for name in ("aaaaaaaa", "bbbbbbbb", "cccccccc")})
    assert fitted(table, 28, ("bbbbbbbb", "aaaaaaaa")).left_out == []
    assert fitted(table, 20, ("bbbbbbbb", "aaaaaaaa")).left_out == ["bbbbbbbb"]
    assert fitted(table, 10, ("bbbbbbbb", "aaaaaaaa")).left_out == ["bbbbbbbb", "aaaaaaaa"]
    assert fitted(table, 5, ("bbbbbbbb", "aaaaaaaa", "cccccccc")).left_out == ["bbbbbbbb", "aaaaaaaa"], "one stays"
