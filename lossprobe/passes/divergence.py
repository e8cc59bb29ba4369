"""Measures how far the predictions of two checkpoints on a text are apart, in one pass of both; stores nothing.

The text is read twice: first to count its tokens, so that it can be refused before the models run, then to score it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.analysis.compare.divergence_tally import DivergenceTally, TokenDivergences
from lossprobe.analysis.rows.same_tokens import Described
from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import Checkpoint, Tokenizer, Tokens
from lossprobe.errors import NotComparableError, NothingToScoreError
from lossprobe.passes.identity import PlannedRun, describe_model
from lossprobe.passes.known_text import read_again, text_sha256, tokens_of
from lossprobe.passes.planning import check_ids, check_unknown
from lossprobe.passes.rendered import rendered
from lossprobe.passes.score import Progress, tell_beyond_trained, window_policy
from lossprobe.passes.tally import DocumentCount, merge_unknown
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy, cut_parts, plan_documents, plan_pieces
from lossprobe.scoring.pair import compare_part
from lossprobe.scoring.scorer import PassOptions
from lossprobe.text.documents import Document, Source
from lossprobe.units import format_count, visible


def measure_divergence(
    first: Checkpoint,
    second: Checkpoint,
    source: Source,
    options: ScoreOptions | None = None,
    progress: Progress | None = None,
) -> Divergence:
    """Return how far two models are apart on a text: KL(first‖second), top-1 agreement, change of probability.

    Tokens, windows and losses are those of `score.score` with the same options. Beside the two models and one batch
    through a body, memory holds two chunks of logits and a few buffers of 2 MiB.

    Args:
        first: model A, from `open_checkpoint`, or a `CallableCheckpoint`.
        second: model B, with the same tokenizer and as many logits.
        source: the text.
        options: windows, BOS, batch size, unknown characters. Without a context it is the smaller of the models' own.
        progress: called with the tokens scored so far and the tokens to score.

    Raises:
        NotComparableError: the tokenizers or the numbers of logits differ.
        CheckpointError: a loss that is NaN or infinite, or a token id that the models do not have.
        LossprobeError: the text or the options are refused; see `score.score`.
    """
    options = options or ScoreOptions()
    refuse_other_vocabulary(*(PlannedRun(one.facts.name, {"settings": describe_model(one)}) for one in (first, second)))
    first, second = opened(first), opened(second)
    source = rendered(source, first, options.score)
    policies = [window_policy(checkpoint, options, source) for checkpoint in (first, second)]
    policy = min(policies, key=lambda one: one.context)
    for checkpoint in (first, second):
        tell_beyond_trained(checkpoint, policy.context, source)
    sha256 = text_sha256(source)
    count = _count(first, source, sha256, policy)
    count.check(source, options.max_unknown)
    done = 0

    def advance(scored: int) -> None:
        nonlocal done
        done += scored
        if progress is not None:
            progress(done, count.scored)

    advance(0)
    tally = DivergenceTally(first.facts.name, second.facts.name, count.texts)
    passing = PassOptions(options.batch_size, advance=advance)
    planned = plan_documents((tokens for _, tokens in _tokenized(source, sha256, first.tokenizer)), policy)
    for part in cut_parts(planned):
        tally.add(TokenDivergences(**vars(compare_part((first, second), part, passing))))
    return tally.result(_notes(first, second, policies))


def refuse_other_vocabulary(first: Described, second: Described) -> None:
    """Refuse models whose distributions are over different vocabulary entries.

    Raises:
        NotComparableError: the tokenizers or the numbers of logits differ.
    """
    names = f"{visible(first.name, 80)} and {visible(second.name, 80)}"
    settings = [one.manifest["settings"] for one in (first, second)]
    words = [one["tokenizer"] for one in settings]
    if words[0]["sha256"] != words[1]["sha256"]:
        kinds = ", ".join(f"{visible(one['kind'], 40)} {visible(one['sha256'], 12)}" for one in words)
        raise NotComparableError(
            "runs.different",
            f"{names} differ in tokenizer ({kinds}): a divergence needs the same vocabulary",
            hint="compare their losses per byte, without `kl`",
        )
    widths = [one["checkpoint"]["vocab_size"] for one in settings]
    if widths[0] != widths[1]:
        raise NotComparableError(
            "runs.different_vocabulary",
            f"{names} have {format_count(widths[0])} and {format_count(widths[1])} logits: a divergence needs as many",
            hint="compare their losses, without `kl`",
        )


def _tokenized(source: Source, sha256: str, tokenizer: Tokenizer) -> Iterator[tuple[Document, Tokens]]:
    """Yield every document with its tokens."""
    for document in read_again(source, sha256):
        yield document, tokens_of(source, document, tokenizer)


@dataclass
class _Count:
    """Counts of a text, made before it is scored."""

    tokens: int = 0
    scored: int = 0
    unknown: int = 0
    unknown_text: list[str] = field(default_factory=list)
    more: Counter[str] = field(default_factory=Counter)
    texts: list[int] = field(default_factory=list)  # number of each document's text; copies have the same one
    known: dict[bytes, int] = field(default_factory=dict)  # sha256 → number of the text

    def add(self, document: DocumentCount) -> None:
        """Add the counts of a document."""
        digest = hashlib.sha256(document.document.text.encode()).digest()
        self.texts.append(self.known.setdefault(digest, len(self.known)))
        self.more["bytes"] += len(document.document.text.encode())
        self.more["normalized_bytes"] += document.normalized_bytes
        self.more["vanished_bytes"] += document.vanished_bytes
        self.more["special_strings"] += document.special_strings
        self.more["documents_in_pieces"] += document.in_pieces
        self.tokens += document.tokens
        self.scored += document.scored_tokens
        self.unknown += document.unknown
        self.unknown_text = merge_unknown(self.unknown_text, document.unknown_text)

    def check(self, source: Source, max_unknown: float) -> None:
        """Refuse a text without a token that can be scored, or with too many unknown tokens."""
        if not self.scored:
            raise NothingToScoreError(
                "text.nothing_to_score",
                f"{source.name}: {format_count(self.tokens)} tokens, needs at least 2 in a document",
            )
        unknown = {"unknown_tokens": self.unknown, "tokens": self.tokens, "unknown_text": self.unknown_text}
        counts = {**self.more, **unknown}
        check_unknown(counts, source, max_unknown)


def _count(checkpoint: Checkpoint, source: Source, sha256: str, policy: WindowPolicy) -> _Count:
    """Return the counts of a text.

    Raises:
        CheckpointError: the tokenizer gives an id that the model does not have.
    """
    count = _Count()
    for document, tokens in _tokenized(source, sha256, checkpoint.tokenizer):
        check_ids(tokens, checkpoint.facts.vocab_size)
        one = DocumentCount(document)
        one.add_tokens(tokens)
        for rows in plan_pieces(0, tokens, policy, first_window=0):
            one.add_rows(rows.take(rows.own))
        count.add(one)
    return count


def _notes(first: Checkpoint, second: Checkpoint, policies: list[WindowPolicy]) -> list[str]:
    """Return a note for each way in which the two models were treated differently."""
    notes = []
    contexts = [policy.context for policy in policies]
    if contexts[0] != contexts[1]:
        notes.append(f"the models' contexts are {contexts[0]} and {contexts[1]} tokens: the smaller one for both")
    dtypes = [checkpoint.facts.compute_dtype for checkpoint in (first, second)]
    if dtypes[0] != dtypes[1]:
        notes.append(f"computed in {dtypes[0]} and {dtypes[1]}")
    return notes
