"""Pairs the tokens of a scored text with their rows in a baseline, so that the same SQL measures both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.rows.fields import label_or_field_condition
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.token_classes import class_source
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.audit.checks.metrics import Metric
from lossprobe.audit.settings import Check
from lossprobe.errors import NotComparableError
from lossprobe.run.baseline import UPDATE
from lossprobe.run.filters import refuse_labels, where_sql
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

KEYS = ("document", "token", "token_id")


@dataclass(frozen=True)
class AuditedRun:
    """A run with its baseline.

    Attributes:
        run: the scored text, or some of its documents.
        clusters: the documents or blocks that intervals resample.
        baseline: the same tokens with the numbers of an earlier model, from `run.baseline`; None without one.
    """

    run: Run
    clusters: Clusters
    baseline: Run | None = None

    def sides(self, check: Check) -> tuple[bool, ...]:
        """Return the values of `of_baseline` that a check needs: (True, False) for a change, else (False,)."""
        return (True, False) if check.limit.needs_baseline and self.baseline is not None else (False,)

    def rows(self, check: Check, *, of_baseline: bool = False) -> str:
        """Return a SQL relation of the tokens in a check's slice: the columns of `tokens`, and `compared`.

        `compared` is true for tokens with a loss; for a check of a change, with a loss in both model and baseline.

        Args:
            check: the check.
            of_baseline: put the numbers of the baseline in place of the model's.
        """
        classes = check.token_class is not None
        tokens = class_source() if classes else "tokens"
        condition = _condition(self.run, check)
        if self.baseline is None or not check.limit.needs_baseline:
            return f"(SELECT *, unscored IS NULL AS compared FROM {tokens} AS t WHERE {condition})"
        names = ("unscored", *self.baseline.manifest["columns"])
        other = ", ".join(f"{name} AS base_{name}" for name in names)
        # Both tables have the same rows in the same order, so they can be joined by position. Joins that find the
        # classes of tokens change the order; then the keys are joined.
        keys, join = ("document, token, ", "JOIN") if classes else ("", "POSITIONAL JOIN")
        using = "USING (document, token)" if classes else ""
        both = f"""(
            SELECT *, unscored IS NULL AND base_unscored IS NULL AS compared
            FROM {tokens} AS t {join} (SELECT {keys}{other} FROM {self.baseline.relation("tokens")}) AS b {using})"""
        exchanged = ", ".join(f"base_{name} AS {name}" for name in names)
        return f"(SELECT *{f' REPLACE ({exchanged})' if of_baseline else ''} FROM {both} WHERE {condition})"

    def sums(self, check: Check, metric: Metric) -> Floats:
        """Return the sums of a metric's terms for each document (or block) with tokens in the slice.

        Documents in which a term of `metric.both` is 0 are left out. Conversations that are the same up to the end of
        the slice count as one, as in `rows.fields.label_source`: a system prompt that all begin with is one text.

        Returns:
            float64 [G, 1, terms + 1] of the model, or [G, 2, terms + 1] of baseline and model; the last term is the
            number of tokens.

        Raises:
            OutputError: a stored number is NaN or infinite, which scoring never writes.
        """
        terms = ", ".join(f"sum({sql})::DOUBLE" for sql in (*metric.terms, "1"))
        counted = "compared" if metric.of_scored else "TRUE"
        cluster, owners = self.clusters.sql, ""
        if self.run.labelled and self.clusters.unit == "document":
            cluster, owners = "owner", f"JOIN {self._first_alike(check, counted)} USING (document)"
        found = [
            self.run.query(f"""
                SELECT {cluster} AS cluster, {terms} FROM {self.rows(check, of_baseline=side)} {owners}
                WHERE {counted} GROUP BY cluster ORDER BY cluster""").to_numpy(float)[:, 1:]
            for side in self.sides(check)
        ]
        sums: Floats = np.stack(found, axis=1)
        if not np.isfinite(sums).all():
            refuse_not_finite(self.run)
        return np.asarray(sums[(sums[..., list(metric.both)] > 0).all(axis=(1, 2))])

    def _first_alike(self, check: Check, counted: str) -> str:
        """Return a SQL relation: `document`, and `owner`, the first that is the same up to its last token in the slice.

        Args:
            check: the check.
            counted: SQL condition on the rows of the slice.
        """
        ends = f"SELECT document, max(token) AS last FROM {self.rows(check)} WHERE {counted} GROUP BY document"
        prefixes = f"""
            SELECT document, last, bit_xor(hash(token, token_id)) AS prefix
            FROM tokens JOIN ({ends}) USING (document) WHERE token <= last GROUP BY document, last"""
        return f"(SELECT document, min(document) OVER (PARTITION BY last, prefix) AS owner FROM ({prefixes}))"

    def refuse_other_tokens(self) -> None:
        """Refuse a baseline whose rows are not the tokens of the run.

        Raises:
            NotComparableError: the message says how many rows differ.
        """
        if self.baseline is None:
            return
        differs = " OR ".join(f"t.{key} IS DISTINCT FROM b.{key}" for key in KEYS)
        count = self.run.scalar(f"SELECT count(*) FILTER ({differs}) FROM {self._side_by_side(KEYS)}")
        if count:
            shown = visible(str(self.baseline.path), 200)
            raise NotComparableError(
                "baseline.different_tokens",
                f"{shown}: {format_count(count)} rows are not the tokens that were scored",
                hint=UPDATE,
            )

    def identical(self) -> bool:
        """Return whether every token has exactly the same numbers in the run and the baseline, in all their columns."""
        if self.baseline is None:
            return False
        names = ("unscored", *self.baseline.manifest["columns"])
        differs = " OR ".join(f"t.{name} IS DISTINCT FROM b.{name}" for name in names)
        return not self.run.scalar(f"SELECT count(*) FILTER ({differs}) FROM {self._side_by_side(names)}")

    def _side_by_side(self, names: tuple[str, ...]) -> str:
        assert self.baseline is not None
        chosen = ", ".join(names)
        other = f"(SELECT {chosen} FROM {self.baseline.relation('tokens')})"
        return f"(SELECT {chosen} FROM tokens) AS t POSITIONAL JOIN {other} AS b"


def _condition(run: Run, check: Check) -> str:
    """Return a SQL condition that selects the tokens of a check's slice."""
    refuse_labels([check.where] if check.where else [], labelled=run.labelled)
    parts = [where_sql([check.where] if check.where else [])]
    if check.token_class is not None:
        parts.append(f"form = '{check.token_class}'")  # one of `FORMS`, see `config.check_table`
    if check.field is not None and check.equals is not None:
        parts.append(label_or_field_condition(run, check.field, check.equals))
    return " AND ".join(parts)
