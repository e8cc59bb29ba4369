"""`lossprobe preferences`: both sides scored with their prompt once, equal to rounding; what is told and refused."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
from bundled import EXAMPLES
from geometry import check_layout

from lossprobe import open_checkpoint, open_text
from lossprobe.analysis.preferences.preferences import measure_preferences
from lossprobe.checkpoint.interface import prefix_of
from lossprobe.cli.main import run
from lossprobe.passes.engines import LocalEngine
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.rendered import both_sides
from lossprobe.passes.score import score_into
from lossprobe.report.names import windows_in_words
from lossprobe.report.plots.preferences import plot_preferences
from lossprobe.run.reader import Run
from lossprobe.run.run_folders import run_folders

MODEL = str(EXAMPLES / "jargon-plain")
WORDS = [*"abcdefghij", "It shows", "what the model", "says", "of every word", "in it that was", "never", "seen before"]


def records(count: int = 24) -> list[dict]:
    """Return pairs of different lengths: record 3 has equal sides, records 5 and 6 are the same pair."""
    chosen = random.Random(7)
    made = []
    for number in range(count):
        prompt, one, other = (" ".join(chosen.choices(WORDS, k=chosen.randint(4, 30))) for _ in range(3))
        made.append({"id": f"p{number}", "kind": "ab"[number % 2], "prompt": prompt + " ", "chosen": one,
                     "rejected": other})  # fmt: skip
    made[3]["rejected"] = made[3]["chosen"]
    made[6] |= {key: made[5][key] for key in ("prompt", "chosen", "rejected")}
    return made


def write(path: Path, held: list[dict]) -> str:
    path.write_text("\n".join(map(json.dumps, held)) + "\n", "utf-8")
    return path.name


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, Run, Run]:
    """Return a folder with pairs, their run with shared prompts, and a run of both sides whole."""
    folder = tmp_path_factory.mktemp("preferences")
    write(folder / "pairs.jsonl", records())
    checkpoint = open_checkpoint(MODEL)
    source = both_sides(KnownText(open_text(folder / "pairs.jsonl")), checkpoint)
    whole = score_into(folder / "whole", checkpoint, source, engine=LocalEngine(checkpoint)).run
    return folder, score_into(folder / "shared", checkpoint, source).run, whole


@pytest.mark.thorough
def test_a_shared_prompt_gives_the_losses_of_whole_sides(scored):
    _, shared, whole = scored
    assert prefix_of(open_checkpoint(MODEL)) is not None
    columns = "document, token, loss_nats, entropy_nats, unscored"
    one, other = (each.query(f"SELECT {columns} FROM tokens ORDER BY document, token") for each in (shared, whole))
    assert one[["document", "token", "unscored"]].equals(other[["document", "token", "unscored"]])
    for name in ("loss_nats", "entropy_nats"):
        kept = other[name].notna()
        assert one[name].isna().equals(other[name].isna())
        assert abs(one[name] - other[name])[kept].div(other[name][kept].clip(lower=1)).max() < 1e-5


@pytest.mark.thorough
@pytest.mark.parametrize("shortest", [18, 9])
def test_prompts_go_through_the_model_once(shortest, scored, monkeypatch):
    folder, *_ = scored
    checkpoint = open_checkpoint(MODEL)
    draw = random.Random(1)
    texts = [[" ".join(draw.choices(WORDS, k=draw.randint(shortest, 18))) for _ in range(3)] for _ in range(36)]
    held = [{"prompt": f"{prompt} ", "chosen": one, "rejected": other} for prompt, one, other in texts]
    write(folder / "half.jsonl", held)
    source = both_sides(KnownText(open_text(folder / "half.jsonl")), checkpoint)
    seen = {"body": 0}
    body = checkpoint._body.forward

    def counted(*given, **named):
        seen["body"] += named["input_ids"].numel()
        return body(*given, **named)

    shared = prefix_of(checkpoint)  # its probe is not counted
    monkeypatch.setattr(checkpoint._body, "forward", counted)
    tokens = {}
    for name, engine in (("once", LocalEngine(checkpoint, shared)), ("whole", LocalEngine(checkpoint))):
        seen["body"] = 0
        score_into(folder / f"counted-{name}-{shortest}", checkpoint, source, engine=engine)
        tokens[name] = seen["body"]
    assert tokens["once"] <= 0.79 * tokens["whole"]  # padding and the ends of longer prompts included


def test_documents_are_both_sides_of_each_pair(scored):
    _, shared, _ = scored
    assert shared.counts["documents"] == 48
    assert shared.settings.text.sides == "both"
    texts = shared.query("SELECT text FROM documents ORDER BY document")["text"].tolist()
    held = records()
    assert texts == [record["prompt"] + record[side] for record in held for side in ("chosen", "rejected")]


def test_numbers_are_those_of_the_tokens(scored, monkeypatch, capsys):
    folder, shared, _ = scored
    monkeypatch.chdir(folder)
    assert run(["preferences", "shared", "--json", "--by", "kind", "--top", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["pairs"], result["ranked_pairs"], result["equal_sides"]) == (24, 23, 1)
    assert result["rows"][3]["ranking"] == "equal sides"
    assert result["rows"][3]["logp_margin_nats"] is None
    sums = shared.query(
        "SELECT document, -sum(loss_nats::DOUBLE) AS logp, count(*) AS n FROM tokens WHERE unscored IS NULL "
        "GROUP BY document ORDER BY document"
    )
    logp, count = sums["logp"].tolist(), sums["n"].tolist()
    for row in result["rows"]:
        at = 2 * row["pair"]
        assert (row["chosen_tokens"], row["rejected_tokens"]) == (count[at], count[at + 1])
        if row["ranking"] != "equal sides":
            assert row["logp_margin_nats"] == pytest.approx(logp[at] - logp[at + 1], abs=1e-9)
    right = [row["ranking"] == "right" for row in result["rows"] if row["ranking"] != "equal sides"]
    assert result["ranked_right"] == pytest.approx(sum(right) / 23)
    assert {row["kind"] for row in result["groups"]} == {"all", "length", "kind"}
    assert sum(row["pairs"] for row in result["groups"] if row["kind"] == "kind") == 23
    assert len(result["worst"]) <= 3
    assert "identical to others" in " ".join(result["notes"])


def test_a_model_that_is_its_own_reference_has_no_rewards(scored, monkeypatch, capsys):
    folder, *_ = scored
    monkeypatch.chdir(folder)
    assert run(["preferences", "shared", "--reference", "shared", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    losses = {row["objective"]: row["mean"] for row in result["losses"]}
    assert losses["DPO"] == pytest.approx(0.6931471805599453)
    assert losses["IPO"] == pytest.approx(25.0)
    assert result["reward_margin_nats"] == 0.0
    assert result["reward_accuracy"] == 0.0
    assert run(["preferences", "shared", "--reference", "shared", "--table"]) == 0
    assert "every implicit reward is 0, a tie" in capsys.readouterr().out


def test_the_command_scores_once_and_writes_a_row_a_pair(scored, monkeypatch, capsys):
    folder, *_ = scored
    monkeypatch.chdir(folder)
    command = ["preferences", MODEL, "pairs.jsonl", "--csv", "--plot"]
    assert run(command) == 0
    assert "stored" in capsys.readouterr().err
    assert run(command) == 0
    assert "already scored" in capsys.readouterr().err
    assert run(["preferences", "-q", "--table"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 160
    assert "ranked right" in shown
    with Path("preferences.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert Path("preferences.png").stat().st_size > 10_000
    assert len(run_folders(Path(".lossprobe"))) == 1


def test_longer_than_the_context_is_told(scored, monkeypatch, capsys):
    folder, *_ = scored
    monkeypatch.chdir(folder)
    assert run(["preferences", MODEL, "pairs.jsonl", "--context", "24", "--json", "-q"]) == 0
    notes = " ".join(json.loads(capsys.readouterr().out)["notes"])
    assert "longer than the context of 24" in notes


def test_what_cannot_be_ranked_is_refused(scored, monkeypatch, capsys):
    folder, *_ = scored
    monkeypatch.chdir(folder)
    write(Path("plain.jsonl"), [{"text": "It shows what the model says."}])
    write(Path("equal.jsonl"), [{"prompt": "It shows ", "chosen": "what it says", "rejected": "what it says"}])
    write(Path("empty.jsonl"), [{"prompt": "It shows ", "chosen": "", "rejected": "what it says"}])
    for code, id, text in (
        (2, "preferences.no_pairs", "plain.jsonl"),
        (5, "preferences.nothing_ranked", "equal.jsonl"),
        (4, "text.bad_example", "empty.jsonl"),
    ):
        assert run(["preferences", MODEL, text, "-q"]) == code
        assert id in capsys.readouterr().err
    assert run(["preferences", MODEL, "pairs.jsonl", "--by", "nothing", "-q"]) == 2
    assert "fields.missing" in capsys.readouterr().err
    assert run(["hardest", MODEL, "pairs.jsonl", "-q", "--csv", "-"]) == 0  # the chosen sides
    assert run(["preferences", "-q"]) == 2
    assert "the chosen sides alone" in capsys.readouterr().err


def test_a_reference_with_another_tokenizer_is_refused_before_passes(scored, monkeypatch, capsys):
    folder, *_ = scored
    monkeypatch.chdir(folder)
    shutil.copytree(MODEL, "other")
    for file in Path("other").glob("tokenizer*.json"):
        file.chmod(0o644)
    content = json.loads(Path("other/tokenizer.json").read_text("utf-8"))
    content["normalizer"] = {"type": "Lowercase"}
    Path("other/tokenizer.json").write_text(json.dumps(content), "utf-8")
    before = run_folders(Path(".lossprobe"))
    assert run(["preferences", MODEL, "pairs.jsonl", "--reference", "other", "-q"]) == 12
    assert "preferences.other_tokenizer" in capsys.readouterr().err
    assert run_folders(Path(".lossprobe")) == before


def test_nothing_in_the_picture_is_cut_off(scored):
    check_layout(plot_preferences(scored[1], measure_preferences(scored[1])))


def test_a_heading_says_that_both_sides_are_there(scored):
    assert windows_in_words(scored[1]) == "both sides of each pair, context 256"
