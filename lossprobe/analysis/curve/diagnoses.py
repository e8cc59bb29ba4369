"""Every diagnosis of a training log in words, the gravest first. The rules with the same names find them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lossprobe.analysis.curve import limits
from lossprobe.analysis.curve.finding import Diagnosis

_ALL = (
    Diagnosis(
        "not-finite",
        "a loss or the gradient norm is NaN or infinite",
        "A loss is NaN or infinite in any row; or, where all losses are finite, the gradient norm in over "
        f"{limits.BAD_GRADIENTS:.0%} of the rows or in the last {limits.FEWEST_ZEROS} (loss scaling skips a step now "
        "and "
        "then, which is no fault).",
        (
            "a learning rate that is too high, or no warm-up",
            "an overflow of float16",
            "rows without any scored token: a mean over nothing is NaN",
            "a division by zero or a logarithm of zero in the model or the loss",
        ),
        (
            "go back to a checkpoint before the first such step; lower the learning rate, clip gradients, warm up "
            "longer",
            "train in bfloat16, or with loss scaling",
            "drop rows whose labels are all masked",
            "run that step with torch.autograd.set_detect_anomaly(True)",
        ),
    ),
    Diagnosis(
        "nothing-trained",
        "the loss is exactly 0: no token is trained on",
        f"The training loss is 0.0 in the last {limits.FEWEST_ZEROS} rows or more, and so is the gradient norm where "
        "the "
        "log has it. Without it, losses that came down to under 0.05 first are taken for small ones, rounded.",
        (
            "every label is masked: the template or the marker of the answer was not found in the rows",
            "rows are cut before the answer begins",
            "losses that were NaN, logged as 0 by a filter",
        ),
        (
            "print the labels of a few rows; `lossprobe tokens` shows what is scored",
            "raise the maximum length, or drop rows that are longer",
            "log with logging_nan_inf_filter=False",
        ),
    ),
    Diagnosis(
        "uniform",
        "the model gives every token the same probability",
        f"The last {limits.FEWEST_EQUAL} training losses or more are equal to {limits.EQUAL_NATS} nats, and are ln V "
        "to "
        f"{limits.NEAR_UNIFORM} nats; where V is not known, they were lower before by {limits.ROSE_TO_UNIFORM} nats or "
        f"more and varied by over {limits.TIMES_QUIETER:.0f} times as much.",
        (
            "a learning rate far too high: the weights exploded and all logits became equal",
            "the output layer is zero, or its gradient does not reach it",
        ),
        (
            "start again from the last good checkpoint with a learning rate that is 10 to 100 times lower",
            "look at the norms of weights and gradients by layer",
        ),
    ),
    Diagnosis(
        "explosion",
        "the loss rises far and stays up",
        "The level of the training loss (medians of 100 blocks of rows) lies above its lowest before by more than "
        f"{limits.RISE_NOISE:.0f} times the noise of the blocks, {limits.RISE_LEVEL:.0%} of the lowest "
        f"({limits.RISE_LEVEL_FEW:.0%} with fewer than {limits.RISE_FEW} rows) and {limits.RISE_NATS} nats, at the "
        "end of the "
        f"log or over {limits.RISE_ROWS:.0%} of its rows; not where half of it is a step at a restart.",
        (
            "a learning rate that is too high for this stage, or a warm-up that is too short",
            "batches of broken text",
            "unstable arithmetic: float16, attention logits that grow, a state of the optimizer that was lost",
        ),
        (
            "go back to a checkpoint before the rise; lower the learning rate, clip gradients to 1",
            "skip the batches of these steps and look at their text",
            "train in bfloat16; a larger epsilon or a smaller beta2 in Adam; normalise queries and keys",
        ),
    ),
    Diagnosis(
        "learning-rate-too-high",
        "the loss rises, or does not fall, while the learning rate is high",
        f"At a learning rate over {limits.FULL_RATE:.0%} of its highest: in the first {limits.EARLY_ROWS:.0%} of the "
        "rows the "
        f"rise of explosion begins, or a loss of an untrained model comes to lie {limits.ABOVE_START:.0%} and "
        f"{limits.SPIKE_NOISE:.0f} times the noise above its first value in most of five rows; or, over "
        f"{limits.STUCK_ROWS:.0%} of the rows or more, "
        f"the loss falls by under {limits.STUCK_LEVEL:.0%} at about what single tokens cost, above "
        f"{limits.STUCK_SHARE:.0%} of ln V ({limits.STUCK_NATS:.0f} nats where V is not known, or that share of a "
        f"first loss of {limits.UNTRAINED_START:.0f} nats or more), and falls when the rate does. Only where the log "
        "has the rate.",
        ("the highest learning rate is too high for this model and batch", "a warm-up that is too short"),
        ("a third of the learning rate, then a tenth", "a warm-up over more steps"),
    ),
    Diagnosis(
        "fp16-overflow",
        "the scale of the loss in float16 falls to nothing",
        f"The loss scale fell {limits.HALVINGS} times or more and ends below {limits.LOW_SCALE:.0f}.",
        ("gradients or activations overflow float16 at every scale", "losses that are not finite"),
        ("train in bfloat16", "see not-finite"),
    ),
    Diagnosis(
        "not-learning",
        "the training loss does not fall",
        f"From the first to the last tenth of the rows the training loss falls by less than {limits.FALL_LEVEL:.0%}, "
        "the "
        f"upper end of its interval included, over {limits.FEWEST_STEPS} steps or more from the start of training, at "
        "a "
        f"level that knows nothing: above {limits.UNTRAINED_SHARE:.0%} of ln V, or {limits.UNTRAINED_NATS:.0f} nats "
        "where V "
        "is not known, or at ln 2 as preference losses begin. Or it does so from the first fifth of the rows on, at "
        f"about what single tokens cost: above {limits.STUCK_SHARE:.0%} of ln V ({limits.STUCK_NATS:.0f} nats where V "
        f"is not known, or that share of a first loss of {limits.UNTRAINED_START:.0f} nats or more).",
        (
            "a learning rate that is far too low or 0, or far too high",
            "weights that are frozen, or not given to the optimizer",
            "labels that do not belong to the inputs: shuffled, shifted twice, or all padding",
        ),
        (
            "try ten times the learning rate, then a tenth",
            "count the parameters with requires_grad, and look at the gradient norm",
            "train on one batch: its loss must fall to almost 0",
        ),
    ),
    Diagnosis(
        "learning-rate-too-low",
        "the loss falls in a straight line and stays high, or the rate is 0",
        f"The learning rate is 0 in {limits.IDLE_ROWS:.0%} of the rows, and not a small one that the log prints with "
        "too few decimals; or the loss, from over "
        f"{limits.UNTRAINED_START_SHARE:.0%} of ln V to over {limits.UNTRAINED_SHARE:.0%} of it "
        f"({limits.UNTRAINED_START:.0f} and "
        f"{limits.UNTRAINED_NATS:.0f} nats where V is not known), falls by less than {limits.MOST_FALLEN:.0%} in a "
        "straight "
        f"line over the sum of the rates, which no level misses by more than {limits.BENT:.0%} of the fall and 3 "
        "times the "
        "noise. Only where the log has the rate.",
        ("the highest learning rate is too low", "a schedule that was made for fewer steps than were run"),
        ("three times the learning rate, then ten times", "give the schedule the number of steps that are run"),
    ),
    Diagnosis(
        "over-fitting",
        "validation loss rises while training loss falls",
        f"At least {limits.FEWEST_AFTER} evaluations after its lowest, the mean of the last third of these lies above "
        "it by "
        f"{limits.OVERFIT_LEVEL:.0%} and by more than the evaluations' noise explains at 95 %; evaluations that do "
        "not rise in "
        "order (Kendall's S at 95 %) must lie above it by as much more as the lowest of so many lies below their mean "
        "by "
        "chance. The training loss has not risen by half as much.",
        (
            "more epochs than the training text has to give",
            "a model that is large for its text",
            "little regularisation",
        ),
        (
            "take the checkpoint of the lowest validation loss; stop there next time",
            "more text, or a smaller model or adapter",
            "dropout, weight decay, a lower learning rate",
        ),
    ),
    Diagnosis(
        "accumulation-scale",
        "the training loss is a whole number of times the validation loss",
        f"At {limits.FEWEST_PAIRS} evaluations or more, training over validation loss is a whole number from 2 on, to "
        f"{limits.WHOLE_RATIO:.0%} in the middle and steady to {limits.STEADY_RATIO:.0%}.",
        ("the losses of gradient accumulation are added up and not divided by the number of micro-batches",),
        ("divide the loss by the number of micro-batches; the gradient may be too large by the same factor",),
    ),
    Diagnosis(
        "memorising",
        "the training loss falls where an epoch begins, and not inside epochs",
        "Lines through half an epoch on each side meet the edges of epochs with falls that sum to "
        f"{limits.EDGE_LEVEL:.0%} of the level at the first edge, to {limits.EDGE_NOISE:.0f} standard errors, and to "
        f"{limits.EDGE_SHARE:.0%} of what the loss falls after the first epoch. Only where the log has epochs.",
        ("texts that are seen again are known by heart: the fall is no progress on new text",),
        ("fewer epochs, more text, a lower learning rate; judge by a validation loss",),
    ),
    Diagnosis(
        "restart-jump",
        "the loss steps up or down at a restart",
        f"Straight lines through up to {limits.JUMP_ROWS} rows before and after a restart miss each other there by "
        f"{limits.JUMP_NOISE:.0f} standard errors and {limits.JUMP_LEVEL:.0%} of the level; of these and of lines "
        "through half "
        "as many rows the smaller step counts.",
        (
            "up: the state of the optimizer or the learning rate's schedule was not restored",
            "down: text that was seen before the restart is seen again",
            "another batch size, precision or text",
        ),
        (
            "save and load the optimizer, the schedule and the random state",
            "save and load the position in the text",
            "compare the settings of both parts",
        ),
    ),
    Diagnosis(
        "spikes",
        "single rows far above their neighbours",
        f"Rows above the medians of the {limits.SPIKE_NEIGHBOURS} rows on either side by {limits.SPIKE_NOISE:.0f} "
        "times the noise, "
        f"{limits.SPIKE_LEVEL:.0%} of the level, and more than the tail of the log's own noise would give in 1 of 100 "
        "such "
        f"logs; over within {limits.SPIKE_ROWS:.0%} of the rows.",
        (
            "batches of odd text: repeated characters, other languages, broken documents",
            "a learning rate near the limit of what is stable",
            "small batches",
        ),
        (
            "look at the text of these steps",
            "clip gradients; a lower learning rate, a smaller beta2 in Adam",
            "larger batches or gradient accumulation",
        ),
    ),
    Diagnosis(
        "oscillation",
        "the loss goes up and down in cycles",
        f"In {limits.FEWEST_FOR_CYCLES} rows or more, about its curve, the training loss is correlated with itself by "
        f"{limits.OPPOSITE} or less half a cycle later and {limits.REPEATED} or more a cycle later, with "
        f"{limits.CYCLES} cycles or more; not where epochs or the learning rate have the same cycle.",
        (
            "a learning rate at the limit of what is stable",
            "batches in a repeated order: sources that take turns, texts sorted by length",
        ),
        ("a lower learning rate, or a larger beta1", "shuffle the text; log the loss of each source"),
    ),
    Diagnosis(
        "wrong-start",
        "the first loss is not that of an untrained model",
        f"The first loss lies over {limits.ABOVE_UNIFORM:.0f} nat above ln V; or, at step {limits.FIRST_STEPS} or "
        "before, over "
        f"{limits.BELOW_UNIFORM} nats below it but above {limits.NO_PRETRAINED:.0%} of it, where a pretrained model "
        "would "
        "not be. Where V is not known, nothing is told.",
        (
            "above: weights of the output layer that are too large, or a fine-tuned model with another tokenizer",
            "below: labels that the model can see (not shifted), padding that counts, or another vocabulary than V",
        ),
        (
            "scale the output layer's weights down (a standard deviation of 0.02 is usual); compare the tokenizers",
            "check that labels are shifted by one and padding is masked",
        ),
    ),
    Diagnosis(
        "measured-differently",
        "training and validation loss are not the same quantity",
        f"Over {limits.FEWEST_PAIRS} evaluations or more, validation over training loss is ln 2 or 1 / ln 2 to "
        f"{limits.UNIT_RATIO:.0%} and steady to {limits.STEADY_RATIO:.0%} while the loss falls by "
        f"{limits.FALL_FOR_RATIO:.0%}; or, with {limits.FEWEST_ROWS_FOR_GAP} training rows or more, each of "
        f"{limits.FEWEST_FOR_GAP} evaluations or more lies below the training rows that follow it, by "
        f"{limits.GAP_LEVEL:.0%} in the middle, and the last of them by more than the "
        "validation "
        "loss fell over the last half: so it is not because a training loss is the mean since the last row, or a "
        "running "
        "mean.",
        (
            "one in bits and the other in nats",
            "dropout or an auxiliary loss in training alone",
            "a validation text that is easier, or is scored at other tokens",
        ),
        (
            "convert one of them",
            "evaluate a part of the training text in evaluation mode",
            "score both in the same way",
        ),
    ),
    Diagnosis(
        "smoothed-loss",
        "the logged training loss is label-smoothed",
        "Over evaluations, training loss = a + b · validation loss with ε = 1 − b from "
        f"{limits.SMOOTHED_SHARES[0]} to {limits.SMOOTHED_SHARES[1]}, a root mean square error under "
        f"{limits.SMOOTHED_FIT:.0%} of the range of the gap, both equal at {limits.SMOOTHED_MEETS[0]} to "
        f"{limits.SMOOTHED_MEETS[1]:.0f} times ln V, and a last gap of {limits.SMOOTHED_GAP:.0%}. Only where V is "
        "known.",
        ("label smoothing in the training loss: it has a floor above 0 and is no perplexity",),
        ("compare validation losses; `lossprobe objectives` gives both losses of a checkpoint",),
    ),
    Diagnosis(
        "plateau",
        "the training loss no longer falls",
        f"Over the last third of the rows the training loss changes by less than {limits.FLAT_LEVEL:.1%} of its "
        "level, the "
        f"ends of the interval by less than {limits.FLAT_AT_MOST:.0%}; it had fallen by {limits.FELL_BEFORE:.0%} or "
        "more; "
        f"and the learning rate, where the log has it, is still over {limits.RATE_LEFT:.0%} of its highest on average.",
        ("the model has learned what it can at this learning rate", "a learning rate too high to settle"),
        ("let the learning rate decay, or stop", "let the learning rate decay"),
        fault=False,
    ),
)

DIAGNOSES: Mapping[str, Diagnosis] = MappingProxyType({each.name: each for each in _ALL})
"""Name to diagnosis, the gravest first."""
