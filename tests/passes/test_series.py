"""The pass of a series: the text is planned once, progress goes over all checkpoints, the next one is read ahead."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import ByteTokenizer, SmallModel, checkpoint
from stored_runs import flip, tree

from lossprobe.passes import planning
from lossprobe.passes import series as series_module
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.score import score
from lossprobe.passes.series import SeriesModels, read_ahead, score_series
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.shared_plan import SharedPlan
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
    source = KnownText(StringSource(TEXTS))
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


def all_of(models) -> SeriesModels:
    return SeriesModels(list(models), {}, models.__getitem__, together=True)


def score_each(models, progress=None) -> list[Path]:
    """Score a series in parts of 64 rows, and return the folders of its runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 64))
        source = KnownText(StringSource(TEXTS))
        found = score_series(all_of(models), source, ScoreOptions(), lambda _: None, progress)
    return [result.run.path for result in found]


def alone(models) -> list[dict[str, bytes]]:
    """Return the files of the runs that are made of the checkpoints one by one, without a shared plan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 64))
        runs = [score(models[place], StringSource(TEXTS), output=Path("alone") / place).run for place in models]
    return [files_of(run.path) for run in runs]


def files_of(path: Path) -> dict[str, bytes]:
    """Return the bytes of the files of a run, but for what says where and when it was checked."""
    return {name: data for name, data in tree(path).items() if not name.startswith(".")}


def test_runs_of_a_shared_plan_have_the_bytes_of_runs_made_alone(models):
    runs = score_each(models)
    assert [files_of(path) for path in runs] == alone(models)
    assert not any((path / "plan.json").exists() or (path / "plan").exists() for path in runs)
    assert len(list((runs[0] / "tokens").iterdir())) > 3


def test_a_series_that_is_stopped_leaves_no_plan_of_a_finished_run_and_resumes(models):
    def stop(done, total):
        if done > total // 4 + 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_each(models, stop)
    unfinished = [path.parent for path in Path(".lossprobe").glob("*/plan.json")]
    assert [path.name.partition("-")[0] for path in unfinished] == ["step1"]
    assert len(list(Path(".lossprobe").glob("*/run.json"))) == 1
    seen = []
    runs = score_each(models, lambda done, total: seen.append(done))
    assert seen[0] > 0  # the parts of the second run that were stored are not scored again
    assert [files_of(path) for path in runs] == alone(models)


@pytest.mark.parametrize("harm", ["flip", "remove", "unsealed", "no folder"])
def test_a_shared_plan_that_is_damaged_meanwhile_is_made_again(models, harm):
    first, second = list(models)[:2]
    shared = SharedPlan()
    kept = score(models[first], StringSource(TEXTS), shared=shared).run.path
    part = kept / "plan" / "part-00000.parquet"
    if harm == "flip":
        flip(part)
    elif harm == "remove":
        part.unlink()
    elif harm == "unsealed":
        (kept / "plan.json").write_text((kept / "plan.json").read_text().replace('"tokens": ', '"tokens":  1'))
    else:
        shared._place = Path("nothing")
    run = score(models[second], StringSource(TEXTS), shared=shared).run
    assert CountingTokenizer.calls == 2 * len(TEXTS)
    assert files_of(run.path) == files_of(score(models[second], StringSource(TEXTS), output=Path("alone")).run.path)


def test_a_plan_of_another_text_or_other_windows_is_not_shared(models):
    first, second, third, fourth = models
    with SharedPlan() as shared:
        score(models[first], StringSource(TEXTS), shared=shared)
        assert score(models[second], StringSource(TEXTS[:2]), shared=shared).run.counts["documents"] == 2
        assert score(models[third], StringSource(TEXTS), ScoreOptions(context=8), shared=shared).run.context == 8
        calls = CountingTokenizer.calls
        score(models[fourth], StringSource(TEXTS), shared=shared)
        assert CountingTokenizer.calls == calls == 3 + 2 + 3


def test_a_run_that_lost_its_last_file_meanwhile_keeps_its_plan_and_parts(models):
    first = next(iter(models))
    with SharedPlan() as shared:
        path = score(models[first], StringSource(TEXTS), shared=shared).run.path
        whole = files_of(path)
        (path / "run.json").unlink()
    assert (path / "plan.json").exists()
    seen = []
    score(models[first], StringSource(TEXTS), progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] == seen[0][1], "no part is scored again"
    assert files_of(path) == {name: data for name, data in whole.items() if not name.startswith("plan")}


def test_a_plan_that_a_killed_series_kept_is_removed_by_the_next(models):
    shared = SharedPlan()  # never closed
    path = score(models[next(iter(models))], StringSource(TEXTS), shared=shared).run.path
    assert (path / "plan.json").exists()
    assert not any((each / "plan.json").exists() for each in score_each(models))


def test_one_large_model_is_in_memory_at_a_time(models):
    import weakref

    opened: list[weakref.ref] = []

    def opening(place: Path):
        assert not any(model() is not None for model in opened)
        made = checkpoint(SmallModel(len(opened)), sha256=f"model {place}", name=str(place))
        opened.append(weakref.ref(made))
        return made

    large = SeriesModels(list(models), {}, opening, together=False)
    score_series(large, KnownText(StringSource(TEXTS)), ScoreOptions(), lambda _: None)
    assert len(opened) == len(models)


def test_stored_runs_shorten_what_is_left(models):
    source = KnownText(StringSource(TEXTS))
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
