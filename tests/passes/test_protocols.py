"""Tests protocols against plain loops that do what each tool does, and the table of all protocols."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import BOS, ByteTokenizer, SmallModel, checkpoint
from protocol_references import SAYING, Peer

from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.checkpoint.interface import Tokens
from lossprobe.errors import TextError
from lossprobe.passes.protocols import JoinedSource, score_all_protocols, score_protocol
from lossprobe.passes.score import score
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.run.reader import RUNS_FOLDER, open_run
from lossprobe.text.documents import Document, StringSource
from lossprobe.units import plural

EOS = 7  # a byte that no text here has
LETTERS = "".join(np.random.default_rng(1).choice([*"abcdefghijklmnop", *"    "], 300))
TEXTS = [" abc  de\tfg\n", LETTERS, "x", "", "café\xa0☃ " + LETTERS[::-1][:150] + "\n\n"]
ONE = [LETTERS[:204]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Marked(ByteTokenizer):
    """A tokenizer that puts a token without bytes before every text, as some sentencepiece tokenizers do."""

    def encode(self, text: str) -> Tokens:
        tokens = super().encode(text)
        parts = ([65], tokens.ids), ([0], tokens.byte_stop), ([False], tokens.unknown)
        return Tokens(*(np.concatenate(part).astype(part[1].dtype) for part in parts))


def tokenizer_of(kind: type[ByteTokenizer] = ByteTokenizer, *, adds_bos: bool, bos=BOS, eos=EOS) -> ByteTokenizer:
    made = kind(adds_bos=adds_bos, unknown_byte=ord("d"))  # which every protocol scores all the same
    made.bos_id, made.eos_id = bos, eos
    return made


def peer_of(tokenizer: ByteTokenizer, model=None, *, bos="its own") -> Peer:
    return Peer(
        model or SmallModel(),
        lambda text: tokenizer.encode(text).ids.tolist(),
        tokenizer.bos_id if bos == "its own" else bos,
        tokenizer.eos_id,
        tokenizer.adds_bos,
        lambda text: np.diff(tokenizer.encode(text).byte_stop, prepend=0).tolist(),
    )


def compare(protocol, texts, tokenizer, *, length=24, stride=None, peer=None, **options):
    """Score as a protocol, compare all numbers with those of a plain loop, and return the result."""
    given = ScoreOptions(context=length, stride=stride, max_unknown=0.5, **options)
    model = checkpoint(SmallModel(), tokenizer=tokenizer, context_length=64)
    _, result = score_protocol(protocol, model, StringSource(texts), given)
    said = SAYING[protocol](peer or peer_of(tokenizer), texts, length, stride)
    assert result.table["measure"].tolist() == list(said.rows) == list(PROTOCOLS[protocol].numbers)
    assert result.table["count"].tolist() == [count for _, count in said.rows.values()]
    values = [math.nan if value is None else value for value, _ in said.rows.values()]
    np.testing.assert_allclose(result.table["value"], values, rtol=1e-6)
    headline = said.rows[PROTOCOLS[protocol].headline][0]
    assert result.value == (None if headline is None else pytest.approx(headline, rel=1e-6))
    assert result.nats_per_token == pytest.approx(said.mean, rel=1e-6)
    assert result.tokens_scored == len(said.tokens)
    assert result.tokens_unscored == {reason: count for reason, count in said.unscored.items() if count}
    assert result.tokens_read == said.read == result.tokens_scored + sum(result.tokens_unscored.values())
    assert result.mean_context == pytest.approx(np.mean([seen for _, seen in said.tokens]), rel=1e-12)
    assert result.context >= max(seen for _, seen in said.tokens)
    assert result.documents == (1 if PROTOCOLS[protocol].joined else len(texts))
    return result


def stored() -> list[Path]:
    return sorted(Path(RUNS_FOLDER).glob("*-*"))


@pytest.mark.parametrize(
    ("texts", "adds_bos"), [(TEXTS, True), (TEXTS, False), (ONE, True)], ids=["several", "several, no BOS", "one"]
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_tool_says(protocol, adds_bos, texts):
    # 24 and 25 tokens a window: neither divides what the texts have, and half of an odd number is rounded down
    result = compare(protocol, texts, tokenizer_of(adds_bos=adds_bos), length=24 if adds_bos else 25)
    assert result.protocol == protocol
    assert result.headline in result.finding
    empty = 0
    if protocol in ("evaluate", "llama-factory") and texts is TEXTS:
        empty = 1 if adds_bos or protocol == "evaluate" else 2  # without a BOS nothing stands before a single byte
    assert result.notes == (
        [f"{plural(empty, 'document')} without a scored token left out, which the tool itself cannot score"]
        * (empty > 0)
    )


@pytest.mark.parametrize(("stride", "adds_bos"), [(24, True), (24, False), (12, False), (7, True), (1, False)])
def test_the_loop_of_transformers_at_every_stride(stride, adds_bos):
    for protocol in ("transformers", "transformers-corrected"):
        compare(protocol, ONE if stride == 1 else TEXTS, tokenizer_of(adds_bos=adds_bos), stride=stride)
    assert len(stored()) == 1


def test_the_weights_of_the_loop():
    result = compare("transformers", ["a" * 30], tokenizer_of(adds_bos=False), length=8, stride=4)
    table = result.table.set_index("measure")
    assert table["count"].to_dict() == {"perplexity": 23, "perplexity_corrected": 29}


def test_the_loop_itself_gives_nan_for_a_last_window_of_one_token():
    tokenizer = tokenizer_of(adds_bos=False)
    result = compare("transformers", ["abcdefghi" * 9], tokenizer, length=20, stride=20)
    assert result.value is None
    assert [note.partition(":")[0] for note in result.notes] == ["the loop itself gives nan"]
    assert "perplexity n/a over 76 tokens" in result.finding
    assert compare("transformers-corrected", ["abcdefghi" * 9], tokenizer, length=20, stride=20).value > 0
    assert compare("transformers", ["abcdefghi" * 9], tokenizer, length=20, stride=10).notes == []


@pytest.mark.parametrize("protocol", ["lm-eval", "paloma", "levanter"])
def test_tokens_without_bytes(protocol):
    result = compare(protocol, TEXTS, tokenizer_of(Marked, adds_bos=False))
    assert result.tokens_unscored.get("no_bytes", 0) == (5 if protocol == "levanter" else 0)


@pytest.mark.parametrize(("bos", "eos", "prefix"), [(BOS, EOS, BOS), (BOS, None, BOS), (None, EOS, EOS)])
def test_the_prefix_of_lm_eval(bos, eos, prefix):
    tokenizer = tokenizer_of(adds_bos=False, bos=bos, eos=eos)
    compare("lm-eval", ONE, tokenizer)
    run = open_run(stored()[0])
    assert run.query("SELECT token_id FROM tokens ORDER BY token LIMIT 2")["token_id"].tolist() == [
        prefix,
        ord(ONE[0][0]),
    ]


def test_lm_eval_doubles_a_bos_but_not_one_that_the_text_has():
    class Written(ByteTokenizer):
        def encode(self, text):
            tokens = super().encode(text)
            tokens = Tokens(tokens.ids.copy(), tokens.byte_stop, tokens.unknown)
            tokens.ids[tokens.ids == ord("^")] = BOS
            return tokens

    tokenizer = tokenizer_of(Written, adds_bos=True)
    compare("lm-eval", ["abc", "^abc"], tokenizer)
    run, result = score_protocol(
        "lm-eval", checkpoint(SmallModel(), tokenizer=tokenizer), StringSource(["abc", "^abc"])
    )
    ids = run.query("SELECT token_id FROM tokens ORDER BY document, token")["token_id"].tolist()
    assert ids == [BOS, BOS, *b"abc"] * 2
    assert result.tokens_scored == 8


def test_words_of_a_run_without_text():
    _, result = score_protocol("lm-eval", checkpoint(SmallModel()), StringSource(ONE), ScoreOptions(keep_text=False))
    assert result.value is None
    assert result.notes == ["word_perplexity: not given, the run was stored with `keep_text=False`"]
    _, kept = score_protocol("lm-eval", checkpoint(SmallModel()), StringSource(ONE))
    assert kept.table["value"][1:].tolist() == result.table["value"][1:].tolist()
    assert kept.table["count"][0] == len(ONE[0].split())


def test_evaluate_without_bos_and_with_whole_documents():
    tokenizer = tokenizer_of(adds_bos=True)
    short = ["abcdefgh", "café ☃", "x", LETTERS[:63]]
    result = compare("evaluate", short, tokenizer, length=None)
    assert result.table["count"].tolist() == [4, 8 + 9 + 1 + 63]
    never = compare("evaluate", short, tokenizer, length=None, bos="never", peer=peer_of(tokenizer, bos=None))
    assert never.table["count"][0] == 3
    assert never.notes == ["1 document without a scored token left out, which the tool itself cannot score"]
    compare("evaluate", TEXTS, tokenizer, length=9, bos="never", peer=peer_of(tokenizer, bos=None))


def test_no_perplexity_of_fundamentallm_from_20_nats_on():
    def sure(ids):
        logits = torch.zeros((*ids.shape, 257))
        logits[..., 1] = 25.0  # a byte that no text here has
        return logits

    run, result = score_protocol("fundamentallm", checkpoint(sure), StringSource(ONE))
    assert result.table["value"].tolist() == [pytest.approx(25.0, rel=1e-6), math.inf]
    assert measure_protocol(run, "nanogpt").value == result.value


@pytest.mark.parametrize(("size", "scored"), [(48, 24), (49, 48), (50, 48)])
def test_a_block_needs_a_target_after_its_last_token(size, scored):
    result = compare("fundamentallm", [LETTERS[:size]], tokenizer_of(adds_bos=False))
    assert result.tokens_scored == scored


def test_a_validation_text_without_a_full_window_is_refused():
    with pytest.raises(TextError, match="20 tokens, nanogpt needs at least 33 in windows of 33") as caught:
        score_protocol("nanogpt", checkpoint(SmallModel()), StringSource([LETTERS[:20]]))
    assert (caught.value.id, caught.value.exit_code) == ("protocol.too_short", 4)


def test_one_stream_of_documents():
    class Placed(StringSource):
        def documents(self):
            yield from (Document(text, "a.jsonl", 3, 5, '{"x": 1}') for text in self.texts)

    def joined(texts):
        return list(JoinedSource(Placed(texts)).documents())

    assert joined([]) == []
    assert joined(["ab"]) == [Document("ab", "a.jsonl", 3, 5, '{"x": 1}')]
    assert joined(["ab", "", "c\n"]) == [Document("ab\n\n\n\nc\n", "a.jsonl", 3, -1, None)]
    (stripped,) = JoinedSource(Placed(["ab\n", "c\n\n"]), strip_newline=True).documents()
    assert stripped.text == "ab\n\n\nc\n", "one line end"
    (alone,) = JoinedSource(Placed(["c\n"]), strip_newline=True).documents()
    assert alone == Document("c", "a.jsonl", 3, 5, '{"x": 1}')
    source = Placed(["ab", "c"], "name", ["notice"])
    assert (JoinedSource(source).name, JoinedSource(source).notices) == ("name", source.notices)


@pytest.mark.parametrize(
    ("texts", "adds_bos", "eos", "passes"),
    [
        # lossprobe, lm-eval, paloma, the loop and GPTQ, llama.cpp, levanter, the two validation losses, LLaMA-Factory
        # and TRL: evaluate and the Trainer refuse
        (TEXTS, True, EOS, 9),
        (ONE, False, BOS, 7),  # lm-eval and paloma: the same prefix; the validation losses: lossprobe's own windows
        (ONE, True, None, 7),  # paloma refuses, and TRL, without an EOS to append, sees what LLaMA-Factory does
    ],
)
def test_plans_that_coincide_share_a_pass(texts, adds_bos, eos, passes, monkeypatch):
    calls = []
    model = checkpoint(SmallModel(), tokenizer=ByteTokenizer(adds_bos=adds_bos))
    model.tokenizer.eos_id = eos
    monkeypatch.setattr(model, "hidden", lambda ids, hidden=model.hidden: calls.append(ids.shape) or hidden(ids))
    _, table = score_all_protocols(model, StringSource(texts))
    assert len(stored()) == passes
    assert len(calls) >= passes
    if eos == EOS:
        calls.clear()
        again = score_all_protocols(model, StringSource(texts))[1]
        assert calls == [], "everything is stored"
        assert again.table.equals(table.table)


def test_the_table_of_all():
    tokenizer = ByteTokenizer()
    model = checkpoint(SmallModel(), tokenizer=tokenizer, context_length=24)
    run, result = score_all_protocols(model, StringSource(TEXTS), ScoreOptions(stride=24))
    table = result.table.set_index("protocol")
    assert table.index.tolist() == ["lossprobe", *PROTOCOLS]
    own = score(model, StringSource(TEXTS), ScoreOptions(stride=24))
    assert (own.reused, own.run.path) == (True, run.path)
    losses = run.query("SELECT loss_nats::DOUBLE AS loss FROM tokens WHERE unscored IS NULL")["loss"]
    first = table.loc["lossprobe"]
    assert first["nats_per_token"] == pytest.approx(losses.mean(), rel=1e-12)
    assert first["value"] == pytest.approx(math.exp(losses.mean()), rel=1e-12)
    assert (first["tokens_scored"], first["tokens_unscored"], first["difference_nats"]) == (len(losses), 5, 0.0)
    for protocol in PROTOCOLS:
        row = table.loc[protocol]
        if protocol in ("paloma", "evaluate", "trainer"):
            assert row["why"].startswith("no number: "), protocol
            assert row.drop(["headline", "why"]).isna().all()
            continue
        length = 24
        said = SAYING[protocol](peer_of(tokenizer), TEXTS, length, 24 if "transformers" in protocol else None)
        assert row["value"] == pytest.approx(said.rows[row["headline"]][0], rel=1e-6)
        assert row["nats_per_token"] == pytest.approx(said.mean, rel=1e-6)
        assert row["difference_nats"] == pytest.approx(said.mean - losses.mean(), abs=2e-6)
        assert (row["tokens_scored"], row["tokens_unscored"]) == (len(said.tokens), said.read - len(said.tokens))
        assert row["mean_context"] == pytest.approx(np.mean([seen for _, seen in said.tokens]), rel=1e-12)
        assert row["why"] == PROTOCOLS[protocol].why
    assert "puts an EOS before each document, and the tokenizer of callable has none" in table.loc["paloma", "why"]
    assert "tokens, one window holds at most 24" in table.loc["evaluate", "why"]
    known = table["nats_per_token"].dropna()
    for name in (known.idxmin(), known.idxmax()):
        assert f"{math.exp(known[name]):,.4f} ({name})" in result.finding
    assert [each.protocol for each in result.results] == [name for name in known.index if name != "lossprobe"]


def test_notes_of_all_name_their_protocol():
    model = checkpoint(SmallModel(), tokenizer=ByteTokenizer(adds_bos=False), context_length=16)
    result = score_all_protocols(model, StringSource(["abcdefghijk" * 3]), ScoreOptions(stride=16))[1]
    assert result.notes[0].startswith("transformers: the loop itself gives nan")
    row = result.table.set_index("protocol").loc["transformers"]
    assert math.isnan(row["value"])
    assert row["nats_per_token"] > 0
