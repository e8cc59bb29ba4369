"""The pass of a series: the text is tokenized once, progress goes over all checkpoints, the next one is read ahead."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import ByteTokenizer, SmallModel, checkpoint

from lossprobe.passes import series as series_module
from lossprobe.passes.known_text import KeptTokens, KnownText
from lossprobe.passes.series import SeriesModels, read_ahead, score_series
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

TEXTS = ["It was a dark and stormy night; " * 5, "xyz" * 20, "and the rain fell"]


class CountingTokenizer(ByteTokenizer):
    """Counts how often it tokenizes."""

    calls = 0

    def encode(self, text):
        type(self).calls += 1
        return super().encode(text)


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = {
        Path(f"step{number}"): checkpoint(
            SmallModel(number), sha256=f"model {number}", tokenizer=CountingTokenizer(), name=f"step{number}"
        )
        for number in range(4)
    }
    CountingTokenizer.calls = 0
    return made


def test_a_text_is_tokenized_once_for_all_and_progress_goes_over_all(models):
    seen, known = [], []
    source = KnownText(StringSource(TEXTS), KeptTokens())
    chosen = SeriesModels(list(models), {}, models.__getitem__, together=True)
    found = score_series(chosen, source, ScoreOptions(), lambda runs: known.append(len(runs)),
                         lambda done, total: seen.append((done, total)))  # fmt: skip
    assert CountingTokenizer.calls == len(TEXTS)
    assert [result.run.name for result in found] == [f"step{number}" for number in range(4)]
    assert known == [1, 2, 3, 4]
    tokens = found[0].run.counts["tokens"]
    assert {total for _, total in seen} == {4 * tokens}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (4 * tokens, 4 * tokens)


def test_stored_runs_shorten_what_is_left(models):
    source = KnownText(StringSource(TEXTS), KeptTokens())
    first = SeriesModels(list(models)[:2], {}, models.__getitem__, together=True)
    assert not any(result.reused for result in score_series(first, source, ScoreOptions(), lambda _: None))
    seen = []
    whole = SeriesModels(list(models), {}, models.__getitem__, together=False)
    found = score_series(whole, source, ScoreOptions(), lambda _: None, lambda *at: seen.append(at))
    assert [result.reused for result in found] == [True, True, False, False]
    tokens = found[0].run.counts["tokens"]
    assert seen[0] == (0, 2 * tokens)
    assert seen[-1] == (2 * tokens, 2 * tokens)


def test_the_weights_of_the_next_checkpoint_are_read_while_one_is_scored(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"):
        (folder / name).write_bytes(b"x" * 100)
    read = []
    monkeypatch.setattr(series_module, "_read", lambda files, stop: read.extend(file.name for file in files))
    with read_ahead([folder]):
        pass
    assert read == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    with read_ahead([tmp_path / "missing"]):
        pass
    assert len(read) == 2


def test_reading_ahead_reads_to_the_end_and_stops_when_told(tmp_path):
    import threading

    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x" * 100)
    series_module._read([file, tmp_path / "missing"], threading.Event())  # what cannot be read is left to others
    stop = threading.Event()
    stop.set()
    series_module._read([file], stop)
