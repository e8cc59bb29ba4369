"""What is told of a run that no single view shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossprobe.analysis.findings.rule import Clue, FindingRule
from lossprobe.analysis.findings.words import against_rest, percent, with_interval
from lossprobe.units import format_count, plural, visible

if TYPE_CHECKING:
    from lossprobe.analysis.findings.facts import RunFacts

TIED, FILE_NATS, MASKED, TURN_NATS, DEFECTS = 0.05, 1.0, 0.5, 1.0, 0.05
NAMED = 3  # causes of defects in a sentence


def _tied(result: RunFacts) -> Iterator[Clue]:
    shown = with_interval(100 * result.tied_share, result.tied_share_interval.map(lambda end: 100 * end), ".1f", " %")
    yield Clue(
        result.tied_share, f"{shown} of the tokens share their logit with another entry of the vocabulary",
        result.tied_share_interval, result.clusters, tokens=result.tokens_scored,
    )  # fmt: skip


def _known(result: RunFacts) -> Iterator[Clue]:
    known = result.memorised
    if known.documents:
        share = known.share_of_tokens or 0.0
        yield Clue(
            float(known.documents),
            f"{plural(known.documents, 'document')} of {format_count(known.judged_documents)} "
            f"{'is' if known.documents == 1 else 'are'} known by heart (under 0.1 nats a token): {percent(share)} of "
            "the tokens of all these",
            counted=True, tokens=result.tokens_scored,
        )  # fmt: skip


def _defects(result: RunFacts) -> Iterator[Clue]:
    found = result.defects
    if not found.causes:
        return
    causes = [f"{cause} ({percent(share)})" for cause, share in found.causes[:NAMED]]
    if len(found.causes) == 1:
        causes = [found.causes[0][0]]
    elif len(found.causes) > NAMED:
        causes.append(f"and {plural(len(found.causes) - NAMED, 'other cause')}")
    yield Clue(
        found.share_of_loss,
        f"{percent(found.share_of_loss)} of the loss is in {plural(found.places, 'place')} of defects of the text: "
        f"{', '.join(causes)}",
        counted=True, tokens=result.tokens_scored, share_of_loss=found.share_of_loss,
    )  # fmt: skip


def _files(result: RunFacts) -> Iterator[Clue]:
    rows = [{str(key): value for key, value in row.items()} for row in result.files.to_dict("records")]
    mean = sum(row["share_of_tokens"] * row["mean_loss_nats"] for row in rows)
    for place, row in enumerate(rows):
        if row["documents"] < 2:
            continue
        difference, interval, clusters = against_rest(rows, place, mean)
        yield Clue(
            difference,
            f"file {visible(row['file'], 80)}: {with_interval(difference, interval)} above the others, "
            f"{percent(row['share_of_loss'])} of the loss in {percent(row['share_of_tokens'])} of the tokens",
            interval, clusters, about=str(row["file"]), looks=len(rows), tokens=result.tokens_scored,
            share_of_loss=float(row["share_of_loss"]),
        )  # fmt: skip


def _ends(result: RunFacts) -> Iterator[Clue]:
    found = result.answer_ends
    if found is not None:
        shown = with_interval(found.mean_loss_nats, found.mean_loss_nats_interval)
        yield Clue(
            found.mean_loss_nats,
            f"the {plural(found.tokens, 'token')} that end the turns of answers cost {shown} each",
            found.mean_loss_nats_interval, found.clusters, tokens=result.tokens_scored,
            share_of_loss=found.share_of_loss,
        )  # fmt: skip


def _answers(result: RunFacts) -> Iterator[Clue]:
    if result.answers_scored is not None and result.prompts_scored:
        yield Clue(
            1.0 - result.answers_scored,
            f"{percent(1.0 - result.answers_scored)} of the tokens of answers have no loss, and "
            f"{percent(result.prompts_scored)} of those of prompts have one",
            counted=True, tokens=result.tokens_scored,
        )  # fmt: skip


FACT_RULES = (
    FindingRule(
        "answers-masked", "fault", "findings", "prompts are scored and answers are not", MASKED,
        "share of the tokens of answers", "tokens of answers without a loss, where tokens of prompts have one",
        "A model is judged by its answers; when most of them are masked and prompts are not, the mask is the wrong way "
        "round.",
        "Look at the labels of the records, and at the roles that are scored.",
        "lossprobe tokens RUN", _answers,
    ),
    FindingRule(
        "end-of-turn-hard", "fault", "findings", "the model does not expect the ends of its turns", TURN_NATS, "nats",
        "mean loss of the tokens that end a turn of the assistant, or a completion",
        "A chat model is nearly sure of its end of turn, at 0.0 to 0.3 nats; above 1 it gives it less than 37 %.",
        "The chat template is not that of training, or the model was not trained on ends of turns: generation would "
        "not stop. Compare the template, and what was masked in training.",
        "lossprobe tokens --where \"part = 'end_of_turn'\" RUN", _ends,
    ),
    FindingRule(
        "known-by-heart", "warning", "findings", "documents are known by heart", 0.0, "documents",
        "documents of 32 scored tokens or more with a mean loss below 0.1 nats, a probability above 90 % a token",
        "New text costs 1 to 4 nats a token; below 0.1 it was seen, often, or anybody could foresee it.",
        "Such documents measure memory: leave them out of a test set, and look for the training text in it.",
        "lossprobe perplexity --by document RUN", _known,
    ),
    FindingRule(
        "defects-in-text", "warning", "findings", "defects of the text hold much of the loss", DEFECTS,
        "share of the loss",
        "share of the loss in places of defects, less that of causes that are told otherwise: of what is known by "
        "heart, whose loss is near 0, of whole copies where repeated-documents speaks, and of names of special tokens "
        "where control-strings does",
        "Stories and articles have 0 to 2 %, source code 4 to 20 %, nearly all of it repeats; what is broken is below "
        "1 % there.",
        "Repair or leave out what is broken or there twice, the cause with the largest share first, and score again: "
        "the mean loss without these places says more of the model.",
        "lossprobe defects RUN", _defects,
    ),
    FindingRule(
        "tied-logits", "warning", "findings", "many tokens share their logit with another entry", TIED,
        "share of tokens", "scored tokens of which another entry of the vocabulary has exactly the same logit",
        "In float32 there are nearly none, in float16 about 4 %, in bfloat16 20 % and more.",
        "Mostly the head computes in half precision, or rows of it are equal: ranks and accuracies depend on how ties "
        "count, and losses are rounded. Score in float32 for comparisons.",
        "lossprobe tokens --where \"ties > 1\" RUN", _tied,
    ),
    FindingRule(
        "hard-file", "note", "findings", "the documents of one file are harder than the others", FILE_NATS, "nats",
        "mean loss of the documents of a file minus that of all others, in texts of several files",
        "A factor of 2.7 in perplexity: the mean over such files says little of any of them.",
        "Look at the file: another language, another encoding, another kind of text.",
        "lossprobe hardest --by document RUN", _files,
    ),
)  # fmt: skip
