"""Embeddings and heads whose weights stay in their file: what a pass needs of them is read by rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lossprobe.checkpoint.model.widened import linear_in_float32, needs_widening

TILE_BYTES = 1 << 26  # weights of a head that are read at once


def embed_by_rows(embedding: Any, read: Callable[[torch.Tensor], torch.Tensor], place: Callable[[Any], Any]) -> None:
    """Let an embedding read the rows of the ids that it gets, in place of holding all.

    Args:
        embedding: a `torch.nn.Embedding` without values, on the meta device.
        read: returns the rows of some ids, int64 [N] on the CPU, ascending: [N, D].
        place: gives a tensor the device and the dtype of the pass.
    """
    own, empty = embedding.forward, without_values(embedding.weight, place)
    embedding._parameters["weight"] = empty
    embedding.padding_idx = None  # matters to gradients only, and need not be among the rows

    def forward(ids: torch.Tensor) -> Any:
        distinct, row = torch.unique(ids, return_inverse=True)
        rows = place(read(distinct.cpu()))
        embedding._parameters["weight"] = torch.nn.Parameter(rows, requires_grad=False)
        try:
            return own(row)
        finally:
            embedding._parameters["weight"] = empty

    embedding.forward = forward


def without_values(weight: torch.Tensor, place: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Parameter:
    """Return a stand-in for a weight that takes no memory: of its shape, on the device of the pass, all zeros.

    Some families look there for the device of their inputs.
    """
    return torch.nn.Parameter(place(torch.zeros(())).expand(weight.shape), requires_grad=False)


class TiledHead(torch.nn.Module):
    """A linear layer whose weights are read from their file in each call, `TILE_BYTES` at a time.

    Args:
        layer: the linear layer, its weights without values.
        read: returns the rows of its weights from one to before another: [stop − start, D].
        place: gives a tensor the device and the dtype of the pass.
    """

    def __init__(
        self, layer: Any, read: Callable[[int, int], torch.Tensor], place: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self.weight, self.bias = without_values(layer.weight, place), layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._read, self._place = read, place
        self._step = max(1, TILE_BYTES // (layer.in_features * layer.weight.dtype.itemsize))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x · weightᵀ + bias, [..., out] in the dtype of x [..., in]."""
        linear = linear_in_float32 if needs_widening(x.dtype, x.device.type) else torch.nn.functional.linear
        output = x.new_empty((*x.shape[:-1], self.out_features))
        for start in range(0, self.out_features, self._step):
            stop = min(start + self._step, self.out_features)
            bias = None if self.bias is None else self.bias[start:stop]
            output[..., start:stop] = linear(x, self._place(self._read(start, stop)), bias)
        return output
