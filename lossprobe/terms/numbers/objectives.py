"""The same tokens under other losses: the numbers of `objectives`."""

from __future__ import annotations

from lossprobe.terms.term import number

OBJECTIVES = "lossprobe objectives"
SMOOTHING = "lossprobe objectives --smoothing 0.1"
PER_TOKEN = "nats per token"
N_AND_U = "n is the loss of a token, U the mean of −log p over the V vocabulary entries"
GRADIENT = "gradient g = p − 1{token} over the vocabulary"

NUMBERS = (
    number(
        "smoothed_torch_nats",
        "The label-smoothed loss in torch's convention, as F.cross_entropy(label_smoothing=ε), Hugging Face and "
        "FundamentaLLM log it.",
        formula=f"(1 − ε) n + ε U; {N_AND_U}",
        unit=PER_TOKEN,
        how_to_read="It stands above a floor that depends on ε and V, cannot be turned back into n without U, and its "
        "exponential is no perplexity. Compare models by nll.",
        source="Szegedy et al. 2016; torch.nn.functional.cross_entropy",
        command=SMOOTHING,
    ),
    number(
        "smoothed_fairseq_nats",
        "The label-smoothed loss in fairseq's convention: 1 − ε on the token, ε / (V − 1) on the others.",
        formula=f"(1 − ε) n + ε (V U − n) / (V − 1); {N_AND_U}",
        unit=PER_TOKEN,
        how_to_read="It equals smoothed_torch_nats with ε V / (V − 1) in the place of ε.",
        source="fairseq, label_smoothed_cross_entropy",
        command=SMOOTHING,
    ),
    number(
        "smoothed_hard_part_nats",
        "The part of a smoothed loss that is about the text.",
        formula="(1 − ε) n, with n the loss of a token",
        unit=PER_TOKEN,
        how_to_read="Divided by 1 − ε it is nll again.",
        command=SMOOTHING,
    ),
    number(
        "smoothed_torch_uniform_part_nats",
        "The part of torch's smoothed loss that asks for probability on every entry.",
        formula="ε U, with U the mean of −log p over the V vocabulary entries",
        unit=PER_TOKEN,
        how_to_read="U never falls below log V; a sharper, better model can have a larger one.",
        command=SMOOTHING,
    ),
    number(
        "smoothed_fairseq_uniform_part_nats",
        "The part of fairseq's smoothed loss that asks for probability on the other entries.",
        formula=f"ε (V U − n) / (V − 1); {N_AND_U}",
        unit=PER_TOKEN,
        command=SMOOTHING,
    ),
    number(
        "smoothed_torch_floor_nats",
        "The least that a smoothed loss can be: the entropy of the smoothed target.",
        formula="−Σ q log q, with q = 1 − ε + ε/V on the token and ε/V elsewhere (fairseq: 1 − ε and ε / (V − 1))",
        unit=PER_TOKEN,
        how_to_read="Only a deterministic text reaches it. 1.017 at ε = 0.1 and V = 1,024; 1.408 at V = 50,257.",
        command=SMOOTHING,
        aliases=("floor", "smoothed_fairseq_floor_nats"),
    ),
    number(
        "focal_nats",
        "The focal loss: tokens that the model knows count less.",
        formula="(1 − p)^γ n, with n the loss and p the probability of the token",
        unit="nats",
        how_to_read="γ = 0 gives nll.",
        source="Lin et al. 2017",
        command=OBJECTIVES,
    ),
    number(
        "margin_ranking_nats",
        "The ranking loss against the hardest other entry.",
        formula="max(0, δ − logit of the token + best other logit)",
        unit="nats",
        how_to_read="0 where the token leads by at least δ.",
        source="torch.nn.functional.margin_ranking_loss",
        command=OBJECTIVES,
    ),
    number(
        "z_loss",
        "A penalty on large logits.",
        formula="α log_z², log_z the log-sum-exp of the logits",
        unit="nats²",
        how_to_read="mean_log_z2 and max_abs_log_z show how far the logits have drifted.",
        source="Chowdhery et al. 2022 (PaLM), α = 1e-4",
        command=OBJECTIVES,
        aliases=("mean_log_z2", "max_abs_log_z"),
    ),
    number(
        "gradient_l1",
        "The L1 norm of the gradient of the loss with respect to the logits.",
        formula=f"Σ |g| = 2 (1 − p of the token); {GRADIENT}",
        how_to_read="How hard the token pulls at the model in training.",
        command=OBJECTIVES,
    ),
    number(
        "gradient_l2",
        "The L2 norm of the gradient of the loss with respect to the logits.",
        formula=f"√Σ g², the square root of the Brier score of the token; {GRADIENT}",
        how_to_read="How hard the token pulls at the model in training.",
        command=OBJECTIVES,
    ),
    number(
        "gradient_linf",
        "The largest entry of the gradient of the loss with respect to the logits.",
        formula=f"max |g| = 1 − p of the token; {GRADIENT}",
        how_to_read="How hard the token pulls at the model in training.",
        command=OBJECTIVES,
    ),
    number(
        "gradient_l2_smoothed_torch",
        "The L2 norm of the gradient of torch's smoothed loss with respect to the logits.",
        formula="√Σ (p − q)² over the V vocabulary entries, with q = 1 − ε + ε/V on the token and ε/V elsewhere",
        how_to_read="How hard the token pulls at the model in training.",
        command=SMOOTHING,
    ),
    number(
        "load_balancing_loss",
        "The loss that trains the routers of a mixture of experts to use all experts alike (auxiliary loss, aux_loss).",
        formula="E · Σ_e f_e P_e over all layers together, with f_e the slots that go to expert e and P_e the sum of "
        "its probabilities, both by tokens times layers; padding left out, masked tokens not",
        how_to_read="Experts per token where all are used alike, up to E where few take all. It depends on the batch: "
        "a larger one is more even. A trainer adds it with the configuration's weight (weighted_nats): 0.001 for "
        "Mixtral, Qwen3-MoE and gpt-oss, 0.01 for OLMoE, unless changed.",
        source="Fedus et al. 2021, equations 4 to 6; load_balancing_loss_func of transformers",
        command=OBJECTIVES,
        aliases=("load_balancing", "aux_loss", "weighted_nats", "load_balancing_coefficient"),
    ),
    number(
        "mean_of_means_N",
        "The mean of the means of micro-batches of N consecutive windows, as gradient accumulation and loader averages "
        "have it.",
        formula="mean − Cov_k(n_k, L_k) / mean n_k, with n_k tokens and mean loss L_k of micro-batch k",
        unit="that of the number",
        how_to_read="It differs from the mean over tokens wherever short and long windows differ in loss: use it to "
        "reproduce a logged number, not to compare models.",
        command="lossprobe objectives --micro-batch 8",
        aliases=("mean_of_means", "covariance_term", "micro_batches"),
    ),
    number(
        "entries_lost_share",
        "The share of the gradient's entries that float16 rounds to 0.",
        formula="entries with scale · |g| ≤ 2^−25 / all entries, g the gradient with respect to the logits of a mean "
        "loss over --batch-tokens tokens",
        unit="share of the entries",
        how_to_read="l1_lost_share says what they weigh: many lost entries can carry almost nothing. The tokens' own "
        "entries are counted one by one, all others from the histogram in bins of 0.1 decades: within 0.25 to 2 % of "
        "what casting every entry gives, not exact.",
        command=OBJECTIVES,
    ),
    number(
        "l1_lost_share",
        "The share of the gradient's L1 norm that float16 rounds to 0.",
        formula="Σ |g| of the entries that become 0 / Σ |g| of all",
        unit="share of the gradient",
        how_to_read="Above 0.001 a loss scale is worth having: see recommended_loss_scale.",
        command=OBJECTIVES,
    ),
    number(
        "l2_lost",
        "The relative L2 error of the gradient in float16.",
        formula="√(Σ g² of the entries that become 0 / Σ g² of all)",
        unit="ratio",
        how_to_read="0.01: the gradient that float16 keeps is 1 % off.",
        command=OBJECTIVES,
    ),
    number(
        "recommended_loss_scale",
        "The least loss scale with which float16 keeps the gradient of the logits.",
        formula="the least power of two that loses under 1e-3 of Σ |g| and keeps the largest entry 16 times below "
        "65,504",
        unit="factor",
        how_to_read="A lower bound: activations and weights deeper in the model can underflow first.",
        command=OBJECTIVES,
        aliases=("recommended_scale", "half_precision"),
    ),
)
