"""`lossprobe objectives` end to end: what the table, the CSV and the JSON hold, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.analysis.objectives.objectives import measure_objectives
from lossprobe.cli.main import run
from lossprobe.cli.objectives import objectives
from lossprobe.run.reader import latest_run


def printed(capsysbinary, *arguments) -> str:
    assert run(["objectives", *arguments]) == 0
    return capsysbinary.readouterr().out.decode()


def test_the_csv_is_the_table(work, capsysbinary):
    table = pd.read_csv(io.StringIO(printed(capsysbinary, "--smoothing", "0.2", "--micro-batch", "2,5,2")))
    options = ObjectiveOptions(smoothing=0.2, micro_batch=(2, 5))
    pd.testing.assert_frame_equal(table, measure_objectives(latest_run(Path()), options).table, rtol=1e-12)
    assert [name for name in table.columns if name.startswith("mean_of")] == ["mean_of_means_2", "mean_of_means_5"]


def test_without_reduction_the_csv_has_a_row_per_token_that_agrees_with_the_means(work, capsysbinary):
    rows = pd.read_csv(io.StringIO(printed(capsysbinary, "--reduction", "none", "--where", "context > 4")))
    summary = pd.read_csv(io.StringIO(printed(capsysbinary, "--where", "context > 4")))
    assert (rows["context"] > 4).all()
    assert rows["document"].nunique() == 8
    means = rows.iloc[:, 5:].mean().tolist()
    assert means == pytest.approx(summary["mean"].tolist(), rel=1e-9)
    assert rows.columns[6] == "smoothed_torch_nats_eps_0.1"


def test_the_table_on_a_terminal_has_floors_micro_batches_and_the_loss_scale(work, capsys):
    assert run(["objectives", "--table", "--micro-batch", "1"]) == 0
    out = capsys.readouterr().out
    result = measure_objectives(latest_run(Path()), ObjectiveOptions(micro_batch=(1,)))
    words = " ".join(out.split())
    assert "smoothed_fairseq_nats fairseq: eps/(V-1) on the others, eps 0.1" in words
    assert f"floors at eps 0.1, V 1,024: torch {result.smoothed_torch_floor_nats:.6f}, fairseq" in words
    batches = result.micro_batches.iloc[0]
    assert f"micro-batches of 1 window ({batches['batches']}): mean of means of nll_nats" in words
    assert f"{batches['mean_of_means']:.6f} = mean {batches['mean']:.6f} - covariance term" in words
    assert f"with scale {result.recommended_loss_scale:,}, the least that will do" in words
    assert "lower bound" in words
    assert "mean_of_means_1" not in words.split("(not shown")[0]
    assert run(["objectives", "--table", "--full-windows"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "fp16: n/a for a selection" in words
    assert "loss scale loses" not in words


def test_a_batch_that_needs_no_loss_scale(work, capsys):
    assert run(["objectives", "--table", "--batch-tokens", "1"]) == 0
    assert "with scale 1, the least that will do" in " ".join(capsys.readouterr().out.split())


def test_json_has_everything(work, capsysbinary):
    content = json.loads(printed(capsysbinary, "--json"), parse_constant=pytest.fail)
    assert content["parameters"]["smoothing"] == 0.1
    assert len(content["half_precision"]) == 25
    assert {"objective", "loss_low_nats", "share_of_objective"} <= set(content["weights"][0])
    assert {"windows", "batches", "mean_of_means", "covariance_term"} <= set(content["micro_batches"][0])
    assert content["smoothed_fairseq_floor_nats"] > content["smoothed_torch_floor_nats"] > 0


def test_the_defaults_of_the_command_are_those_of_the_function():
    given = objectives.make_context("objectives", []).params
    options = ObjectiveOptions()
    for field in dataclasses.fields(options):
        assert given[field.name] == getattr(options, field.name), field.name


@pytest.mark.parametrize(
    "arguments",
    [
        ["--smoothing", "1.5"], ["--smoothing", "-0.1"], ["--smoothing", "nan"], ["--focal", "-1"],
        ["--focal", "inf"], ["--margin", "-1"], ["--z-weight", "-1"], ["--micro-batch", "0"],
        ["--micro-batch", "1,,2"], ["--micro-batch", ""], ["--micro-batch", "x"], ["--batch-tokens", "0"],
        ["--reduction", "sum"], ["--where", "1=1"],
    ],
)  # fmt: skip
def test_impossible_options_are_refused(work, capsys, arguments):
    assert run(["objectives", *arguments]) == 2
    assert arguments[0].removeprefix("--") in capsys.readouterr().err


def test_an_empty_selection_has_its_exit_code(work, capsys):
    assert run(["objectives", "--where", "loss > 10000"]) == 5
    assert "error[objectives.none]" in capsys.readouterr().err


def test_csv_cells_are_whole(work, capsysbinary):
    rows = list(csv.reader(io.StringIO(printed(capsysbinary))))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) == 14
