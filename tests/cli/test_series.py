"""`lossprobe series` end to end: sources, order, what is stored and reused, what is refused before it costs much."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from nanogpt_files import write_nanogpt

from lossprobe.cli import checkpoints as sources_module
from lossprobe.cli import models as models_module
from lossprobe.cli.main import run
from lossprobe.run.run_folders import run_folders
from lossprobe.run.store import RunStore

TEXT = "the quick brown fox jumps over the lazy dog; " * 3
RECORDS = [{"text": TEXT[place : place + 60], "lang": "en" if place % 2 else "de"} for place in range(9)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder with three checkpoints in files, and a text beside it."""
    folder = tmp_path_factory.mktemp("training") / "out"
    folder.mkdir()
    for seed, step in enumerate((5, 10, 100)):
        write_nanogpt(folder / f"ckpt_{step}.pt", seed, TEXT)
    (folder.parent / "text.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return folder


@pytest.fixture
def place(tmp_path, trained, monkeypatch) -> Path:
    """Enter a working folder with a copy of the checkpoints, `out`, and of the text."""
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def rows(out: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out)))


def stored() -> list[Path]:
    return run_folders(Path(".lossprobe"))


def test_a_folder_of_checkpoints_is_scored_once_in_the_order_of_its_steps(place, capsys):
    code, out, err = call(capsys, "series", "out", "text.jsonl")
    assert code == 0, err
    assert [row["step"] for row in rows(out)] == ["5", "10", "100"]
    assert "3 checkpoints: 3 scored, 0 stored already" in err
    assert len(stored()) == 3
    for row in rows(out):
        shares = [float(row[f"{state}_share"]) for state in ("learned", "unstable", "forgotten", "never")]
        assert sum(shares) == pytest.approx(1.0)
    code, again, err = call(capsys, "series", "out/ckpt_100.pt", "out/ckpt_5.pt", "out/ckpt_10.pt", "text.jsonl")
    assert (code, again) == (0, out)
    assert "0 scored, 3 stored already" in err
    assert "put in the order of their steps, which is not the order given" in err
    code, of_runs, _ = call(capsys, "series", *reversed(stored()))
    assert (code, of_runs) == (0, out)
    code, of_folder, _ = call(capsys, "series", ".lossprobe")
    assert (code, of_folder) == (0, out)


@pytest.mark.parametrize("by", ["class", "lang", "type", "document", "context", "frequency"])
def test_slices_as_csv_have_a_row_for_each_step(place, capsys, by):
    code, out, err = call(capsys, "series", "out", "text.jsonl", "--by", by)
    assert code == 0, err
    found = rows(out)
    assert {row["step"] for row in found} == {"5", "10", "100"}
    assert {"mean_loss_nats", "learned_share", "median_step_learned"} <= found[0].keys()


def test_json_has_states_that_add_up_and_lists_have_text(place, capsys):
    code, out, _ = call(capsys, "series", "out", "text.jsonl", "--state", "never", "--top", "4", "--json", "--quiet")
    content = json.loads(out)
    assert code == 0
    assert sum(content["states"].values()) == content["tokens"]
    assert [row["state"] for row in content["listed"]] == ["never"] * 4
    assert all(len(row["losses_nats"]) == 3 and row["characters"] in TEXT for row in content["listed"])
    code, out, _ = call(capsys, "series", "out", "text.jsonl", "--markdown", "--quiet")
    assert code == 0
    assert "| step |" in out


@pytest.mark.thorough
def test_pictures_of_every_kind_are_drawn(place, capsys):
    for number, options in enumerate(([], ["--by", "class"], ["--state", "never"])):
        code, _, err = call(capsys, "series", "out", "text.jsonl", *options, "--plot", f"{number}.png", "--quiet")
        assert code == 0, err
        assert Path(f"{number}.png").stat().st_size > 10_000


def test_equal_weights_under_two_names_are_told_and_scored_once(place, capsys):
    for step in (100, 200, 300):
        Path(f"steps/step{step}").mkdir(parents=True)
        shutil.copy(f"out/ckpt_{100 if step > 100 else 5}.pt", f"steps/step{step}/ckpt.pt")
        shutil.copy("out/meta.pkl", f"steps/step{step}/meta.pkl")
    code, out, err = call(capsys, "series", "steps", "text.jsonl")
    assert code == 0
    assert [row["step"] for row in rows(out)] == ["100", "200", "300"]
    assert "step200, step300 hold the same weights (equal sha256)" in err
    assert "put in the order" not in err
    assert len(stored()) == 2
    assert rows(out)[2]["difference_nats"] == "0.0"
    shutil.copy("out/ckpt_100.pt", "out/ckpt_200.pt")  # the name of the file is in the hash
    code, _, err = call(capsys, "series", "out", "text.jsonl")
    assert code == 0
    assert "ckpt_100.pt, ckpt_200.pt hold the same weights (equal losses in every document)" in err


def test_a_checkpoint_named_twice_is_used_once(place, capsys):
    code, out, err = call(capsys, "series", "out/ckpt_5.pt", "out/ckpt_10.pt", "out/ckpt_5.pt", "text.jsonl")
    assert (code, len(rows(out))) == (0, 2)
    assert "named twice, used once" in err


def test_several_texts_are_read_as_one_like_by_other_commands(place, capsys):
    lines = Path("text.jsonl").read_text().splitlines(keepends=True)
    Path("first.jsonl").write_text("".join(lines[:4]))
    Path("rest.jsonl").write_text("".join(lines[4:]))
    _, whole, _ = call(capsys, "series", "out", "text.jsonl")
    code, parts, err = call(capsys, "series", "out/ckpt_5.pt", "out/ckpt_10.pt", "out/ckpt_100.pt", "first.jsonl",
                            "rest.jsonl")  # fmt: skip
    assert (code, parts) == (0, whole), err
    code, _, err = call(capsys, "series", "first.jsonl", "rest.jsonl")
    assert code == 2
    assert "first.jsonl: looks like a text, where a checkpoint belongs" in err


@pytest.mark.parametrize("log", ["out/metrics.csv", "out/trainer_state.json", None])
def test_a_log_beside_the_checkpoints_is_named(place, capsys, log):
    if log is not None:
        Path(log).write_text("")
    code, _, err = call(capsys, "series", "out", "text.jsonl")
    assert code == 0
    assert ("next: lossprobe curve out  # the training log beside them" in err) == (log is not None)


def test_names_without_steps_keep_their_order(place, capsys):
    for old, new in ((100, "best"), (5, "first"), (10, "last")):
        Path(f"out/ckpt_{old}.pt").rename(f"out/{new}.pt")
    code, out, err = call(capsys, "series", "out/first.pt", "out/last.pt", "out/best.pt", "text.jsonl")
    assert code == 0
    assert [(row["step"], row["model"]) for row in rows(out)] == [("1", "first.pt"), ("2", "last.pt"), ("3", "best.pt")]
    assert "in the order given, numbered from 1" in err


@pytest.mark.parametrize(
    ("sources", "code", "id_"),
    [
        (["out/ckpt_5.pt", "text.jsonl"], 2, "series.sources"),
        (["out"], 2, "series.sources"),
        ([], 2, "series.sources"),
        (["nothing", "text.jsonl"], 2, "checkpoint.missing"),
        (["out", "nothing.jsonl"], 2, "text.missing"),
        (["out", "text.jsonl", "--by", "nothing"], 2, "fields.missing"),
        (["out", "text.jsonl", "-o", "place"], 2, "output.several_runs"),
        (["text.jsonl", "out/ckpt_5.pt"], 2, "sources.swapped"),
    ],
)
def test_what_is_no_series_is_refused_before_anything_is_scored(place, capsys, sources, code, id_):
    found, out, err = call(capsys, "series", *sources)
    assert (found, out) == (code, ""), err
    assert f"error[{id_}]" in err
    assert not stored()


def test_a_broken_checkpoint_in_the_middle_is_told_before_anything_is_scored(place, capsys):
    Path("out/ckpt_10.pt").write_bytes(Path("out/ckpt_10.pt").read_bytes()[:2000])
    code, _, err = call(capsys, "series", "out", "text.jsonl")
    assert code == 3
    assert "ckpt_10.pt" in err
    assert not stored()


def test_of_large_checkpoints_those_before_a_broken_one_are_kept(place, capsys, monkeypatch):
    monkeypatch.setattr(models_module, "TOGETHER_BYTES", 0)
    Path("out/ckpt_10.pt").write_bytes(Path("out/ckpt_10.pt").read_bytes()[:2000])
    code, _, err = call(capsys, "series", "out", "text.jsonl")
    assert code == 3
    assert "1 checkpoint of 3 is scored and kept" in err
    assert [path.name.partition("-text")[0] for path in stored()] == ["ckpt_5.pt"]


def test_another_tokenizer_is_exit_code_12_before_anything_is_scored(place, capsys):
    other = Path("other")
    other.mkdir()
    write_nanogpt(other / "ckpt_20.pt", 7, TEXT + "Z")
    code, _, err = call(capsys, "series", "out/ckpt_5.pt", "other/ckpt_20.pt", "text.jsonl")
    assert code == 12, err
    assert "tokenizer" in err
    assert not stored()


def test_runs_of_two_texts_or_with_other_windows_are_exit_code_12(place, capsys):
    Path("other.jsonl").write_text(json.dumps({"text": TEXT[3:]}) + "\n")
    for arguments in (["out/ckpt_5.pt", "text.jsonl"], ["out/ckpt_10.pt", "text.jsonl", "--stride", "4"],
                      ["out/ckpt_100.pt", "other.jsonl"]):  # fmt: skip
        assert run(["score", *arguments, "--quiet"]) == 0
    capsys.readouterr()
    five, hundred, ten = (
        next(path for path in stored() if path.name.startswith(f"ckpt_{step}.pt")) for step in (5, 100, 10)
    )
    for pair, word in (((five, hundred), "text"), ((five, ten), "stride")):
        code, _, err = call(capsys, "series", *pair)
        assert code == 12
        assert word in err


def test_checkpoints_beside_weights_of_the_folder_itself_are_taken_and_it_is_told(tmp_path, capsys):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-100", "logs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("model.safetensors" if name != "logs" else "events")).write_bytes(b"")
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = sources_module._expanded([tmp_path])
    assert [path.name for path in found] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert "weights of its own, which are left out" in capsys.readouterr().err
    assert sources_module._expanded([tmp_path / "checkpoint-9", tmp_path]) == [tmp_path / "checkpoint-9", tmp_path]


def test_what_a_trainer_keeps_beside_weights_is_no_checkpoint_and_an_unfinished_one_is_told(place, capsys):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        Path("out", name).write_bytes(b"")
    assert call(capsys, "series", "out", "text.jsonl", "--quiet")[0] == 0
    assert len(stored()) == 3
    for step in (5, 10, 100):
        Path(f"steps/checkpoint-{step}").mkdir(parents=True)
    Path("steps/runs").mkdir()
    for step in (5, 10):
        shutil.copy(f"out/ckpt_{step}.pt", f"steps/checkpoint-{step}")
        shutil.copy("out/meta.pkl", f"steps/checkpoint-{step}")
    Path("steps/checkpoint-100/optimizer.pt").write_bytes(b"")
    code, out, err = call(capsys, "series", "steps", "text.jsonl")
    assert (code, [row["step"] for row in rows(out)]) == (0, ["5", "10"])
    assert "notice: steps/checkpoint-100: holds no weights, left out" in err
    assert "steps/runs" not in err


@pytest.mark.parametrize("kind", ["compare", "series", "compare --kl"])
def test_a_run_that_is_removed_while_the_next_model_is_scored_is_told(place, monkeypatch, capsys, kind):
    """The hint is what mends it: a run that is gone can be neither checked nor overwritten."""
    real, written = RunStore.write_part, []

    def then_remove(self, *given):
        real(self, *given)
        written.append(self.path)
        if self.path != written[0] and written[0].exists():
            shutil.rmtree(written[0])

    command = [*kind.split(), "out/ckpt_5.pt", "out/ckpt_10.pt", "text.jsonl", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "write_part", then_remove)
        assert run(command) == 6
    what = f"{written[0]}: was removed or replaced after it was opened: its folder is no longer there"
    assert capsys.readouterr().err.startswith(f"lossprobe: error[run.gone]: {what}\nhint: repeat the command")
    assert run(command) == 0
