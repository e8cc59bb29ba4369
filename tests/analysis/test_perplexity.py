"""The headline numbers: one sum, seen per token, word, byte and character, with intervals and groups."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_runs import BOS, LN2, Doc, words

from lossprobe.analysis.concentration import EXCESS
from lossprobe.analysis.perplexity import cluster_totals, find_clusters, measure_perplexity
from lossprobe.analysis.rows.clusters import BLOCK_TOKENS
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.unigram import measure_unigram
from lossprobe.errors import UsageError
from lossprobe.report.views.perplexity import perplexity_view

CLOSE = 1e-7  # relative: losses are stored as float32


def bytes_document(size: int, bits: float = 8.0) -> Doc:
    return Doc([BOS, *[bytes([97 + index % 5]) for index in range(size)]], ["special", *[bits] * size])


def test_uniform_over_256_bytes_is_8_bits_per_byte(make_run):  # science oracles 1 and 18
    result = measure_perplexity(make_run([bytes_document(10), bytes_document(30)], vocab_size=256))
    assert result.per_byte.bits_per_byte == pytest.approx(8.0, rel=CLOSE)
    assert result.per_token.token_perplexity == pytest.approx(
        256.0, rel=CLOSE * 6
    )  # exp multiplies the error by log 256
    assert result.per_token.nll_nats_per_token == pytest.approx(result.uniform_nats, rel=CLOSE)
    assert result.per_token.nll_nats_per_token_interval == pytest.approx(
        [result.per_token.nll_nats_per_token] * 2, rel=CLOSE
    )


def test_regrouping_bytes_into_tokens_keeps_the_total(make_run):  # science oracle 18
    single = make_run([Doc([b"a", b"b", b"c", b"d", b"\n"], ["first_token", 1, 2, 3, 4])])
    grouped = make_run([Doc([b"a", b"bc", b"d\n"], ["first_token", 3, 7])])
    for run in (single, grouped):
        result = measure_perplexity(run)
        assert result.per_byte.bits_per_byte == pytest.approx(10 / 4, rel=CLOSE)  # 10 bits over the 4 scored bytes
        assert result.per_byte.byte_perplexity == pytest.approx(2**2.5, rel=CLOSE * 3)


def test_a_unigram_model_on_its_own_text_scores_its_entropy(make_run):  # science oracle 17
    # Scored: a a a a b b c d, frequencies 1/2, 1/4, 1/8, 1/8: losses 1, 2, 3, 3 bits, entropy 1.75 bits.
    tokens = {b"a": 1, b"b": 2, b"c": 3, b"d": 3}
    pieces = [b"a", *b"aabacbda".replace(b"", b" ").split()]
    run = make_run([Doc(pieces, ["first_token", *[tokens[piece] for piece in pieces[1:]]])])
    result = measure_perplexity(run)
    assert measure_unigram(run).nats == pytest.approx(1.75 * LN2, rel=1e-14)
    assert result.per_token.nll_nats_per_token == pytest.approx(result.unigram_nats, rel=CLOSE)


def test_two_texts_together_are_their_weighted_mean(make_run):  # science oracle 23
    one, two = [words("first_token", 1, 3)], [words("first_token", 5), words("first_token", 2, 2, 4)]
    parts = [measure_perplexity(make_run(docs)) for docs in (one, two)]
    both = measure_perplexity(make_run(one + two))
    # (1 + 3) + (5 + 2 + 2 + 4) = 17 bits over 2 + 4 tokens
    assert both.per_token.nll_nats_per_token == pytest.approx(17 / 6 * LN2, rel=CLOSE)
    assert both.per_token.tokens_scored == sum(part.per_token.tokens_scored for part in parts)
    geometric = math.prod(part.per_token.token_perplexity ** (part.per_token.tokens_scored / 6) for part in parts)
    assert both.per_token.token_perplexity == pytest.approx(geometric, rel=1e-12)


@pytest.fixture
def mixed(make_run):
    """Three documents whose words, bytes and characters differ; 漢 takes three bytes in two tokens."""
    kanji = "漢".encode()
    return make_run(
        [
            Doc([BOS, b"ab ", kanji[:1], kanji[1:], b" c"], ["special", 1, 2, 3, 4]),
            Doc([b"one", b" two", b" three"], ["first_token", 2, "unknown"]),
            Doc([b"x", b"y", b"\n"], ["first_token", 5, 1]),
        ]
    )


def test_every_measure_is_the_total_over_its_own_count(mixed):
    result = measure_perplexity(mixed)
    # Scored by document: 10, 2 and 6 bits; 4, 1, 2 tokens; 8, 4, 2 bytes; 6, 4, 2 characters; 3, 1, 0 words.
    sizes = {"tokens": [4, 1, 2], "bytes": [8, 4, 2], "characters": [6, 4, 2], "words": [3, 1, 0]}
    nats = np.array([10, 2, 6]) * LN2
    wanted = {name: jackknife_ratio(nats, size) for name, size in sizes.items()}
    measures = (
        (result.per_token.nll_nats_per_token, result.per_token.nll_nats_per_token_interval, "tokens", float),
        (result.per_token.token_perplexity, result.per_token.token_perplexity_interval, "tokens", math.exp),
        (result.per_word.word_perplexity, result.per_word.word_perplexity_interval, "words", math.exp),
        (result.per_byte.byte_perplexity, result.per_byte.byte_perplexity_interval, "bytes", math.exp),
        (result.per_byte.bits_per_byte, result.per_byte.bits_per_byte_interval, "bytes", lambda value: value / LN2),
        (
            result.per_character.bits_per_char,
            result.per_character.bits_per_char_interval,
            "characters",
            lambda value: value / LN2,
        ),
    )
    rows = result.table.to_dict("records")
    for (value, ends, name, transform), row in zip(measures, rows, strict=True):
        found = wanted[name]
        assert value == pytest.approx(transform(found.value), rel=1e-6)
        assert ends == pytest.approx([transform(found.interval.low), transform(found.interval.high)], rel=1e-5)
        assert (row["value"], row["low"], row["high"], row["count"]) == (value, *ends, sum(sizes[name]))
    assert [row["measure"] for row in rows[:2]] == ["nll", "token_perplexity"]


def test_the_parts_add_up_to_what_was_read(mixed):
    coverage = measure_perplexity(mixed).coverage
    assert coverage["tokens_unscored"] == {"special": 1, "first_token": 2, "unknown": 1}
    assert coverage["tokens_scored"] + sum(coverage["tokens_unscored"].values()) == coverage["tokens_read"] == 11
    assert coverage["bytes_unscored"] == {"special": 0, "first_token": 3 + 1, "unknown": 6}
    assert coverage["bytes_scored"] + sum(coverage["bytes_unscored"].values()) == coverage["bytes_read"] == 24


def test_unscored_tokens_are_in_no_denominator(make_run):
    plain = measure_perplexity(make_run([words("first_token", 1, 3), words("first_token", 2)]))
    padded = measure_perplexity(
        make_run([words("first_token", 1, "masked", 3, "special"), words("first_token", "unknown", 2)])
    )
    assert padded.table.equals(plain.table)


def test_guessed_spans_have_no_bits_per_byte(make_run):
    result = measure_perplexity(make_run([words("first_token", 1, 3), words("first_token", 2)], tiles=False))
    assert (result.per_byte.bits_per_byte, result.per_byte.byte_perplexity, result.per_character.bits_per_char) == (
        None,
        None,
        None,
    )
    assert result.per_byte.bits_per_byte_interval == (None, None)
    assert "refused, the tokenizer's offsets do not tile the text" in result.notes[-1]
    assert result.per_word.word_perplexity is not None
    assert result.table.set_index("measure")["value"].isna().sum() == 3
    assert (
        measure_perplexity(make_run([words("first_token", 1)], tiles=False), "document")
        .groups["bits_per_byte"]
        .isna()
        .all()
    )


def test_one_short_document_has_numbers_but_no_interval(make_run):
    result = measure_perplexity(make_run([words("first_token", 1, 3)]))
    assert result.per_token.token_perplexity == pytest.approx(4.0, rel=CLOSE)
    assert result.per_token.token_perplexity_interval == (None, None)
    assert result.notes == ["one document of fewer than 8,192 tokens: no interval can be given"]
    assert result.finding == "token perplexity 4.0000 over 2 tokens"  # two tokens fit their own frequencies


def test_the_unigram_is_compared_from_five_tokens_of_each_kind(make_run):
    # a and b in turn: an entropy of log 2, the model's loss is 1 bit more.
    for tokens, compared in ((10, True), (8, False)):
        doc = Doc([b"a", *[b"a", b"b"] * (tokens // 2)], ["first_token", *[2] * tokens])
        result = measure_perplexity(make_run([doc]))
        assert ("0.693 nats a token worse than the text's own unigram" in result.finding) is compared
        assert result.unigram_comparable is compared


@pytest.mark.parametrize("keep_text", [True, False])
def test_blocks_of_one_document_share_its_words_and_characters(make_run, keep_text):
    size = 3 * BLOCK_TOKENS
    pieces = [b"a", *[b"b", " é".encode()] * (size // 2)][:size]
    bits = ["first_token", *[1.0 + index // BLOCK_TOKENS for index in range(1, size)]]
    run = make_run([Doc(pieces, bits)], keep_text=keep_text)
    totals = cluster_totals(run, find_clusters(run))
    # Block 0 lacks the unscored "a": 4,095 tokens. "b" has 1 byte, " é" has 3 bytes, 2 characters and starts a word.
    assert totals["tokens"].tolist() == [4095, 4096, 4096]
    assert totals["bytes"].tolist() == [2048 + 3 * 2047, 2048 * 4, 2048 * 4]
    if keep_text:
        assert totals["characters"].tolist() == [2048 + 2 * 2047, 2048 * 3, 2048 * 3]
        assert totals["words"].tolist() == [2047, 2048, 2048]
    else:  # shared out by bytes
        assert totals["words"].tolist() == pytest.approx((totals["bytes"] / totals["bytes"].sum() * 6143).tolist())
    assert totals["words"].sum() == pytest.approx(6143, rel=1e-12)
    result = measure_perplexity(run)
    assert (result.interval_unit, result.per_token.nll_nats_per_token_interval[0] is not None) == ("block", True)


def test_groups_by_document(mixed):
    groups = measure_perplexity(mixed, "document").groups
    # Bits per token 2.5, 2 and 3: hardest first.
    assert groups["group"].tolist() == [2, 0, 1]
    assert groups["tokens"].tolist() == [2, 4, 1]
    assert groups["documents"].tolist() == [1, 1, 1]
    assert groups["perplexity"].tolist() == pytest.approx([8.0, 2**2.5, 4.0], rel=1e-6)
    assert groups["bits_per_byte"].tolist() == pytest.approx([3.0, 1.25, 0.5], rel=CLOSE)
    assert groups[["low", "high"]].isna().all().all()


@pytest.mark.parametrize("name", ["lang", "x.y", 'a"b', "it's", "a/b~c", "w\\q", "*", "", "$", "é", "0"])
def test_groups_by_a_field_whatever_its_name(make_run, name):
    docs = [
        words("first_token", 1, 3, fields={name: "en", "other": 1}),
        words("first_token", 2, fields={name: "en"}),
        words("first_token", 6, fields={name: 7}),
        words("first_token", 5, fields={"other": 2}),
        words("first_token", 4, fields={name: None}),
    ]
    groups = measure_perplexity(make_run(docs), name).groups
    # Missing and null are one group: 5 and 4 bits. Groups of two documents have intervals.
    assert groups["group"].tolist() == ["7", "", "en"]
    assert groups["documents"].tolist() == [1, 2, 2]
    assert groups["tokens"].tolist() == [1, 2, 3]
    assert groups["mean_loss_nats"].tolist() == pytest.approx([6 * LN2, 4.5 * LN2, 2 * LN2], rel=CLOSE)
    assert groups["low"].isna().tolist() == [True, False, False]


@pytest.mark.parametrize("name", ["nope", "') OR TRUE --", "$.lang", "/lang", "lang'"])
def test_an_unknown_field_is_refused(make_run, name):
    run = make_run([words("first_token", 1, fields={"lang": "en"}), words("first_token", 1)])
    with pytest.raises(UsageError) as caught:
        measure_perplexity(run, name)
    assert (caught.value.id, caught.value.exit_code) == ("fields.missing", 2)


def ordinary(count=30, tokens=40, bits=3.0):
    return [
        words("first_token", *[bits] * tokens, pieces=[b"%02d" % number, *[b"a"] * tokens]) for number in range(count)
    ]


def test_a_document_that_carries_the_loss_is_said(make_run):
    docs = ordinary()
    docs[7] = replace(docs[7], bits=["first_token", *[100] * 40], line=8)
    result = measure_perplexity(make_run(docs))
    # 4,000 of 4,000 + 29 · 120 bits, with 1 of 30 documents; the others have 3 bits a token.
    assert result.finding.endswith(
        "; document 7 (line 8 of fake.txt) carries 53.5% of the loss with 3.3% of the tokens: "
        f"{3 * LN2:.3f} nats a token without it"
    )
    assert result.concentration.share_of_loss == pytest.approx(4000 / 7480)


def test_copies_of_a_document_that_together_carry_the_loss_are_said(make_run):
    """Five of eight documents are one text: each has 13 % of the loss, the text 66 % with 20 % of the tokens."""
    hard = Doc([b"x", *[b"b"] * 4], ["first_token", *[20] * 4])
    others = [words("first_token", *[3] * 27, pieces=[b"%d" % number, *[b"a"] * 27]) for number in range(3)]
    finding = measure_perplexity(make_run([hard, *others, *[hard] * 4], copies=True)).finding
    carried = 5 * 80 / (5 * 80 + 3 * 81)
    assert f"document 0 (line 1 of fake.txt, there 5 times) carries {carried:.1%} of the loss with 19.8% of" in finding


def test_no_model_is_called_worse_than_frequencies_that_fit_their_own_text(make_run):
    """Texts of Zipf's law: their own entropy is 0.17 nats below the language's, so that its best model seems worse."""
    p = 1 / (np.arange(500) + 2.7)
    p /= p.sum()
    drawn = np.random.default_rng(0).choice(500, 2600, p=p)
    pieces = [b"%03d" % index for index in range(500)]
    unigram = [Doc([b"#", *[pieces[i] for i in drawn]], ["first_token", *(-np.log2(p[drawn])).tolist()])]
    worse = [Doc(unigram[0].pieces, ["first_token", *(1 - np.log2(p[drawn])).tolist()])]
    found = measure_perplexity(make_run(unigram))
    assert found.per_token.nll_nats_per_token > found.unigram_nats + 0.05
    assert not found.unigram_comparable
    assert "unigram" not in found.finding
    assert "worse than the text's own unigram" in measure_perplexity(make_run(worse)).finding


def test_a_token_that_carries_the_loss_is_said(make_run):
    docs = ordinary(3)
    docs[1] = replace(docs[1], bits=["first_token", *[3] * 39, 200])
    assert "; one token (document 1, token 40) carries 35.9% of the loss" in measure_perplexity(make_run(docs)).finding


def test_a_hundredth_of_the_documents_that_carries_the_loss_is_said(make_run):
    docs = ordinary(300, 4)
    for number in (5, 6, 7):
        docs[number] = replace(docs[number], bits=["first_token", *[150] * 4])
    finding = measure_perplexity(make_run(docs)).finding
    assert "; 3 documents of 300 carry 33.6% of the loss with 1.0% of the tokens" in finding
    assert finding.endswith(f"{3 * LN2:.3f} nats a token without them")


def test_nothing_is_said_of_texts_where_losses_vary_as_they_do():
    """Of 500 texts: documents of log-normal sizes and means, tokens with exponential losses about them."""
    rng = np.random.default_rng(0)
    said = 0
    for _ in range(500):
        sizes = 1 + rng.multinomial(rng.integers(100, 3000), rng.dirichlet(np.ones(rng.integers(2, 200)) * 2))
        losses = rng.exponential(np.repeat(3 * rng.lognormal(0, 0.3, len(sizes)), sizes))
        document = np.repeat(np.arange(len(sizes)), sizes)
        excess = np.bincount(document, losses) / losses.sum() - sizes / sizes.sum()
        most = np.sort(excess)[::-1][: max(1, len(sizes) // 100)].sum()
        said += max(most, losses.max() / losses.sum() - 1 / len(losses)) > EXCESS
    assert said <= 5


def test_one_kind_of_token_has_an_entropy_of_zero_without_a_sign(make_run):
    run = make_run([Doc([b"#", b"a"], ["first_token", 1.0])])
    assert math.copysign(1.0, measure_unigram(run).nats) == 1.0
    lines = perplexity_view(run, measure_perplexity(run)).lines
    assert "unigram 0.000000 nats" in lines[0]
    assert "first_token 1 (1 byte);" in lines[1]
