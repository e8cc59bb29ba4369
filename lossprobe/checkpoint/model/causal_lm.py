"""Split a causal model of transformers into body and head, so that the head can run on chunks of rows.

The split is checked when it is made: on a short probe it must give what the model's own full forward pass gives. Two
ways to run the head are tried in this order: the output matrix alone ("linear"), and the model class's own code with
its body replaced by a stand-in ("model", for soft-capped or scaled logits). Where neither agrees, `hidden` returns
full logits and `logits` returns its input ("full").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from lossprobe.checkpoint.interface import EQUAL_LENGTHS, PADDED, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.attention import KIND, Attention, BlockedAttention, find_attention, no_change
from lossprobe.checkpoint.model.batching import (
    configured_batching,
    find_batching,
    has_changing_positions,
    probe_length,
    refuse_if_not_repeatable,
    refuse_not_causal,
    short_rows,
)
from lossprobe.checkpoint.model.context import first_position
from lossprobe.checkpoint.model.fresh_state import FreshState
from lossprobe.checkpoint.model.packed import pack_head, speed_up
from lossprobe.checkpoint.model.random_numbers import random_numbers_kept
from lossprobe.checkpoint.model.rounding import agree, largest
from lossprobe.checkpoint.model.router import find_router, has_load_balancing_loss, routing_sums
from lossprobe.checkpoint.model.shared_prefix import CachedPrefix, find_prefix
from lossprobe.checkpoint.model.stand_in import body_name, headed_by_stand_in
from lossprobe.checkpoint.model.widened import needs_widening, widen, widen_body
from lossprobe.errors import CheckpointError

HALF_ROWS = 32  # number of rows at which results in half precision are compared, as logits
STRETCHED_LOGIT = 100.0  # a logit so large that a soft cap of any usual height changes it
MAX_STRETCH = 4000.0  # hidden states that are scaled by this still fit into float16


class CausalLM:
    """A `Checkpoint` over a transformers model.

    Args:
        model: the model, in eval mode, on its device, in its compute dtype.
        facts: description of the checkpoint; `head`, `kernels`, `batching` and a notice are filled in here.
        tokenizer: its tokenizer.

    Raises:
        CheckpointError: logits depend on later tokens, are not finite, change from pass to pass, or have another width
            than `facts.vocab_size`.
    """

    def __init__(self, model: Any, facts: CheckpointFacts, tokenizer: Tokenizer) -> None:
        self.facts = facts
        self.tokenizer = tokenizer
        self._model = model
        self._body_name = body_name(model)
        self._body = model._modules.get(self._body_name)
        self._first = first_position(model)
        self._linear = model.get_output_embeddings()
        self._own_head = headed_by_stand_in(model, self._body_name)
        self._fresh = FreshState(model)
        self._attention: Attention = no_change()
        with random_numbers_kept(facts.device):
            probe = short_rows(facts)
            expected = self._full(probe)
            self._check_causal(probe, expected)
            self.facts = replace(facts, head=self._choose_head(probe, expected))
            first = self._full(probe[:1])[0]
            if not self._splits_longer_rows():
                self.facts = replace(facts, head="full")
            refuse_if_not_repeatable(self._full, agree, probe[:1], first, facts.name)
            self.facts = replace(self.facts, kernels=self._speed_up(probe))
            self._find_batching()
            self._find_router(probe)
            self._fresh.restore()
            self._fresh.narrow(has_changing_positions)

    @torch.inference_mode()
    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return final hidden states [B, T, D] of int64 ids [B, T] (logits [B, T, V] when head is "full")."""
        if self.facts.head == "full":
            return self._full(ids)
        return self._run_body({"input_ids": ids})

    @torch.inference_mode()
    def hidden_and_routing(
        self, ids: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what `hidden` returns, and the sums of the routers, whose logits transformers itself records."""
        assert self.facts.router is not None
        hidden, logits = self._run_routed(ids)
        return hidden, *routing_sums(logits, lengths, self.facts.router.experts_per_token)

    @torch.inference_mode()
    def hidden_left_padded(self, ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return what `hidden` returns for rows that are padded on the left.

        Args:
            ids: int64 [B, T].
            padding: int64 [B], number of padding tokens at the start of each row; they are masked and not counted in
                the positions.
        """
        place = torch.arange(ids.shape[1], device=ids.device) - padding[:, None]
        inputs = {
            "input_ids": ids,
            "attention_mask": (place >= 0).long(),
            "position_ids": place.clamp(min=0) + self._first,
        }
        return self._run_whole(inputs) if self.facts.head == "full" else self._run_body(inputs)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D], in the head's own dtype."""
        if self.facts.head == "full":
            return hidden
        return self._run_linear(hidden) if self.facts.head == "linear" else self._run_own_head(hidden)

    def shared_prefix(self) -> CachedPrefix | None:
        """Return what runs inputs after their common start; None where results would differ by more than rounding."""
        return find_prefix(self, self._body, self._fresh.restore, self._same, self._long_row)

    def _run_body(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self._run(self._body, **inputs).last_hidden_state
        return output

    def _run_whole(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self._run(self._model, **inputs).logits
        return output

    def _run_routed(self, ids: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        whole = self.facts.head == "full"
        output = self._run(self._model if whole else self._body, input_ids=ids, output_router_logits=True)
        return output.logits if whole else output.last_hidden_state, output.router_logits

    def _run(self, module: Any, **inputs: Any) -> Any:
        self._fresh.restore()
        with self._attention:
            return module(**inputs, use_cache=False)

    def _run_linear(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._linear(hidden)
        return output

    def _run_own_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D] by the model class's own code around a stand-in for the body."""
        stand_in = self._own_head._modules[self._body_name]
        stand_in.rows = hidden[None]
        output: torch.Tensor = self._own_head(input_ids=hidden.new_zeros((1, len(hidden)), dtype=torch.long)).logits[0]
        stand_in.rows = None
        return output

    @torch.inference_mode()
    def _full(self, ids: torch.Tensor) -> torch.Tensor:
        return self._run_whole({"input_ids": ids})

    def _check_causal(self, probe: torch.Tensor, expected: torch.Tensor) -> None:
        """Refuse a model whose logits on the probe are not finite, have a wrong width, or depend on later tokens."""
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
        if half and not agree(self._full(changed)[:, :half], expected[:, :half]):
            refuse_if_not_repeatable(self._full, agree, probe, expected.flatten(0, 1), name)
            refuse_not_causal(name)

    @torch.inference_mode()
    def _choose_head(self, probe: torch.Tensor, expected: torch.Tensor) -> str:
        """Return the first of "linear", "model" and "full" that gives the expected logits [2, T, V] of the probe."""
        if self._body is None:
            return "full"
        hidden = self._run_body({"input_ids": probe}).flatten(0, 1)
        rows = expected.flatten(0, 1)
        own = self._try_own_head(hidden)
        own_agrees = own is not None and agree(own, rows) and self._rows_are_apart(hidden, own)
        linear = _tried(self._run_linear, hidden) if self._linear is not None else None
        if linear is not None and agree(linear, rows):
            # A soft cap barely changes small logits, so the two ways are also compared on large ones.
            stretched = hidden * (STRETCHED_LOGIT / max(largest(rows), STRETCHED_LOGIT / MAX_STRETCH))
            own = self._try_own_head(stretched) if own_agrees else None
            if own is None or agree(self._run_linear(stretched), own):
                return "linear"
        return "model" if own_agrees else "full"

    @torch.inference_mode()
    def _speed_up(self, probe: torch.Tensor) -> str:
        """Replace layers by faster ones where results stay the same but for rounding; return `facts.kernels`."""
        widens = needs_widening(self._model.dtype, self.facts.device)
        body = self._speed_up_body(probe, widen_body if widens else speed_up)
        head = self._pack_head() if not widens else widen(self._model.get_output_embeddings()) is not None
        self._fresh = FreshState(self._model)
        self._attention = find_attention(self.hidden, self._same, self._long_row(0)[None], self._model.dtype)
        parts = " and ".join([*(["body"] if body else []), *(["head"] if head else [])])
        kinds = [f"{'widened' if widens else 'packed'} {parts}"] if parts else []
        return ", ".join([*kinds, *([KIND] if isinstance(self._attention, BlockedAttention) else [])]) or "plain"

    def _speed_up_body(self, probe: torch.Tensor, speed: Callable[[Any], Sequence[Any]]) -> bool:
        """Replace layers of the body, and return whether some were."""
        before = self.hidden(probe)
        self._fresh.restore()
        self._fresh = FreshState(torch.nn.Module())  # the copy of the state refers to weights, which are to be freed
        replaced = speed(self._model)
        self._fresh = FreshState(self._model)
        if replaced and not self._still_agrees(probe, before):
            self._fresh.restore()
            for each in replaced:
                each.restore()
            self._fresh = FreshState(self._model)
            replaced = []
        self._fresh.restore()
        return bool(replaced)

    def _pack_head(self) -> bool:
        """Replace the head by a packed one, and return whether it was."""
        if self.facts.head != "linear" or not isinstance(self._linear, torch.nn.Linear):
            return False
        head = pack_head(self._model, self._linear, tied=bool(self.facts.tied))
        if head is not None:
            self._linear, self._own_head = head, None
        return head is not None

    @torch.inference_mode()
    def _find_batching(self) -> None:
        """Set `facts.batching`, with a notice where it is not "padded"."""
        known = configured_batching(self._model)
        found = find_batching(self.hidden, self._same, self._long_row, known.batching, self.facts.name)
        if found != PADDED:
            why = known.reason if found == known.batching else "a probe showed that they change each other's values"
            alone = "windows of different lengths never share" if found == EQUAL_LENGTHS else "no two windows share"
            notice = f"{alone} a forward pass of this model: {why}"
            self.facts = replace(self.facts, batching=found, notices=(*self.facts.notices, notice))

    @torch.inference_mode()
    def _find_router(self, probe: torch.Tensor) -> None:
        """Set `facts.router` where the model has a load-balancing loss; a notice tells where its sums would differ."""
        if not has_load_balancing_loss(self._model):
            return
        self._fresh.restore()
        found = find_router(self._model, self._run_routed, probe, padded=self.facts.batching == PADDED)
        told = f"{self.facts.name}: its load-balancing loss cannot be measured, and is left out"
        notices = self.facts.notices if found.measured else (*self.facts.notices, told)
        self.facts = replace(self.facts, router=found, notices=notices)

    def _long_row(self, number: int) -> torch.Tensor:
        """Return the longer row of ids [T] of the probe for batching, a different one for each number."""
        length = probe_length(self._model, self.facts.context_length)
        ids = (torch.arange(length) * (7 + 4 * number) + 3) % self.facts.vocab_size
        return ids.to(self.facts.device)

    @torch.inference_mode()
    def _splits_longer_rows(self) -> bool:
        """Return whether body and head also give the whole model's logits for a longer row."""
        ids = self._long_row(0)[None]
        return agree(self.logits(self.hidden(ids)[0]), self._full(ids)[0])

    def _same(self, actual: torch.Tensor, expected: torch.Tensor) -> bool:
        """Return whether two results of `hidden`, [N, D], are the same but for rounding.

        Results in half precision are compared as logits: single hidden values can be so large that their rounding
        error exceeds all other values, while logits have similar sizes.
        """
        if torch.finfo(expected.dtype).bits < 32:
            step = -(-len(expected) // HALF_ROWS)
            actual, expected = self.logits(actual[::step]), self.logits(expected[::step])
        return agree(actual, expected)

    def _rows_are_apart(self, hidden: torch.Tensor, logits: torch.Tensor) -> bool:
        """Return whether the logits of the model's own head for a row do not depend on the other rows."""
        some = self._try_own_head(hidden[::2])
        return some is not None and agree(some, logits[::2])

    def _try_own_head(self, hidden: torch.Tensor) -> torch.Tensor | None:
        return _tried(self._run_own_head, hidden) if self._own_head is not None else None

    def _still_agrees(self, probe: torch.Tensor, before: torch.Tensor) -> bool:
        """Return whether `hidden` still gives the result that it gave before layers were replaced."""
        try:
            return self._same(self.hidden(probe).flatten(0, 1), before.flatten(0, 1))
        except Exception:  # noqa: BLE001 - the code of any family, which may access a replaced layer
            return False


def _tried(head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor) -> torch.Tensor | None:
    """Return the logits of one way to run the head, or None where the family's code raises an error."""
    try:
        return head(hidden)
    except Exception:  # noqa: BLE001 - the code of any family, with a stand-in or rows that it was not written for
        return None
