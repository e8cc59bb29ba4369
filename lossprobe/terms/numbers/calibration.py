"""How far the probabilities can be trusted: the numbers of `calibration`."""

from __future__ import annotations

from lossprobe.terms.term import number

CALIBRATION = "lossprobe calibration"
MURPHY = "decomposition of the Brier score, Murphy 1973"
PROBABILITY = "probability"
X_AND_O = (
    "x is the confidence of a token (the probability of the first choice), o is 1 where that choice was right, else 0"
)
SQUARED = "squared error"

NUMBERS = (
    number(
        "accuracy",
        "The share of tokens that were the model's first choice.",
        formula="tokens that were the first choice / scored tokens",
        unit="share of tokens",
        how_to_read="Higher is better. It ignores how sure the model was.",
        command=CALIBRATION,
    ),
    number(
        "top5_accuracy",
        "The share of tokens that were among the model's first five choices; a tie counts against the model.",
        formula="tokens with rank + ties ≤ 5 / scored tokens",
        unit="share of tokens",
        how_to_read="Higher is better.",
        command=CALIBRATION,
    ),
    number(
        "mean_confidence",
        "The mean probability of the model's first choice.",
        formula="mean probability of the first choice",
        unit=PROBABILITY,
        how_to_read="In a calibrated model it equals the accuracy.",
        command=CALIBRATION,
    ),
    number(
        "confidence_gap",
        "How much surer the model is of its first choice than it is right.",
        formula=f"mean x − mean o; z = Σ (x − o) / √Σ x (1 − x); {X_AND_O}",
        unit=PROBABILITY,
        how_to_read="Above 0 over-confident, below 0 under-confident. Its z is standard normal for a calibrated model. "
        "It can be 0 where errors cancel: look at ece too.",
        command=CALIBRATION,
    ),
    number(
        "ece",
        "Expected calibration error: how far confidence and accuracy are apart, in 15 bins of equal width.",
        formula=f"Σ over bins of |Σ (x − o)| / N tokens; bins are [a, b), 1.0 lies in the last; {X_AND_O}",
        unit=PROBABILITY,
        how_to_read="Never below |confidence_gap|. A calibrated model does not have 0 but the noise_floor beside it. "
        "Noise can only add to the measured error; the interval is that of the true error, so it starts at 0 where "
        "noise alone would show as much, and the measured error can lie above it. A model that gives every token its "
        "mean accuracy has 0 too: never rank models by it.",
        source="Naeini et al. 2015",
        command=CALIBRATION,
    ),
    number(
        "ece_equal_mass",
        "Expected calibration error in 15 bins that hold equally many tokens; equal values share a bin.",
        formula=f"Σ over bins of |Σ (x − o)| / N tokens; {X_AND_O}",
        unit=PROBABILITY,
        how_to_read="As ece: hold it against its noise_floor.",
        source="Naeini et al. 2015",
        command=CALIBRATION,
    ),
    number(
        "noise_floor",
        "What a perfectly calibrated model would show as this error, from noise alone.",
        formula="for ece: Σ over bins of √(2/π · Σ x (1 − x)) / N tokens, with x the confidence of a token",
        unit="that of the error",
        how_to_read="An error near its floor is no evidence of miscalibration. The interval starts at 0 where noise "
        "alone would show as much.",
        command=CALIBRATION,
        aliases=("ece_noise_floor",),
    ),
    number(
        "squared_error_debiased",
        "The squared calibration error with the part that noise adds subtracted.",
        formula="Σ over bins of n/N · (gap² − a (1 − a) / (n − 1)), with gap the mean confidence minus the "
        "accuracy a of a bin of n of the N tokens",
        unit="probability squared",
        how_to_read="0 on average for a calibrated model; it may be negative.",
        source="Kumar, Liang & Ma 2019",
        command=CALIBRATION,
    ),
    number(
        "mce",
        "Maximum calibration error: the largest gap of a bin of equal width with at least 100 tokens.",
        formula="max over bins of |mean confidence − accuracy|",
        unit=PROBABILITY,
        how_to_read="Noisy; no value where no bin has 100 tokens.",
        source="Naeini et al. 2015",
        command=CALIBRATION,
    ),
    number(
        "smooth_ece",
        "The calibration error without bins, smoothed at the bandwidth that equals the error itself.",
        formula=f"∫ |r(t)| dt over [0, 1] = h, with r the mean of (x − o) K(x, t) over tokens and K a Gaussian of "
        f"width h, reflected at 0 and 1; {X_AND_O}",
        unit=PROBABILITY,
        how_to_read="As ece, but it does not depend on where bins begin.",
        source="Błasiok & Nakkiran 2023",
        command=CALIBRATION,
    ),
    number(
        "vocabulary_error",
        "The calibration error over all pairs of token and vocabulary entry, not of the first choice alone.",
        formula="Σ over bins of log10 p of |Σ p − hits| / N tokens, over all N · V pairs; hits are the pairs whose "
        "entry was the token",
        unit=PROBABILITY,
        how_to_read="It sees a tail with too much or too little probability, which ece does not.",
        source="Full-ECE, Liu et al. 2024, here in bins of log10 p",
        command=CALIBRATION,
    ),
    number(
        "brier",
        "The Brier score of the whole predicted distribution.",
        formula="Σ over the vocabulary of (p − 1{token})², mean over tokens, 1{token} being 1 for the token and 0 for "
        "every other entry; between 0 and 2",
        unit=SQUARED,
        how_to_read="Lower is better. Like nll a proper score: models can be ranked by it, as they cannot by any "
        "calibration error.",
        command=CALIBRATION,
    ),
    number(
        "top1_brier",
        "The Brier score of the first choice alone.",
        formula=f"mean (x − o)² = reliability − resolution + uncertainty + within_bin, exactly; {X_AND_O}",
        unit=SQUARED,
        how_to_read="Lower is better.",
        source=f"{MURPHY}; within_bin: Stephenson, Coelho & Jolliffe 2008",
        command=CALIBRATION,
    ),
    number(
        "reliability",
        "The part of top1_brier that miscalibration costs.",
        formula="Σ over bins of n/N · (mean confidence − accuracy)² of a bin of n of the N tokens",
        unit=SQUARED,
        how_to_read="0 is best.",
        source=MURPHY,
        command=CALIBRATION,
    ),
    number(
        "resolution",
        "The part of top1_brier that telling easy from hard tokens gains.",
        formula="Σ over bins of n/N · (accuracy of the bin − accuracy)², a bin having n of the N tokens",
        unit=SQUARED,
        how_to_read="More is better.",
        source=MURPHY,
        command=CALIBRATION,
    ),
    number(
        "uncertainty",
        "The part of top1_brier that no forecast changes.",
        formula="accuracy · (1 − accuracy)",
        unit=SQUARED,
        how_to_read="It depends on the accuracy alone, and is the same for every set of bins.",
        source=MURPHY,
        command=CALIBRATION,
    ),
    number(
        "within_bin",
        "The part of top1_brier that differing confidences within a bin add.",
        formula=f"Σ over bins of n/N · (Var x − 2 Cov(x, o)), a bin having n of the N tokens; {X_AND_O}",
        unit=SQUARED,
        source="Stephenson, Coelho & Jolliffe 2008",
        command=CALIBRATION,
    ),
    number(
        "nll_minus_entropy_nats",
        "How much higher the loss is than the model expects, over the whole distribution.",
        formula="mean (loss − entropy); z = Σ (loss − entropy) / √Σ varentropy",
        unit="nats per token",
        how_to_read="Above 0 the model is surer than it should be, below 0 less sure. Its z is standard normal for a "
        "calibrated model.",
        command=CALIBRATION,
    ),
    number(
        "z",
        "How far a number is from that of a perfectly calibrated model.",
        formula=f"Σ (x − o) / √Σ x (1 − x), or Σ (loss − entropy) / √Σ varentropy; {X_AND_O}",
        unit="standard errors",
        how_to_read="Between −2 and 2 on 95 of 100 texts for a model that is calibrated in every document; a value "
        "outside is evidence against it.",
        command=CALIBRATION,
        aliases=("gap_z", "excess_z"),
    ),
    number(
        "temperature",
        "The temperature T that minimises the mean loss of softmax(z / T).",
        formula="the minimum over T between 1/4 and 4, with z the logits, from the stored log-sum-exp at 17 "
        "temperatures",
        how_to_read="Above 1 the model is over-confident. Held out: each half of the documents is scored with the T "
        "fitted on the other half.",
        source="Guo et al. 2017",
        command=CALIBRATION,
        aliases=("best_temperature", "temperature_interval", "half_temperatures", "held_out"),
    ),
    number(
        "conditioned_on",
        "Whether a slice is chosen by what is known before the token, or by the token itself.",
        how_to_read="Slices known before (context, document, field, the model's first choice) have gap 0 in a "
        "calibrated model, except where the first choice is a special token that the text never holds. Lines “target” "
        "are chosen by the outcome: their gap says how sure the model was of something else, not that it is "
        "miscalibrated.",
        command="lossprobe calibration --by class",
    ),
)
