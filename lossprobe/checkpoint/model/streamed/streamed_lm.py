"""A model whose layers are read from their files while it computes.

What `CausalLM` finds out about a whole model, such as how its head is computed and which windows may share a pass, is
found out here on a model of a few layers: at least two, and one of every kind; all of them where they are small. On the
same layers it is checked that they give the same results one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from lossprobe.checkpoint.interface import CheckpointFacts, Tokenizer
from lossprobe.checkpoint.layer_by_layer import STREAMED, Routing, Watch
from lossprobe.checkpoint.model.batching import short_rows
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.model.rounding import agree
from lossprobe.checkpoint.model.router import has_load_balancing_loss, routing_sums
from lossprobe.checkpoint.model.streamed.hidden_store import MOST_HELD_BYTES
from lossprobe.checkpoint.model.streamed.layer_list import NotStreamableError
from lossprobe.checkpoint.model.streamed.layer_stream import Inputs, LayerStream
from lossprobe.checkpoint.model.streamed.streamed_weights import StreamedWeights
from lossprobe.checkpoint.model.widened import widen_body

MOST_TRIED_BYTES = 1 << 28  # a model whose layers are smaller together is checked with all of them
MOST_KINDS = 8  # most layers that are in memory for the check otherwise
CHUNK_BYTES = 1 << 28  # logits of a head in tiles that are in memory at once
MOST_ROWS, ROW_STEP = 512, 64
MORE = "its layers need more than the hidden states of the one before"


class StreamedLM(CausalLM):
    """A `StreamedCheckpoint` over a transformers model, and its `LayerByLayer`.

    Args:
        model: the model, in eval mode; its layers have no values.
        facts: as for `CausalLM`.
        tokenizer: as for `CausalLM`.
        weights: gives it its values, and has placed what stays in memory.

    Attributes:
        head_rows: rows for which the head is run at once; None where the head is in memory.

    Raises:
        CheckpointError: as for `CausalLM`.
        NotStreamableError: more than hidden states goes from layer to layer.
    """

    def __init__(self, model: Any, facts: CheckpointFacts, tokenizer: Tokenizer, weights: StreamedWeights) -> None:
        layers = weights.layers.layers
        self._weights = weights
        self._stream = LayerStream(layers, weights)
        self._stream.chosen = self._tried(weights)
        self._stream.whole = True
        weights.hold(self._stream.chosen)
        before = _versions(layers)
        _install_recorders(model, facts.device)
        super().__init__(model, facts, tokenizer)
        self._check_streamed()
        if any(map(self._fresh.watches, layers)) or _versions(layers) != before:
            raise NotStreamableError("its layers keep state from pass to pass")
        self._stream.whole, self._stream.chosen = False, range(len(layers))
        weights.hold(())
        head = self.facts.kernels.removeprefix("plain")
        self.facts = replace(self.facts, kernels=f"{head}{', ' if head else ''}{STREAMED}")
        self.head_rows = _rows_at_once(self.facts.vocab_size, model.dtype) if weights.tiled else None

    @property
    def layer_count(self) -> int:
        """Return the number of layers."""
        return len(self._weights.layers.layers)

    @property
    def tokens_together(self) -> int:
        """Return how many tokens' hidden states stay in memory."""
        config = self._model.config.get_text_config()
        size: int = int(getattr(config, "hidden_size", 4096)) * self._model.dtype.itemsize
        return MOST_HELD_BYTES // size

    def hidden_of_all(self, ids: Sequence[torch.Tensor], watch: Watch | None = None) -> Iterator[torch.Tensor]:
        """Yield what `hidden` returns for each of several inputs, after reading each layer once for all of them.

        Args:
            ids: the inputs, int64 [B, T] each, on the model's device.
            watch: called when an input has gone through a layer, with how many it has gone through, and its number.
        """
        run = super()._run_whole if self.facts.head == "full" else super()._run_body
        return _in_inference(self._stream.through(run, [{"input_ids": each} for each in ids], watch))

    def hidden_and_routing_of_all(
        self, ids: Sequence[torch.Tensor], lengths: Sequence[torch.Tensor], watch: Watch | None = None
    ) -> Iterator[Routing]:
        """Yield what `hidden_and_routing` returns for each of several inputs, as `hidden_of_all` does.

        Args:
            ids: the inputs, int64 [B, T] each.
            lengths: int64 [B] each, tokens of each row.
            watch: as for `hidden_of_all`.
        """
        assert self.facts.router is not None
        chosen, routed = self.facts.router.experts_per_token, super()._run_routed
        inputs = [{"input_ids": each} for each in ids]
        rows = {id(each): length for each, length in zip(inputs, lengths, strict=True)}
        sums: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {id(each): [] for each in inputs}

        def run(each: Inputs) -> torch.Tensor:
            hidden, logits = routed(each["input_ids"])
            if logits:
                sums[id(each)].append(routing_sums(logits, rows[id(each)], chosen))
            return hidden

        self._stream.to_end = True
        try:
            for each, hidden in zip(inputs, _in_inference(self._stream.through(run, inputs, watch)), strict=True):
                probabilities, slots = zip(*sums.pop(id(each)), strict=True)
                yield hidden, torch.cat(probabilities, dim=1), torch.cat(slots, dim=1)
        finally:
            self._stream.to_end = False

    def hidden_and_routing(self, ids: torch.Tensor, lengths: torch.Tensor) -> Routing:
        """Return what `hidden` returns, and the sums of the routers."""
        if self._stream.whole:
            return super().hidden_and_routing(ids, lengths)
        return next(self.hidden_and_routing_of_all([ids], [lengths]))

    def streamed(self) -> StreamedLM:
        """Return this, which runs its layers one after the other."""
        return self

    def shared_prefix(self) -> None:
        """Return nothing: the start of pairs is not shared while layers are streamed."""

    def _run_body(self, inputs: Inputs) -> torch.Tensor:
        if self._stream.whole:
            return super()._run_body(inputs)
        return next(self._stream.through(super()._run_body, [inputs]))

    def _run_whole(self, inputs: Inputs) -> torch.Tensor:
        if self._stream.whole:
            return super()._run_whole(inputs)
        return next(self._stream.through(super()._run_whole, [inputs]))

    def _speed_up_body(self, probe: torch.Tensor, speed: Callable[[Any], Sequence[Any]]) -> bool:
        """Pack nothing, which would take longer for a layer than it saves for the tokens of a part."""
        return speed is widen_body and super()._speed_up_body(probe, speed)

    def _find_router(self, probe: torch.Tensor) -> None:
        """Set `facts.router` as for a whole model: the layers that are not in memory have as many as those alike."""
        super()._find_router(probe)
        router = self.facts.router
        if router is None or not router.measured:
            return
        tried, found = self._stream.chosen, {}
        for number in tried:
            self._stream.chosen = (number,)
            found[number] = len(self._run_routed(probe)[1])
        self._stream.chosen = tried
        alike = enumerate(self._weights.layers.alike())
        layers = sum(found[number if number in found else first] for number, first in alike)
        self.facts = replace(self.facts, router=replace(router, layers=layers))

    @staticmethod
    def _tried(weights: StreamedWeights) -> Sequence[int]:
        """Return the numbers of the layers that are in memory while the model is checked."""
        layers = weights.layers
        if weights.largest_layer_bytes() * len(layers.layers) <= MOST_TRIED_BYTES:
            return range(len(layers.layers))
        kinds = layers.kinds()
        if len(kinds) > MOST_KINDS:
            raise NotStreamableError(f"it has layers of {len(kinds)} kinds, of which one each would have to be checked")
        return kinds

    @torch.inference_mode()
    def _check_streamed(self) -> None:
        """Refuse a model that gives other results when its layers run one after the other.

        Two inputs of different lengths go through together, as windows of a part do.
        """
        inputs = [{"input_ids": short_rows(self.facts)}, {"input_ids": self._long_row(0)[None]}]
        whole = self.facts.head == "full"
        run = super()._run_whole if whole else super()._run_body
        expected = [run(each) for each in inputs]
        self._stream.whole = False
        try:
            found = list(self._stream.through(run, inputs))
        except Exception as error:  # noqa: BLE001 - the code of any family, which may miss what another layer made
            raise NotStreamableError(f"{MORE}: {error}") from None
        if not all(map(agree, found, expected)):
            raise NotStreamableError(MORE)


@torch.inference_mode()
def _install_recorders(model: Any, device: str) -> None:
    """Let transformers install what records routers, which it does when it is first asked for them.

    It belongs to the state of the layers, which must not change later.
    """
    if has_load_balancing_loss(model):
        ids = torch.zeros((1, 2), dtype=torch.long, device=device)
        try:
            model(input_ids=ids, use_cache=False, output_router_logits=True)
        except Exception:  # noqa: BLE001 - the code of any family, asked for what not every one of them has
            return


def _in_inference(found: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield results that are computed without gradients; code between them runs as the caller has it."""
    while True:
        with torch.inference_mode():
            hidden = next(found, None)
        if hidden is None:
            return
        yield hidden


def _versions(layers: Sequence[torch.nn.Module]) -> list[int]:
    """Return how often each weight of some layers was changed in place, also one without values."""
    return [weight._version for layer in layers for weight in layer.parameters()]


def _rows_at_once(vocab_size: int, dtype: torch.dtype) -> int:
    """Return for how many rows a head in tiles is read at once."""
    rows = CHUNK_BYTES // (vocab_size * dtype.itemsize) // ROW_STEP * ROW_STEP
    return max(ROW_STEP, min(MOST_ROWS, rows))
