"""A transformers causal model split into body and head, so that the head runs on chunks of rows.

The split is checked when it is made, against the model's own full forward pass on a short probe. Two ways
to run the head are tried in order: the output matrix alone ("linear"), and the model class's own code with
its body replaced by a stand-in ("model", for soft-capped or scaled logits). Where neither agrees, `hidden`
returns full logits and `logits` is the identity ("full").
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from lossprobe.checkpoint.interface import CheckpointFacts, Tokenizer
from lossprobe.checkpoint.packed import HEAD_ROWS, MOST_HEAD_BYTES, pack, replace_layer, speed_up
from lossprobe.errors import CheckpointError

PROBE_TOKENS = 12
PROBE_TOLERANCE = 1e-5  # relative to the largest logit: float32 rounding of one matrix product
STRETCHED_LOGIT = 100.0  # where a soft cap shows, whatever its height
MAX_STRETCH = 4000.0  # and hidden states still fit into float16


class CausalLM:
    """A `Checkpoint` over a transformers model.

    Args:
        model: the model, in eval mode, on its device, in its compute dtype.
        facts: what it is; `head` is filled in here.
        tokenizer: its tokenizer.

    Raises:
        CheckpointError: logits change with later tokens, are not finite, or have another width than
            `facts.vocab_size`.
    """

    def __init__(self, model: Any, facts: CheckpointFacts, tokenizer: Tokenizer) -> None:
        self.facts = facts
        self.tokenizer = tokenizer
        self._model = model
        self._body = model.base_model
        self._linear = model.get_output_embeddings()
        self._own_head = _headed_by_stand_in(model)
        probe = self._probe_ids()
        expected = self._full(probe)
        self._check_causal(probe, expected)
        self.facts = replace(facts, head=self._choose_head(probe, expected))
        self.facts = replace(self.facts, kernels=self._speed_up(probe))

    @torch.inference_mode()
    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return final hidden states [B, T, D] of int64 ids [B, T] (logits [B, T, V] when head is "full")."""
        if self.facts.head == "full":
            return self._full(ids)
        return self._run_body(ids)

    @torch.inference_mode()
    def hidden_left_padded(self, ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return what `hidden` returns for rows whose first `padding` [B] tokens are masked, and no position."""
        place = torch.arange(ids.shape[1], device=ids.device) - padding[:, None]
        inputs = {"input_ids": ids, "attention_mask": (place >= 0).long(), "position_ids": place.clamp(min=0)}
        if self.facts.head == "full":
            logits: torch.Tensor = self._model(**inputs, use_cache=False).logits
            return logits
        output: torch.Tensor = self._body(**inputs, use_cache=False).last_hidden_state
        return output

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D], in the head's own dtype."""
        if self.facts.head == "full":
            return hidden
        return self._run_linear(hidden) if self.facts.head == "linear" else self._run_own_head(hidden)

    def _run_body(self, ids: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._body(input_ids=ids, use_cache=False).last_hidden_state
        return output

    def _run_linear(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._linear(hidden)
        return output

    def _run_own_head(self, hidden: torch.Tensor) -> torch.Tensor:
        stand_in = getattr(self._own_head, self._model.base_model_prefix)
        stand_in.rows = hidden[None]
        output: torch.Tensor = self._own_head(input_ids=hidden.new_zeros((1, len(hidden)), dtype=torch.long)).logits[0]
        stand_in.rows = None
        return output

    @torch.inference_mode()
    def _full(self, ids: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits
        return output

    def _probe_ids(self) -> torch.Tensor:
        length = min(PROBE_TOKENS, self.facts.context_length or PROBE_TOKENS)
        ids = (torch.arange(2 * length) * 7 + 3) % self.facts.vocab_size
        device = next(self._model.parameters()).device
        return ids.reshape(2, length).to(device)

    def _check_causal(self, probe: torch.Tensor, expected: torch.Tensor) -> None:
        """Refuse a model that is no next-token predictor: its loss would be a plausible wrong number."""
        name = self.facts.name
        if not torch.isfinite(expected).any(dim=-1).all() or torch.isnan(expected).any():
            raise CheckpointError("checkpoint.non_finite_logits", f"{name}: the logits of a short probe are not finite")
        if expected.shape[-1] != self.facts.vocab_size:
            raise CheckpointError(
                "checkpoint.vocab_size",
                f"{name}: the logits have {expected.shape[-1]} entries, the configuration says {self.facts.vocab_size}",
            )
        half = probe.shape[1] // 2
        changed = probe.clone()
        changed[:, half:] = (changed[:, half:] + 1) % self.facts.vocab_size
        if half and not _agree(self._full(changed)[:, :half], expected[:, :half]):
            raise CheckpointError(
                "checkpoint.not_causal",
                f"{name}: later tokens change earlier logits, so this is no next-token predictor",
            )

    @torch.inference_mode()
    def _choose_head(self, probe: torch.Tensor, expected: torch.Tensor) -> str:
        hidden = self._run_body(probe).flatten(0, 1)
        rows = expected.flatten(0, 1)
        own = self._try_own_head(hidden)
        own_agrees = own is not None and _agree(own, rows)
        if self._linear is not None and _agree(self._run_linear(hidden), rows):
            # Soft-capping leaves small logits as they are: only on large ones the two ways show their difference.
            stretched = hidden * (STRETCHED_LOGIT / max(_scale(rows), STRETCHED_LOGIT / MAX_STRETCH))
            own = self._try_own_head(stretched) if own_agrees else None
            if own is None or _agree(self._run_linear(stretched), own):
                return "linear"
        return "model" if own_agrees else "full"

    @torch.inference_mode()
    def _speed_up(self, probe: torch.Tensor) -> str:
        """Replace layers by faster ones that agree to rounding, alone and all together; return what was replaced."""
        before = self.hidden(probe)
        replaced = speed_up(self._model)
        if replaced and not self._still_agrees(probe, before):
            for each in replaced:
                each.restore()
            replaced = []
        head = None
        if self.facts.head == "linear" and isinstance(self._linear, torch.nn.Linear):
            spare = not self.facts.tied or self._linear.weight.nbytes <= MOST_HEAD_BYTES
            head = pack(self._linear, HEAD_ROWS) if spare else None
        if head is not None:
            replace_layer(self._model, self._linear, head)  # so that a head of its own is not held twice
            self._linear, self._own_head = head, None
        packed = [*(["body"] if replaced else []), *(["head"] if head is not None else [])]
        return f"packed {' and '.join(packed)}" if packed else "plain"

    def _still_agrees(self, probe: torch.Tensor, before: torch.Tensor) -> bool:
        try:
            return _agree(self.hidden(probe), before)
        except Exception:  # noqa: BLE001 - the code of any family, which may look into a layer that is gone
            return False

    def _try_own_head(self, hidden: torch.Tensor) -> torch.Tensor | None:
        if self._own_head is None:
            return None
        try:
            return self._run_own_head(hidden)
        except Exception:  # noqa: BLE001 - the code of any family, with a stand-in that it was not written for
            return None


class _StandIn(torch.nn.Module):
    """Takes the place of a body and returns the hidden rows that it was handed."""

    rows: torch.Tensor | None = None

    def forward(self, *_: object, **__: object) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.rows)


def _headed_by_stand_in(model: Any) -> Any:
    """Return a shallow copy of `model` that shares its head but has no body, or None where there is no body."""
    prefix = model.base_model_prefix
    if not prefix or prefix not in model._modules:
        return None
    headed = copy.copy(model)
    headed._modules = {**model._modules, prefix: _StandIn()}
    return headed


def _agree(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two logit tensors differ by no more than rounding in their own dtype."""
    if actual.shape != expected.shape:
        return False
    tolerance = max(PROBE_TOLERANCE, 4 * torch.finfo(expected.dtype).eps)
    return torch.allclose(actual.float(), expected.float(), rtol=0.0, atol=tolerance * max(_scale(expected), 1e-6))


def _scale(logits: torch.Tensor) -> float:
    """Return the largest finite logit, by absolute value."""
    return float(logits[torch.isfinite(logits)].abs().max())
