"""A scored text beside its baseline: the same SQL reads the model's numbers or the baseline's, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.rows.fields import field_condition
from lossprobe.analysis.rows.filters import where_sql
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.token_classes import class_source
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.audit.checks.metrics import Metric
from lossprobe.audit.settings import Check
from lossprobe.errors import NotComparableError
from lossprobe.run.baseline import UPDATE
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

KEYS = ("document", "token", "token_id")


@dataclass(frozen=True)
class AuditedRun:
    """A run, and what its tokens are compared with.

    Attributes:
        run: the scored text, or some of its documents.
        clusters: what intervals resample.
        baseline: rows of the same tokens, from `run.baseline`; None without one.
    """

    run: Run
    clusters: Clusters
    baseline: Run | None = None

    def sides(self, check: Check) -> tuple[bool, ...]:
        """Return what a check needs: True for the baseline, False for the model; the values of `of_baseline`."""
        return (True, False) if check.limit.needs_baseline and self.baseline is not None else (False,)

    def rows(self, check: Check, *, of_baseline: bool = False) -> str:
        """Return a SQL relation of the tokens of a check's slice, with `compared` beside the columns of `tokens`.

        `compared` says that a token has a loss: where the check is about a change, in both. With `of_baseline` what the
        model said is replaced by what the baseline's model said.
        """
        classes = check.token_class is not None
        tokens = class_source() if classes else "tokens"
        condition = _condition(check)
        if self.baseline is None or not check.limit.needs_baseline:
            return f"(SELECT *, unscored IS NULL AS compared FROM {tokens} AS t WHERE {condition})"
        names = ("unscored", *self.baseline.manifest["columns"])
        other = ", ".join(f"{name} AS base_{name}" for name in names)
        # Rows of both stand in the same order and are laid side by side; but joins that find classes mix the order.
        keys, join = ("document, token, ", "JOIN") if classes else ("", "POSITIONAL JOIN")
        using = "USING (document, token)" if classes else ""
        both = f"""(
            SELECT *, unscored IS NULL AND base_unscored IS NULL AS compared
            FROM {tokens} AS t {join} (SELECT {keys}{other} FROM {self.baseline.relation("tokens")}) AS b {using})"""
        exchanged = ", ".join(f"base_{name} AS {name}" for name in names)
        return f"(SELECT *{f' REPLACE ({exchanged})' if of_baseline else ''} FROM {both} WHERE {condition})"

    def sums(self, check: Check, metric: Metric) -> Floats:
        """Return the sums of a metric's terms, float64 [G, 1, terms + 1], or [G, 2, terms + 1] of baseline and model.

        One entry for each document (or block) with tokens in the slice; the last term is how many. Documents in which a
        term of `metric.both` is 0 are left out.

        Raises:
            OutputError: a stored number is NaN or infinite, which scoring never writes.
        """
        terms = ", ".join(f"sum({sql})::DOUBLE" for sql in (*metric.terms, "1"))
        counted = "compared" if metric.of_scored else "TRUE"
        found = [
            self.run.query(f"""
                SELECT {self.clusters.sql} AS cluster, {terms} FROM {self.rows(check, of_baseline=side)}
                WHERE {counted} GROUP BY cluster ORDER BY cluster""").to_numpy(float)[:, 1:]
            for side in self.sides(check)
        ]
        sums: Floats = np.stack(found, axis=1)
        if not np.isfinite(sums).all():
            refuse_not_finite(self.run)
        return np.asarray(sums[(sums[..., list(metric.both)] > 0).all(axis=(1, 2))])

    def refuse_other_tokens(self) -> None:
        """Refuse a baseline whose rows are not the same tokens, although all of its settings are.

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
        """Return whether the model said of every token exactly what the baseline's did, in all that both keep."""
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


def _condition(check: Check) -> str:
    """Return SQL for the slice of a check."""
    parts = [where_sql([check.where] if check.where else [])]
    if check.token_class is not None:
        parts.append(f"form = '{check.token_class}'")  # one of `FORMS`, see `config.check_table`
    if check.field is not None and check.equals is not None:
        parts.append(field_condition(check.field, check.equals))
    return " AND ".join(parts)
