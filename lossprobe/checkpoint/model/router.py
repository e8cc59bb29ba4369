"""Finds the routers of a mixture of experts, and sums what its load-balancing loss is made of.

The loss of a batch is E · Σ_e f_e · P_e over all layers together: f_e is the number of slots in which expert e was
chosen, P_e the sum of its probabilities, each divided by tokens times layers (Fedus et al. 2021, equations 4 to 6, as
transformers computes it). It is not additive over batches, but the sums of rows are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from lossprobe.checkpoint.facts import RouterFacts
from lossprobe.checkpoint.model.batching import has_changing_positions

RoutedPass = Callable[[torch.Tensor], tuple[torch.Tensor, tuple[torch.Tensor, ...]]]
LOSS_FUNCTION = "load_balancing_loss_func"
COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k", "moe_k")
FLOAT_TOLERANCE, HALF_TOLERANCE = 1e-5, 2e-2  # relative; half precision sums in another order


def routing_sums(
    logits: tuple[torch.Tensor, ...], lengths: torch.Tensor, experts_per_token: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of the routers' probabilities and the number of chosen slots of each row, layer and expert.

    Args:
        logits: [B · T, E] of each of the L layers.
        lengths: int64 [B], tokens of each row; what comes after them is padding.
        experts_per_token: experts chosen for a token.

    Returns:
        float64 [B, L, E], int64 [B, L, E].
    """
    rows = len(lengths)
    probabilities, slots = [], []
    for layer in logits:
        shares = torch.softmax(layer, dim=-1)
        chosen = torch.topk(shares, experts_per_token, dim=-1).indices.view(rows, -1, experts_per_token)
        shares = shares.view(rows, -1, shares.shape[-1])
        within = torch.arange(shares.shape[1], device=shares.device) < lengths.to(shares.device)[:, None]
        # Padding may hold anything, NaN too, so that it is replaced and not multiplied by 0.
        probabilities.append(torch.where(within[..., None], shares.double(), 0.0).sum(dim=1))
        counts = torch.zeros((rows, shares.shape[-1]), dtype=torch.int64, device=shares.device)
        real = within[..., None].expand_as(chosen).long()
        slots.append(counts.scatter_add_(1, chosen.flatten(1), real.flatten(1)))
    return torch.stack(probabilities, dim=1), torch.stack(slots, dim=1)


def has_load_balancing_loss(model: Any) -> bool:
    """Return whether the module of a model's class has transformers' load-balancing loss."""
    modules = (sys.modules.get(each.__module__) for each in type(model).__mro__)
    return any(hasattr(module, LOSS_FUNCTION) for module in modules)


def find_router(model: Any, routed: RoutedPass, probe: torch.Tensor, *, padded: bool) -> RouterFacts:
    """Return the routers of a model; they are measured where `routing_sums` give the loss that the model computes.

    They are not where positions depend on the length of the input, since windows are run with their last token then.

    Args:
        model: the whole model.
        routed: the model's hidden states and the logits of its routers for ids.
        probe: int64 [2, T], two rows.
        padded: whether rows of different lengths may share a pass; the second is then compared with padding.
    """
    coefficient = _first(model, COEFFICIENTS)
    weight = None if coefficient is None else float(coefficient)
    in_loss = bool(getattr(model.config.get_text_config(), "output_router_logits", False))
    unmeasured = RouterFacts(0, 0, 0, weight, in_loss, measured=False)
    if any(map(has_changing_positions, model.modules())):  # one token more in a window would change its losses
        return unmeasured
    lengths = torch.tensor([probe.shape[1], probe.shape[1] // 2 if padded else probe.shape[1]], device=probe.device)
    mask = (torch.arange(probe.shape[1], device=probe.device) < lengths[:, None]).long()
    try:
        own = model(input_ids=probe, attention_mask=mask, use_cache=False, output_router_logits=True).aux_loss
        logits = routed(probe)[1]
        per_token = int(_first(model, CHOSEN) or 0)
        probability, slots = routing_sums(logits, lengths, per_token)
    except Exception:  # noqa: BLE001 - the code of any family, asked for what not every one of them has
        return unmeasured
    layers, experts = probability.shape[1:]
    tokens = layers * int(lengths.sum())
    loss = experts * (probability.sum(dim=(0, 1)) / tokens * slots.sum(dim=(0, 1)) / tokens).sum()
    tolerance = FLOAT_TOLERANCE if torch.finfo(logits[0].dtype).bits == 32 else HALF_TOLERANCE
    if not torch.is_tensor(own) or not abs(float(own) - float(loss)) <= tolerance * abs(float(loss)):
        return unmeasured
    return RouterFacts(layers, experts, per_token, weight, in_loss)


def _first(model: Any, names: tuple[str, ...]) -> Any:
    """Return the first of some attributes that a model or its configuration has; None without any."""
    places = (model, model.config.get_text_config())
    found = (getattr(place, name, None) for name in names for place in places)
    return next((value for value in found if value is not None), None)
