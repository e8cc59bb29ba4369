"""Prepares the texts of an audit with their baselines, and makes all refusals that are possible before scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossprobe.analysis.rows.same_tokens import BATCHING, DTYPE, IDENTITY, Described, differing, tokenizer_note
from lossprobe.audit.checks.metrics import metric_of
from lossprobe.audit.gate.named import naming
from lossprobe.audit.gate.reference import of_pair, open_reference, refuse_other_reference
from lossprobe.audit.settings import AuditSettings, Check, DataSettings
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.spec import Opener
from lossprobe.errors import NotComparableError, TextError, UsageError
from lossprobe.objects.address import address_of
from lossprobe.passes.identity import PlannedRun, describe
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.policy import tell_beyond_trained, window_policy
from lossprobe.passes.rendered import rendered
from lossprobe.run.baseline import LOSS_COLUMN, MODEL_COLUMNS, UPDATE, is_baseline, open_baseline
from lossprobe.run.files import sha256_of
from lossprobe.run.reader import Run
from lossprobe.text.documents import open_text
from lossprobe.text.fields import refuse_missing_field, refuse_missing_value
from lossprobe.text.files import find_files
from lossprobe.units import visible

PROGRAM = "llama.cpp"  # compute_dtype of a model that llama.cpp runs


@dataclass(frozen=True)
class AuditText:
    """A text that is ready to be scored.

    Attributes:
        data: its table of the audit file.
        source: its documents.
        checks: its checks whose level is not "off".
        settings: settings of a run over it; see `passes.identity.describe`.
        baseline: its baseline; None without one.
        folder: folder of its baseline; None if the audit file names no place for baselines.
        reference: the model that the checks of a divergence compare with; None if no check does.
    """

    data: DataSettings
    source: KnownText
    checks: tuple[Check, ...]
    settings: dict[str, Any]
    baseline: Run | None
    folder: Path | None
    reference: Checkpoint | None = None

    @property
    def needs_baseline(self) -> bool:
        """Return whether a check limits a change, and the audit file names a place for baselines."""
        return self.folder is not None and any(check.limit.needs_baseline for check in self.checks)


Texts = Mapping[str, KnownText]  # by their names in the audit file


def read_texts(settings: AuditSettings) -> Texts:
    """Return the texts that have a check, read to their ends and found good; no checkpoint is needed for that.

    Raises:
        UsageError: a check is about a field, or a value of it, that no record of its text has.
        TextError: a text has another sha256 than the file names.
        LossprobeError: a text cannot be read.
    """
    texts = {}
    for data in settings.data:
        checks = settings.checks_of(data)
        if not checks:
            continue
        with naming(settings, f"data.{data.name}", data):
            _refuse_other_file(data)
            texts[data.name] = source = KnownText(open_text([data.path], data))
            source.fingerprint()
        for check in checks:
            if check.field is not None:
                refuse_missing_field(source.documents(), check.field, f"check {check.id}: field")
                if check.equals is not None:
                    asked = f"check {check.id}: equals"
                    refuse_missing_value(source.documents(), check.field, check.equals, asked)
    return texts


def prepare(
    settings: AuditSettings,
    checkpoint: Checkpoint,
    texts: Texts | None = None,
    opener: Opener | None = None,
    *,
    tolerated: frozenset[str] = frozenset(),
) -> list[AuditText]:
    """Return the texts that have a check, in the order of the file.

    Args:
        settings: the audit file.
        checkpoint: its model.
        texts: its texts from `read_texts`; None reads them here.
        opener: with which the model was opened, so that an adapter and its base as reference share their weights.
        tolerated: ids of errors for which a baseline is ignored, with a notice.

    Raises:
        NotComparableError: a baseline is missing, damaged, or of another text, tokenizer, windows or dtype.
        LossprobeError: a text or an option is refused; see `passes.score.score`.
    """
    options = settings.windows
    texts = read_texts(settings) if texts is None else texts
    of_all = [check for data in settings.data for check in settings.checks_of(data)]
    reference = open_reference(settings, of_all, opener)
    prepared = []
    for data in settings.data:
        checks = settings.checks_of(data)
        if not checks:
            continue
        source = rendered(texts[data.name], checkpoint, options.score)
        policy = window_policy(checkpoint, options, source)
        tell_beyond_trained(checkpoint, policy.context, source)
        described = describe(checkpoint, source, policy, options)
        planned = PlannedRun(checkpoint.facts.name, {"settings": described}, source, checkpoint.tokenizer, policy)
        compared = reference if of_pair(checks) else None
        if compared is not None:
            refuse_other_reference(compared, planned, source, options)
        text = AuditText(data, source, checks, described, None, _place(settings, data), compared)
        try:
            baseline = _baseline(text, planned, settings.baseline.missing)
        except NotComparableError as error:
            if error.id not in tolerated:
                raise
            source.notices.append(error.message)
            baseline = None
        prepared.append(replace(text, baseline=baseline))
    return prepared


def refuse_missing_baselines(settings: AuditSettings) -> None:
    """Refuse an audit with `missing = "error"` if a baseline that a check needs is missing.

    Raises:
        NotComparableError: a baseline is missing.
    """
    for data in settings.data:
        folder = _place(settings, data)
        needed = any(check.limit.needs_baseline for check in settings.checks_of(data))
        if folder is not None and needed and settings.baseline.missing == "error" and not is_baseline(folder):
            open_baseline(folder)  # raises the error that names it


def _place(settings: AuditSettings, data: DataSettings) -> Path | None:
    """Return the folder of a text's baseline; None if the audit file names no place for baselines.

    Raises:
        UsageError: the folder lies in a text or in the checkpoint, which it would change.
    """
    if settings.baseline.path is None:
        return None
    place = settings.baseline.path / data.name
    taken = (place.resolve(), *place.resolve().parents)
    models = [each.checkpoint for each in (settings.model, settings.reference) if each is not None]
    for source in (*(each.path for each in settings.data), *models):
        if source.resolve() in taken:
            shown = visible(str(place), 200)
            raise UsageError("audit.baseline_place", f"{shown}: is, or lies in, a text or the checkpoint")
    return place


def _baseline(text: AuditText, planned: PlannedRun, missing: str) -> Run | None:
    """Return the baseline of a text; None where no check needs it, or where it is missing and that is allowed.

    Raises:
        NotComparableError: the baseline is missing, damaged, or cannot be compared.
    """
    if text.folder is None or not text.needs_baseline or (missing != "error" and not is_baseline(text.folder)):
        return None
    baseline = open_baseline(text.folder)
    refuse_other_baseline(baseline, planned, baseline_columns(text.checks))
    notes = (tokenizer_note(baseline, planned), _precision_note(baseline, planned))
    text.source.notices += [f"{text.data.name}: its baseline: {note}" for note in notes if note is not None]
    return baseline


def to_be_created(settings: AuditSettings, text: AuditText) -> bool:
    """Return whether the baseline of a text is needed but missing, and the settings say to make it from this model."""
    missing = text.folder is not None and not is_baseline(text.folder)
    return settings.baseline.missing == "create" and missing and text.needs_baseline


def baseline_columns(checks: Sequence[Check]) -> list[str]:
    """Return the columns that some checks need from a baseline, in the order of `MODEL_COLUMNS`."""
    needed = {name for check in checks if check.limit.needs_baseline for name in metric_of(check, 0).columns}
    return [name for name in MODEL_COLUMNS if name == LOSS_COLUMN or name in needed]


def refuse_other_baseline(baseline: Run, planned: Described, columns: Sequence[str]) -> None:
    """Refuse a baseline that cannot be paired with a run, or lacks columns.

    Args:
        baseline: the baseline.
        planned: the run.
        columns: columns that the checks need.

    Raises:
        NotComparableError: the message names the settings that differ, or the missing columns.
    """
    shown = visible(str(baseline.path), 200)
    stored, described = (run.manifest["settings"]["checkpoint"] for run in (baseline, planned))
    same_family = stored.get("family") == described.get("family")
    chosen = _chosen_dtype(stored) and _chosen_dtype(described)
    identity = IDENTITY | (DTYPE if chosen else {}) | (BATCHING if same_family and chosen else {})
    found = differing(baseline, planned, identity)
    if found:
        raise NotComparableError("baseline.different", f"{shown}: differs in {', '.join(found)}", hint=UPDATE)
    lacking = [name for name in columns if name not in baseline.manifest["columns"]]
    if lacking:
        raise NotComparableError(
            "baseline.columns", f"{shown}: lacks {', '.join(lacking)}, which a check needs", hint=UPDATE
        )


def _chosen_dtype(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a model is computed in a dtype that can be chosen, and not by the program that it is made for."""
    return bool(checkpoint.get("compute_dtype") != PROGRAM)


def _precision_note(baseline: Run, planned: PlannedRun) -> str | None:
    """Return what to say where one side is run by llama.cpp, whose precision is part of what is compared."""
    then, now = (run.manifest["settings"]["checkpoint"]["compute_dtype"] for run in (baseline, planned))
    if then == now or PROGRAM not in (then, now):
        return None
    return f"computed in {visible(then, 20)} then, {visible(now, 20)} now: a change holds the rounding of llama.cpp"


def _refuse_other_file(data: DataSettings) -> None:
    """Refuse a file that is not the one whose sha256 the audit file names."""
    if data.sha256 is None:
        return
    shown = visible(str(data.path), 200)
    file = data.path if address_of(data.path) is None else find_files(data.path, data.max_bytes)[0].path
    if not file.exists():
        raise UsageError("text.missing", f"{shown}: does not exist")
    if not file.is_file():
        raise UsageError(
            "audit.sha256", f"{shown}: is not a file, but the audit file gives a sha256, which only a file can have"
        )
    found = sha256_of(file)
    if found != data.sha256.lower():
        raise TextError("text.sha256", f"{shown}: sha256 is {found[:12]}…, the audit file says {data.sha256[:12]}…")
