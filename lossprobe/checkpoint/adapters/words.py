"""Describe an adapter in a model: kind, rank, scaling, and what it changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lossprobe.checkpoint.adapters.config import AdapterConfig
from lossprobe.checkpoint.facts import AdapterFacts
from lossprobe.checkpoint.interface import CheckpointFacts
from lossprobe.units import plural, visible


def adapter_facts(
    adapted: Any, name: str, config: AdapterConfig, base: CheckpointFacts, parameters: int, *, merged: bool
) -> AdapterFacts:
    """Return the description of an adapter.

    Args:
        adapted: peft's model.
        name: what peft calls the adapter in it.
        config: what adapter_config.json says.
        base: description of the base.
        parameters: number of weights of the adapter.
        merged: whether it is going to be merged.
    """
    layers = {path: part for path, part in adapted.named_modules() if isinstance(getattr(part, "scaling", None), dict)}
    kinds = [word for key, word in (("use_rslora", "rsLoRA"), ("use_dora", "DoRA")) if config.values.get(key)]
    kind = " and ".join(kinds) or "LoRA"
    rank = _span(part.r[name] for part in layers.values())
    scaling = _span(part.scaling[name] for part in layers.values())
    leaves = sorted({path.rpartition(".")[2] for path in layers})
    stored = "" if base.quantization is None else f" in {base.stored_dtype}"
    return AdapterFacts(
        words=f"{kind} of rank {rank} on {visible(base.name, 40)}{stored}",
        kind=kind,
        rank=rank,
        scaling=scaling,
        targets=f"{visible(', '.join(leaves), 200)} in {plural(len(layers), 'layer')}" if layers else "",
        replaced=_replaced(config),
        parameters=parameters,
        base=base.name,
        recorded_base=config.recorded_base,
        merged=merged,
    )


def _span(values: Iterable[float]) -> str:
    """Return the least and the largest of some numbers.

    >>> _span([8, 4, 8]), _span([2.0])
    ('4 to 8', '2')
    """
    found = sorted(set(values))
    ends = [f"{value:g}" for value in (found[0], found[-1])] if found else ["none"]
    return " to ".join(dict.fromkeys(ends))


def _replaced(config: AdapterConfig) -> str:
    """Return what an adapter stores as a whole, beside its matrices."""
    parts = [visible(each, 60) for each in config.values.get("modules_to_save", [])]
    chosen = config.values.get("trainable_token_indices")
    counts = [len(each) for each in chosen.values()] if isinstance(chosen, dict) else [len(chosen or [])]
    if sum(counts):
        parts.append(plural(sum(counts), "token embedding"))
    if config.values.get("bias", "none") != "none":
        parts.append(f"biases ({config.values['bias']})")
    return ", ".join(parts)
