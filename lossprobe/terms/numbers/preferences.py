"""How a model ranks pairs of answers: the numbers of `preferences`."""

from __future__ import annotations

from lossprobe.terms.term import number

PREFERENCES = "lossprobe preferences MODEL PAIRS"
REFERENCE = "lossprobe preferences MODEL PAIRS --reference MODEL2"
SHARE = "share of the ranked pairs; interval: Wilson's, over distinct pairs"

NUMBERS = (
    number(
        "chosen_logp_nats",
        "The log-probability of the chosen (or rejected) answer after its prompt.",
        formula="Σ log p(token) over the scored tokens of the answer; per token: divided by their number",
        unit="nats",
        how_to_read="A sum falls with every token, so that of two answers the shorter one mostly has the higher sum.",
        command=PREFERENCES,
        aliases=("rejected_logp_nats", "chosen_reference_logp_nats", "rejected_reference_logp_nats"),
    ),
    number(
        "logp_margin_nats",
        "By how much the chosen answer is more likely than the rejected one.",
        formula="log p(chosen) − log p(rejected); per token: each divided by its own number of tokens first",
        unit="nats",
        how_to_read="Above 0 the pair is ranked right.",
        command=PREFERENCES,
        aliases=("logp_margin_per_token_nats", "ranked_by"),
    ),
    number(
        "ranked_right",
        "The share of pairs whose chosen answer is the more likely one.",
        formula=f"share with logp_margin_nats > 0 (per token: logp_margin_per_token_nats > 0); a {SHARE}",
        unit="share",
        how_to_read="0.5 is what a coin gives. A tie is not right. Look at length_bias too: the sum favours short "
        "answers.",
        source="interval: Wilson 1927",
        command=PREFERENCES,
        aliases=("ranked_right_per_token", "ranked_pairs", "equal_sides", "pairs_without_tokens", "pairs"),
    ),
    number(
        "length_bias",
        "How much more often a pair is ranked right where the chosen answer is the longer one.",
        formula="right_where_longer − right_where_shorter; interval: Newcombe's of a difference of two shares",
        unit="share",
        how_to_read="0 where the ranking does not follow length; below 0 it favours shorter answers, above 0 longer "
        "ones. It is named only where its interval leaves out 0. longer_wins and rank_correlation also follow the "
        "data: where the chosen answers are mostly longer, a perfect ranking prefers longer answers too.",
        source="Newcombe 1998, method 10; rank correlation: Bonett & Wright 2000",
        command=PREFERENCES,
        aliases=("longer_wins", "right_where_longer", "right_where_shorter", "rank_correlation", "score"),
    ),
    number(
        "reward_margin_nats",
        "The margin of the implicit reward: how much more training has raised the chosen answer than the rejected one.",
        formula="β Δ, Δ = [log π(chosen) − log π_ref(chosen)] − [log π(rejected) − log π_ref(rejected)]",
        unit="nats",
        how_to_read="0 for all pairs where the model is its own reference. TRL logs the mean as rewards/margins.",
        source="Rafailov et al. 2023",
        command=REFERENCE,
    ),
    number(
        "reward_accuracy",
        "The share of pairs whose implicit reward is higher for the chosen answer.",
        formula=f"share with reward_margin_nats > 0; a {SHARE}",
        unit="share",
        how_to_read="TRL logs it as rewards/accuracies.",
        command=REFERENCE,
        aliases=("reference",),
    ),
    number(
        "dpo_nats",
        "The DPO loss of a pair.",
        formula="−log σ(β Δ), Δ as in reward_margin_nats",
        unit="nats",
        how_to_read="ln 2 = 0.693 before training, where the model is its own reference.",
        source="Rafailov et al. 2023, eq. 7; TRL's loss_type sigmoid",
        command=REFERENCE,
        aliases=("DPO",),
    ),
    number(
        "ipo",
        "The IPO loss of a pair.",
        formula="(Δ' − 1 / (2 β))², Δ' as Δ of reward_margin_nats with each bracket divided by its answer's tokens",
        unit="nats²",
        how_to_read="1 / (4 β²) before training; 25 for β = 0.1.",
        source="Azar et al. 2024, eq. 17, per token as in TRL",
        command=REFERENCE,
    ),
    number(
        "simpo_nats",
        "The SimPO loss of a pair, which needs no reference.",
        formula="−log σ(β (log p(chosen) / tokens − log p(rejected) / tokens) − γ)",
        unit="nats",
        source="Meng et al. 2024, eq. 6; β = 2 as there, γ = 0.5 as in TRL",
        command=PREFERENCES,
        aliases=("SimPO",),
    ),
    number(
        "orpo_nats",
        "The ORPO loss of a pair, which needs no reference.",
        formula="−a₊ − λ log σ(log odds(a₊) − log odds(a₋)), a = log p per token, log odds(a) = a − log(1 − exp a)",
        unit="nats",
        how_to_read="TRL's first term is the mean loss of prompt and answer together, this one that of the answer, as "
        "in the paper.",
        source="Hong et al. 2024, eqs. 4, 6 and 7",
        command=PREFERENCES,
        aliases=("ORPO",),
    ),
    number(
        "pair_margin_ranking_nats",
        "The margin ranking loss of a pair.",
        formula="max(0, m − log p(chosen) + log p(rejected))",
        unit="nats",
        how_to_read="0 where the chosen answer is more likely by at least m.",
        source="Zhao et al. 2023 (SLiC-HF), eq. 1, without its regularisation; torch's MarginRankingLoss",
        command=PREFERENCES,
    ),
)
