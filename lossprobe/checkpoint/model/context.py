"""Find the longest input of a model, and whether a longer one fails or only exceeds what the model was trained on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from lossprobe.errors import CheckpointError

# Keys that state the length: in most families, in speech decoders, in MPT.
LENGTH_KEYS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
# Families without a table of positions whose code still works only up to the stated length.
FIXED_WITHOUT_TABLE = ("mpt", "reformer")


@dataclass(frozen=True)
class ContextLimit:
    """The longest input of a model.

    Attributes:
        length: length in tokens, or None where the configuration states none.
        hard: whether a longer input fails, because positions are looked up in a table of that length. Otherwise
            positions are computed, and the length is only the one that the model was trained on.
    """

    length: int | None
    hard: bool


def context_limit(model: Any, shown: str) -> ContextLimit:
    """Return the longest input of a transformers model that was built from its configuration.

    A position table is found by its shape: it is a tensor that would have another shape if the configuration stated
    one token more.

    Args:
        model: the model.
        shown: path of its config.json, for messages.

    Raises:
        CheckpointError: `checkpoint.config_value`: the stated length leaves no position for any token.
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
        if padding is not None:  # as in RoBERTa, where the first token's position is padding index + 1
            return ContextLimit(length - padding - 1, hard=True)
    return ContextLimit(length, hard=bool(tables) or text.model_type in FIXED_WITHOUT_TABLE)


def first_position(model: Any) -> int:
    """Return the position of a text's first token: 0, or the padding index + 1 for models like RoBERTa."""
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    paddings = (part.padding_idx for part in tables if isinstance(part, torch.nn.Embedding))
    return next((padding + 1 for padding in paddings if padding is not None), 0)


def _stated_length(text: Any) -> tuple[str, int | None]:
    """Return the key that states the length and the length, or ("", None).

    Only stored values count: XLNet, which has no limit, has the key as a computed property.
    """
    for name in LENGTH_KEYS:
        key = text.attribute_map.get(name, name)
        length = vars(text).get(key)
        if isinstance(length, int):
            return key, length
    return "", None


def _tables(model: Any, key: str, length: int) -> list[str]:
    """Return the names of the tensors whose shape depends on the stated length."""
    longer = copy.deepcopy(model.config)
    setattr(longer.get_text_config(), key, length + 1)
    with torch.device("meta"):
        shapes = _shapes(type(model)(longer))
    return [name for name, shape in _shapes(model).items() if shapes.get(name) != shape]


def _shapes(model: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _owner(model: Any, name: str) -> Any:
    """Return the module that holds a tensor."""
    return model.get_submodule(name.rpartition(".")[0])


def _grows(model: Any, name: str) -> bool:
    """Return whether the model computes a longer table when it needs one (sinusoidal positions as in fairseq)."""
    return hasattr(_owner(model, name), "make_weights")
