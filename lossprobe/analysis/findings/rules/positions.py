"""What loss by context says: what the beginning costs, and whether more context would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import percent, signed, with_interval

if TYPE_CHECKING:
    from lossprobe.analysis.positions import PositionLosses

EARLY_NATS, FIRST_NATS, END_NATS, RISE_NATS, UNUSED_NATS = 0.1, 3.0, 0.02, 0.05, 0.05
COMMAND = "lossprobe positions --plot RUN"
REACH = "with 1 to {{last}} tokens of it the loss is {{x}} {} that with {{far}} and more"


def _contrast(result: PositionLosses, name: str, sentence: str, sign: int = 1, *, cost: bool = False) -> Iterator[Clue]:
    """Yield the clue of one contrast: `sentence` has places for what the names of its numbers say.

    Args:
        result: the losses by context.
        name: of the contrast.
        sentence: what is told; {x} is the difference with its interval.
        sign: −1 to turn the difference round.
        cost: whether the range costs its share of the loss.
    """
    for found in result.contrasts:
        if found.name == name:
            value, interval = found.difference_nats, found.difference_nats_interval
            value, interval = sign * value, signed(interval, sign)
            places = {"x": with_interval(value, interval), "first": found.first, "last": found.last,
                      "far": found.against_first, "end": found.against_last,
                      "share": percent(found.share_of_loss)}  # fmt: skip
            yield Clue(
                value, sentence.format(**places), interval, found.clusters, tokens=int(result.table["count"].sum()),
                share_of_loss=found.share_of_loss if cost else None,
            )  # fmt: skip


def _early(result: PositionLosses) -> Iterator[Clue]:
    sentence = "the first {far} tokens of context cost {x} more than the level later: {share} of the loss"
    return _contrast(result, "beginning", sentence, cost=True)


def _first(result: PositionLosses) -> Iterator[Clue]:
    sentence = "tokens with 1 to {last} tokens of context cost {x} more than those with {far} to {end}"
    return _contrast(result, "first tokens", sentence, cost=True)


def _end(result: PositionLosses) -> Iterator[Clue]:
    sentence = "the loss still falls at the end of the window, by {x} from {first}-{last} to {far}-{end} tokens"
    return _contrast(result, "end", sentence)


def _rise(result: PositionLosses) -> Iterator[Clue]:
    sentence = "the loss rises at the end of the window, by {x} from {first}-{last} to {far}-{end} tokens of context"
    return _contrast(result, "end", sentence, sign=-1)


def _unused(result: PositionLosses) -> Iterator[Clue]:
    """Yield what more context does: it lowers the loss a little, or not at all, which the sentence says the right way.

    The number is the same in both: positive where more context lowers the loss.
    """
    for clue in _contrast(result, "reach", "more context hardly lowers the loss: " + REACH.format("above")):
        if clue.value >= 0.0:
            yield clue
            continue
        words = "more context does not lower the loss: " + REACH.format("below")
        for other in _contrast(result, "reach", words, sign=-1):
            yield replace(clue, sentence=other.sentence)


POSITION_RULES = (
    FindingRule(
        "loss-rises-at-end", "warning", "positions", "the loss rises at the end of the window", RISE_NATS, "nats",
        "mean loss over the last half of the window minus that over the quarter before it, of the texts that have both",
        "A model gains from context or does not; 0.05 nats more with twice the context is a fault of "
        "positions, or the ends of the documents are another kind of text.",
        "The window may be longer than the model was trained for, or its position settings (RoPE scaling) are wrong: "
        "score with a smaller context.",
        COMMAND, _rise,
    ),
    FindingRule(
        "first-tokens-costly", "warning", "positions", "the first tokens of a window cost far more than those after",
        FIRST_NATS, "nats",
        "mean loss with 1 to 3 tokens of context minus that with 4 to 31, of the texts that have both",
        "Two or three words of context are worth 1 to 2.5 nats less than ten; more shows a model that expects "
        "something "
        "before the text.",
        "The BOS may be missing: many models put their attention on it, and lose without it. Score with the BOS always "
        "on, and compare.",
        COMMAND, _first,
    ),
    FindingRule(
        "context-unused", "warning", "positions", "more context does not lower the loss", UNUSED_NATS, "nats",
        "mean loss with 1 to 7 tokens of context minus that with 32 and more, of the texts that have both",
        "Any model that reads its context gains several tenths of a nat between a few words and a paragraph.",
        "The model sees little beyond the last words: look at attention masks, positions, and whether windows "
        "are cut as "
        "in training.",
        COMMAND, _unused, below=True,
    ),
    FindingRule(
        "early-context", "note", "positions", "the first tokens of context cost more than the level later", EARLY_NATS,
        "nats",
        "mean loss with fewer than 32 tokens of context minus that with 32 and more, of the texts that have both",
        "0.1 nats on the first 32 tokens of short windows move a perplexity by percents.",
        "Windows that overlap (a stride) give every token more context; compare models at the same windows only. The "
        "beginnings of documents are also another text: titles, names, headers.",
        COMMAND, _early,
    ),
    FindingRule(
        "longer-context-pays", "note", "positions", "the loss still falls at the longest context", END_NATS, "nats",
        "mean loss over the second quarter of the window minus that over its last half, of the texts that have both",
        "2 % of perplexity for twice the context.",
        "A longer context would lower the loss further, if the model has one; overlapping windows (a stride) use what "
        "there is better.",
        COMMAND, _end,
    ),
)  # fmt: skip
