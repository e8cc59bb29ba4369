"""The protocol of checkpoints whose weights are not in memory, and are read once for all inputs that come together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lossprobe.checkpoint.interface import Checkpoint

if TYPE_CHECKING:
    import torch

Watch = Callable[[int, int], None]
STREAMED = "streamed layers"  # in `CheckpointFacts.kernels`
Routing = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]  # as `Routed.hidden_and_routing` returns


class LayerByLayer(Protocol):
    """Runs many inputs through a model whose layers are read one after the other."""

    @property
    def layer_count(self) -> int:
        """Number of layers."""
        ...

    @property
    def tokens_together(self) -> int:
        """How many tokens' hidden states stay in memory; those of more lie in a file between layers."""
        ...

    @property
    def head_rows(self) -> int | None:
        """Rows for which the head is run at once, since its weights are read each time; None where it is in memory."""
        ...

    def hidden_of_all(self, ids: Sequence[torch.Tensor], watch: Watch | None = None) -> Iterator[torch.Tensor]:
        """Yield what `Checkpoint.hidden` returns for each of several inputs, after reading each layer once for all.

        Args:
            ids: the inputs, int64 [B, T] each, on the model's device.
            watch: called when an input has gone through a layer, with how many it has gone through, and its number.
        """
        ...

    def hidden_and_routing_of_all(
        self, ids: Sequence[torch.Tensor], lengths: Sequence[torch.Tensor], watch: Watch | None = None
    ) -> Iterator[Routing]:
        """Yield what `Routed.hidden_and_routing` returns for each of several inputs; only where there are routers.

        Args:
            ids: the inputs, int64 [B, T] each.
            lengths: int64 [B] each, tokens of each row.
            watch: as for `hidden_of_all`.
        """
        ...


@runtime_checkable
class StreamedCheckpoint(Protocol):
    """A checkpoint that may be one whose layers are read one after the other."""

    def streamed(self) -> LayerByLayer | None:
        """Return what runs them; None where the model is in memory."""
        ...


def streamed_of(checkpoint: Checkpoint) -> LayerByLayer | None:
    """Return what runs the layers of a checkpoint one after the other; None where the model is in memory."""
    return checkpoint.streamed() if isinstance(checkpoint, StreamedCheckpoint) else None
