"""An audit that ends when it knows: documents in random order, until a confidence sequence has decided every check."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lossprobe.analysis.stats.confidence_sequence import effective_clusters, last_quantile, looks, sequence_quantile
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.audit.checks.decisions import ROUNDING, Measurement, conclude, decide, measure_from_sums
from lossprobe.audit.checks.metrics import Metric, metric_of
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.checks.stopping import Look, baseline_skew, why_not
from lossprobe.audit.checks.verdicts import CheckResult, TextResult
from lossprobe.audit.gate.texts import AuditText, to_be_created
from lossprobe.audit.gate.whole import refuse_per_byte
from lossprobe.audit.settings import AuditSettings, Check
from lossprobe.checkpoint.interface import Checkpoint, Tokenizer, Tokens
from lossprobe.errors import NothingToScoreError
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.planning import check_unknown
from lossprobe.passes.score import Progress, score_into
from lossprobe.passes.tally import UNKNOWN_SHOWN
from lossprobe.run.baseline import select_documents
from lossprobe.run.files import sha256_of_json
from lossprobe.text.documents import Document

COUNTED = (
    "tokens", "scored_tokens", "unknown_tokens", "bytes", "normalized_bytes", "vanished_bytes", "special_strings",
    "documents_in_pieces",
)  # fmt: skip


@dataclass
class ChosenDocuments:
    """A `Source` of some documents of a text, in its order, for a pass whose run is not kept.

    Attributes:
        source: the text.
        chosen: numbers of the documents, from 0.
    """

    source: KnownText
    chosen: frozenset[int]
    name: str = ""
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or self.source.name

    def documents(self) -> Iterator[Document]:
        """Yield the chosen documents."""
        for number, document in enumerate(self.source.documents()):
            if number in self.chosen:
                yield document

    def fingerprint(self) -> str:
        """Return what tells these documents from others, without reading them again."""
        return sha256_of_json({"text": self.source.fingerprint(), "documents": sorted(self.chosen)})

    def tokens(self, text: str, tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of one of the documents."""
        return self.source.tokens(text, tokenizer)


@dataclass
class CheckSums:
    """Sums of one check over the documents that were scored so far.

    Attributes:
        check, metric: what they are of.
        skew: `baseline_skew` of the whole text; None without a baseline.
        sums: float64 [G, 1 or 2, terms + 1], one piece a look.
        decided: what it had measured when its verdict was clear.
        refused: why the last look that was clear by its interval decided nothing; None where none was.
    """

    check: Check
    metric: Metric
    skew: float | None = None
    sums: list[Floats] = field(default_factory=list)
    decided: Measurement | None = None
    refused: str | None = None

    def look(self, planned: int, confidence: float, scored: int | None = None) -> None:
        """Note what was measured, if the confidence sequence decides and no skew forbids it.

        Args:
            planned: documents of the text.
            confidence: of the audit.
            scored: how many of them were scored; None for as many as have sums.
        """
        if sum(map(len, self.sums)) < 2:
            return
        sums = np.concatenate(self.sums)
        quantile = float(sequence_quantile(len(sums), planned, confidence, effective_clusters(sums[:, -1, -1])))
        measured = measure_from_sums(self.check, self.metric, sums, confidence, quantile, early=True)
        # Without any spread there is no interval: that all documents so far agree says nothing about the rest.
        if measured.held.half[0] <= ROUNDING or decide(self.check, measured.held) == "inconclusive":
            return
        looked = Look(len(sums), len(sums) if scored is None else scored, planned, confidence)
        reason = why_not(self.check, self.metric, sums, measured, looked, self.skew)
        if reason is None:
            self.decided = measured
        else:
            self.refused = f"after {scored or len(sums)} of {planned} documents: {reason}"

    def end(self, confidence: float) -> Measurement:
        """Return what was measured when it was clear, or over the whole text."""
        if self.decided is not None:
            return self.decided
        sums = np.concatenate(self.sums)
        return measure_from_sums(self.check, self.metric, sums, confidence, float(last_quantile(len(sums), confidence)))


def needs_whole_text(settings: AuditSettings, text: AuditText) -> str | None:
    """Return why an audit of a text cannot stop early; None where it can."""
    for check in text.checks:
        if not metric_of(check, 0).partial:
            return f"check {check.id} needs the whole text ({check.metric})"
        if re.search("document|window", check.where):
            return f"check {check.id} needs the whole text (where {check.where})"
        if check.rule == "point":
            return f"check {check.id} needs the whole text (rule point)"
    if to_be_created(settings, text):
        return "the baseline is to be created from the whole text"
    if len(list(islice(text.source.documents(), 2))) < 2:
        return "it is one document"
    return None


def audit_early(
    settings: AuditSettings, checkpoint: Checkpoint, text: AuditText, progress: Progress | None
) -> tuple[list[CheckResult], TextResult]:
    """Return the verdicts of one text, as many of its documents scored as they needed.

    Documents are drawn in an order that the seed decides. After each look the checks that the confidence sequence
    decides are closed; see `analysis.confidence_sequence` for its guarantee. When all are, the pass ends.
    """
    count, confidence = sum(1 for _ in text.source.documents()), settings.stats.confidence
    order = np.random.default_rng(settings.stats.seed).permutation(count)
    skew = None if text.baseline is None else baseline_skew(text.baseline)
    checks = [CheckSums(check, metric_of(check, 0), skew) for check in text.checks]
    tally = _Tally(count, progress)
    for look in looks(count):
        chosen = sorted(order[tally.documents : look].tolist())
        with tempfile.TemporaryDirectory(prefix="lossprobe-") as folder:
            scored = _score_chosen(settings, checkpoint, text, chosen, Path(folder), tally)
            if scored is not None:
                for collected in checks:
                    collected.sums.append(scored.sums(collected.check, collected.metric))
        tally.documents = look
        if look == count:
            break
        for collected in checks:
            if collected.decided is None:
                collected.look(count, confidence, look)
        if all(collected.decided is not None for collected in checks):
            break
    if not tally.counts["scored_tokens"]:
        raise NothingToScoreError("text.nothing_to_score", f"{text.source.name}: no document has 2 tokens")
    check_unknown({**tally.counts, "unknown_text": tally.unknown_text}, text.source, settings.windows.max_unknown)
    text.source.notices += [
        f"{text.data.name}: check {each.check.id} was not decided early, {each.refused}"
        for each in checks
        if each.decided is None and each.refused is not None
    ]
    results = [conclude(each.check, each.metric, each.end(confidence), confidence) for each in checks]
    return results, TextResult(
        name=text.data.name,
        text=text.source.name,
        sha256=text.settings["text"]["sha256"],
        tokens=tally.counts["tokens"],
        scored_tokens=tally.counts["scored_tokens"],
        documents=count,
        scored_share=tally.documents / count,
        baseline=None if text.baseline is None else text.baseline.name,
    )


@dataclass
class _Tally:
    """How much was scored; tells the progress, for which the tokens of the rest are guessed from those so far."""

    planned: int
    progress: Progress | None
    documents: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unknown_text: list[str] = field(default_factory=list)

    def add(self, counts: dict[str, Any]) -> None:
        """Add the counts of a run over some more documents."""
        self.counts.update({name: counts.get(name, 0) for name in COUNTED})
        self.unknown_text = [*self.unknown_text, *counts["unknown_text"]][:UNKNOWN_SHOWN]

    def of_look(self, look: int) -> Progress | None:
        """Return the progress of a pass over the documents up to a look."""
        progress = self.progress
        if progress is None:
            return None

        def advance(done: int, total: int) -> None:
            before = self.counts["tokens"]
            progress(before + done, round((before + total) * self.planned / look))

        return advance


def _score_chosen(
    settings: AuditSettings, checkpoint: Checkpoint, text: AuditText, chosen: list[int], folder: Path, tally: _Tally
) -> AuditedRun | None:
    """Return some documents scored, beside their rows of the baseline; None where they hold no token to score."""
    source = ChosenDocuments(text.source, frozenset(chosen))
    progress = tally.of_look(tally.documents + len(chosen))
    options = replace(settings.windows, max_unknown=1.0)  # the limit is for all documents together
    try:
        run = score_into(folder / "run", checkpoint, source, options, progress=progress).run
    except NothingToScoreError:
        return None
    tally.add(run.counts)
    refuse_per_byte(run, text.checks)
    baseline = None if text.baseline is None else select_documents(text.baseline, chosen, folder)
    scored = AuditedRun(run, Clusters("document", len(chosen), "document", None), baseline)
    scored.refuse_other_tokens()
    return scored
