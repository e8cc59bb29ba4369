"""Fit the vocabulary of a base to that of an adapter, which may have been trained with more tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lossprobe.checkpoint.adapters.config import AdapterConfig
from lossprobe.checkpoint.adapters.tensors import START, Tensors
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.units import format_count


def fit_vocabulary(file: Path, model: Any, config: AdapterConfig, stored: Tensors) -> None:
    """Give the model the embeddings that the adapter's tensors need: as many, and its own copy where it writes them.

    New rows are NaN until the adapter's weights fill them; see `refuse_unfilled`. A vocabulary is never cut, because
    the rows beyond a tokenizer's last id are part of what the softmax of the base is over.

    Args:
        file: the adapter's weights, for messages.
        model: the base's model, whose weights others share; changed in place.
        config: what adapter_config.json says.
        stored: the adapter's tensors.

    Raises:
        CheckpointError: `adapter.vocabulary`: the adapter has fewer tokens than the base.
    """
    parts = dict(_named(model))
    if not any(key.startswith(f"{START}{name}.") for key in stored for name in parts):
        return
    rows = int(model.get_input_embeddings().weight.shape[0])
    wanted = max(_rows(stored, parts, config), default=rows)
    if wanted < rows:
        counts = f"its embeddings have {format_count(wanted)} rows, the base's {format_count(rows)}"
        hint = "the base was cut while training (often to the tokenizer's length), or is another one"
        raise refusal("adapter.vocabulary", file, f"{counts}: a vocabulary is never cut", hint)
    if wanted > rows:
        model.resize_token_embeddings(wanted, mean_resizing=False)
        for part in _embeddings(model):
            for weight in part.parameters(recurse=False):
                weight.data[rows:] = torch.nan
    else:
        _own_copies(model)


def refuse_unfilled(file: Path, model: Any) -> None:
    """Refuse an adapter that leaves rows of the new vocabulary without values.

    Raises:
        CheckpointError: `adapter.vocabulary`.
    """
    for part in _embeddings(model):
        for weight in (part.weight, getattr(part, "bias", None)):
            if weight is not None and weight.isnan().any():
                count = int(weight.isnan().reshape(len(weight), -1).any(dim=1).sum())
                what = f"{format_count(count)} rows of the larger vocabulary are not in the file"
                hint = "give the resized base with `base`, or save the adapter again with save_embedding_layers=True"
                raise refusal("adapter.vocabulary", file, what, hint)


def _own_copies(model: Any) -> None:
    """Replace the weights of the embeddings by copies, so that what is written to them stays in this model."""
    copies: dict[int, torch.nn.Parameter] = {}
    for part in _embeddings(model):
        old = part.weight
        part.weight = copies.setdefault(id(old), torch.nn.Parameter(old.detach().clone(), requires_grad=False))


def _embeddings(model: Any) -> list[Any]:
    """Return the input embedding and the head, which some models lack."""
    return [part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    embeddings = _embeddings(model)
    for name, part in model.named_modules():
        if any(part is each for each in embeddings):
            yield name, part


def _rows(stored: Tensors, parts: dict[str, Any], config: AdapterConfig) -> Iterator[int]:
    """Yield the numbers of rows of the vocabulary that an adapter's tensors have."""
    for key, tensor in stored.items():
        name = next((each for each in parts if key.startswith(f"{START}{each}.")), None)
        end = key.rpartition(".")[2] if name is None else key.removeprefix(f"{START}{name}.")
        if name is None or tensor.ndim != 2:
            continue
        if end in ("weight", "base_layer.weight", "lora_B.weight"):
            yield int(tensor.shape[0])
        elif end == "lora_embedding_A":
            yield int(tensor.shape[1])
    chosen = config.values.get("trainable_token_indices")
    lists = chosen.values() if isinstance(chosen, dict) else [chosen or []]
    most = max((index for indices in lists for index in indices), default=-1) + 1
    yield from (most for part in parts.values() if most > part.weight.shape[0])
