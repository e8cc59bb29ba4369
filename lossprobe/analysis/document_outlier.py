"""How far the hardest document of a text lies from all others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lossprobe.analysis.rows.clusters import document_clusters
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import jackknife_ratio, t_quantile
from lossprobe.run.reader import Run

if TYPE_CHECKING:
    import pandas as pd

FEWEST_TOKENS = 64  # scored ones of a document that is compared
FEWEST_DOCUMENTS = 10
PIECES = 16  # of the document, for the interval of its mean
NORMAL_MAD = 1.4826  # standard deviations in a median absolute deviation of normal numbers


@dataclass(frozen=True)
class DocumentOutlier:
    """The hardest of the documents with 64 scored tokens or more, against the others; copies of a text are one.

    Attributes:
        document: its number; of copies the first one.
        documents: how many different documents are compared.
        mean_loss_nats: its mean loss.
        difference_nats: mean loss of the document minus that of all tokens of the others, and its interval, from 16
            consecutive pieces of the document and from how the others differ.
        deviations: how far its mean lies above the median of the means, in their standard deviations as the median
            absolute deviation gives them; infinite where all others are equal.
        share_of_loss: its part of the total loss, copies included.
        clusters: those of the interval's t: the pieces, or the other documents where these are fewer.
    """

    document: int
    documents: int
    mean_loss_nats: float
    difference_nats: float
    difference_nats_interval: Interval
    deviations: float
    share_of_loss: float
    clusters: int


def document_outlier(run: Run) -> DocumentOutlier | None:
    """Return how far the hardest document lies from the others; None with fewer than ten documents to compare."""
    clusters = document_clusters(run)
    if clusters.count < FEWEST_DOCUMENTS:
        return None
    texts = run.query(f"""
        SELECT min(document) AS document, count(DISTINCT document) AS copies, sum(loss_nats::DOUBLE) AS nats,
               count(*)::DOUBLE AS tokens
        FROM tokens WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY document""")
    total = float(texts["nats"].sum())
    texts = texts[texts["tokens"] >= FEWEST_TOKENS * texts["copies"]].reset_index(drop=True)
    if len(texts) < FEWEST_DOCUMENTS:
        return None
    means = (texts["nats"] / texts["tokens"]).to_numpy(float)
    place = int(means.argmax())
    others = texts.drop(index=place)
    level = float(others["nats"].sum() / others["tokens"].sum())
    rest = np.delete(means, place)
    middle = float(np.median(rest))
    spread = NORMAL_MAD * float(np.median(np.abs(rest - middle)))
    above = float(means[place]) - middle
    document = int(texts["document"][place])
    return DocumentOutlier(
        document=document,
        documents=len(texts),
        mean_loss_nats=float(means[place]),
        difference_nats=float(means[place]) - level,
        difference_nats_interval=_interval(run, document, float(means[place]), level, rest),
        deviations=above / spread if spread > 0 else math.inf if above > 0 else 0.0,
        share_of_loss=float(texts["nats"][place]) / total if total > 0 else 0.0,
        clusters=min(PIECES, len(rest)),
    )


def _interval(run: Run, document: int, mean: float, level: float, rest: np.ndarray) -> Interval:
    """Return the interval of the difference: the squares of half of both intervals add up."""
    pieces: pd.DataFrame = run.query(
        f"""
        SELECT sum(loss_nats::DOUBLE) AS nats, count(*)::DOUBLE AS tokens FROM (
            SELECT loss_nats, ntile({PIECES}) OVER (ORDER BY token) AS piece
            FROM tokens WHERE document = ? AND unscored IS NULL)
        GROUP BY piece ORDER BY piece""",
        (document,),
    )
    low, high = jackknife_ratio(pieces["nats"], pieces["tokens"]).interval
    if low is None or high is None:
        return NO_INTERVAL
    error = float(rest.std(ddof=1)) / math.sqrt(len(rest))
    half = math.hypot((high - low) / 2.0, float(t_quantile(len(rest))) * error)
    return Interval(mean - level - half, mean - level + half)
