"""The texts of an audit, and everything about them that can be refused before a model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossprobe.analysis.rows.same_tokens import BATCHING, DTYPE, IDENTITY, differing_settings
from lossprobe.audit.checks.metrics import metric_of
from lossprobe.audit.settings import AuditSettings, Check, DataSettings
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import NotComparableError, TextError, UsageError
from lossprobe.passes.identity import describe
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.score import tell_beyond_trained, window_policy
from lossprobe.run.baseline import LOSS_COLUMN, MODEL_COLUMNS, UPDATE, is_baseline, open_baseline
from lossprobe.run.files import sha256_of
from lossprobe.run.reader import Run
from lossprobe.text.documents import open_text
from lossprobe.units import visible


@dataclass(frozen=True)
class AuditText:
    """A text that is ready to be scored, everything that can be refused before having been looked at.

    Attributes:
        data: its table of the audit file.
        source: its documents.
        checks: those about it that are not off.
        settings: what a run over it would be; see `passes.identity.describe`.
        baseline: what changes are measured from; None without one.
        folder: where its baseline belongs; None without a place.
    """

    data: DataSettings
    source: KnownText
    checks: tuple[Check, ...]
    settings: dict[str, Any]
    baseline: Run | None
    folder: Path | None

    @property
    def needs_baseline(self) -> bool:
        """Whether a check is about a change, and there is a place to measure it from."""
        return self.folder is not None and any(check.limit.needs_baseline for check in self.checks)


def prepare(
    settings: AuditSettings, checkpoint: Checkpoint, *, tolerated: frozenset[str] = frozenset()
) -> list[AuditText]:
    """Return the texts that some check is about, in the order of the file.

    Args:
        settings: the audit file.
        checkpoint: its model.
        tolerated: ids of the errors for which a baseline is taken for none, with a notice.

    Raises:
        TextError: a text is not the one whose sha256 the file names.
        NotComparableError: a baseline is missing, damaged, or of another text, tokenizer, windows or dtype.
        LossprobeError: a text or an option is refused; see `passes.score.score`.
    """
    options = settings.windows
    policy = window_policy(checkpoint, options)
    prepared = []
    for data in settings.data:
        checks = settings.checks_of(data)
        if not checks:
            continue
        _refuse_other_file(data)
        source = KnownText(open_text([data.path], data))
        tell_beyond_trained(checkpoint, policy.context, source)
        described = describe(checkpoint, source, policy, options)
        text = AuditText(data, source, checks, described, None, _place(settings, data))
        try:
            baseline = _baseline(text, settings.baseline.missing)
        except NotComparableError as error:
            if error.id not in tolerated:
                raise
            source.notices.append(error.message)
            baseline = None
        prepared.append(replace(text, baseline=baseline))
    return prepared


def refuse_missing_baselines(settings: AuditSettings) -> None:
    """Refuse baselines that must be there and are not.

    Raises:
        NotComparableError: there is none.
    """
    for data in settings.data:
        folder = _place(settings, data)
        needed = any(check.limit.needs_baseline for check in settings.checks_of(data))
        if folder is not None and needed and settings.baseline.missing == "error" and not is_baseline(folder):
            open_baseline(folder)  # says what is missing


def _place(settings: AuditSettings, data: DataSettings) -> Path | None:
    """Return where the baseline of a text belongs.

    Raises:
        UsageError: in the text's own folder, of which it would become a part.
    """
    if settings.baseline.path is None:
        return None
    place = settings.baseline.path / data.name
    taken = (place.resolve(), *place.resolve().parents)
    for source in (*(each.path for each in settings.data), settings.model.checkpoint):
        if source.resolve() in taken:
            shown = visible(str(place), 200)
            raise UsageError("audit.baseline_place", f"{shown}: is, or lies in, a text or the checkpoint")
    return place


def _baseline(text: AuditText, missing: str) -> Run | None:
    """Return the baseline of a text; None where no check needs it, or where it is missing and may be.

    Raises:
        NotComparableError: it is missing, damaged, or cannot be compared.
    """
    if text.folder is None or not text.needs_baseline or (missing != "error" and not is_baseline(text.folder)):
        return None
    baseline = open_baseline(text.folder)
    refuse_other_baseline(baseline, text.settings, baseline_columns(text.checks))
    return baseline


def to_be_created(settings: AuditSettings, text: AuditText) -> bool:
    """Return whether the baseline of a text is missing, is needed, and is to be made from this model."""
    missing = text.folder is not None and not is_baseline(text.folder)
    return settings.baseline.missing == "create" and missing and text.needs_baseline


def baseline_columns(checks: Sequence[Check]) -> list[str]:
    """Return the columns that a baseline needs for some checks, in the order in which it stores them."""
    needed = {name for check in checks if check.limit.needs_baseline for name in metric_of(check, 0).columns}
    return [name for name in MODEL_COLUMNS if name == LOSS_COLUMN or name in needed]


def refuse_other_baseline(baseline: Run, described: dict[str, Any], columns: Sequence[str]) -> None:
    """Refuse a baseline that cannot be paired with a run, or lacks columns that its checks need.

    Raises:
        NotComparableError: the message says in what they differ.
    """
    shown = visible(str(baseline.path), 200)
    stored = baseline.manifest["settings"]
    same_family = stored["checkpoint"].get("family") == described["checkpoint"].get("family")
    found = differing_settings(stored, described, IDENTITY | DTYPE | (BATCHING if same_family else {}))
    if found:
        raise NotComparableError("baseline.different", f"{shown}: differs in {', '.join(found)}", hint=UPDATE)
    lacking = [name for name in columns if name not in baseline.manifest["columns"]]
    if lacking:
        raise NotComparableError(
            "baseline.columns", f"{shown}: lacks {', '.join(lacking)}, which a check needs", hint=UPDATE
        )


def _refuse_other_file(data: DataSettings) -> None:
    """Refuse a file that is not the one whose sha256 the audit file names."""
    if data.sha256 is None:
        return
    shown = visible(str(data.path), 200)
    if not data.path.exists():
        raise UsageError("text.missing", f"{shown}: does not exist")
    if not data.path.is_file():
        raise UsageError(
            "audit.sha256", f"{shown}: is no file, and only a file has the sha256 that the audit file names"
        )
    found = sha256_of(data.path)
    if found != data.sha256.lower():
        raise TextError("text.sha256", f"{shown}: sha256 is {found[:12]}…, the audit file says {data.sha256[:12]}…")
