"""Finds the body and the head of a model, and runs the model's own head without it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast


class _StandIn(torch.nn.Module):
    """Replaces the body of a model and returns the hidden states that were stored in `rows` [1, N, D]."""

    rows: torch.Tensor | None = None

    def forward(self, *_: object, **__: object) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.rows)


def body_name(model: Any) -> str:
    """Return the name of the child module that is the body of `model`, or "" where no single child is."""
    if model.base_model_prefix in model._modules:
        return str(model.base_model_prefix)
    from transformers import PreTrainedModel  # only here, since its import takes a second

    bodies = [name for name, part in model.named_children() if isinstance(part, PreTrainedModel)]
    return bodies[0] if len(bodies) == 1 else ""


def headed_by_stand_in(model: Any, body: str) -> Any:
    """Return a shallow copy of `model` with a stand-in for the child module `body`, or None where that is ""."""
    if not body:
        return None
    headed = copy.copy(model)
    headed._modules = {**model._modules, body: _StandIn()}
    return headed


def parts_of_head(model: Any) -> set[Any]:
    """Return the modules that the head of a model is, with those in it, as an adapter's head has them."""
    head = model.get_output_embeddings()
    return set() if head is None else set(head.modules())
