"""Every diagnosis of a training log as a term."""

from __future__ import annotations

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Diagnosis
from lossprobe.terms.term import Term


def _term(diagnosis: Diagnosis) -> Term:
    worth = "" if diagnosis.fault else " (no fault, worth knowing)"
    return Term(
        diagnosis.name, f"{diagnosis.title[0].upper()}{diagnosis.title[1:]}{worth}.", "diagnosis",
        formula=diagnosis.rule, how_to_read=f"Likely: {'; '.join(diagnosis.causes)}.",
        remedy=f"{'; '.join(diagnosis.remedies)}.", command="lossprobe curve LOG",
    )  # fmt: skip


TERMS = tuple(map(_term, DIAGNOSES.values()))
