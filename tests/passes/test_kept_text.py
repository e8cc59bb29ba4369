"""Tests text that a tokenizer drops or rewrites: every number that depends on it has a notice or is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes import ByteTokenizer, SmallModel, checkpoint

from lossprobe.analysis.compare.byte_pairs import compare_bytes
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.audit.config.reader import read_settings
from lossprobe.audit.gate.gate import run_audit
from lossprobe.checkpoint.interface import Tokens
from lossprobe.errors import NotComparableError, TextError, UsageError
from lossprobe.passes.divergence import measure_divergence
from lossprobe.passes.protocols import score_all_protocols, score_protocol
from lossprobe.passes.score import score
from lossprobe.passes.selfcheck import run_selfcheck
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

TEXTS = ["a cat ☃ sat", "on a mat", "the ☃☃ end of it"]  # 9 bytes of snow in 41
LOOSE = ScoreOptions(max_unknown=1.0)


class Strange(ByteTokenizer):
    """A byte tokenizer that can drop snowmen, give other tokens in pieces, and report any counts."""

    longest_whole_bytes = 20

    def __init__(self, *, melts=False, differs=False, mode="control", **said) -> None:
        super().__init__()
        self._melts, self._differs, self._said = melts, differs, said
        self.special_strings = mode
        self.unbounded_rules = ("Replace",)
        self.sha256 = json.dumps([melts, said, mode])

    def encode(self, text: str) -> Tokens:
        return self._tokens(text, differs=self._differs and len(text) > self.longest_whole_bytes)

    def encode_whole(self, text: str) -> Tokens:
        return self._tokens(text, differs=False)

    def _tokens(self, text: str, *, differs: bool) -> Tokens:
        left = text.replace("☃", "") if self._melts else text
        data, size = left.encode(), len(text.encode())
        tokens = super().encode(left)
        lost = size - len(data)
        if len(data):
            tokens.byte_stop[-1] = size
        ids = tokens.ids + 1 if differs else tokens.ids
        said = {"vanished_bytes": lost, "normalized_bytes": lost, "tiles": not lost, **self._said}
        return replace(tokens, ids=ids, **said)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model(name="m", **said):
    return checkpoint(SmallModel(), tokenizer=Strange(**said), name=name)


def test_text_that_vanishes_is_like_text_that_is_unknown():
    with pytest.raises(TextError, match=r"9 bytes \(21.95%\) of the text vanished.*\(limit 1.00%\)") as caught:
        score(model(melts=True), StringSource(TEXTS))
    assert (caught.value.id, caught.value.exit_code) == ("text.vanished", 4)
    source = StringSource(TEXTS)
    score(model(melts=True), source, LOOSE)
    assert source.notices[-1].startswith("strings: 9 bytes (21.95%) of the text vanished")
    with pytest.raises(TextError):  # the run is stored now, and a looser limit once is none for ever
        score(model(melts=True), StringSource(TEXTS))
    with pytest.raises(TextError):
        score(model(melts=True), StringSource(TEXTS), ScoreOptions(max_unknown=9 / 41 - 1e-9))
    score(model(melts=True), StringSource(TEXTS), ScoreOptions(max_unknown=9 / 41))  # the limit itself is allowed


def test_no_number_per_byte_or_per_word_where_text_vanished():
    result = measure_perplexity(score(model(melts=True), StringSource(TEXTS), LOOSE).run, by="document")
    given = result.table.set_index("measure")["value"].notna()
    assert given[given].index.tolist() == ["nll", "token_perplexity"]
    assert result.coverage["bytes_vanished"] == 9
    assert any("9 bytes of the text have no token" in note and "word perplexity" in note for note in result.notes)
    assert result.groups["bits_per_byte"].isna().all()
    whole = measure_perplexity(score(model(), StringSource(TEXTS), LOOSE).run)
    assert whole.table["value"].notna().all()
    assert whole.coverage["bytes_vanished"] == 0
    assert not any("no token" in note for note in whole.notes)


@pytest.mark.parametrize("protocol", ["lm-eval", "levanter"])
def test_protocols_refuse_the_same_numbers(protocol):
    _, result = score_protocol(protocol, model(melts=True), StringSource(TEXTS), LOOSE)
    assert result.value is None
    rows = result.table.set_index("measure")
    assert rows.loc[[name for name in rows.index if "per " in rows["unit"][name]], "value"].isna().all()
    assert "9 bytes of the text have no token" in result.notes[-1]
    _, whole = score_protocol(protocol, model(), StringSource(TEXTS), LOOSE)
    assert whole.value is not None
    assert not whole.notes
    _, told = score_protocol(protocol, model(normalized_bytes=2), StringSource(TEXTS), LOOSE)
    assert told.value == whole.value
    assert told.notes[-1].startswith("6 bytes (14.63%) of the text dropped or rewritten")


def test_paloma_gives_its_number_per_token_alone_where_text_vanished():
    tables = {}
    for melts in (True, False):
        made = model(melts=melts)
        made.tokenizer.eos_id = 0  # which paloma puts before each document
        tables[melts] = score_protocol("paloma", made, StringSource(TEXTS), LOOSE)[1].table.set_index("measure")
    given = tables[True]["value"].notna()
    assert given[given].index.tolist() == ["token_perplexity"]
    assert tables[False]["value"].notna().all()


def test_levanter_needs_to_know_which_tokens_hold_bytes():
    _, guessed = score_protocol("levanter", model(tiles=False), StringSource(TEXTS), LOOSE)
    assert guessed.value is None
    assert guessed.notes[-1] == "bits_per_byte: refused, which tokens hold bytes is a guess with this tokenizer"
    _, summed = score_protocol("lm-eval", model(tiles=False), StringSource(TEXTS), LOOSE)
    assert summed.value is not None, "a sum over the whole text needs no spans"


def test_documents_with_vanished_text_are_left_out_of_a_comparison_by_bytes():
    one = score(model("one", melts=True), StringSource(TEXTS), LOOSE).run
    other = score(model("other"), StringSource(TEXTS), LOOSE).run
    result = compare_bytes(one, other)
    assert result.counts.bytes_left_out["spans_are_a_guess"] == sum(len(TEXTS[index].encode()) for index in (0, 2))
    assert any(note.startswith("one: documents left out, 9 bytes") for note in result.notes)
    snow = [StringSource(["☃ a"]) for _ in range(2)]
    runs = [
        score(model(name, melts=name == "one"), each, LOOSE).run
        for name, each in zip(["one", "two"], snow, strict=True)
    ]
    with pytest.raises(NotComparableError):
        compare_bytes(*runs)


def audit_settings(folder, early, metric, limit):
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 9))
    (folder / "lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = 'm'\n[eval]\nmax_unknown = {limit}\n"
        f"[stats]\nstop_early = {str(early).lower()}\n"
        f"[data.t]\npath = 't.jsonl'\n[[check]]\nid = 'c'\ndata = 't'\nmetric = '{metric}'\nmax = 99\n"
    )
    (folder / "m").mkdir()
    return read_settings(folder / "lossprobe.toml")


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("melts", [False, True])
def test_an_audit_has_the_limits_of_a_run(tmp_path, early, melts):
    tokenizer = Strange(melts=True) if melts else ByteTokenizer(unknown_byte=ord("a"))
    settings = audit_settings(tmp_path, early, "nll", 0.05)
    with pytest.raises(TextError, match=r"\(limit 5\.00%\)") as caught:
        run_audit(settings, checkpoint(SmallModel(), tokenizer=tokenizer, name="m"))
    assert caught.value.id == ("text.vanished" if melts else "text.unknown")


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("metric", ["bits_per_byte", "nll"])
def test_an_audit_refuses_bits_per_byte(tmp_path, early, metric):
    settings = audit_settings(tmp_path, early, metric, 1)
    if metric == "nll":
        assert run_audit(settings, model(melts=True)).exit_code == 0
        return
    with pytest.raises(TextError, match=r"check c: no bits_per_byte, [0-9]+ bytes of the text have no token") as caught:
        run_audit(settings, model(melts=True))
    assert caught.value.id == "text.no_bytes"


def test_rewriting_special_strings_and_pieces_are_counted_and_told_for_stored_runs_too():
    said = {"normalized_bytes": 3, "special_strings": 2, "in_pieces": True}
    for _ in range(2):
        source = StringSource(TEXTS)
        run = score(model(**said), source).run
        assert len(source.notices) == 3
        rewritten, special, pieces = source.notices
        assert rewritten == "strings: the tokenizer dropped or rewrote 9 bytes (21.95%) of the text"
        assert special.startswith("strings: 6 tokens are control ids")
        assert pieces.startswith("strings: 3 long documents tokenized in pieces")
    result = measure_perplexity(run)
    names = ("bytes_normalized", "special_strings", "documents_in_pieces")
    assert [result.coverage[name] for name in names] == [9, 6, 3]
    assert any("9 bytes (21.95%) of the text dropped or rewritten" in note for note in result.notes)
    source = StringSource(TEXTS)
    assert not measure_perplexity(score(model(), source).run).coverage["bytes_normalized"]
    assert source.notices == []


def test_a_divergence_tells_and_refuses_the_same():
    pair = (model("one", melts=True), model("other", melts=True))
    with pytest.raises(TextError, match=r"9 bytes \(21.95%\) of the text vanished"):
        measure_divergence(*pair, StringSource(TEXTS))
    source = StringSource(TEXTS)
    measure_divergence(*pair, source, LOOSE)
    assert len(source.notices) == 1
    source = StringSource(TEXTS)
    measure_divergence(model(special_strings=1), model(special_strings=1), source)
    assert source.notices[0].startswith("strings: 3 tokens are control ids")


def test_unknown_text_is_not_named_where_it_is_a_guess():
    class Guessing(Strange):
        def encode(self, text):
            tokens = super().encode(text)
            return replace(tokens, unknown=tokens.ids == ord("c"), tiles=False)

    source = StringSource(["a cat sat on a mat " * 9])
    made = checkpoint(SmallModel(), tokenizer=Guessing(), name="m")
    run = score(made, source, LOOSE).run
    assert (run.counts["unknown_tokens"], run.counts["unknown_text"]) == (9, [])
    assert source.notices[0].endswith("are not in the vocabulary")


def test_protocols_say_how_their_tools_read_special_strings():
    control, text = model(mode="control"), model(mode="text")
    for protocol in ("lm-eval", "transformers", "levanter"):
        with pytest.raises(UsageError, match=r"`special_strings` text: .* control ids") as caught:
            score_protocol(protocol, text, StringSource(TEXTS), LOOSE)
        assert caught.value.id == "protocol.option"
    short = replace(LOOSE, context=8)
    for protocol in ("llama.cpp", "nanogpt"):
        assert not score_protocol(protocol, text, StringSource(TEXTS), short)[1].notes
        assert not score_protocol(protocol, control, StringSource(TEXTS), short)[1].notes
        notes = score_protocol(protocol, model(special_strings=1), StringSource(TEXTS), short)[1].notes
        assert "`special_strings` text" in notes[0]
    assert not score_protocol("transformers", model(special_strings=1), StringSource(TEXTS), short)[1].notes
    table = score_all_protocols(text, StringSource(TEXTS), short)[1].table
    assert table.set_index("protocol").loc["llama.cpp", "value"] > 0
    assert np.isnan(table.set_index("protocol").loc["lm-eval", "value"])


@pytest.mark.parametrize("differs", [False, True])
def test_selfcheck_compares_a_long_document_in_pieces_with_the_whole(differs):
    long = [*TEXTS, "a cat sat on a mat " * 9]
    made = checkpoint(SmallModel(), tokenizer=Strange(differs=differs), name="m", sha256="")
    _, result = run_selfcheck(made, StringSource(long))
    row = result.table.set_index("check").loc["tokens in pieces"]
    assert (row["kind"], row["tokens"]) == ("must not matter", len(long[3]))
    assert row["setting"] == f"whole in place of pieces: {len(long[3])} bytes of document 3"
    assert row["verdict"] == ("BROKEN" if differs else "same")
    assert ("tokens in pieces" in result.broken) == differs
    _, short = run_selfcheck(made, StringSource(["a cat"]))
    assert "tokens in pieces" not in set(short.table["check"])
