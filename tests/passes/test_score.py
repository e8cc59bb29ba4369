"""From checkpoint and text to a stored run: resume, reuse, refusal to mix, and the same bytes every time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from fakes import SUCCESSOR_RIGHT, ByteTokenizer, SmallModel, checkpoint, successor_logits

from lossprobe.errors import NothingToScoreError, OutputError, TextError, UsageError
from lossprobe.passes import planning
from lossprobe.passes.score import score
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.part_records import KEPT
from lossprobe.run.reader import latest_run, open_run
from lossprobe.text.documents import StringSource
from lossprobe.units import plural

TEXTS = ["abcdefg", "it was a dark and stormy night; " * 9, "xyz", "café ☃ " * 20]


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Small parts, so that a few hundred tokens make several; `cut_parts` has its default bound when it is defined.
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 64))
    return tmp_path


def source(texts=None) -> StringSource:
    return StringSource(TEXTS if texts is None else texts)


def tree(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def test_a_run_holds_every_token_once_and_the_text():
    run = score(checkpoint(successor_logits), source()).run
    tokens = run.query("SELECT * FROM tokens ORDER BY document, token")
    for number, text in enumerate(TEXTS):
        rows = tokens[tokens["document"] == number]
        assert rows["token_id"].tolist() == [256, *text.encode()]
        assert rows["byte_stop"].tolist() == list(range(len(text.encode()) + 1))
    assert tokens["unscored"].notna().sum() == len(TEXTS)
    first = tokens[tokens["document"] == 0]["loss_nats"].to_numpy()[1:]
    np.testing.assert_allclose(first, [SUCCESSOR_RIGHT + 5] + [SUCCESSOR_RIGHT] * 6, rtol=1e-6)
    counts = run.counts
    assert counts["bytes"] == sum(len(text.encode()) for text in TEXTS) == counts["scored_bytes"]
    assert counts["characters"] == sum(map(len, TEXTS))
    assert counts["words"] == sum(len(text.split()) for text in TEXTS)
    assert counts["unscored_tokens"] == {"special": 4}
    assert run.query("SELECT text FROM documents ORDER BY document")["text"].tolist() == TEXTS
    assert len(list((run.path / "tokens").iterdir())) > 3
    assert not (run.path / "plan").exists()
    assert run.damaged_files() == []


def test_histogram_and_ladder_are_stored_for_every_document():
    run = score(checkpoint(SmallModel()), source()).run
    sums = run.query(
        "SELECT sum(pairs) AS c, sum(sum_p) AS q, sum(hits) AS h FROM histogram GROUP BY document ORDER BY document"
    )
    scored = np.array([len(text.encode()) for text in TEXTS])
    assert sums["h"].tolist() == scored.tolist()
    assert sums["c"].tolist() == (scored * 257).tolist()
    np.testing.assert_allclose(sums["q"], scored, rtol=1e-6)
    ladder = run.query("SELECT l.*, t.log_z FROM ladder l JOIN tokens t USING (document, token)")
    assert len(ladder) == scored.sum()
    np.testing.assert_allclose(ladder["log_z_t8"], ladder["log_z"], atol=2e-6)  # T = 1


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    runs = [score(checkpoint(SmallModel()), source(), output=tmp_path / name).run for name in ("one", "two")]
    assert tree(runs[0].path) == tree(runs[1].path)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 4])
def test_a_stopped_run_resumes_and_ends_as_if_it_had_not_stopped(tmp_path, stop_after):
    whole = score(checkpoint(SmallModel()), source(), output=tmp_path / "whole").run
    calls = 0

    def stop(done, total):
        nonlocal calls
        stored = len(list((tmp_path / "part" / "tokens").glob("*.parquet")))
        calls += 1
        if stored == stop_after and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        score(checkpoint(SmallModel()), source(), output=tmp_path / "part", progress=stop)
    assert caught.value.__notes__ == [KEPT if stop_after else "the plan is kept"]
    with pytest.raises(OutputError, match=rf"unfinished run \({plural(stop_after, 'part')} stored\)"):
        open_run(tmp_path / "part")
    seen = []
    progress = lambda done, total: seen.append(done)  # noqa: E731
    resumed = score(checkpoint(SmallModel()), source(), output=tmp_path / "part", progress=progress).run
    assert tree(resumed.path) == tree(whole.path)
    assert seen[0] == 0 if stop_after == 0 else seen[0] > 0, "finished parts are not scored again"


def test_a_run_that_stopped_while_planning_starts_over(tmp_path):
    class Breaking(StringSource):
        def documents(self):
            for number, document in enumerate(super().documents()):
                if self.broken and number == 2:
                    raise TextError("text.not_utf8", "broken")
                yield document

    text = Breaking(TEXTS)
    text.broken = False
    whole = score(checkpoint(SmallModel()), text, output=tmp_path / "whole").run
    text.broken = True
    with pytest.raises(TextError):
        score(checkpoint(SmallModel()), text, output=tmp_path / "part")
    text.broken = False
    assert tree(score(checkpoint(SmallModel()), text, output=tmp_path / "part").run.path) == tree(whole.path)


def test_an_identical_run_is_reused_and_remembered():
    first = score(checkpoint(SmallModel()), source())
    other = score(checkpoint(successor_logits, sha256="other"), source())
    assert latest_run(Path()).path == other.run.path
    again = score(checkpoint(SmallModel()), source())
    assert (first.reused, other.reused, again.reused) == (False, False, True)
    assert again.run.path == first.run.path
    assert latest_run(Path()).path == first.run.path


def test_a_function_without_a_hash_is_never_reused():
    anonymous = checkpoint(SmallModel(), sha256="")
    assert not score(anonymous, source()).reused
    assert not score(checkpoint(successor_logits, sha256=""), source()).reused
    losses = latest_run(Path()).query("SELECT loss_nats FROM tokens ORDER BY document, token")["loss_nats"]
    assert losses[2] == pytest.approx(SUCCESSOR_RIGHT, rel=1e-6)


DIFFERENT = {
    "windows.context": {"context": 8},
    "windows.stride": {"stride": 4},
    "windows.bos_id": {"bos": "never"},
    "windows.score_unknown": {"score_unknown": True},
    "text.kept": {"keep_text": False},
}


@pytest.mark.parametrize(("name", "choice"), DIFFERENT.items())
def test_settings_are_never_mixed(tmp_path, name, choice):
    score(checkpoint(SmallModel()), source(), ScoreOptions(), output=tmp_path / "run")
    before = tree(tmp_path / "run")
    with pytest.raises(OutputError, match=name) as caught:
        score(checkpoint(SmallModel()), source(), ScoreOptions(**choice), output=tmp_path / "run")
    assert caught.value.exit_code == 6
    assert tree(tmp_path / "run") == before
    options = ScoreOptions(**choice)
    replaced = score(checkpoint(SmallModel()), source(), options, output=tmp_path / "run", overwrite=True)
    assert not replaced.reused
    assert tree(tmp_path / "run") != before


def test_another_text_or_checkpoint_is_another_run(tmp_path):
    score(checkpoint(SmallModel()), source(), output=tmp_path / "run")
    with pytest.raises(OutputError, match=r"text\.sha256"):
        score(checkpoint(SmallModel()), source([*TEXTS, "more"]), output=tmp_path / "run")
    with pytest.raises(OutputError, match=r"checkpoint\.sha256"):
        score(checkpoint(SmallModel(), sha256="other"), source(), output=tmp_path / "run")


def test_an_unfinished_run_is_not_resumed_with_other_settings(tmp_path):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(checkpoint(SmallModel()), source(), output=tmp_path / "run", progress=stop)
    with pytest.raises(OutputError, match=r"windows\.context"):
        score(checkpoint(SmallModel()), source(), ScoreOptions(context=8), output=tmp_path / "run")
    assert (
        score(
            checkpoint(SmallModel()), source(), ScoreOptions(context=8), output=tmp_path / "run", overwrite=True
        ).run.context
        == 8
    )


def test_foreign_folders_and_links_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(OutputError, match="is no run"):
        score(checkpoint(), source(), output=tmp_path / "mine", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="symbolic link"):
        score(checkpoint(), source(), output=tmp_path / "link")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_damage_is_found(tmp_path):
    run = score(checkpoint(SmallModel()), source(), output=tmp_path / "run").run
    part = run.path / "tokens" / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    (run.path / "documents.parquet").unlink()
    assert sorted(open_run(run.path).damaged_files()) == ["documents.parquet", "tokens/part-00001.parquet"]


def test_runs_of_another_schema_are_refused(tmp_path):
    run = score(checkpoint(SmallModel()), source(), output=tmp_path / "run").run
    manifest = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(OutputError, match="schema 99, this lossprobe reads 1"):
        open_run(run.path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        open_run(run.path)


def test_the_context_is_the_models_by_default_and_never_more():
    assert score(checkpoint(SmallModel(), context_length=12), source()).run.context == 12
    assert score(checkpoint(SmallModel(), context_length=None), source()).run.context == 2048
    with pytest.raises(UsageError, match="the model's limit is 12"):
        score(checkpoint(SmallModel(), context_length=12), source(), ScoreOptions(context=13))


def test_a_context_beyond_what_was_trained_is_told_where_positions_go_on():
    soft = checkpoint(SmallModel(), context_length=12)
    soft.facts = replace(soft.facts, hard_limit=False)
    said = "callable: a context of {} is above the model's own, 12: its positions go on, but may not have been trained"
    for context, told in ((None, False), (11, False), (12, False), (13, True), (5000, True)):
        text = source()
        run = score(soft, text, ScoreOptions(context=context)).run
        assert run.context == (context or 12)
        assert any(note.startswith(said.format(f"{run.context:,}")) for note in text.notices) == told
        again = score(soft, text, ScoreOptions(context=context))
        assert len(text.notices) == len(set(text.notices)), again


@pytest.mark.parametrize(
    ("bos", "adds", "expected"), [("auto", True, 256), ("auto", False, None), ("always", False, 256)]
)
def test_bos_is_put_before_a_document_once_or_never(bos, adds, expected):
    tokenizer = ByteTokenizer(adds_bos=adds)
    run = score(checkpoint(SmallModel(), tokenizer=tokenizer), source(), ScoreOptions(bos=bos)).run
    assert run.manifest["settings"]["windows"]["bos_id"] == expected
    assert run.scalar("SELECT count(*) FROM tokens WHERE token_id = 256") == (0 if expected is None else len(TEXTS))


def test_always_bos_needs_a_bos():
    tokenizer = ByteTokenizer()
    tokenizer.bos_id = None
    with pytest.raises(UsageError, match="has no BOS"):
        score(checkpoint(tokenizer=tokenizer), source(), ScoreOptions(bos="always"))


def test_without_bos_the_first_bytes_are_in_no_denominator():
    run = score(checkpoint(SmallModel()), source(["word one", "é two"]), ScoreOptions(bos="never")).run
    counts = run.counts
    assert counts["unscored_tokens"] == {"first_token": 2}
    assert counts["unscored_bytes"] == {"first_token": 2}
    assert (counts["bytes"], counts["scored_bytes"]) == (14, 12)
    # "w" takes its word with it, the first byte of "é" its character and its word.
    assert (counts["words"], counts["scored_words"]) == (4, 2)
    assert (counts["characters"], counts["scored_characters"]) == (13, 11)


def test_unknown_characters_are_counted_left_out_and_refused_above_a_limit():
    tokenizer = ByteTokenizer(unknown_byte=ord("e"))
    text = source(["ten letters e" + "x" * 87])
    with pytest.raises(TextError, match=r"4 tokens \(3\.96%\) are not in the vocabulary: U\+0065 \(limit 1\.00%\)"):
        score(checkpoint(tokenizer=tokenizer), text)
    with pytest.raises(TextError, match=r": 1 token \(1\.00%\) is not in the vocabulary: U\+0065 \(limit 0\.50%\)"):
        score(checkpoint(tokenizer=tokenizer), source(["e" + "x" * 98]), ScoreOptions(max_unknown=0.005))
    run = score(checkpoint(tokenizer=tokenizer), text, ScoreOptions(max_unknown=0.05)).run
    assert run.counts["unscored_tokens"] == {"special": 1, "unknown": 4}
    assert run.counts["scored_tokens"] == 96
    assert "4 tokens (3.96%)" in text.notices[-1]
    scored = score(checkpoint(tokenizer=tokenizer), text, ScoreOptions(max_unknown=0.05, score_unknown=True)).run
    assert scored.counts["scored_tokens"] == 100


def test_carriage_returns_get_the_hint_that_helps():
    tokenizer = ByteTokenizer(unknown_byte=ord("\r"))
    with pytest.raises(TextError) as caught:
        score(checkpoint(tokenizer=tokenizer), source(["a\r\nb"]))
    assert "`newlines` lf" in caught.value.hint


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_to_score(texts):
    with pytest.raises(NothingToScoreError, match=r"no tokens|needs at least 2") as caught:
        score(checkpoint(tokenizer=ByteTokenizer(adds_bos=False)), source(texts))
    assert caught.value.exit_code == 5


def test_one_token_without_bos_is_not_enough_and_with_bos_it_is():
    with pytest.raises(NothingToScoreError, match="needs at least 2 tokens"):
        score(checkpoint(tokenizer=ByteTokenizer(adds_bos=False)), source(["a"]))
    assert score(checkpoint(), source(["a"])).run.counts["scored_tokens"] == 1


def test_a_text_that_changes_while_it_is_read_is_refused():
    class Changing(StringSource):
        def documents(self):
            self.texts = [*self.texts, "one more"]
            return super().documents()

    with pytest.raises(TextError, match="changed while it was read"):
        score(checkpoint(), Changing(TEXTS))


def test_ids_beyond_the_models_vocabulary_are_refused():
    class Wide(ByteTokenizer):
        def encode(self, text):
            tokens = super().encode(text)
            tokens.ids[-1] = 2**31 - 1
            return tokens

    tokenizer = Wide()
    tokenizer_ids = tokenizer.encode("writable?")
    assert tokenizer_ids.ids.flags.writeable
    with pytest.raises(Exception, match="token id 2147483647, the model has 257"):
        score(checkpoint(tokenizer=tokenizer), source())


def test_the_text_can_be_left_out():
    run = score(checkpoint(SmallModel()), source(), ScoreOptions(keep_text=False)).run
    assert run.query("SELECT text FROM documents")["text"].isna().all()
    stored = b"".join(file.read_bytes() for file in run.path.rglob("*") if file.is_file())
    assert b"stormy" not in stored


def test_a_looser_limit_for_unknown_text_is_none_for_ever():
    tokenizer = ByteTokenizer(unknown_byte=ord("e"))
    strict, loose = ScoreOptions(max_unknown=0.01), ScoreOptions(max_unknown=1.0)
    texts = ["eee and more"]
    assert not score(checkpoint(tokenizer=tokenizer), source(texts), loose).reused
    with pytest.raises(TextError, match="not in the vocabulary"):
        score(checkpoint(tokenizer=tokenizer), source(texts), strict)
    again = source(texts)
    assert score(checkpoint(tokenizer=tokenizer), again, loose).reused
    assert "not in the vocabulary" in again.notices[0]


@pytest.mark.parametrize("name", ["run[1]", "st*r", "wh?t", "it's"])
def test_a_run_is_read_from_its_own_folder_whatever_its_name(tmp_path, name):
    decoys = {"run[1]": "run1", "st*r": "star", "wh?t": "what", "it's": "its"}
    score(checkpoint(SmallModel()), source(["a decoy text"]), output=tmp_path / decoys[name])
    run = score(checkpoint(SmallModel()), source(["four"]), output=tmp_path / name).run
    assert run.scalar("SELECT count(*) FROM tokens") == 5
    assert run.query("SELECT text FROM documents")["text"].tolist() == ["four"]


def damage_manifest(run):
    (run.path / "run.json").write_text("{")


def damage_keys(run):
    (run.path / "run.json").write_text(json.dumps({"kind": "lossprobe run", "schema": 1}))


def damage_schema(run):
    (run.path / "run.json").write_text(json.dumps({**run.manifest, "schema": 0}))


def remove_part(run):
    (run.path / "tokens" / "part-00000.parquet").unlink()


@pytest.mark.parametrize("damage", [damage_manifest, damage_keys, damage_schema, remove_part])
def test_a_damaged_run_is_refused_and_can_be_overwritten(tmp_path, damage):
    whole = score(checkpoint(SmallModel()), source(), output=tmp_path / "whole").run
    damage(score(checkpoint(SmallModel()), source(), output=tmp_path / "run").run)
    with pytest.raises(OutputError, match=r"damaged|schema 0|is missing"):
        score(checkpoint(SmallModel()), source(), output=tmp_path / "run")
    replaced = score(checkpoint(SmallModel()), source(), output=tmp_path / "run", overwrite=True)
    assert not replaced.reused
    assert tree(replaced.run.path) == tree(whole.path)


@pytest.mark.parametrize("query", ["query", "scalar", "batches"])
def test_damage_that_shows_while_reading_is_one_error(tmp_path, query):
    run = score(checkpoint(SmallModel()), source(), output=tmp_path / "run").run
    for part in (run.path / "tokens").iterdir():
        data = bytearray(part.read_bytes())
        data[8:600] = bytes(592)
        part.write_bytes(data)
    with pytest.raises(OutputError, match="cannot be read") as caught:
        list(getattr(open_run(run.path), query)("SELECT max(loss_nats), max(token_id) FROM tokens"))
    assert caught.value.id == "run.damaged"


def test_a_callers_bad_sql_is_not_damage(tmp_path):
    run = score(checkpoint(SmallModel()), source(), output=tmp_path / "run").run
    with pytest.raises(duckdb.BinderException):
        run.query("SELECT nothing FROM tokens")


def test_overwriting_an_unfinished_run_with_the_same_settings_resumes_it(tmp_path):
    def stop(done, total):
        if len(list((tmp_path / "run" / "tokens").glob("*.parquet"))) == 2 and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(checkpoint(SmallModel()), source(), output=tmp_path / "run", progress=stop)
    seen = []
    progress = lambda done, total: seen.append(done)  # noqa: E731
    score(checkpoint(SmallModel()), source(), output=tmp_path / "run", overwrite=True, progress=progress)
    assert seen[0] > 0


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    whole = score(checkpoint(SmallModel()), source(), output=tmp_path / "whole").run
    with pytest.raises(KeyboardInterrupt):
        score(checkpoint(SmallModel()), source(), output=tmp_path / "run", progress=stop)
    (tmp_path / "run" / "tokens" / ".part-00001.parquet.123.tmp").write_text("half")
    (tmp_path / "run" / ".run.json.99.tmp").write_text("half")
    assert tree(score(checkpoint(SmallModel()), source(), output=tmp_path / "run").run.path) == tree(whole.path)


def test_scoring_that_fails_before_a_plan_leaves_no_folder(tmp_path):
    with pytest.raises(NothingToScoreError, match="no tokens"):
        score(checkpoint(), source([""]), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_stands_where_the_latest_one_cannot_be_remembered(tmp_path, monkeypatch):
    (tmp_path / ".lossprobe").write_text("in the way")
    text = source()
    assert score(checkpoint(SmallModel()), text, output=tmp_path / "run").run.damaged_files() == []
    assert "not remembered as the latest run" in text.notices[-1]
