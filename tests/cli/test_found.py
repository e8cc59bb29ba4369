"""A stored run is found without opening its checkpoint, and never where anything is not as it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundled import CHECKPOINT

from lossprobe.checkpoint import detect
from lossprobe.cli.main import run
from lossprobe.passes import identity, known_checkpoint
from lossprobe.run.files import sealed
from lossprobe.run.reader import latest_run
from lossprobe.run.store import RunStore

TEXT = "It shows. That is what the text says, and a café.\n" * 3


@pytest.fixture(scope="module")
def scored_once(tmp_path_factory) -> Path:
    """A folder with a model, a text, and one run of the two; tests work on copies that lie where it was made."""
    folder = tmp_path_factory.mktemp("found") / "work"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(CHECKPOINT, "model")
        Path("text.txt").write_text(TEXT, "utf-8")
        names = watch_opening(patch)
        assert score() == 0
    assert names == ["model"]
    return folder.rename(folder.with_name("kept"))


@pytest.fixture
def opened(scored_once, monkeypatch) -> Iterator[list[str]]:
    """The checkpoints that were opened, in a working folder with a model, a text, and one run of the two."""
    folder = scored_once.with_name("work")
    shutil.copytree(scored_once, folder)
    monkeypatch.chdir(folder)
    yield watch_opening(monkeypatch)
    shutil.rmtree(folder)


def watch_opening(patch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the path of every checkpoint is added that is opened from now on."""
    real, names = detect.open_checkpoint, []

    def watched(path, options):
        names.append(str(path))
        return real(path, options)

    patch.setattr(detect, "open_checkpoint", watched)
    return names


def score(*options: str, model: str = "model", text: str = "text.txt") -> int:
    return run(["score", model, text, "--context", "64", *options])


def runs() -> list[str]:
    return sorted(folder.name for folder in Path(".lossprobe").glob("*-*"))


def note() -> Path:
    (path,) = Path(".lossprobe", "known").iterdir()
    return path


def test_it_says_the_same_as_with_the_checkpoint_open(opened, capsys):
    before = runs()
    capsys.readouterr()
    assert score() == 0
    assert opened == []
    found = capsys.readouterr()
    shutil.rmtree(Path(".lossprobe", "known"))
    assert score() == 0
    assert opened == ["model"], "a run that nothing is noted of is found by its settings"
    assert capsys.readouterr() == found
    assert "already scored, reusing" in found.err
    assert score() == 0
    assert (opened, runs()) == (["model"], before)


def test_it_is_the_latest_run_then(opened):
    assert score("--stride", "32") == 0
    assert score() == 0
    assert opened == ["model"]
    assert latest_run(Path()).manifest["settings"]["windows"]["stride"] == 64


@pytest.mark.thorough
@pytest.mark.parametrize(
    "option", [["--stride", "16"], ["--bos", "never"], ["--dtype", "bfloat16"], ["--no-text"], ["--desmooth", "0.1"]]
)
def test_other_options_are_another_run_with_a_note_of_its_own(opened, option):
    for _ in range(2):
        assert score(*option) == 0
    assert opened == ["model"]
    assert len(runs()) == 2


def test_another_text_is_another_run(opened):
    Path("text.txt").write_text(TEXT + "more", "utf-8")
    assert score() == 0
    assert opened == ["model"]
    assert len(runs()) == 2


def test_a_checkpoint_is_opened_where_a_file_of_it_changed_or_another_one_came(opened):
    Path("model", "added_tokens.json").write_text("{}")
    assert score() == 0
    assert opened == ["model"]
    assert score() == 0
    assert opened == ["model"]
    config = json.loads(Path("model", "config.json").read_text())
    Path("model", "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    assert score() == 0
    assert opened == ["model"] * 2
    assert len(runs()) == 2
    Path("model", "config.json").unlink()
    assert score() == 3


@pytest.mark.thorough
def test_a_damaged_note_is_none(opened):
    content = json.loads(note().read_text())
    for bad in (b"", b"{", b"[]", json.dumps({**content, "read": "elsewhere"}).encode()):
        note().write_bytes(bad)
        assert score() == 0
    assert opened == ["model"] * 4
    del content["sha256"]
    others = (
        {},
        {**content, "read": 1},
        {**content, "read": {"hashes": [], "beside": 3}},
        {**content, "facts": {}},
        {**content, "facts": {**content["facts"], "more": 1}},
        {**content, "tokenizer": None},
    )
    for other in others:
        note().write_text(json.dumps(sealed(other)))
        assert score() == 0
    assert opened == ["model"] * 10
    assert score() == 0
    assert opened == ["model"] * 10, "the last one was noted anew"


def test_a_damaged_or_deleted_run_is_none(opened):
    (name,) = runs()
    Path(".lossprobe", name, "documents.parquet").write_bytes(b"")
    assert score() == 6
    shutil.rmtree(Path(".lossprobe", name))
    assert score() == 0
    assert (opened, runs()) == (["model"], [name])


@pytest.mark.parametrize("fact", ["sha256", "context_length", "vocab_size", "batching"])
def test_a_note_that_was_wrong_is_found_out_when_the_model_is_loaded(opened, fact, capsys):
    content = json.loads(note().read_text())
    del content["sha256"]
    content["facts"][fact] = {"sha256": "0" * 64, "batching": "one window"}.get(fact, 128)
    note().write_text(json.dumps(sealed(content)))
    before = runs()
    assert score() == 3
    assert "error[checkpoint.changed]" in capsys.readouterr().err
    assert runs() == before
    assert score() == 0
    assert opened == ["model"], "it was noted anew"


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["lossprobe", "pass", "torch"])
def test_another_version_looks_anew(opened, what, monkeypatch):
    if what == "torch":
        real = identity.version_of
        monkeypatch.setattr(identity, "version_of", lambda name: "0" if name == what else real(name))
    else:
        monkeypatch.setattr(identity, {"lossprobe": "__version__", "pass": "PASS_VERSION"}[what], "other")
    assert score() == 0
    assert opened == ["model"]
    assert len(runs()) == 2


def test_a_file_that_may_have_changed_while_it_was_read_is_not_noted(opened, monkeypatch):
    shutil.rmtree(Path(".lossprobe"))
    monkeypatch.setattr(known_checkpoint.time, "time_ns", lambda: 1)
    assert score() == 0
    assert not Path(".lossprobe", "known").exists()


def test_another_tokenizer_is_another_run(opened):
    tokenizer = json.loads(Path("model", "tokenizer.json").read_text("utf-8"))
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = merges[:-1]
    Path("model", "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    assert score() == 0
    assert opened == ["model"]
    assert len(runs()) == 2


def test_other_weights_of_the_same_size_and_time_are_another_run(opened):
    weights = Path("model", "model.safetensors")
    times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=times)
    assert score() == 0
    assert opened == ["model"]
    assert len(runs()) == 2


def test_a_complete_run_needs_no_model_although_its_plan_is_still_there(opened):
    (name,) = runs()
    Path(".lossprobe", name, "plan.json").write_text("{}")
    assert score() == 0
    assert opened == []
    assert not Path(".lossprobe", name, "plan.json").exists()


def test_a_run_that_is_being_written_or_read_by_another_command_is_found_all_the_same(opened):
    (name,) = runs()
    before = sorted(Path(".lossprobe", name).iterdir())
    with RunStore(Path(".lossprobe", name)):
        assert score() == 0
    assert opened == []
    assert sorted(Path(".lossprobe", name).iterdir()) == before


def test_an_automatic_device_finds_the_run_of_that_device(opened, capsys):
    capsys.readouterr()
    assert score("--device", "auto") == 0
    assert opened == []
    assert "lossprobe: device: cpu" in capsys.readouterr().err


def test_the_files_of_a_checkpoint_that_is_not_opened_are_protected(opened, capsys):
    assert run(["perplexity", "model", "text.txt", "--context", "64", "--csv=model/config.json"]) == 2
    assert opened == []
    assert "never changed" in capsys.readouterr().err


def test_a_folder_of_notes_that_is_a_link_is_not_written_into(opened, tmp_path):
    shutil.rmtree(Path(".lossprobe", "known"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path(".lossprobe", "known").symlink_to(elsewhere)
    assert score() == 0
    assert list(elsewhere.iterdir()) == []


@pytest.mark.thorough
def test_a_tool_is_asked_again_where_checkpoint_text_or_option_changed(opened):
    def ask(*options: str, protocol: str = "evaluate") -> list[str]:
        opened.clear()
        assert run(["perplexity", "model", "text.txt", "--protocol", protocol, "--quiet", *options]) == 0
        return list(opened)

    assert ask() == ["model"]
    assert ask() == []
    assert ask("--context", "32") == ask("--bos", "never") == ask(protocol="levanter") == ["model"]
    assert ask("--context", "32") == ask("--bos", "never") == ask(protocol="levanter") == []
    Path("text.txt").write_text(TEXT + "More.\n", "utf-8")
    assert ask() == ["model"]
    config = json.loads(Path("model", "config.json").read_text())
    Path("model", "config.json").write_text(json.dumps({**config, "initializer_range": 0.5}))
    assert ask() == ["model"]
    assert ask() == []
    for name in runs():
        if name.startswith("model-text"):
            Path(".lossprobe", name, "tokens", "part-00000.parquet").unlink()
            shutil.rmtree(Path(".lossprobe", name))
    assert ask() == ["model"], "its run is gone"
