"""What a key of a log means: which split, and which quantity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from lossprobe.logs.log import (
    ACCURACY,
    ENTROPY,
    EVALUATED_TRAIN,
    GRADIENT_NORM,
    LEARNING_RATE,
    LOSS,
    PERPLEXITY,
    TEST,
    TRAIN,
    VALIDATION,
)

# The best key first. wandb's own `_step` counts calls, so a trainer's step is better.
STEPS = (
    "trainer/global_step", "train/global_step", "global_step", "global_steps", "current_steps", "step", "steps",
    "train/step", "iteration", "iter", "update", "num_updates", "_step",
)  # fmt: skip
EPOCHS = ("epoch", "train/epoch", "trainer/epoch", "current_epoch", "epochs")
TOKENS = (
    "num_tokens", "train/num_tokens", "num_input_tokens_seen", "train/num_input_tokens_seen", "consumed tokens",
    "tokens", "total_tokens", "tokens_seen", "train/tokens", "train/total_tokens", "throughput/total_tokens",
    "time/token",
)  # fmt: skip
SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "predict", "prediction"), TEST),
}
# What a loss is called beside its split, the best first: the plain name before one of a part or a mean.
LOSSES = (
    "loss", "lm loss", "lm loss value", "ce loss", "nll loss", "nll", "cross entropy", "cross entropy loss",
    "language model loss", "main loss", "avg loss", "mean loss", "loss mean", "loss avg", "total loss",
    "reduced loss", "ce", "loss total",
)  # fmt: skip
CROSS_ENTROPY = frozenset(("metrics", "language", "cross", "entropy"))  # Composer's metrics/eval/LanguageCrossEntropy
# Words of losses that are no mean of -log p.
OTHER_LOSSES = frozenset((
    "aux", "auxiliary", "balance", "balancing", "router", "z", "kl", "reg", "regularization", "distill", "distillation",
    "reward", "policy", "value", "critic", "actor", "contrastive", "vq", "commit", "scale", "ratio", "best", "min",
    "max", "lowest", "std", "var", "spike", "margin", "preference", "dpo",
))  # fmt: skip
NAMES = {
    **dict.fromkeys(("lr", "learning rate", "current lr", "current learning rate"), LEARNING_RATE),
    **dict.fromkeys(("grad norm", "gradient norm", "global grad norm"), GRADIENT_NORM),
    **dict.fromkeys(("total grad norm", "total norm", "norm", "gnorm"), GRADIENT_NORM),
    **dict.fromkeys(("perplexity", "ppl", "lm loss ppl"), PERPLEXITY),
    "entropy": ENTROPY,
    **dict.fromkeys(("accuracy", "acc", "mean token accuracy", "token accuracy", "token acc"), ACCURACY),
}
BITS = frozenset(("bpc", "bpb", "bits"))  # per character, byte or token
UNIT_WORDS = frozenset(("loss", "per", "character", "char", "byte", "token"))
# What a trainer keeps about itself: time, speed, how far it is.
BOOKKEEPING = re.compile(
    r"(?:^|[_/. ])(?:runtime|samples_per_second|steps_per_second|tokens_per_second(?:_per_gpu)?|total_flos|total_steps|"
    r"max_steps|percentage|timestamp|epoch_time|wall_time|elapsed_time|remaining_time|step_time)$"
)
RUN_PREFIX = re.compile(r"^.* - (?=\S)")


@dataclass(frozen=True)
class Meaning:
    """What a key means.

    Attributes:
        split: what it was measured on.
        name: the quantity.
        rank: the smallest is the one to read where several keys of a log mean the same.
        bits: whether the name says that it is in bits.
    """

    split: str
    name: str
    rank: int = 0
    bits: bool = False


def without_run(key: str) -> str:
    """Return a key without the name of a run before it, as in a table that wandb exports.

    >>> without_run("proud-sun-12 - train/loss")
    'train/loss'
    """
    return RUN_PREFIX.sub("", key)


@lru_cache(1 << 12)
def meaning(key: str) -> Meaning:
    """Return what a key means; of a quantity that is not known, its name is the key.

    >>> [(each.split, each.name) for each in map(meaning, ("eval_loss", "train/loss", "eval_wikitext_loss", "lr"))]
    [('validation', 'loss'), ('train', 'loss'), ('wikitext', 'loss'), ('train', 'learning_rate')]
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", without_run(key))  # OLMo's CrossEntropyLoss
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    place = next((index for index, word in enumerate(words) if word in SPLITS), len(words))
    stated, rest = place < len(words), words[:place] + words[place + 1 :]
    split = SPLITS[words[place]] if stated else TRAIN
    rest = rest[1:] if rest[:1] == ["optim"] else rest  # OLMo's "optim/total_grad_norm"
    if BITS & set(rest) and set(rest) <= BITS | UNIT_WORDS:
        return Meaning(split, LOSS, 80, bits=True)
    whole = " ".join(rest)
    if whole in NAMES:
        return Meaning(split, NAMES[whole])
    if rest[-1:] == ["accuracy"]:
        return Meaning("_".join(rest[:-1]), ACCURACY)
    if rest[:1] == ["lr"] or rest[:2] == ["learning", "rate"]:  # Lightning's "lr-AdamW"
        return Meaning(split, LEARNING_RATE, 1)
    return _loss(split, rest, stated=stated, joined=" " not in key) or Meaning(split, key)


def _loss(split: str, rest: list[str], *, stated: bool, joined: bool) -> Meaning | None:
    """Return the meaning of a loss, or None where it is none, from the words beside its split."""
    whole = " ".join(rest)
    # A row is best for training, where "_epoch" is a mean over steps behind; for validation it is the other way.
    for ending, late in ((" step", split != TRAIN), (" epoch", split == TRAIN), ("", False)):
        bare = whole.removesuffix(ending)
        if whole.endswith(ending) and bare in LOSSES:
            worse = 40 if late else 0 if ending else 10 * stated if split == TRAIN else 0
            return Meaning(split, LOSS, LOSSES.index(bare) + worse)
    crossed = {"cross", "entropy"} <= set(rest)
    other = [word for word in rest if word != "loss" and not (crossed and word in CROSS_ENTROPY)]
    if split == TRAIN or not joined or len(other) == len(rest) or OTHER_LOSSES & set(other):
        return None
    if not other:
        return Meaning(split, LOSS, len(LOSSES))
    if other == ["train"]:
        return Meaning(EVALUATED_TRAIN, LOSS)
    return Meaning(TEST if other == ["test"] else "_".join(other), LOSS)
