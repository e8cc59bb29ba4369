"""`lossprobe.view` and `lossprobe.plot`, and what a notebook shows."""

from __future__ import annotations

import dataclasses
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from bundled import EXAMPLES
from training_logs import overfitted, write_trainer_state

import lossprobe
from lossprobe.cli.main import cli
from lossprobe.python.view import NAMES

DOCUMENTS = 40


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    path = tmp_path_factory.mktemp("text") / "entries.jsonl"
    path.write_text("".join(lines[:DOCUMENTS]), "utf-8")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("views")
    models = ("jargon-plain", "jargon-smoothed")
    return [lossprobe.score(EXAMPLES / model, text, output=folder / model).run for model in models]


@pytest.fixture(scope="module")
def pair_runs(tmp_path_factory):
    """Runs of a model and its reference on both sides of three pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    pairs = [{"prompt": "It shows ", "chosen": f"what it says {end}", "rejected": end} for end in ("so", "a b", "who")]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return [
        lossprobe.score(EXAMPLES / model, folder / "pairs.jsonl", output=folder / model, both_sides=True).run
        for model in ("jargon-plain", "jargon-smoothed")
    ]


CHOICES = {"reconcile": {"logged": "3.7"}, "preferences": {"beta": 0.2}}


def given(name, runs, pair_runs):
    if name == "curve":
        return [write_trainer_state(runs[0].path.parent / "log" / "trainer_state.json", overfitted())]
    if name == "preferences":
        return pair_runs
    return runs if name in ("compare", "calibration", "series") else runs[:1] * 2 if name == "gap" else runs[:1]


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in NAMES if name != "gap"])
def test_a_view_shows_table_and_finding_and_draws(name, runs, pair_runs):
    shown = lossprobe.view(name, *given(name, runs, pair_runs), **CHOICES.get(name, {}))
    page = shown._repr_html_()
    assert shown.title in page
    assert "<table" in page
    assert shown.result.finding.split()[0] in page
    assert "<table" in shown.result._repr_html_()
    figure = lossprobe.plot(shown)
    assert figure.axes
    assert name in cli.commands


def test_options_have_the_names_of_the_analyses(runs):
    shown = lossprobe.view("hardest", runs[0], by="type", top=3)
    assert shown.result.table.equals(lossprobe.find_hardest(runs[0], "type", 3).table)
    assert lossprobe.view("tokens", runs[0], where=["loss > 12"]).result.tokens == 9
    with pytest.raises(TypeError):
        lossprobe.view("hardest", runs[0], bye="type")


def test_a_printed_view_is_what_a_terminal_shows(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = str(lossprobe.view("hardest", runs[0], top=2)).splitlines()
    assert page[0].startswith("hardest: jargon-plain")
    assert max(map(len, page)) <= 80
    assert page[-2].startswith("(not shown: columns text, ") or page[-1].startswith("(not shown: columns text, ")


def test_pairs_are_viewed_with_and_without_a_reference(runs, pair_runs):
    alone = lossprobe.view("preferences", pair_runs[0]).result
    both = lossprobe.view("preferences", *pair_runs, beta=0.2).result
    assert (alone.pairs, alone.reference, both.reference) == (3, None, "jargon-smoothed")
    wanted = lossprobe.measure_preferences(*pair_runs, lossprobe.PreferenceOptions(beta=0.2))
    assert both.reward_margin_nats == wanted.reward_margin_nats
    with pytest.raises(lossprobe.LossprobeError, match="preferences takes one run, or two with that of a reference"):
        lossprobe.view("preferences", *pair_runs, pair_runs[0])
    with pytest.raises(lossprobe.LossprobeError, match="holds no pairs"):
        lossprobe.view("preferences", runs[0])
    for refused in (lambda choice: lossprobe.view("preferences", pair_runs[0], **choice),
                    lambda choice: lossprobe.measure_preferences(
                        pair_runs[0], options=lossprobe.PreferenceOptions(**choice))):  # fmt: skip
        with pytest.raises(lossprobe.LossprobeError, match="`beta`: must be"):
            refused({"beta": -1.0})


def test_a_logged_number_is_looked_for_in_a_stored_run(runs, tmp_path):
    mean = lossprobe.measure_tokens(runs[0]).mean_loss_nats
    result = lossprobe.view("reconcile", runs[0], logged=f"{mean:.6f}").result
    assert result.verdict == "explained"
    log = tmp_path / "trainer_state.json"
    log.write_text(json.dumps({"log_history": [{"step": 3, "eval_loss": mean}]}))
    assert lossprobe.view("reconcile", runs[0], log=str(log)).result.source == "eval_loss at step 3"
    with pytest.raises(lossprobe.LossprobeError, match="which one did the trainer log") as found:
        lossprobe.view("reconcile", runs[0])
    assert "`log`" in found.value.hint
    with pytest.raises(TypeError, match="`logged`: must be text in quotes, not a number"):
        lossprobe.view("reconcile", runs[0], logged=3.7)


def test_a_single_condition_is_one(runs):
    shown = lossprobe.view("tokens", runs[0], where="loss > 12")
    assert shown.result.tokens == 9
    assert len(b"".join(shown.csv()).splitlines()) == 10


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        (lossprobe.measure_positions, {"bins": "evry"}),
        (lossprobe.measure_positions, {"by": "document"}),
        (lossprobe.find_hardest, {"top": -1}),
        (lossprobe.find_hardest, {"top": "3"}),
        (lossprobe.measure_tokens, {"rows": 0}),
        (lossprobe.measure_perplexity, {"by": 7}),
        (lossprobe.measure_calibration, {"smoothing": 2}),
    ],
)
def test_options_that_the_command_refuses_are_refused_here(runs, measure, options):
    with pytest.raises(lossprobe.LossprobeError, match=f"`{next(iter(options))}`: must be"):
        measure(runs[0], **options)


def test_what_cannot_be_shown_is_named(runs):
    with pytest.raises(lossprobe.LossprobeError, match="no view") as found:
        lossprobe.view("hardst", runs[0])
    assert "hardest" in found.value.hint
    with pytest.raises(lossprobe.LossprobeError, match="compare takes two runs, not 1"):
        lossprobe.view("compare", runs[0])
    with pytest.raises(TypeError, match="`runs` takes a run, not str") as found:
        lossprobe.view("perplexity", str(runs[0].path))
    assert "open_run" in found.value.hint
    with pytest.raises(TypeError, match="one by one, not a list of Run"):
        lossprobe.view("calibration", runs)
    with pytest.raises(TypeError, match="`shown` takes a view"):
        lossprobe.plot(runs[0])


def test_the_pass_itself_is_told_that_the_run_is_inside_it(runs, text):
    passed = lossprobe.score(EXAMPLES / "jargon-plain", text, output=runs[0].path)
    with pytest.raises(TypeError, match="PassResult") as found:
        lossprobe.view("perplexity", passed)
    assert ".run" in found.value.hint
    assert "jargon-plain" in passed._repr_html_()


def test_markup_of_a_text_is_inert(runs):
    named = dataclasses.replace(runs[0], manifest={**runs[0].manifest, "labels": {"checkpoint": "<b>", "text": "x"}})
    assert "<b>x" not in named._repr_html_()
    assert "&lt;b&gt; on x" in named._repr_html_()


@pytest.mark.parametrize("wrong", [None, "run", object()])
def test_analyses_take_runs_only(runs, wrong):
    for measure in (
        lossprobe.measure_perplexity,
        lossprobe.find_hardest,
        lossprobe.measure_tokens,
        lossprobe.measure_positions,
        lossprobe.measure_objectives,
        lossprobe.measure_calibration,
        lambda given: lossprobe.compare(runs[0], given),
        lambda given: lossprobe.measure_gap(given, runs[0]),
    ):
        with pytest.raises(TypeError, match="takes a run, not "):
            measure(wrong)


def test_a_run_is_used_by_threads_and_sent_to_other_processes(runs):
    run = runs[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: len(run.tokens(columns=["rank"], where="rank > 0")), range(8)))
    assert len(set(found)) == 1
    assert len(pickle.loads(pickle.dumps(run)).tokens(columns=["rank"], where="rank > 0")) == found[0]


def test_a_run_stays_found_when_the_working_folder_changes(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    scored = lossprobe.score(EXAMPLES / "jargon-plain", text).run
    latest, opened = lossprobe.latest(), lossprobe.open_run(scored.path.relative_to(tmp_path))
    monkeypatch.chdir("/")
    assert len({len(run.tokens(columns=["rank"])) for run in (scored, latest, opened)}) == 1
    monkeypatch.chdir(tmp_path)
    assert lossprobe.open_run(scored.path.name.rpartition("-")[2][:6]).path == scored.path, (
        "the short name of lossprobe runs"
    )
    with pytest.raises(lossprobe.LossprobeError, match="is no run") as caught:
        lossprobe.open_run("nothing")
    assert "lossprobe.latest()" in caught.value.hint
