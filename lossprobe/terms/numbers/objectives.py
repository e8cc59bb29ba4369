"""The same tokens under other losses: the numbers of `objectives`.

In the formulas n is the loss of a token, p its probability, U the mean of −log p over the V vocabulary entries, ε the
label smoothing.
"""

from __future__ import annotations

from lossprobe.terms.term import number

OBJECTIVES = "lossprobe objectives"
SMOOTHING = "lossprobe objectives --smoothing 0.1"
PER_TOKEN = "nats per token"

NUMBERS = (
    number(
        "smoothed_torch_nats",
        "The label-smoothed loss in torch's convention, as F.cross_entropy(label_smoothing=ε), Hugging Face and "
        "FundamentaLLM log it.",
        formula="(1 − ε) n + ε U",
        unit=PER_TOKEN,
        how_to_read="It stands above a floor that depends on ε and V, cannot be turned back into n without U, and its "
        "exponential is no perplexity. Compare models by nll.",
        source="Szegedy et al. 2016; torch.nn.functional.cross_entropy",
        command=SMOOTHING,
    ),
    number(
        "smoothed_fairseq_nats",
        "The label-smoothed loss in fairseq's convention: 1 − ε on the token, ε / (V − 1) on the others.",
        formula="(1 − ε) n + ε (V U − n) / (V − 1)",
        unit=PER_TOKEN,
        how_to_read="With ε it is torch's with ε V / (V − 1).",
        source="fairseq, label_smoothed_cross_entropy",
        command=SMOOTHING,
    ),
    number(
        "smoothed_hard_part_nats",
        "The part of a smoothed loss that is about the text.",
        formula="(1 − ε) n",
        unit=PER_TOKEN,
        command=SMOOTHING,
    ),
    number(
        "smoothed_torch_uniform_part_nats",
        "The part of torch's smoothed loss that asks for probability on every entry.",
        formula="ε U",
        unit=PER_TOKEN,
        how_to_read="U never falls below log V; a sharper, better model can have a larger one.",
        command=SMOOTHING,
    ),
    number(
        "smoothed_fairseq_uniform_part_nats",
        "The part of fairseq's smoothed loss that asks for probability on the other entries.",
        formula="ε (V U − n) / (V − 1)",
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
        formula="(1 − p)^γ n",
        unit="nats",
        how_to_read="γ = 0 gives nll.",
        command=OBJECTIVES,
    ),
    number(
        "margin_ranking_nats",
        "The ranking loss against the hardest other entry.",
        formula="max(0, δ − logit of the token + best other logit)",
        unit="nats",
        how_to_read="0 where the token leads by at least δ.",
        command=OBJECTIVES,
    ),
    number(
        "z_loss",
        "A penalty on large logits.",
        formula="α log_z², log_z the log-sum-exp of the logits",
        unit="nats²",
        how_to_read="mean_log_z2 and max_abs_log_z show how far the logits have drifted.",
        source="PaLM, α = 1e-4",
        command=OBJECTIVES,
        aliases=("mean_log_z2", "max_abs_log_z"),
    ),
    number(
        "gradient_l1",
        "The L1 norm of the gradient of the loss for the logits.",
        formula="gradient p − 1{token}; its L1 norm is 2 (1 − p)",
        command=OBJECTIVES,
    ),
    number(
        "gradient_l2",
        "The L2 norm of the gradient of the loss for the logits.",
        formula="√Brier",
        command=OBJECTIVES,
    ),
    number(
        "gradient_linf",
        "The largest entry of the gradient of the loss for the logits.",
        formula="1 − p",
        command=OBJECTIVES,
    ),
    number(
        "gradient_l2_smoothed_torch",
        "The L2 norm of the gradient of torch's smoothed loss for the logits.",
        formula="√Σ (p − q)², with q = 1 − ε + ε/V on the token and ε/V elsewhere",
        command=SMOOTHING,
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
        formula="entries with scale · |g| ≤ 2^−25 / all entries, g the logits' gradient of a mean loss over "
        "--batch-tokens tokens",
        how_to_read="l1_lost_share says what they weigh: many lost entries can carry almost nothing. Counted from the "
        "histogram, within 0.25 to 2 %.",
        command=OBJECTIVES,
    ),
    number(
        "l1_lost_share",
        "The share of the gradient's L1 norm that float16 rounds to 0.",
        formula="Σ lost |g| / Σ |g|",
        command=OBJECTIVES,
    ),
    number(
        "l2_lost",
        "The relative L2 error of the gradient in float16.",
        formula="√(Σ lost g² / Σ g²)",
        command=OBJECTIVES,
    ),
    number(
        "recommended_loss_scale",
        "The least loss scale with which float16 keeps the gradient of the logits.",
        formula="the least power of two that loses under 1e-3 of Σ |g| and keeps the largest entry 16 times below "
        "65,504",
        how_to_read="A lower bound: activations and weights deeper in the model can underflow first.",
        command=OBJECTIVES,
        aliases=("recommended_scale", "half_precision"),
    ),
)
