"""What the comparison of two models says beyond which one is better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import between, percent, share_of, signed, with_interval
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.units import format_count, plural, visible

if TYPE_CHECKING:
    from lossprobe.analysis.compare.byte_comparison import ByteComparison
    from lossprobe.analysis.compare.compare import Comparison

ONE_PERCENT, SLICE_NATS, FEW_TOKENS, CARRIED, FORGOTTEN, ACCURACY, KL_NATS = (
    0.00995,
    0.05,
    0.01,
    0.5,
    0.005,
    0.002,
    0.05,
)
ONE_PERCENT_BITS, FILE_BITS = 0.0036, 0.018  # a byte: `ONE_PERCENT` and `SLICE_NATS` on a token of four bytes
PER_BYTE = " bits per byte"
FEWEST_PAIRED = 1000  # tokens for the share that 1 % of them carry
NOISE_NATS = 0.001  # standard deviation of what other kernels and orders of summation change
COMMAND, FILES_COMMAND = "lossprobe compare RUN RUN", "lossprobe compare --wide RUN RUN"


def _whole(result: Comparison, sentence: str) -> Iterator[Clue]:
    found = result.token_comparison
    if found is None or found.difference.mean_difference_nats is None:
        return
    value, interval = found.difference.mean_difference_nats, found.difference.mean_difference_nats_interval
    shown = with_interval(value, interval, "+.4f")
    yield Clue(value, sentence.format(second=found.second, first=found.first, x=shown), interval, found.clusters,
               tokens=found.counts.tokens)  # fmt: skip


def _worse(result: Comparison) -> Iterator[Clue]:
    return _whole(result, "{second} is worse than {first}: {x} a token")


def _better(result: Comparison) -> Iterator[Clue]:
    return _whole(result, "{second} is better than {first}: {x} a token")


def _turned(whole: Interval) -> tuple[float, str, str] | None:
    """Return a sign that makes a change against the whole positive, and the words of both; None without a direction."""
    low, high = whole
    if low is None or high is None or low <= 0.0 <= high:
        return None
    return (-1.0, "better", "worse") if low > 0.0 else (1.0, "worse", "better")


def _against(result: Comparison) -> Iterator[Clue]:
    """Yield slices that change against the whole, as far as that is shown at 95 %."""
    found, changes = result.token_comparison, result.changes
    if found is None or changes is None or changes.by == "token":
        return
    turned = _turned(found.difference.mean_difference_nats_interval)
    if turned is None:
        return
    sign, here, whole = turned
    rows = changes.table.to_dict("records")
    for row in rows:
        value, interval = sign * row["mean_difference_nats"], signed(between(row["low"], row["high"]), sign)
        shown = with_interval(value, interval)
        yield Clue(
            value,
            f"{found.second} is {here} by {shown} on “{visible(str(row['group']), 40)}”, "
            f"{percent(share_of(row['tokens'], changes.tokens))} of the tokens, while {whole} as a whole",
            interval, int(row["clusters"]), about=str(row["group"]), looks=changes.groups or len(rows),
            tokens=int(row["tokens"]),
        )  # fmt: skip


def _by_bytes(result: Comparison, sentence: str) -> Iterator[Clue]:
    """Yield the difference of models of other tokenizers."""
    found = result.byte_comparison
    if found is None:
        return
    value = found.difference.difference_bits_per_byte
    interval = found.difference.difference_bits_per_byte_interval
    shown = with_interval(value, interval, "+.4f", PER_BYTE)
    yield Clue(value, sentence.format(second=found.second, first=found.first, x=shown), interval, found.clusters,
               tokens=_byte_tokens(found, found.counts.bytes_compared))  # fmt: skip


def _byte_tokens(found: ByteComparison, size: int) -> int:
    """Return about how many tokens so many bytes are, of the tokenizer that has fewer."""
    return round(size / max(found.difference.first_bytes_per_token, found.difference.second_bytes_per_token))


def _worse_by_bytes(result: Comparison) -> Iterator[Clue]:
    return _by_bytes(result, "{second} is worse than {first}: {x}")


def _better_by_bytes(result: Comparison) -> Iterator[Clue]:
    return _by_bytes(result, "{second} is better than {first}: {x}")


def _files(result: Comparison) -> Iterator[Clue]:
    """Yield files that change against the whole, in models of other tokenizers."""
    found = result.byte_comparison
    turned = None if found is None else _turned(found.difference.difference_bits_per_byte_interval)
    if found is None or turned is None:
        return
    sign, here, whole = turned
    rows = found.by_file.to_dict("records")
    for row in rows:
        value, interval = sign * row["difference_bits_per_byte"], signed(between(row["low"], row["high"]), sign)
        yield Clue(
            value,
            f"{found.second} is {here} by {with_interval(value, interval, '.3f', PER_BYTE)} on file "
            f"{visible(str(row['file']), 80)}, {percent(row['share_of_bytes'])} of the bytes, while {whole} as a whole",
            interval, int(row["clusters"]), about=str(row["file"]), looks=len(rows),
            tokens=_byte_tokens(found, row["bytes"]),
        )  # fmt: skip


def _few(result: Comparison) -> Iterator[Clue]:
    found = result.token_comparison
    if found is None or found.identical or found.counts.tokens < FEWEST_PAIRED:
        return
    if (found.difference.sd_difference_nats or 0.0) < NOISE_NATS:
        return
    for row in found.cumulative.to_dict("records"):
        if abs(row["share_of_tokens"] - FEW_TOKENS) < 1e-9:
            share = row["share_of_change"]
            yield Clue(share, f"{percent(FEW_TOKENS)} of the tokens carry {percent(share)} of all change between "
                       f"{found.first} and {found.second}", counted=True, tokens=found.counts.tokens)  # fmt: skip


def _forgotten(result: Comparison) -> Iterator[Clue]:
    """Yield how many more tokens were forgotten than learned, of all.

    Models that know the same forget and learn by chance: of N tokens f and l, whose difference has the standard error
    √(f + l − (f − l)² / N), times the root of the design effect of the mean difference.
    """
    found = result.token_comparison
    from lossprobe.analysis.stats.jackknife import t_quantile  # not for `explain`: it loads scipy

    if found is None or not found.counts.tokens:
        return
    counts, moved = found.counts, found.counts.forgotten + found.counts.learned
    value = (counts.forgotten - counts.learned) / counts.tokens
    interval = NO_INTERVAL
    if found.clusters > 1:
        spread = max(0.0, moved / counts.tokens - value**2) / counts.tokens
        spread *= max(1.0, found.evidence.design_effect or 1.0)
        half = float(t_quantile(found.clusters)) * math.sqrt(spread)
        interval = Interval(value - half, value + half)
    shown = with_interval(100 * value, interval.map(lambda end: 100 * end), ".2f", " %")
    yield Clue(
        value,
        f"{found.second} forgot {plural(counts.forgotten, 'token')} that {found.first} knew (from under 1 nat to over "
        f"3) and learned {format_count(counts.learned)}: {shown} of the tokens are lost",
        interval, found.clusters, tokens=counts.tokens,
    )  # fmt: skip


def _accuracy(result: Comparison) -> Iterator[Clue]:
    found = result.token_comparison
    if found is None or found.difference.accuracy_difference is None:
        return
    low, high = found.difference.mean_difference_nats_interval
    if low is None or high is None or low <= 0.0 <= high:
        return
    sign = 1.0 if low > 0.0 else -1.0  # a higher loss with a higher accuracy, or both lower
    value = found.difference.accuracy_difference
    interval = signed(found.difference.accuracy_difference_interval, sign)
    if interval.low is None:
        return
    shown = with_interval(100 * sign * value, interval.map(lambda end: 100 * end), ".2f", " %")
    words = ("higher", "more") if sign > 0 else ("lower", "fewer")
    yield Clue(
        sign * value, f"{found.second} has a {words[0]} loss and {shown} {words[1]} right first choices", interval,
        found.clusters, tokens=found.counts.tokens,
    )  # fmt: skip


def _other(result: Comparison) -> Iterator[Clue]:
    found, apart = result.token_comparison, result.divergence
    if found is None or apart is None or found.difference.mean_difference_nats is None:
        return
    low, high = found.difference.mean_difference_nats_interval
    if low is None or high is None or low < -2 * ONE_PERCENT or high > 2 * ONE_PERCENT:
        return
    shown = with_interval(apart.mean_kl_nats, apart.mean_kl_nats_interval, ".3f")
    yield Clue(
        apart.mean_kl_nats, f"{found.first} and {found.second} have the same loss and differ by {shown} (KL) a token",
        apart.mean_kl_nats_interval, found.clusters, tokens=apart.tokens,
    )  # fmt: skip


COMPARE_RULES = (
    FindingRule(
        "second-worse", "warning", "compare", "the second model is worse", ONE_PERCENT, "nats",
        "mean loss of the second model minus that of the first, on the same tokens", "1 % more perplexity.",
        "Look where: by class, context and document.",
        "lossprobe compare --by class RUN RUN", _worse,
    ),
    FindingRule(
        "second-worse-by-byte", "warning", "compare", "the second model of another tokenizer is worse",
        ONE_PERCENT_BITS, "bits per byte",
        "bits per byte of the second model minus those of the first, on the same bytes",
        "1 % more perplexity on a token of four bytes.",
        "Look where: which spans of the text became dearer, and in which files.",
        FILES_COMMAND, _worse_by_bytes,
    ),
    FindingRule(
        "worse-on-a-file", "warning", "compare", "a file changes against the whole, in models of other tokenizers",
        FILE_BITS, "bits per byte",
        "difference of the documents of a file in bits per byte, against the direction of the whole, where that is "
        "shown at 95 %",
        "5 % of perplexity on a token of four bytes.",
        "A mean hides it: gate the file on its own, or ask what the training text had too little of.",
        FILES_COMMAND, _files,
    ),
    FindingRule(
        "worse-on-a-slice", "warning", "compare", "a slice of the tokens changes against the whole", SLICE_NATS, "nats",
        "mean difference of the slice, against the direction of the whole, where that is shown at 95 %",
        "0.05 nats are 5 % of the slice's perplexity.",
        "A mean hides it: gate the slice on its own, or ask what the training text had too little of.",
        "lossprobe compare --by class RUN RUN", _against,
    ),
    FindingRule(
        "tokens-forgotten", "warning", "compare", "more tokens were forgotten than learned", FORGOTTEN,
        "share of tokens",
        "tokens that went from below 1 nat to above 3, minus those that went the other way, of all tokens; told beyond "
        "what models that know the same exchange by chance",
        "One in two hundred: knowledge that is lost, not noise of both directions.",
        "Look at the tokens: names and facts of the first training are lost first. Mix its text in.",
        COMMAND, _forgotten,
    ),
    FindingRule(
        "loss-against-accuracy", "warning", "compare", "loss and accuracy go different ways", ACCURACY,
        "share of tokens",
        "difference in right first choices, towards more where the loss is higher and fewer where it is lower",
        "0.2 points; the two mostly go together.",
        "One model is calibrated otherwise: compare after each one's own temperature.",
        "lossprobe calibration RUN RUN", _accuracy,
    ),
    FindingRule(
        "second-better", "note", "compare", "the second model is better", -ONE_PERCENT, "nats",
        "mean loss of the second model minus that of the first, on the same tokens", "1 % less perplexity.",
        "Look whether it is better everywhere: by class, context and document.",
        "lossprobe compare --by class RUN RUN", _better,
        below=True,
    ),
    FindingRule(
        "second-better-by-byte", "note", "compare", "the second model of another tokenizer is better",
        -ONE_PERCENT_BITS, "bits per byte",
        "bits per byte of the second model minus those of the first, on the same bytes",
        "1 % less perplexity on a token of four bytes.",
        "Look whether it is better everywhere: by span and file.",
        FILES_COMMAND, _better_by_bytes, below=True,
    ),
    FindingRule(
        "few-tokens-differ", "note", "compare", "a hundredth of the tokens carries the difference", CARRIED,
        "share of the change", "share of the sum of all changes, either way, that the most changed 1 % of the "
        "tokens carry",
        "In two trainings of one model it is 5 to 15 %; above half the models are the same but for a few tokens.",
        "Read these tokens: a template, a tokenizer setting, or one document may be all there is.",
        COMMAND, _few,
    ),
    FindingRule(
        "same-loss-other-model", "note", "compare", "two models have the same loss and predict different things",
        KL_NATS, "nats", "mean KL divergence, where the mean losses differ by under 2 % of perplexity at 95 %",
        "Below 0.05 nats a quantised copy is hard to tell from its origin.",
        "Equal losses do not make equal models: compare what they generate.",
        "lossprobe compare --kl RUN RUN", _other,
    ),
)  # fmt: skip
