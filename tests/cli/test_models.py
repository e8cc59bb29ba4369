"""Several models on one text: those that cannot be compared are refused before any is scored, each opened once."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from nanogpt_files import write_nanogpt

from lossprobe.checkpoint import detect
from lossprobe.cli import models
from lossprobe.cli.main import run
from lossprobe.passes import score
from lossprobe.passes.score import planned_run

TEXT = "a small text of lower case letters and blanks\n" * 4


@pytest.fixture
def done(tmp_path, monkeypatch) -> dict[str, list[str]]:
    """A folder with a text and three models: one, one with a longer window, one with more characters; what is done."""
    monkeypatch.chdir(tmp_path)
    Path("data.txt").write_text(TEXT)
    for number, (name, text, context) in enumerate(
        [("one", TEXT, 16), ("long", TEXT, 32), ("other", TEXT + "XYZ", 16), ("two", TEXT, 16)]
    ):
        Path(name).mkdir()
        write_nanogpt(Path(name, "ckpt.pt"), number, text, context)
    seen: dict[str, list[str]] = {"opened": [], "scored": []}
    real = detect.open_checkpoint

    def opened(path, options):
        seen["opened"].append(Path(path).parent.name)
        return real(path, options)

    def parts(_store, engine, *_):
        seen["scored"].append(engine)
        raise AssertionError("a pass was begun")

    monkeypatch.setattr(detect, "open_checkpoint", opened)
    monkeypatch.setattr(score, "score_parts", parts)
    return seen


@pytest.mark.parametrize(
    ("command", "second", "id_"),
    [
        (["compare", "--kl"], "other", "runs.different"),
        (["compare"], "long", "runs.different"),
        (["calibration"], "long", "runs.different"),
        (["calibration"], "other", "runs.different"),
        (["calibration", "--desmooth", "0.1"], "long", "runs.different"),
        (["compare", "--context", "20"], "long", "windows.context"),
    ],
    ids=str,
)
def test_models_that_cannot_be_compared_are_refused_before_a_pass(done, capsys, command, second, id_):
    assert run([*command, "one/ckpt.pt", f"{second}/ckpt.pt", "data.txt"]) in (2, 12)
    assert f"error[{id_}]" in capsys.readouterr().err
    assert not Path(".lossprobe").exists()
    assert done["opened"] == (["one"] if id_ == "windows.context" else ["one", second])


def test_large_models_are_refused_before_the_second_pass(done, monkeypatch, capsys):
    def score_opened(checkpoint, source, scoring, shared):
        done["scored"].append(checkpoint.facts.name)
        return SimpleNamespace(run=planned_run(checkpoint, source, scoring.score))

    monkeypatch.setattr(models, "TOGETHER_BYTES", 0)
    monkeypatch.setattr(models, "score_opened", score_opened)
    assert run(["calibration", "one/ckpt.pt", "long/ckpt.pt", "data.txt"]) == 12
    assert (len(done["scored"]), done["opened"]) == (1, ["one", "long"])
    assert "--context 16" in capsys.readouterr().err
