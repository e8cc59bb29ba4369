"""Find out which windows may share a forward pass of a model without changing each other's losses.

The right losses of a window are those it has alone in a pass. Windows of a batch are padded on the right without a
mask, because a causal model does not see later tokens. But some models depend on the length of the batch (LongRoPE and
dynamic NTK choose their frequencies by it; sparse attention by an index breaks ties by it) or on the other rows. The
configuration tells some of these; a probe, which compares forward passes, finds the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lossprobe.checkpoint.interface import BATCHINGS, EQUAL_LENGTHS, ONE_WINDOW, PADDED, CheckpointFacts
from lossprobe.checkpoint.model.rounding import largest
from lossprobe.errors import CheckpointError

# Kinds of rotary positions whose frequencies are the same for every length; "axial" and "mrope" are for images.
FIXED_ROPE = frozenset({"default", "linear", "yarn", "llama3", "proportional", "axial", "mrope"})
INDEX_KEY = re.compile(r"index\w*_top_?k\w*")  # number of keys or blocks of keys that an index selects
SHORT = 12  # tokens in the shorter row of the probe, and in each of the first two rows that a model gets
LEAST, MOST = 24, 768  # fewest and most tokens in the longer row
SPARE = 8  # the longer row stays this much below the context, since RoBERTa's table holds fewer positions than it says
WORK = 8e9  # most weights times tokens of the probe on a CPU: a fifth of a second on two cores
FASTER = 50  # factor for a GPU
HINT = "a model that gives another result each time has no single loss for a text"

Forward = Callable[[torch.Tensor], torch.Tensor]
Same = Callable[[torch.Tensor, torch.Tensor], bool]


@dataclass(frozen=True)
class BatchingRule:
    """The loosest batching that a model's configuration allows, and why no looser one."""

    batching: str = PADDED
    reason: str = ""


def configured_batching(model: Any) -> BatchingRule:
    """Return the batching that a model needs by its configuration and by the kinds of positions of its modules."""
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
    """Return whether a module's positions depend on the input's length, so that it may keep those of the last input."""
    return any(rope_type not in FIXED_ROPE for rope_type in _texts(getattr(module, "rope_type", None)))


def short_rows(facts: CheckpointFacts) -> torch.Tensor:
    """Return two short rows of ids [2, T], on the device of a model."""
    length = min(SHORT, facts.context_length or SHORT)
    ids = (torch.arange(2 * length) * 7 + 3) % facts.vocab_size
    return ids.reshape(2, length).to(facts.device)


def probe_length(model: Any, context_length: int | None) -> int:
    """Return the number of tokens of the probe's longer row.

    It is as many as `WORK` allows, but at least so many that the family's special treatment of long inputs shows.

    Args:
        model: the model.
        context_length: most input tokens of the model, or None.
    """
    parameters = list(model.parameters())
    weights = sum(parameter.numel() for parameter in parameters)
    work = WORK * (1 if parameters[-1].device.type in ("cpu", "meta") else FASTER)
    length = max(LEAST, min(MOST, int(work / (4 * weights))), _blind_below(_text_config(model)) + 1)
    return length if context_length is None else min(length, max(context_length - SPARE, context_length // 2, 1))


def find_batching(run: Forward, same: Same, rows: Callable[[int], torch.Tensor], known: str, name: str) -> str:
    """Return the loosest batching, no looser than `known`, with which every row has the result it has alone.

    Args:
        run: maps ids [B, T] to results of the model [B, T, D].
        same: tells whether two results [N, D] differ by no more than rounding.
        rows: maps a number to a long row of ids [T], a different one for each number.
        known: the batching that the configuration asks for.
        name: name of the model, for messages.

    Raises:
        CheckpointError: one row alone gives different results in two passes (`checkpoint.random`,
            `checkpoint.stateful`), or later tokens change the results of earlier ones (`checkpoint.not_causal`).
    """
    probe = _Probe(run, same, rows, name)
    found = probe.batching(0, known)
    if found != known:  # try again: rounding can send a single token to another expert, but hardly in both tries
        found = min(found, probe.batching(1, known), key=BATCHINGS.index)
    return found


@dataclass(frozen=True)
class _Probe:
    run: Forward
    same: Same
    rows: Callable[[int], torch.Tensor]
    name: str

    def batching(self, number: int, known: str) -> str:
        """Return what `find_batching` does, by one try with three rows.

        They are a long row, its end as a short row, and a row with the same first half.
        """
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
        """Return a long row [1, T], and another one [1, T] with the same first half."""
        long = self.rows(number)[None]
        half = long.shape[1] // 2
        return long, torch.cat([long[:, :half], long[:, half:].flip(1)], dim=1)

    def _check_causal(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Refuse a model whose results for the first half of a row depend on the second half.

        Only a difference in three different rows counts.

        Args:
            first: results [T, D] of a row.
            second: results [T, D] of a row with the same first half.
        """
        half = len(first) // 2
        if not half or self.same(second[:half], first[:half]):
            return
        for number in (1, 2):  # rounding can send a single token to another expert
            long, changed = self._pair(number)
            before = self.run(long)[0]
            refuse_if_not_repeatable(self.run, self.same, long, before, self.name)
            if self.same(self.run(changed)[0, :half], before[:half]):
                return
        refuse_not_causal(self.name)


def refuse_not_causal(name: str) -> None:
    """Refuse a model that does not predict the next token; its loss would look plausible but be wrong.

    Raises:
        CheckpointError: `checkpoint.not_causal`, always.
    """
    raise CheckpointError(
        "checkpoint.not_causal", f"{name}: later tokens change earlier logits, so this is no next-token predictor"
    )


def refuse_if_not_repeatable(run: Forward, same: Same, ids: torch.Tensor, before: torch.Tensor, name: str) -> None:
    """Refuse a model that gives another result than `before` for the same input.

    Args:
        run: maps ids [B, T] to results [B, T, D].
        same: tells whether two results [N, D] differ by no more than rounding.
        ids: the input [B, T].
        before: its earlier results [N, D], N = B · T.
        name: name of the model, for messages.

    Raises:
        CheckpointError: `checkpoint.random` where the results depend on torch's random numbers; `checkpoint.stateful`
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
    """Return the configuration of the text part, or None where the model has no configuration."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _rope_types(model: Any, config: Any) -> Iterator[str]:
    """Yield every kind of rotary positions in the configuration (also per layer type) and in the modules."""
    for key in ("rope_parameters", "rope_scaling"):
        stated = getattr(config, key, None)
        for entry in (stated, *stated.values()) if isinstance(stated, dict) else ():
            if isinstance(entry, dict):
                yield from _texts(entry.get("rope_type") or entry.get("type"))
    for module in model.modules():
        yield from _texts(getattr(module, "rope_type", None))


def _texts(value: Any) -> Iterator[str]:
    """Yield a value that is text, or the values of a dict that are."""
    values = value.values() if isinstance(value, dict) else (value,)
    yield from (one for one in values if isinstance(one, str))


def _blind_below(config: Any) -> int:
    """Return the length up to which a family treats inputs differently than longer ones, or 0.

    Reformer uses random hashes only for inputs of more than one chunk. BigBird uses block-sparse attention, which is
    not causal, only for inputs longer than its blocks cover.
    """
    lengths = [0]
    if "lsh" in getattr(config, "attn_layers", ()):
        lengths.append(config.lsh_attn_chunk_length)
    if getattr(config, "attention_type", None) == "block_sparse":
        lengths.append((5 + 2 * config.num_random_blocks) * config.block_size)
    return max(lengths)
