"""Report keys that are missing in a config.json although they change the losses, so that a default is used."""

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

MOST_NAMED = 5  # most keys that the notice names
# Keys that do not change the logits of an evaluation: training, initial weights, caches, special ids, other heads and
# outputs, the encoder of an encoder-decoder model, and alternative implementations.
WITHOUT_EFFECT = re.compile(
    r".*drop.*|.*init.*|.*_(range|std)|.*(loss|aux|jitter).*|time_step_(min|max|floor)|rescale_prenorm_residual"
    r"|use_cache|.*_token_(id|index)|.*(pad|unk|bos|eos|mask)_(index|id)|mem_len|reuse_len"
    r"|summary_.*|classifier_.*|(start|end)_n_top|num_labels|problem_type|pooling|scale_lm_head"
    r"|output_(attentions|hidden_states|router_logits|past)|gradient_checkpointing|pretraining_tp|num_logits_to_keep"
    r"|encoder_.*|.*source_positions|mask_(time|feature)_.*|apply_spec_augment|is_(encoder|encoder_decoder)"
    r"|is_decoder|.*cross_attention.*|use_(mamba_kernels|mem_eff_path|associative_scan)|slow_but_exact|block_multiple_of|.*tp_size|ep_size"
)
# Keys that were introduced after files of the family had been released; their defaults are right for older files.
YOUNGER = {
    "gpt2": {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"},
}
ROTARY_BASE = re.compile(r"rope_theta|rotary_emb_base|rope_(local|global)_base_freq|.*rope_theta|rotary_base")
ROTARY_SHARE = re.compile(r"partial_rotary_factor|rotary_pct|rotary_dim|rope_pct|rope_percent")


def tell_unstated(model: Any, settings: Mapping[str, Any], shown: str) -> tuple[str, ...]:
    """Return a notice, if any, that names the missing keys that change the losses, with the defaults that are used.

    A key is not reported if another value would need tensors of other names or shapes: the stored tensors decide it.

    Args:
        model: the model, built from its configuration.
        settings: the content of config.json.
        shown: its path, for the notice.
    """
    text = model.config.get_text_config()
    names = [f"{name} {_shown(value)}" for name, value in _unstated(model, text, _home(text, settings))]
    if not names:
        return ()
    if len(names) > MOST_NAMED:
        names = [*names[:MOST_NAMED], f"and {len(names) - MOST_NAMED} more"]
    return (f"{shown}: lacks keys that change the losses; the family's defaults are used: {', '.join(names)}",)


def _home(text: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of config.json that describes the text model; the top level where it is not nested."""
    nested = (
        value for value in settings.values() if isinstance(value, dict) and value.get("model_type") == text.model_type
    )
    named = settings.get("text_config")
    return next(nested, named if isinstance(named, dict) else settings)


def _unstated(model: Any, text: Any, stated: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every missing key that changes the losses, with its default.

    Args:
        model: the model.
        text: the configuration of its text part.
        stated: the part of config.json that describes it.
    """
    shapes = _shapes(model)
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    for field in dataclasses.fields(text):
        names = {field.name, *(alias for alias, name in text.attribute_map.items() if name == field.name)}
        if field.name in common or names & stated.keys() or not _decides(model, text, field.name):
            continue
        default = field.default
        if default is None or default is dataclasses.MISSING or vars(text).get(field.name) != default:
            continue  # computed from other keys, or stated under an older name
        if not _decided_by_tensors(model, text, field.name, shapes):
            yield field.name, default
    yield from _unstated_rotary(text, stated)


def _decides(model: Any, text: Any, name: str) -> bool:
    """Return whether a key can change a logit."""
    if name == "pad_token_id":  # it decides the first position in models like RoBERTa
        words = model.get_input_embeddings()
        return any(getattr(part, "padding_idx", None) is not None for part in model.modules() if part is not words)
    in_its_own_part = name in text.sub_configs
    return not (in_its_own_part or WITHOUT_EFFECT.fullmatch(name) or name in YOUNGER.get(text.model_type, ()))


def _unstated_rotary(text: Any, stated: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield base and share of rotary positions if missing; the configuration keeps them in a separate dictionary."""
    found = dict(_leaves(getattr(text, "rope_parameters", None) or {}))
    keys = {name for name, _ in _leaves(stated)}
    for name, pattern, plain in (("rope_theta", ROTARY_BASE, None), ("partial_rotary_factor", ROTARY_SHARE, 1.0)):
        if found.get(name) not in (None, plain) and not any(pattern.fullmatch(key) for key in keys):
            yield name, found[name]


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every key and value that is not a dictionary, nested ones included."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value


def _decided_by_tensors(model: Any, text: Any, name: str, shapes: Mapping[str, Any]) -> bool:
    """Return whether another value of a key would need tensors of other names or shapes."""
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
    """Return the shape of every parameter by name."""
    return {name: weight.shape for name, weight in model.named_parameters()}


def _shown(value: Any) -> str:
    return visible(f"{value:g}" if isinstance(value, float) else str(value), 40)
