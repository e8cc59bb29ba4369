"""The losses that preference trainers use, from the log-probabilities of both answers of each pair.

With log π(y) the log-probability of an answer y after its prompt (a sum over its scored tokens), |y| their number, y₊
the chosen answer and y₋ the rejected one, and π_ref the reference model:

    DPO             −log σ(β Δ)                  Δ = [log π(y₊) − log π_ref(y₊)] − [log π(y₋) − log π_ref(y₋)]
                    Rafailov et al. 2023, eq. 7
    IPO             (Δ' − 1 / (2 β))²            Δ' as Δ, with each bracket divided by its |y|
                    Azar et al. 2024, eq. 17 (β is τ there); the mean over tokens is TRL's, agreed with its authors
    SimPO           −log σ(β [log π(y₊) / |y₊| − log π(y₋) / |y₋|] − γ)
                    Meng et al. 2024, eq. 6
    ORPO            −log π(y₊) / |y₊| − λ log σ(log odds(y₊) − log odds(y₋))
                    with log odds(y) = a − log(1 − exp a), a = log π(y) / |y|; Hong et al. 2024, eqs. 4, 6 and 7
    margin ranking  max(0, m − log π(y₊) + log π(y₋))
                    Zhao et al. 2023 (SLiC-HF), eq. 1, without its regularisation; torch's MarginRankingLoss

All are those of TRL 1.16 (`DPOTrainer` with loss_type sigmoid and ipo, `CPOTrainer` with simpo, `ORPOTrainer`) but for
one: the first term of TRL's ORPO is the mean loss of prompt and answer together. It has no margin ranking loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.options import PreferenceOptions

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """The log-probabilities of one answer of each pair; every field is [N].

    Attributes:
        logp: log π, in nats.
        tokens: scored tokens, at least 1.
        reference: log π_ref, in nats; None without a reference.
    """

    logp: Floats
    tokens: Floats
    reference: Floats | None = None

    @property
    def mean(self) -> Floats:
        """The log-probability per token."""
        return self.logp / self.tokens

    @property
    def ratio(self) -> Floats:
        """The log-ratio log π − log π_ref.

        Raises:
            ValueError: there is no reference.
        """
        if self.reference is None:
            raise ValueError("without a reference there is no ratio")
        return self.logp - self.reference


def dpo(chosen: Answers, rejected: Answers, beta: float) -> Floats:
    """Return the DPO loss of each pair in nats.

    >>> one, other = Answers(*map(np.array, ([-4.0], [2.0], [-5.0]))), Answers(*map(np.array, ([-9.0], [3.0], [-8.0])))
    >>> dpo(one, other, beta=0.5).round(6).tolist()  # Δ = 1 + 1
    [0.313262]
    """
    return minus_log_sigmoid(beta * (chosen.ratio - rejected.ratio))


def ipo(chosen: Answers, rejected: Answers, beta: float) -> Floats:
    """Return the IPO loss of each pair.

    >>> one, other = Answers(*map(np.array, ([-4.0], [2.0], [-5.0]))), Answers(*map(np.array, ([-9.0], [3.0], [-8.0])))
    >>> ipo(one, other, beta=0.5).round(6).tolist()  # (1/2 + 1/3 − 1)²
    [0.027778]
    """
    return np.asarray((chosen.ratio / chosen.tokens - rejected.ratio / rejected.tokens - 1 / (2 * beta)) ** 2)


def simpo(chosen: Answers, rejected: Answers, beta: float, gamma: float) -> Floats:
    """Return the SimPO loss of each pair in nats.

    >>> one, other = Answers(np.array([-4.0]), np.array([2.0])), Answers(np.array([-9.0]), np.array([3.0]))
    >>> simpo(one, other, beta=2.0, gamma=0.5).round(6).tolist()  # 2 · (−2 + 3) − 0.5
    [0.201413]
    """
    return minus_log_sigmoid(beta * (chosen.mean - rejected.mean) - gamma)


def orpo(chosen: Answers, rejected: Answers, weight: float) -> Floats:
    """Return the ORPO loss of each pair in nats.

    >>> one, other = Answers(np.array([-4.0]), np.array([2.0])), Answers(np.array([-9.0]), np.array([3.0]))
    >>> orpo(one, other, weight=0.1).round(6).tolist()
    [2.028875]
    """
    odds = log_odds(chosen.mean) - log_odds(rejected.mean)
    return np.asarray(-chosen.mean + weight * minus_log_sigmoid(odds))


def margin_ranking(chosen: Answers, rejected: Answers, margin: float) -> Floats:
    """Return the margin ranking loss of each pair in nats.

    >>> one, other = Answers(np.array([-4.0]), np.array([2.0])), Answers(np.array([-4.5]), np.array([3.0]))
    >>> margin_ranking(one, other, margin=1.0).tolist()
    [0.5]
    """
    return np.maximum(0.0, margin - chosen.logp + rejected.logp)


def pair_losses(chosen: Answers, rejected: Answers, options: PreferenceOptions) -> dict[str, Floats]:
    """Return every loss of each pair, by its column; DPO and IPO need a reference."""
    found = {}
    if chosen.reference is not None:
        found["dpo_nats"] = dpo(chosen, rejected, options.beta)
        found["ipo"] = ipo(chosen, rejected, options.beta)
    return found | {
        "simpo_nats": simpo(chosen, rejected, options.simpo_beta, options.simpo_gamma),
        "orpo_nats": orpo(chosen, rejected, options.orpo_lambda),
        "pair_margin_ranking_nats": margin_ranking(chosen, rejected, options.margin),
    }


def minus_log_sigmoid(value: Floats) -> Floats:
    """Return −log σ(x) = log(1 + exp(−x)), without overflow."""
    return np.asarray(np.logaddexp(0.0, -value))


def log_odds(mean: Floats) -> Floats:
    """Return log(p / (1 − p)) of p = exp(mean); mean is at most 0, and a p of 1 is taken for the largest below it."""
    below = np.minimum(mean, -np.finfo(float).eps)
    return np.asarray(below - np.log(-np.expm1(below)))
