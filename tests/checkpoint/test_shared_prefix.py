"""Inputs that start alike go on from what a body keeps of their start, whatever transformers calls that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from lossprobe.checkpoint.model.shared_prefix import CachedPrefix


class Sums(torch.nn.Module):
    """A body whose hidden states are the sums of the ids so far; it keeps the ids as keys."""

    def sums(self, ids: torch.Tensor, kept: Any) -> tuple[torch.Tensor, Any]:
        kept = DynamicCache() if kept is None else kept
        values = ids[:, None, :, None].float()
        known, _ = kept.update(values, values, 0)
        return known[:, 0].cumsum(1)[:, -ids.shape[1] :], kept


class Renamed(Sums):
    """As from transformers 5.24 on."""

    def forward(self, input_ids: torch.Tensor, cache: Any = None, use_cache: bool = False) -> Any:
        hidden, kept = self.sums(input_ids, cache)
        return SimpleNamespace(last_hidden_state=hidden, cache=kept)


class Older(Sums):
    """As up to transformers 5.23, and in the code of other authors."""

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        hidden, kept = self.sums(input_ids, past_key_values)
        return SimpleNamespace(last_hidden_state=hidden, past_key_values=kept)


@pytest.mark.parametrize("body", [Renamed, Older])
def test_a_start_is_continued_under_either_name(body):
    shared = CachedPrefix(body(), lambda: None)
    starts, rest = torch.tensor([[1, 2, 3], [40, 50, 60]]), torch.tensor([[7, 8], [100, 200], [5, 5]])
    rows = torch.tensor([1, 0, 1])
    prefix = shared.run(starts)
    for _ in range(2):  # what was kept stays as it is
        hidden = shared.hidden_after(prefix, rows, rest)
        assert hidden[..., 0].tolist() == [[157, 165], [106, 306], [155, 160]]
