"""`lossprobe.score` with paths, `lossprobe.latest`, and what wrong arguments are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundled import EXAMPLES
from fakes import SmallModel, checkpoint

import lossprobe

MODEL, TEXT = EXAMPLES / "jargon-plain", EXAMPLES / "jargon-valid.jsonl"


def test_paths_score_as_the_command_does_and_are_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = lossprobe.score(str(MODEL), TEXT, context=64)
    again = lossprobe.score(MODEL, [str(TEXT)], lossprobe.ScoreOptions(context=64))
    assert (first.reused, again.reused) == (False, True)
    assert first.run.path == again.run.path == lossprobe.latest().path
    assert first.run.context == 64
    assert lossprobe.latest(tmp_path).manifest == first.run.manifest
    opened = lossprobe.score(lossprobe.open_checkpoint(MODEL), lossprobe.open_text(TEXT), context=64)
    assert opened.reused
    assert opened.run.path == first.run.path


def test_single_options_reach_text_and_checkpoint(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    result = lossprobe.score(
        MODEL, tmp_path / "a.txt", output=tmp_path / "run", split_documents="blank-line", special_strings="text"
    )
    assert result.run.counts["documents"] == 3
    assert any("separators" in notice for notice in result.notices)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((None, TEXT), "`checkpoint` takes the path of a checkpoint or a checkpoint, not None"),
        ((b"model", TEXT), "not bytes"),
        ((MODEL, None), "`source` takes the path of a text, several, or a text, not None"),
        ((MODEL, [1, 2]), "`source` takes a path or a list of paths, not a list of int"),
        ((MODEL, b"text"), "not bytes"),
        ((MODEL, TEXT, {"context": 3}), "`options` takes lossprobe.ScoreOptions, not dict"),
    ],
)
def test_wrong_types_are_named(arguments, says):
    with pytest.raises(TypeError) as found:
        lossprobe.score(*arguments)
    assert says in str(found.value)
    assert isinstance(found.value, lossprobe.LossprobeError)
    assert "\n" not in str(found.value)


def test_a_live_model_and_a_frame_are_told_what_takes_them():
    import pandas as pd
    import torch

    with pytest.raises(TypeError, match="torch's Linear") as found:
        lossprobe.score(torch.nn.Linear(2, 2), TEXT)
    assert "CallableCheckpoint" in found.value.hint
    with pytest.raises(TypeError, match="pandas's DataFrame") as found:
        lossprobe.score(MODEL, pd.DataFrame({"text": ["a"]}))
    assert "StringSource" in found.value.hint
    for wrong in ("one string", pd.DataFrame({"text": ["a"]}), {"a": "b"}, [b"a"], 3):
        with pytest.raises(TypeError, match="`texts` takes a list of strings"):
            lossprobe.StringSource(wrong)
    assert lossprobe.StringSource(pd.Series(["a", "b"])).texts == ["a", "b"]
    assert lossprobe.StringSource(word for word in ("a", "b")).texts == ["a", "b"]


def test_a_text_in_place_of_a_path_is_told_of_string_source():
    with pytest.raises(lossprobe.LossprobeError, match="does not exist") as found:
        lossprobe.score(MODEL, "It is what it says.")
    assert "StringSource" in found.value.hint


@pytest.mark.parametrize(
    ("choice", "says", "hint"),
    [
        ({"contxt": 3}, "`contxt` is no argument", "context"),
        ({"context": "many"}, "`context`: ", ""),
        ({"context": 0}, "`context`: ", ""),
        ({"bos": "allways"}, "`bos`: ", "always"),
    ],
)
def test_bad_options_are_named(choice, says, hint):
    with pytest.raises(lossprobe.LossprobeError, match=says) as found:
        lossprobe.score(MODEL, TEXT, **choice)
    assert hint in (found.value.hint or "")


def test_options_of_paths_are_refused_beside_objects():
    source = lossprobe.StringSource(["abc"])
    with pytest.raises(lossprobe.LossprobeError, match="paths of texts"):
        lossprobe.score(MODEL, source, text_field="x")
    with pytest.raises(lossprobe.LossprobeError, match="path of a checkpoint"):
        lossprobe.score(checkpoint(SmallModel()), source, dtype="bfloat16")


@pytest.mark.parametrize("open_it", [lossprobe.open_checkpoint, lossprobe.open_run, lossprobe.open_text])
def test_openers_take_paths_only(open_it):
    for wrong in (None, 3, b"x", object()):
        with pytest.raises(TypeError, match="takes "):
            open_it(wrong)


def test_a_path_of_another_class_is_a_path(tmp_path):
    class Mine(type(Path())):
        pass

    assert lossprobe.score(Mine(MODEL), Mine(TEXT), output=Mine(tmp_path / "run")).run.counts["tokens"]


def test_what_stands_in_the_wrong_place_is_told_before_anything_is_read(tmp_path):
    for arguments, reason in (
        ((TEXT, MODEL), "the checkpoint comes first"),
        ((TEXT, TEXT), "looks like a text"),
        ((MODEL, MODEL), "it holds model.safetensors"),
    ):
        with pytest.raises(lossprobe.LossprobeError, match=reason):
            lossprobe.score(*arguments, output=tmp_path / "run")


def test_options_of_another_type_are_type_errors(tmp_path):
    for name, wrong in (("context", "128"), ("context", 12.5), ("skip_bad", "yes"), ("include", 3)):
        with pytest.raises(TypeError, match=f"`{name}`"):
            lossprobe.score(MODEL, TEXT, output=tmp_path / "run", **{name: wrong})


def test_numbers_of_numpy_and_a_single_pattern_are_fine(tmp_path):
    (tmp_path / "texts").mkdir()
    for name in ("a.md", "b.txt"):
        (tmp_path / "texts" / name).write_text("some text")
    texts = tmp_path / "texts"
    found = lossprobe.score(MODEL, texts, output=tmp_path / "run", context=np.int64(64), include="*.md").run
    assert (found.context, found.counts["documents"]) == (64, 1)
