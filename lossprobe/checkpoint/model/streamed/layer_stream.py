"""Run many inputs through a model layer by layer: all of them go through a layer before the next one is read.

The model's own forward code runs for each input and each layer, with every other layer replaced by one that only hands
on: the layer before gives out what it gave when it ran itself, and the pass ends behind the layer that runs. So masks,
positions and whatever else the body prepares are those of the family's own code, and nothing of them is kept. This is
right where nothing but the hidden states goes from layer to layer, which `StreamedLM` checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch

from lossprobe.checkpoint.layer_by_layer import Watch
from lossprobe.checkpoint.model.model_config import quiet_transformers
from lossprobe.checkpoint.model.streamed.hidden_store import HiddenStore

Inputs = dict[str, torch.Tensor]


class LayerSource(Protocol):
    """What gives layers their weights."""

    def load(self, number: int) -> None:
        """Read a layer's weights; called from a thread of its own while another layer computes."""
        ...

    def unload(self, number: int) -> None:
        """Free a layer's weights."""
        ...


class _Reached(Exception):
    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class LayerStream:
    """Runs a model layer by layer.

    Args:
        layers: the layers of the model, whose `forward` is replaced.
        source: gives them their weights.

    Attributes:
        chosen: numbers of the layers that take part, ascending; all others hand on what they get. All by default; a few
            to try out the model.
        whole: whether a pass runs all chosen layers, which are in memory then, and not one of them or none.
        running: number of the layer behind which a pass ends; None in a pass to the end.
        to_end: whether passes go on behind the layer that runs, through layers that hand on, for what the model returns
            beside hidden states.
        before: number of the chosen layer before it, which gives out `given`; None for the first.
        given: hidden states.
        reached: hidden states behind the layer that ran, where a pass goes on to the end.
    """

    def __init__(self, layers: Sequence[torch.nn.Module], source: LayerSource) -> None:
        self.chosen: Sequence[int] = range(len(layers))
        self.whole = False
        self.running: int | None = None
        self.before: int | None = None
        self.given: torch.Tensor | None = None
        self.to_end = False
        self.reached: torch.Tensor | None = None
        self._source = source
        self._slots = [_Slot(self, number, layer.forward) for number, layer in enumerate(layers)]
        for layer, slot in zip(layers, self._slots, strict=True):
            layer.forward = slot

    @property
    def rest(self) -> tuple[None, ...] | None:
        """What stands beside hidden states in the results of layers, as those have shown that ran; None for nothing."""
        return next((slot.rest for slot in self._slots if slot.rest is not None), None)

    def through(
        self, run: Callable[[Inputs], torch.Tensor], inputs: Sequence[Inputs], watch: Watch | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield the model's result for every input, in order, after reading each layer once.

        Args:
            run: the model's forward pass.
            inputs: the inputs.
            watch: called after each input's pass through a layer, with how many layers it has gone through and its
                number.
        """
        if not inputs:
            return
        with HiddenStore() as store:
            try:
                self._all_layers(run, inputs, store, watch)
            finally:
                for number in self.chosen:
                    self._source.unload(number)  # also one that was read when the one before it failed
            for index, each in enumerate(inputs):
                yield self._pass(None, self.chosen[-1], run, each, store.take(index))

    def _all_layers(
        self, run: Callable[[Inputs], torch.Tensor], inputs: Sequence[Inputs], store: HiddenStore, watch: Watch | None
    ) -> None:
        """Run all inputs through one layer after the other, each read while the one before it computes."""
        before: int | None = None
        with ThreadPoolExecutor(1, "layers") as pool, quiet_transformers():
            coming = pool.submit(self._source.load, self.chosen[0])
            for place, number in enumerate(self.chosen):
                coming.result()
                if before is not None:
                    # Not while another layer is read: the loader finds what it has read by comparing the whole model.
                    self._source.unload(before)
                if place + 1 < len(self.chosen):
                    coming = pool.submit(self._source.load, self.chosen[place + 1])
                for index, each in enumerate(inputs):
                    store.put(index, self._behind(number, before, run, each, store, index))
                    if watch is not None:
                        watch(place + 1, index)
                before = number

    def _behind(
        self,
        number: int,
        before: int | None,
        run: Callable[[Inputs], torch.Tensor],
        inputs: Inputs,
        store: HiddenStore,
        index: int,
    ) -> torch.Tensor:
        """Return the hidden states of an input behind a layer."""
        try:
            self._pass(number, before, run, inputs, None if before is None else store.take(index))
        except _Reached as found:
            return found.hidden
        reached, self.reached = self.reached, None
        assert reached is not None, f"layer {number} did not run"
        return reached

    def _pass(
        self,
        running: int | None,
        before: int | None,
        run: Callable[[Inputs], torch.Tensor],
        inputs: Inputs,
        given: torch.Tensor | None,
    ) -> torch.Tensor:
        self.running, self.before, self.given = running, before, given
        try:
            return run(inputs)
        finally:
            self.running = self.before = self.given = None


class _Slot:
    """What a layer's `forward` is replaced by.

    Args:
        stream: the stream that says what the layer does in the present pass.
        number: number of the layer.
        own: the layer's own `forward`.

    Attributes:
        rest: what stands beside hidden states in its result; None for nothing, or before it has run.
    """

    def __init__(self, stream: LayerStream, number: int, own: Callable[..., Any]) -> None:
        self.rest: tuple[None, ...] | None = None
        self._stream = stream
        self._number = number
        self._own = own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stream = self._stream
        if self._number in stream.chosen and (stream.whole or self._number == stream.running):
            found = self._own(*args, **kwargs)
            self.rest = (None,) * (len(found) - 1) if isinstance(found, tuple) else None
            if stream.whole:
                return found
            hidden = found[0] if isinstance(found, tuple) else found
            if not stream.to_end:
                raise _Reached(hidden)
            stream.reached = hidden
            return found
        hidden = stream.given if self._number == stream.before else (args[0] if args else kwargs["hidden_states"])
        rest = stream.rest if self.rest is None else self.rest
        return hidden if rest is None else (hidden, *rest)
