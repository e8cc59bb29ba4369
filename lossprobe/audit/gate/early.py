"""Audits a text with early stopping: scores documents in random order until every check is decided.

A confidence sequence decides the checks; see `analysis.stats.confidence_sequence`.
"""

from __future__ import annotations

import hashlib
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
from lossprobe.passes.known_text import KnownText, MadeOf
from lossprobe.passes.score import Progress, score_into
from lossprobe.passes.tally import UNKNOWN_SHOWN
from lossprobe.passes.unknown import check_unknown
from lossprobe.run.baseline import select_documents
from lossprobe.run.files import sha256_of_json
from lossprobe.run.schema import LABEL_NAMES
from lossprobe.text.documents import Document
from lossprobe.units import plural

COUNTED = (
    "tokens", "scored_tokens", "unknown_tokens", "bytes", "normalized_bytes", "vanished_bytes", "special_strings",
    "documents_in_pieces",
)  # fmt: skip


@dataclass
class ChosenDocuments(MadeOf):
    """A `Source` of some documents of a text, in the order of the text.

    Attributes:
        source: the whole text.
        chosen: numbers of the documents, from 0.
        name: short name for headings; by default that of the text.
        notices: one line for each oddity; not used here.
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
        """Return a hash that identifies these documents, made without reading them again."""
        return sha256_of_json({"text": self.source.fingerprint(), "documents": sorted(self.chosen)})

    def tokens(self, text: str, tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of one of the documents."""
        return self.source.tokens(text, tokenizer)


@dataclass
class CheckSums:
    """The sums of one check over the documents scored so far, and its decision.

    Attributes:
        check: the check.
        metric: its metric.
        skew: `baseline_skew` of the whole text; None without a baseline.
        sums: one array from `AuditedRun.sums` for each look, float64 [G, 1 or 2, terms + 1].
        decided: the estimates when the check was decided; None before.
        refused: why the last look with a clear interval could not decide; None without such a look.
    """

    check: Check
    metric: Metric
    skew: float | None = None
    sums: list[Floats] = field(default_factory=list)
    decided: Measurement | None = None
    refused: str | None = None

    def look(self, planned: int, confidence: float, scored: int | None = None) -> None:
        """Set `decided` if the confidence sequence is clear and the skewness of the documents allows it.

        Args:
            planned: number of documents in the text.
            confidence: confidence level of the audit.
            scored: number of documents scored; None means the number with sums.
        """
        if sum(map(len, self.sums)) < 2:
            return
        sums = np.concatenate(self.sums)
        quantile = float(sequence_quantile(len(sums), planned, confidence, effective_clusters(sums[:, -1, -1])))
        measured = measure_from_sums(self.check, self.metric, sums, confidence, quantile, copies=None)
        # Documents that all agree give an interval of width 0, which says nothing about the documents to come.
        if measured.held.half[0] <= ROUNDING or decide(self.check, measured.held) == "inconclusive":
            return
        looked = Look(len(sums), len(sums) if scored is None else scored, planned, confidence)
        reason = why_not(self.check, self.metric, sums, measured, looked, self.skew)
        if reason is None:
            self.decided = measured
        else:
            self.refused = f"after {scored or len(sums)} of {planned} documents: {reason}"

    def end(self, confidence: float) -> Measurement:
        """Return the estimates at the time of the decision, or without one over all documents."""
        if self.decided is not None:
            return self.decided
        sums = np.concatenate(self.sums)
        return measure_from_sums(self.check, self.metric, sums, confidence, float(last_quantile(len(sums), confidence)))


def needs_whole_text(settings: AuditSettings, text: AuditText) -> str | None:
    """Return the reason why an audit of a text cannot stop early; None where it can."""
    for check in text.checks:
        if not metric_of(check, 0).partial:
            return f"check {check.id} needs the whole text ({check.metric})"
        if re.search("document|window|role|turn|part", check.where):  # turns may be the same in many conversations
            return f"check {check.id} needs the whole text (where {check.where})"
        if check.field in LABEL_NAMES:
            return f"check {check.id} needs the whole text (field {check.field})"
        if check.rule == "point":
            return f"check {check.id} needs the whole text (rule point)"
    if to_be_created(settings, text):
        return "the baseline is to be created from the whole text"
    if len(list(islice(text.source.documents(), 2))) < 2:
        return "it is one document"
    scored = (document.text.encode() for document in text.source.documents() if document.text)
    texts = Counter(hashlib.sha256(data).digest() for data in scored)
    if copies := texts.total() - len(texts):
        return f"{plural(copies, 'document')} {'is' if copies == 1 else 'are'} identical to others"
    return None


def audit_early(
    settings: AuditSettings, checkpoint: Checkpoint, text: AuditText, progress: Progress | None
) -> tuple[list[CheckResult], TextResult]:
    """Return the verdicts on one text, after scoring only as many of its documents as are needed.

    The seed decides the order of the documents. After each look, checks are decided by the confidence sequence; see
    `analysis.stats.confidence_sequence` for its guarantee. Scoring stops when all checks are decided.
    """
    sizes = [len(document.text) + 1 for document in text.source.documents()]
    count, confidence = len(sizes), settings.stats.confidence
    order = np.random.default_rng(settings.stats.seed).permutation(count)
    skew = None if text.baseline is None else baseline_skew(text.baseline)
    checks = [CheckSums(check, metric_of(check, 0), skew) for check in text.checks]
    shares = np.cumsum(np.asarray(sizes, float)[order]) / sum(sizes)
    tally = _Tally(shares, None if text.baseline is None else int(text.baseline.counts["tokens"]), progress)
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
    """Counts what was scored so far, and reports progress.

    Attributes:
        shares: for each number of documents in the order of scoring, their share of the text's characters.
        tokens: tokens of the whole text, which a baseline knows; None without one.
        progress: called with tokens scored and all tokens, or an estimate of these; None for no progress.
        documents: documents scored.
        counts: sums of the runs' counts, for the names in `COUNTED`.
        unknown_text: first texts outside the vocabulary.
    """

    shares: Floats
    tokens: int | None
    progress: Progress | None
    documents: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unknown_text: list[str] = field(default_factory=list)

    def add(self, counts: dict[str, Any]) -> None:
        """Add the counts of a run over some more documents."""
        self.counts.update({name: counts.get(name, 0) for name in COUNTED})
        self.unknown_text = [*self.unknown_text, *counts["unknown_text"]][:UNKNOWN_SHOWN]

    def of_look(self, look: int) -> Progress | None:
        """Return the progress callback of a pass that scores the documents up to number `look`.

        Without a baseline the number of all tokens is extrapolated from the characters of the documents up to `look`.
        """
        progress = self.progress
        if progress is None:
            return None

        def advance(done: int, total: int) -> None:
            before = self.counts["tokens"]
            estimate = round((before + total) / self.shares[look - 1])
            progress(before + done, max(self.tokens or estimate, before + total))

        return advance


def _score_chosen(
    settings: AuditSettings, checkpoint: Checkpoint, text: AuditText, chosen: list[int], folder: Path, tally: _Tally
) -> AuditedRun | None:
    """Return the run of the chosen documents with their rows of the baseline; None if they have no token to score."""
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
