"""Which windows may share a forward pass of a model, so that no loss depends on what it was scored beside.

Windows of a batch are padded on the right, without a mask: a causal model does not see what comes later. Yet some look
at the length of the batch (LongRoPE and dynamic NTK choose their frequencies by it), or choose between equal scores in
an order that depends on it (sparse attention by an index), or look at the other rows. What is known of a configuration
decides; a probe finds the rest. The right losses of a window are those of the window alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lossprobe.checkpoint.interface import BATCHINGS, EQUAL_LENGTHS, ONE_WINDOW, PADDED
from lossprobe.checkpoint.model.rounding import largest
from lossprobe.errors import CheckpointError

# Rules whose frequencies are the same for every length. "axial" and "mrope" are about images.
FIXED_ROPE = frozenset({"default", "linear", "yarn", "llama3", "proportional", "axial", "mrope"})
INDEX_KEY = re.compile(r"index\w*_top_?k\w*")  # how many keys, or blocks of keys, an index lets through
SHORT = 12  # tokens of the shorter row of the probe
LEAST, MOST = 24, 768  # and of the longer one
SPARE = 8  # tokens below the context: a table of positions may hold fewer than it says, as RoBERTa's does
WORK = 8e9  # weights times tokens of a probe on a CPU: a fifth of a second on two cores
FASTER = 50  # how much more a GPU does
HINT = "a model that gives no one number for a text cannot be measured"

Forward = Callable[[torch.Tensor], torch.Tensor]
Same = Callable[[torch.Tensor, torch.Tensor], bool]


@dataclass(frozen=True)
class BatchingRule:
    """What a configuration says: the batching that a model needs at least, and why."""

    batching: str = PADDED
    reason: str = ""


def configured_batching(model: Any) -> BatchingRule:
    """Return which batching a model needs by its configuration and by the rules that its modules were built with."""
    config = _text_config(model)
    for key in sorted(filter(INDEX_KEY.fullmatch, dir(type(config)))):
        if getattr(config, key, None):
            return BatchingRule(ONE_WINDOW, f"its attention chooses keys by an index ({key} {getattr(config, key)})")
    for rope_type in _rope_types(model, config):
        if rope_type not in FIXED_ROPE:
            return BatchingRule(
                EQUAL_LENGTHS, f"its positions depend on the length of the input (rope_type {rope_type})"
            )
    return BatchingRule()


def has_changing_positions(module: torch.nn.Module) -> bool:
    """Return whether a module computes positions by the length of the input, and so may keep those of the last one."""
    return any(rope_type not in FIXED_ROPE for rope_type in _texts(getattr(module, "rope_type", None)))


def probe_length(model: Any, context_length: int | None) -> int:
    """Return the tokens of the probe's longer row: as many as `WORK` allows, or more where these are too few."""
    parameters = list(model.parameters())
    weights = sum(parameter.numel() for parameter in parameters)
    work = WORK * (1 if parameters[0].device.type == "cpu" else FASTER)
    length = max(LEAST, min(MOST, int(work / (4 * weights))), _blind_below(_text_config(model)) + 1)
    return length if context_length is None else min(length, max(context_length - SPARE, context_length // 2, 1))


def find_batching(run: Forward, same: Same, rows: Callable[[int], torch.Tensor], known: str, name: str) -> str:
    """Return the loosest batching, from `known` on, with which every row comes out as it does alone.

    Args:
        run: ids [B, T] → what the model gives, [B, T, D].
        same: whether two such results [N, D] differ by no more than rounding.
        rows: number → a long row of ids [T], another for each number.
        known: what the configuration asks for at least.
        name: of the model, for messages.

    Raises:
        CheckpointError: the same row alone gives different results, or later tokens change earlier ones.
    """
    probe = _Probe(run, same, rows, name)
    found = probe.batching(0, known)
    if found != known:  # one token that rounding sent to another expert is no dependence, and is not met twice
        found = min(found, probe.batching(1, known), key=BATCHINGS.index)
    return found


@dataclass(frozen=True)
class _Probe:
    run: Forward
    same: Same
    rows: Callable[[int], torch.Tensor]
    name: str

    def batching(self, number: int, known: str) -> str:
        """Return what `find_batching` does, by one long row, its end as a short one, and one that begins like it."""
        long, changed = self._pair(number)
        length = long.shape[1]
        short = max(1, min(SHORT, length // 2))
        end = long[:, -short:]
        alone = self.run(end)[0], self.run(long)[0]
        if known == PADDED:
            padded = torch.cat([end, end.new_zeros((1, length - short))], dim=1)
            together = self.run(torch.cat([padded, long, changed]))
            if self.same(together[0, :short], alone[0]) and self.same(together[1], alone[1]):
                self._check_causal(together[1], together[2])
                return PADDED
        if known != ONE_WINDOW:
            shorter = self.run(torch.cat([end, changed[:, :short]]))
            together = self.run(torch.cat([long, changed]))
            if self.same(shorter[0], alone[0]) and self.same(together[0], alone[1]):
                self._check_causal(together[0], together[1])
                return EQUAL_LENGTHS
        for ids, before in ((end, alone[0]), (long, alone[1])):
            refuse_if_not_repeatable(self.run, self.same, ids, before, self.name)
        self._check_causal(alone[1], self.run(changed)[0])
        return ONE_WINDOW

    def _pair(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a long row [1, T], and one with the same first half."""
        long = self.rows(number)[None]
        half = long.shape[1] // 2
        return long, torch.cat([long[:, :half], long[:, half:].flip(1)], dim=1)

    def _check_causal(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Refuse a model whose results for the first half of a row change with the second half, in three rows."""
        half = len(first) // 2
        if not half or self.same(second[:half], first[:half]):
            return
        for number in (1, 2):  # as above: rounding may once send a token to another expert
            long, changed = self._pair(number)
            before = self.run(long)[0]
            refuse_if_not_repeatable(self.run, self.same, long, before, self.name)
            if self.same(self.run(changed)[0, :half], before[:half]):
                return
        refuse_not_causal(self.name)


def refuse_not_causal(name: str) -> None:
    """Refuse a model that is no next-token predictor: its loss would be a plausible wrong number."""
    raise CheckpointError(
        "checkpoint.not_causal", f"{name}: later tokens change earlier logits, so this is no next-token predictor"
    )


def refuse_if_not_repeatable(run: Forward, same: Same, ids: torch.Tensor, before: torch.Tensor, name: str) -> None:
    """Refuse a model that gives another result than before for the same input.

    Raises:
        CheckpointError: `checkpoint.random` where the results follow torch's random numbers; `checkpoint.stateful`
            where something else changes from pass to pass.
    """
    if same(run(ids).flatten(0, -2), before):
        return
    seeded = []
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        seeded.append(run(ids).flatten(0, -2))
    apart = max(float((one.float() - before.float()).abs().max()) for one in seeded)
    twice = f"the same {ids.shape[1]} tokens twice give values {apart:.3g} apart (of up to {largest(before):.3g})"
    if same(seeded[2], seeded[1]) and not same(seeded[1], seeded[0]):
        raise CheckpointError(
            "checkpoint.random", f"{name}: {twice}, since the forward pass draws random numbers", hint=HINT
        )
    raise CheckpointError(
        "checkpoint.stateful",
        f"{name}: {twice}, since the forward pass depends on earlier ones or on random numbers of its own",
        hint=HINT,
    )


def _text_config(model: Any) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _rope_types(model: Any, config: Any) -> Iterator[str]:
    """Yield the rules of positions: the configuration's, for all layers or by type of layer, and the modules'."""
    for key in ("rope_parameters", "rope_scaling"):
        stated = getattr(config, key, None)
        for entry in (stated, *stated.values()) if isinstance(stated, dict) else ():
            if isinstance(entry, dict):
                yield from _texts(entry.get("rope_type") or entry.get("type"))
    for module in model.modules():
        yield from _texts(getattr(module, "rope_type", None))


def _texts(value: Any) -> Iterator[str]:
    values = value.values() if isinstance(value, dict) else (value,)
    yield from (one for one in values if isinstance(one, str))


def _blind_below(config: Any) -> int:
    """Return up to which length a family does not yet do what it does to longer inputs, or 0.

    Reformer attends by random hashes only where there is more than one chunk; BigBird by blocks, and no longer
    causally, only where these do not cover the input.
    """
    lengths = [0]
    if "lsh" in getattr(config, "attn_layers", ()):
        lengths.append(config.lsh_attn_chunk_length)
    if getattr(config, "attention_type", None) == "block_sparse":
        lengths.append((5 + 2 * config.num_random_blocks) * config.block_size)
    return max(lengths)
