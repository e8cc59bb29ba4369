"""What rules need of a run that no view shows: ties, text known by heart, defects, files, which roles have a loss."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.findings.text_defects import TextDefects, find_text_defects
from lossprobe.analysis.findings.words import between
from lossprobe.analysis.gap.memorised import MemorisedDocuments, find_memorised
from lossprobe.analysis.once import Once
from lossprobe.analysis.preferences.pairs import BOTH
from lossprobe.analysis.rows.clusters import document_clusters, find_clusters, grouped_losses, slice_clusters
from lossprobe.analysis.rows.fields import label_source
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.run.reader import Run
from lossprobe.text.spans import Part

ANSWERS, PROMPTS = ("assistant", "completion"), ("user", "prompt", "system")


@dataclass(frozen=True)
class AnswerEnds:
    """The scored tokens that end turns of answers.

    Attributes:
        tokens: how many.
        mean_loss_nats: their mean loss, and its interval.
        clusters: different conversations that have some.
        share_of_loss: their part of the total loss.
    """

    tokens: int
    mean_loss_nats: float
    mean_loss_nats_interval: Interval
    clusters: int
    share_of_loss: float


@dataclass(frozen=True)
class RunFacts:
    """Further facts of a run.

    Attributes:
        tokens_scored: tokens with a loss.
        clusters: documents or blocks that intervals resample.
        tied_share: share of the scored tokens of which another entry has exactly the same logit, and its interval.
        memorised: documents known by heart.
        defects: the defects of the text that no other rule tells of.
        files: one row a file, where there are several: file, documents, share_of_tokens, mean_loss_nats, low, high,
            share_of_loss, clusters; empty otherwise.
        answers_scored: share of the tokens of answers that have a loss; None of plain text, and without answers.
        prompts_scored: the same of prompts: what users and the system say.
        answer_ends: what ends the turns of answers; None without a scored one.
    """

    tokens_scored: int
    clusters: int
    tied_share: float
    tied_share_interval: Interval
    memorised: MemorisedDocuments
    defects: TextDefects
    files: pd.DataFrame = field(repr=False)
    answers_scored: float | None = None
    prompts_scored: float | None = None
    answer_ends: AnswerEnds | None = None


def find_facts(run: Run, told: Collection[str] = (), *, once: Once | None = None) -> RunFacts:
    """Return the further facts of a run.

    Args:
        run: the run.
        told: the rules that speak of it already; what they tell of its defects is left out.
        once: takes the results from here that were made already, and keeps those that are made; None keeps nothing.
    """
    clusters = find_clusters(run)
    sums = run.query(f"""
        SELECT count(*) FILTER (ties > 1) AS tied, count(*) AS tokens
        FROM tokens WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY {clusters.sql}""")
    tied = jackknife_ratio(sums["tied"], sums["tokens"])
    answers, prompts = (_scored_share(run, roles) for roles in (ANSWERS, PROMPTS)) if run.labelled else (None, None)
    return RunFacts(
        tokens_scored=int(sums["tokens"].sum()),
        clusters=clusters.count,
        tied_share=tied.value,
        tied_share_interval=tied.interval,
        memorised=find_memorised(run),
        defects=find_text_defects(run, told, once or Once()),
        files=_files(run),
        answers_scored=answers,
        prompts_scored=prompts,
        answer_ends=_answer_ends(run) if run.labelled else None,
    )


def _answer_ends(run: Run) -> AnswerEnds | None:
    """Return what the ends of answers cost.

    Those of users, if they have a loss, nobody can foresee; those of rejected answers no model has to.
    """
    named = ", ".join(f"'{role}'" for role in ANSWERS)
    chosen = "document % 2 = 0" if run.settings.text.sides == BOTH else "TRUE"
    condition = f"part = '{Part.END_OF_TURN.value}' AND role IN ({named}) AND {chosen}"
    ends = f"(SELECT * FROM {label_source('part')} WHERE {condition})"
    found = grouped_losses(run, slice_clusters(run, "part"), "part", ends).to_dict("records")
    if not found:
        return None
    row, total = found[0], float(run.scalar("SELECT sum(loss_nats::DOUBLE) FROM tokens WHERE unscored IS NULL"))
    return AnswerEnds(
        tokens=int(row["count"]),
        mean_loss_nats=float(row["mean_loss_nats"]),
        mean_loss_nats_interval=between(row["low"], row["high"]),
        clusters=int(row["clusters"]),
        share_of_loss=float(row["total_nats"]) / total if total else 0.0,
    )


def _scored_share(run: Run, roles: tuple[str, ...]) -> float | None:
    named = ", ".join(f"'{role}'" for role in roles)
    share = run.scalar(f"SELECT avg((unscored IS NULL)::DOUBLE) FROM tokens WHERE role IN ({named})")
    return None if share is None else float(share)


def _files(run: Run) -> pd.DataFrame:
    """Return the files of the text with their losses; without rows where there is one only."""
    if int(run.scalar("SELECT count(DISTINCT source) FROM documents WHERE scored_tokens > 0")) < 2:
        return pd.DataFrame()
    named = "(SELECT tokens.*, source FROM tokens JOIN (SELECT document, source FROM documents) USING (document))"
    losses = grouped_losses(run, document_clusters(run), "source", named).rename(columns={"key": "file"})
    sizes = run.query("""
        SELECT source AS file, count(*) AS documents FROM documents WHERE scored_tokens > 0 GROUP BY ALL""")
    total = float(losses["total_nats"].sum())
    return losses.merge(sizes, on="file", validate="one_to_one").assign(
        share_of_tokens=losses["count"] / losses["count"].sum(),
        share_of_loss=losses["total_nats"] / total if total else 0.0,
    )
