"""Sums the routers of a mixture of experts over the windows of a part while the model scores it.

A trainer gives a model all tokens of a row, also the last one, from which nothing is predicted. So the windows of such
a model are run with one token more than those of others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lossprobe.checkpoint.interface import Checkpoint, Routed
from lossprobe.plan.part_scores import RoutingSums
from lossprobe.plan.rows import Integers, Rows
from lossprobe.plan.windows import Window
from lossprobe.scoring.transfer import download, upload


def has_routers(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint is a mixture of experts whose routers can be summed."""
    router = checkpoint.facts.router
    return router is not None and router.measured and isinstance(checkpoint, Routed)


class Routers:
    """The sums of the routers over the windows of one part.

    Args:
        checkpoint: a `Routed` checkpoint with `facts.router`.
        rows: the part.
    """

    def __init__(self, checkpoint: Checkpoint, rows: Rows) -> None:
        assert isinstance(checkpoint, Routed)
        assert checkpoint.facts.router is not None
        self._model: Routed = checkpoint
        self._facts, self._router = checkpoint.facts, checkpoint.facts.router
        self._rows = rows
        self._keys: list[tuple[int, int, int]] = []  # window, document, tokens
        self._sums: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hidden(self, ids: Integers, windows: Sequence[tuple[int, Window]]) -> torch.Tensor:
        """Return the hidden states [B, T, D] of a batch's inputs [B, T], and add up its routers.

        Where the model has no position for the last token of the longest window, no window's last token is run.
        """
        seen, lengths = self.inputs(ids, windows)
        hidden, probability, slots = self._model.hidden_and_routing(upload(seen, self._facts.device), lengths)
        self.add(windows, lengths, probability, slots)
        return hidden[:, : ids.shape[1]]

    def inputs(self, ids: Integers, windows: Sequence[tuple[int, Window]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the model gets for a batch's inputs [B, T]: int64 [B, T or T + 1], and the tokens of each row."""
        places = _places(windows)
        width = ids.shape[1]
        limit = self._facts.context_length if self._facts.hard_limit else None
        last = int(limit is None or width < limit)
        seen = np.pad(ids, ((0, 0), (0, last)))
        for row, (first, stop) in enumerate(places if last else ()):
            seen[row, stop - first] = self._rows.token_id[stop]
        return torch.from_numpy(seen), torch.tensor([stop - first + last for first, stop in places])

    def add(
        self,
        windows: Sequence[tuple[int, Window]],
        lengths: torch.Tensor,
        probability: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        """Add the sums of the routers for a batch, as `Routed.hidden_and_routing` returns them."""
        self._sums.append((download(probability), download(slots)))
        self._keys += [
            (int(self._rows.window[stop]), int(self._rows.document[stop]), length)
            for (_, stop), length in zip(_places(windows), lengths.tolist(), strict=True)
        ]

    def finish(self) -> RoutingSums:
        """Return the sums of all windows, in their order; those of a GPU must have arrived."""
        keys = np.array(self._keys, np.int64).reshape(-1, 3)
        order = np.argsort(keys[:, 0])
        shape = (0, self._router.layers, self._router.experts)
        probability = torch.cat([torch.zeros(shape, dtype=torch.float64), *(each for each, _ in self._sums)]).numpy()
        slots = torch.cat([torch.zeros(shape, dtype=torch.int64), *(each for _, each in self._sums)]).numpy()
        window, document, tokens = keys[order].T
        return RoutingSums(document, window, tokens, probability[order], slots[order])


def _places(windows: Sequence[tuple[int, Window]]) -> list[tuple[int, int]]:
    """Return the rows of each window's first token and of its last, which no token is predicted from."""
    return [(offset + window.start, offset + window.stop - 1) for offset, window in windows]
