"""What the headline numbers and the coverage of a run say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import percent, share_of, with_interval
from lossprobe.units import format_count, plural

if TYPE_CHECKING:
    from lossprobe.analysis.perplexity import Perplexity

COMMAND = "lossprobe perplexity RUN"
NEAR_UNIFORM, UNIGRAM_NATS, ONE_PLACE = 0.9, 0.1, 0.2
UNKNOWN, TRUNCATED, FIRST_TOKENS, NORMALISED, VANISHED, CONTROL, SKIPPED, REPEATED = (
    0.001, 0.01, 0.05, 0.001, 0.0001, 0.001, 0.01, 0.05,
)  # fmt: skip
FEWEST_DOCUMENTS = 10
REWRITES = "the tokenizer drops or rewrites {share} of the bytes ({count})"


def _uniform(result: Perplexity) -> Iterator[Clue]:
    token, level = result.per_token, result.uniform_nats
    if level <= 0:
        return
    value, interval = token.nll_nats_per_token / level, token.nll_nats_per_token_interval.map(lambda end: end / level)
    yield Clue(
        value,
        f"the loss is {with_interval(value, interval, '.2f', '')} of ln V ({level:.2f} nats): "
        f"{'worse than' if value > 1 else 'hardly better than'} a model that knows nothing",
        interval, result.clusters, tokens=token.tokens_scored, share_of_loss=1.0,
    )  # fmt: skip


def _unigram(result: Perplexity) -> Iterator[Clue]:
    if not result.unigram_comparable:
        return
    token, level = result.per_token, result.unigram_nats
    value, interval = token.nll_nats_per_token - level, token.nll_nats_per_token_interval.map(lambda end: end - level)
    yield Clue(
        value, f"the model is {with_interval(value, interval)} a token worse than the text's own token frequencies",
        interval, result.clusters, tokens=token.tokens_scored, share_of_loss=share_of(value, token.nll_nats_per_token),
    )  # fmt: skip


def _one_place(result: Perplexity) -> Iterator[Clue]:
    found = result.concentration
    if found is not None:
        yield Clue(found.share_of_loss - found.share_of_tokens, found.finding, counted=True,
                   tokens=result.per_token.tokens_scored, share_of_loss=found.share_of_loss,
                   command="lossprobe hardest RUN" if found.documents is None else None)  # fmt: skip


def _repeated(result: Perplexity) -> Iterator[Clue]:
    documents, distinct = result.scored_documents, result.distinct_documents
    if documents >= FEWEST_DOCUMENTS:
        share = (documents - distinct) / documents
        yield Clue(share, f"{percent(share)} of {plural(documents, 'document')} are copies of others: "
                   f"{format_count(distinct)} different ones", counted=True,
                   tokens=result.per_token.tokens_scored)  # fmt: skip


def _skipped(result: Perplexity) -> Iterator[Clue]:
    skipped = result.coverage["records_skipped"]
    share = share_of(skipped, skipped + result.coverage["records_read"])
    yield Clue(share, f"{percent(share)} of the records could not be read and were left out ({format_count(skipped)})",
               counted=True, tokens=result.per_token.tokens_scored)  # fmt: skip


def _unscored(reason: str, sentence: str) -> Callable[[Perplexity], Iterator[Clue]]:
    """Return what counts the tokens that are unscored for a reason, as a share of those read."""

    def look(result: Perplexity) -> Iterator[Clue]:
        count = result.coverage["tokens_unscored"].get(reason, 0)
        share = share_of(count, result.coverage["tokens_read"])
        yield Clue(share, sentence.format(share=percent(share), count=format_count(count)), counted=True,
                   tokens=result.per_token.tokens_scored)  # fmt: skip

    return look


def _counted(key: str, of: str, sentence: str, but: str | None = None) -> Callable[[Perplexity], Iterator[Clue]]:
    """Return what takes one number of the coverage, less the part of it that `but` names, as a share of another."""

    def look(result: Perplexity) -> Iterator[Clue]:
        count = result.coverage[key] - (0 if but is None else result.coverage[but])
        share = share_of(count, result.coverage[of])
        yield Clue(share, sentence.format(share=percent(share), count=format_count(count)), counted=True,
                   tokens=result.per_token.tokens_scored)  # fmt: skip

    return look


PERPLEXITY_RULES = (
    FindingRule(
        "near-uniform", "fault", "perplexity", "the model knows hardly more than a uniform guess", NEAR_UNIFORM,
        "ln V", "mean loss over ln V, V being the width of the logits",
        "After the first steps of training any model is below half of ln V on text that it can read.",
        "The tokenizer is not the model's, the weights are untrained or damaged, or the text is no text. Check the "
        "tokenizer files first.",
        COMMAND, _uniform,
    ),
    FindingRule(
        "worse-than-unigram", "fault", "perplexity", "the model is worse than the text's own token frequencies",
        UNIGRAM_NATS, "nats", "mean loss minus the entropy of the text's own token frequencies; told with five "
        "tokens or "
        "more of each kind",
        "A model that reads its context is 1 to 4 nats better than frequencies; 0.1 above them is no chance.",
        "Another tokenizer, a missing BOS, another language than that of training, or a checkpoint that went wrong.",
        COMMAND, _unigram,
    ),
    FindingRule(
        "unknown-tokens", "fault", "perplexity", "tokens are outside the vocabulary", UNKNOWN, "share of tokens",
        "tokens without a loss because the tokenizer does not know them, of all tokens read",
        "Byte-level tokenizers have none; one in a thousand shows text that the model cannot see.",
        "Take the tokenizer that belongs to the model, or leave such text out.",
        COMMAND, _unscored("unknown", "{share} of the tokens ({count}) are unknown to the tokenizer"),
    ),
    FindingRule(
        "bytes-vanished", "warning", "perplexity", "the tokenizer drops bytes of the text", VANISHED, "share of bytes",
        "bytes that have no token at all, of all bytes read",
        "Of plain text nothing is dropped; one byte in ten thousand is a character a page.",
        "Numbers per byte do not hold: compare models of this tokenizer by the token.",
        COMMAND, _counted("bytes_vanished", "bytes_read", "{share} of the bytes ({count}) have no token"),
    ),
    FindingRule(
        "bytes-normalised", "warning", "perplexity", "the tokenizer drops or rewrites text", NORMALISED,
        "share of bytes",
        "bytes that the tokenizer dropped, such as white space, or replaced by others, of all bytes read; without "
        "those that have no token at all",
        "One in a thousand: the model is asked about another text than the file's.",
        "Bits per byte of models with other tokenizers are not comparable; look at its normaliser.",
        COMMAND, _counted("bytes_normalized", "bytes_read", REWRITES, but="bytes_vanished"),
    ),
    FindingRule(
        "control-strings", "warning", "perplexity", "the text holds names of control tokens", CONTROL,
        "share of tokens", "tokens that are control ids because the text spells their names, of all tokens read",
        "Text of users has none; one in a thousand is a template that was rendered twice, or text about models.",
        "Read special strings as plain text, or take them out: a user's text must not end a turn.",
        COMMAND, _counted("special_strings", "tokens_read",
                          "{share} of the tokens ({count}) are control ids spelled in the text"),
    ),
    FindingRule(
        "truncated", "warning", "perplexity", "text is cut off by the context", TRUNCATED, "share of tokens",
        "tokens beyond the one window that a row has, of all tokens read",
        "One in a hundred: the loss is of one end of the texts.",
        "A larger context, or windows that go on (rolling).",
        COMMAND, _unscored("truncated", "{share} of the tokens ({count}) are cut off by the context"),
    ),
    FindingRule(
        "records-skipped", "warning", "perplexity", "records could not be read", SKIPPED, "share of records",
        "records that were left out as bad, of all records",
        "One in a hundred is more than an accident of a file.",
        "Repair the file; the loss is of what is left.",
        COMMAND, _skipped,
    ),
    FindingRule(
        "repeated-documents", "warning", "perplexity", "documents are copies of others", REPEATED,
        "share of documents", f"documents with the text of an earlier one, of all, in texts of "
        f"{FEWEST_DOCUMENTS} or more",
        "One in twenty moves means, and leaks between train and test sets.",
        "Remove copies; intervals count them once already.",
        COMMAND, _repeated,
    ),
    FindingRule(
        "loss-in-one-place", "warning", "perplexity", "a token, a document or 1 % of the documents carries the loss",
        ONE_PLACE, "share of the loss",
        "its share of the loss minus its share of the tokens",
        "Above 0.2 the loss of the rest is more than a fifth lower, and the mean says little of it.",
        "Look at it, and judge without it.",
        "lossprobe hardest --by document RUN", _one_place,
    ),
    FindingRule(
        "first-tokens-unscored", "note", "perplexity", "many tokens are the first of a document and have no loss",
        FIRST_TOKENS, "share of tokens", "tokens without a loss because nothing stands before them, of all tokens read",
        "One in twenty: documents of under 20 tokens without a BOS.",
        "With a BOS before each document its first token is scored too, if the model was trained with one.",
        COMMAND, _unscored("first_token", "{share} of the tokens ({count}) open a document and have no loss"),
    ),
)  # fmt: skip
