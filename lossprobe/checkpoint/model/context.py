"""How many tokens a model takes at once, and whether more of them fail or only lie beyond what was trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from lossprobe.errors import CheckpointError

# Where a configuration states the length, if it does: most families, decoders of speech, MPT.
LENGTH_KEYS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
# These families hold no table of positions, but their code makes a bias or a shape for exactly so many.
FIXED_WITHOUT_TABLE = ("mpt", "reformer")


@dataclass(frozen=True)
class ContextLimit:
    """The longest input of a model.

    Attributes:
        length: tokens, or None where the configuration states none.
        hard: whether a longer input fails, since positions are looked up in a table that ends there. Without it
            positions are computed, and the length is only what was trained.
    """

    length: int | None
    hard: bool


def context_limit(model: Any, shown: str) -> ContextLimit:
    """Return the longest input of a transformers model that was built from its configuration.

    A model whose positions come from a table holds tensors as long as its limit: those that would have another shape
    if the configuration stated one token more.

    Args:
        model: the model.
        shown: its config.json, for messages.

    Raises:
        CheckpointError: `checkpoint.config_value`: the configuration leaves room for no token at all.
    """
    text = model.config.get_text_config()
    key, length = _stated_length(text)
    if length is None:
        return ContextLimit(None, hard=False)
    if length < 1:
        raise CheckpointError("checkpoint.config_value", f"{shown}: {key} is {length}, no token has a position")
    tables = [name for name in _tables(model, key, length) if not _grows(model, name)]
    for name in tables:
        padding = getattr(_owner(model, name), "padding_idx", None)
        if padding is not None and length - padding - 1 < 1:
            raise CheckpointError(
                "checkpoint.config_value",
                f"{shown}: {key} is {length}, but positions begin after the padding's, {padding}",
            )
        if padding is not None:  # RoBERTa's kind: the first token has the position after the padding's
            return ContextLimit(length - padding - 1, hard=True)
    return ContextLimit(length, hard=bool(tables) or text.model_type in FIXED_WITHOUT_TABLE)


def first_position(model: Any) -> int:
    """Return the position of a text's first token: 0, or for RoBERTa's kind the one after the padding's."""
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    paddings = (part.padding_idx for part in tables if isinstance(part, torch.nn.Embedding))
    return next((padding + 1 for padding in paddings if padding is not None), 0)


def _stated_length(text: Any) -> tuple[str, int | None]:
    """Return the configuration's name for the length, and the length; a property (XLNet's: none) is no statement."""
    for name in LENGTH_KEYS:
        key = text.attribute_map.get(name, name)
        length = vars(text).get(key)
        if isinstance(length, int):
            return key, length
    return "", None


def _tables(model: Any, key: str, length: int) -> list[str]:
    """Return the names of the tensors whose shape follows from the length."""
    longer = copy.deepcopy(model.config)
    setattr(longer.get_text_config(), key, length + 1)
    with torch.device("meta"):
        shapes = _shapes(type(model)(longer))
    return [name for name, shape in _shapes(model).items() if shapes.get(name) != shape]


def _shapes(model: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _owner(model: Any, name: str) -> Any:
    return model.get_submodule(name.rpartition(".")[0])


def _grows(model: Any, name: str) -> bool:
    """Return whether the table is computed anew for a longer input (sinusoids that fairseq's models make)."""
    return hasattr(_owner(model, name), "make_weights")
