"""Keys that decide a model's losses and are missing in its config.json, so that the family's default stands."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from lossprobe.units import visible

MOST_NAMED = 5
# Keys that change no logit of an evaluation: training, initial weights, caches, special ids, other heads and outputs,
# the other half of an encoder-decoder model, and ways to compute the same.
WITHOUT_EFFECT = re.compile(
    r".*drop.*|.*init.*|.*_(range|std)|.*(loss|aux|jitter).*|time_step_(min|max|floor)|rescale_prenorm_residual"
    r"|use_cache|.*_token_(id|index)|.*(pad|unk|bos|eos|mask)_(index|id)|mem_len|reuse_len"
    r"|summary_.*|classifier_.*|(start|end)_n_top|num_labels|problem_type|pooling|scale_lm_head"
    r"|output_(attentions|hidden_states|router_logits|past)|gradient_checkpointing|pretraining_tp|num_logits_to_keep"
    r"|encoder_.*|.*source_positions|mask_(time|feature)_.*|apply_spec_augment|is_(encoder|encoder_decoder)"
    r"|is_decoder|.*cross_attention.*|use_(mamba_kernels|mem_eff_path|associative_scan)|slow_but_exact|block_multiple_of|.*tp_size|ep_size"
)
# Younger than released files of the family; the default is what the files from before the key mean.
YOUNGER = {
    "gpt2": {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"},
}
ROTARY_BASE = re.compile(r"rope_theta|rotary_emb_base|rope_(local|global)_base_freq|.*rope_theta|rotary_base")
ROTARY_SHARE = re.compile(r"partial_rotary_factor|rotary_pct|rotary_dim|rope_pct|rope_percent")


def tell_unstated(model: Any, settings: Mapping[str, Any], shown: str) -> tuple[str, ...]:
    """Return at most one line: the keys that config.json lacks and that decide the number, with what was taken.

    A key whose other values would need tensors of other names or shapes is decided by the tensors, and not told.

    Args:
        model: the model, built from its configuration.
        settings: the content of config.json.
        shown: its path, for the line.
    """
    text = model.config.get_text_config()
    names = [f"{name} {_shown(value)}" for name, value in _unstated(model, text, _home(text, settings))]
    if not names:
        return ()
    if len(names) > MOST_NAMED:
        names = [*names[:MOST_NAMED], f"and {len(names) - MOST_NAMED} more"]
    return (f"{shown}: lacks keys that decide the number, the family's default is taken: {', '.join(names)}",)


def _home(text: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of config.json that describes the text model."""
    nested = (
        value for value in settings.values() if isinstance(value, dict) and value.get("model_type") == text.model_type
    )
    named = settings.get("text_config")
    return next(nested, named if isinstance(named, dict) else settings)


def _unstated(model: Any, text: Any, stated: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    shapes = _shapes(model)
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    for field in dataclasses.fields(text):
        names = {field.name, *(alias for alias, name in text.attribute_map.items() if name == field.name)}
        if field.name in common or names & stated.keys() or not _decides(model, text, field.name):
            continue
        default = field.default
        if default is None or default is dataclasses.MISSING or vars(text).get(field.name) != default:
            continue  # derived from others, or stated under an older name
        if not _decided_by_tensors(model, text, field.name, shapes):
            yield field.name, default
    yield from _unstated_rotary(text, stated)


def _decides(model: Any, text: Any, name: str) -> bool:
    """Return whether a key can change a logit."""
    if name == "pad_token_id":  # where the first position follows the padding's
        words = model.get_input_embeddings()
        return any(getattr(part, "padding_idx", None) is not None for part in model.modules() if part is not words)
    in_its_own_part = name in text.sub_configs
    return not (in_its_own_part or WITHOUT_EFFECT.fullmatch(name) or name in YOUNGER.get(text.model_type, ()))


def _unstated_rotary(text: Any, stated: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the base and the share of rotary positions, which are kept in a dictionary of their own."""
    found = dict(_leaves(getattr(text, "rope_parameters", None) or {}))
    keys = {name for name, _ in _leaves(stated)}
    for name, pattern, plain in (("rope_theta", ROTARY_BASE, None), ("partial_rotary_factor", ROTARY_SHARE, 1.0)):
        if found.get(name) not in (None, plain) and not any(pattern.fullmatch(key) for key in keys):
            yield name, found[name]


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value


def _decided_by_tensors(model: Any, text: Any, name: str, shapes: Mapping[str, Any]) -> bool:
    """Return whether another value of a key would need other tensors than those that were stored."""
    changed = copy.deepcopy(model.config)
    other = _other_value(getattr(text, name))
    if other is None:
        return False
    try:
        setattr(changed.get_text_config(), name, other)
        with torch.device("meta"):
            return _shapes(type(model)(changed)) != shapes
    except Exception:  # noqa: BLE001 - the code of any family, with a value that it may refuse
        return False


def _other_value(value: Any) -> Any:
    """Return another plausible value of a key, or None where none is known."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 2 * value or 1
    if isinstance(value, str) and value in ACT2FN:
        return "relu" if value != "relu" else "gelu"
    return None


def _shapes(model: Any) -> dict[str, Any]:
    return {name: weight.shape for name, weight in model.named_parameters()}


def _shown(value: Any) -> str:
    return visible(f"{value:g}" if isinstance(value, float) else str(value), 40)
