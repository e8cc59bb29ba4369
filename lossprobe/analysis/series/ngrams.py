"""What n-gram models of the text itself would lose on it: a level that says when a model uses more than counts.

The documents (blocks of a single document) are dealt into ten folds, and each fold is predicted from the counts of the
other nine: no token is in the counts that predict it. With c and N the counts of single tokens in the other folds, T
the kinds that came there, V the entries of the vocabulary, u the token before, c(u, w), N(u) and T(u) the same of the
tokens after u, Witten-Bell interpolation (Witten & Bell 1991, IEEE Transactions on Information Theory 37, 1085-1094;
Chen & Goodman 1999, Computer Speech and Language 13, 359-394, equations 16 and 17) gives

    p(w) = (c(w) + T / V) / (N + T)        p(w | u) = (c(u, w) + T(u) p(w)) / (N(u) + T(u))

where p(w | u) = p(w) if u never came. It has no parameter to tune. Pairs lie within a document; only scored tokens are
counted. Whether a model is better is tested over the folds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import ResourceError
from lossprobe.run.database import MEMORY_LIMIT
from lossprobe.run.reader import Run

FOLDS = 10
NAMES = ("unigram", "bigram")
MEMORY = "256MB"  # of a run's own `MEMORY_LIMIT`: pairs of a large vocabulary are several millions


@dataclass(frozen=True)
class NgramLosses:
    """The losses of the n-gram models of a text, by fold.

    Attributes:
        nats: float64 [2, F], sums of the losses of the scored tokens, unigram and bigram.
        tokens: float64 [F], how many they are.
        fold: SQL expression over `tokens` that names a row's fold, from 0 on.
    """

    nats: Floats = field(repr=False)
    tokens: Floats = field(repr=False)
    fold: str


def measure_ngrams(run: Run) -> NgramLosses | None:
    """Return the losses of n-gram models on the text of a run; None for a text that cannot be divided.

    Everything is summed by pair of tokens in SQL, so that memory grows with the different pairs, not with the text.
    """
    clusters = find_clusters(run)
    if clusters.count < 2:
        return None
    fold = f"({clusters.sql}) % {FOLDS}"
    frame = _within(MEMORY, run, _LOSSES.format(pairs=_pairs(fold), entries=run.vocab_size))
    if len(frame) < 2:
        return None
    nats, tokens = np.zeros((len(NAMES), FOLDS)), np.zeros(FOLDS)
    places = frame["fold"].to_numpy(np.int64)
    tokens[places] = frame["tokens"]
    for row, name in zip(nats, NAMES, strict=True):
        row[places] = frame[name]
    return NgramLosses(nats, tokens, fold)


def _within(memory: str, run: Run, sql: str) -> pd.DataFrame:
    """Return the result of a query that uses temporary files where it outgrows so much memory, if it can."""
    try:
        run.query(f"SET memory_limit = '{memory}'")
        return run.query(sql)
    except ResourceError:  # no place for temporary files, or more is in use already
        run.query(f"SET memory_limit = '{MEMORY_LIMIT}'")
        return run.query(sql)
    finally:
        run.query(f"SET memory_limit = '{MEMORY_LIMIT}'")


def _pairs(fold: str) -> str:
    """Return SQL that counts the pairs (token before, token) of each fold; rows are read in their order."""
    return f"""
        SELECT fold, u, w, count(*) AS c FROM (
            SELECT {fold} AS fold, unscored, token_id AS w,
                   CASE WHEN lag(document) OVER () = document THEN lag(token_id) OVER () ELSE -1 END AS u
            FROM tokens) WHERE unscored IS NULL GROUP BY ALL"""


# Materialized, so that tables are joined in this order: one of (fold, u) and one of (fold, w) have nothing in common
# but the fold, and joining them first would pair all entries of the vocabulary with all others.
_LOSSES = """
    WITH ngram_pairs AS MATERIALIZED ({pairs}),
    everywhere AS (SELECT u, w, sum(c)::DOUBLE AS c FROM ngram_pairs GROUP BY ALL),
    own AS MATERIALIZED (
        SELECT fold, u, w, ngram_pairs.c AS c, everywhere.c - ngram_pairs.c AS elsewhere
        FROM ngram_pairs JOIN everywhere USING (u, w)),
    after_all AS (SELECT u, sum(c) AS n, count(*)::DOUBLE AS kinds FROM everywhere GROUP BY ALL),
    after_own AS (
        SELECT fold, u, sum(c)::DOUBLE AS n, count(*) FILTER (elsewhere = 0)::DOUBLE AS only_here
        FROM own GROUP BY ALL),
    after_rest AS (
        SELECT fold, u, after_all.n - after_own.n AS n, kinds - only_here AS kinds
        FROM after_own JOIN after_all USING (u)),
    single AS (SELECT fold, w, sum(c)::DOUBLE AS c FROM ngram_pairs GROUP BY ALL),
    singles AS (SELECT w, sum(c) AS c FROM single GROUP BY ALL),
    whole AS (SELECT sum(c) AS n, count(*)::DOUBLE AS kinds FROM singles),
    folds AS (
        SELECT fold, sum(single.c) AS n, count(*) FILTER (single.c = singles.c)::DOUBLE AS only_here
        FROM single JOIN singles USING (w) GROUP BY ALL),
    rest AS (SELECT fold, whole.n - folds.n AS n, whole.kinds - only_here AS kinds FROM folds, whole),
    unigram AS (
        SELECT fold, w, (singles.c - single.c + rest.kinds / {entries}) / (rest.n + rest.kinds) AS p
        FROM single JOIN singles USING (w) JOIN rest USING (fold)),
    expected AS MATERIALIZED (SELECT fold, u, c, elsewhere, p FROM own JOIN unigram USING (fold, w))
    SELECT fold, sum(c) AS tokens, sum(-ln(p) * c) AS unigram,
           sum(-ln(CASE WHEN n > 0 THEN (elsewhere + kinds * p) / (n + kinds) ELSE p END) * c) AS bigram
    FROM expected JOIN after_rest USING (fold, u) GROUP BY fold ORDER BY fold"""
