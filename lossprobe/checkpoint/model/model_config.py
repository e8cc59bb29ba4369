"""From a config.json to a transformers configuration: plain values only, checked before anything is allocated.

A config.json is written by others. What it may not do: name code or a kernel, be read by transformers' own
loader (which follows such names), leave a number to a default, or ask for more than the files hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.errors import CheckpointError, LossprobeError, ResourceError
from lossprobe.units import format_count, visible

# Keys that steer transformers' machinery (what is loaded, from where, what a forward pass returns), not the model.
MACHINERY = re.compile(
    r"_.*|.*_implementation|auto_map|transformers_weights|quantization_config|fusion_config|distributed_config|torchscript"
)
# So do all attributes that every configuration has, but these.
COMMON_KEPT = {"model_type", "is_encoder_decoder", "rope_scaling", "per_layer_config", "chunk_size_feed_forward"}
COUNT_KEY = re.compile(r"(n|num)_\w*(layer|expert|block)")
MAX_COUNT = 4096  # layers, experts: no model has more, and building that many takes minutes
MAX_BUFFERS = 1 << 28  # elements: causal masks and rotary tables of long contexts
INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


def build_config(settings: Mapping[str, Any], shown: str) -> Any:
    """Return the transformers configuration object of a config.json, made in code from its plain values.

    Raises:
        CheckpointError: a family that is no causal language model of transformers (which never runs code from a
            checkpoint), a kernel by name, quantised weights, a number of layers or heads that is not there, or
            values the family refuses.
    """
    family = settings.get("model_type")
    if not isinstance(family, str):
        raise CheckpointError("checkpoint.no_family", f"{shown}: lacks model_type")
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        custom = " and needs custom code, which is never run" if "auto_map" in settings else ""
        raise CheckpointError(
            "checkpoint.unknown_family",
            f"{shown}: model_type {visible(family, 40)!r} is no causal language model of transformers "
            f"{transformers.__version__}{custom}",
        )
    plain = _plain_values(settings, shown)
    del plain["model_type"]
    rope = plain.get("rope_scaling")
    if isinstance(rope, dict) and rope.get("type") == "su":  # LongRoPE in the first Phi-3 files
        plain["rope_scaling"] = rope | {"type": "longrope"}
    with building(shown):
        config = transformers.AutoConfig.for_model(family, **plain)
        _check_stated(settings, config, shown)
    return config


def causal_model(config: Any) -> tuple[Any, Any]:
    """Return the class of a family's language model, and the configuration that this class is built from.

    Of a family with images or sound that is the configuration of its text part, where the text part is a class of
    its own.
    """
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    text_class = config.sub_configs.get("text_config")
    own = text_class is None or model_class.config_class is not text_class
    return model_class, config if own else config.get_text_config()


def without_other_parts(model_class: Any, config: Any) -> Any:
    """Return a class of a text part alone that passes over the tensors of images and sound, as most such classes do."""
    passed_over = [*(model_class._keys_to_ignore_on_load_unexpected or ()), *_other_parts(config)]
    members = {"_keys_to_ignore_on_load_unexpected": passed_over, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), members)


def _other_parts(config: Any) -> list[str]:
    """Return patterns of the tensor names of a whole model that belong neither to its text model nor to its head.

    Parts have the names of modules, or in files, where transformers renames them, names that begin as their
    configuration's: vision_config, vision_tower.
    """
    kinds = [name.removesuffix("_config") for name in config.sub_configs if name != "text_config"]
    patterns = [rf"^(model\.)?{re.escape(kind)}\w*\." for kind in kinds]
    whole_class: Any = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    if whole_class is None:
        return patterns
    with torch.device("meta"):
        whole = whole_class(config)
    text = [whole.get_input_embeddings(), whole.get_output_embeddings()]
    holders = [part for part in whole.modules() if isinstance(part, PreTrainedModel) and _holds(part, text[:1])]
    others = {name for part in holders for name, child in part.named_children() if not _holds(child, text)}
    language = {name for part in holders[-1:] for name, _ in part.named_children()}
    return [*patterns, *(rf"(^|\.){re.escape(name)}\." for name in sorted(others - language))]


def _holds(module: Any, parts: list[Any]) -> bool:
    return any(part is each for part in module.modules() for each in parts)


def _plain_values(settings: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """Return what describes the model, at every depth."""
    plain = {}
    for key, value in settings.items():
        if "_implementation" in key and "/" in str(value):
            raise CheckpointError(
                "checkpoint.external_kernel",
                f"{shown}: {visible(key, 40)} names an external kernel, {visible(str(value), 60)}",
            )
        if key == "quantization_config" and value:
            raise CheckpointError("checkpoint.quantized", f"{shown}: quantised weights are not supported")
        common = hasattr(transformers.PreTrainedConfig, key) and key not in COMMON_KEPT
        if not common and not MACHINERY.fullmatch(key):
            plain[key] = _plain_value(value, shown)
    return plain


def _plain_value(value: Any, shown: str) -> Any:
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in INFINITIES:  # as transformers writes an infinity
            return INFINITIES[value["__float__"]]
        return _plain_values(value, shown)
    return [_plain_value(item, shown) for item in value] if isinstance(value, list) else value


def _check_stated(settings: Mapping[str, Any], config: Any, shown: str) -> None:
    """Refuse a configuration that leaves the number of layers or heads to a default.

    A wrong number of heads fits the same weights. Only inside a nested configuration do transformers' own files
    leave out heads that equal the default.
    """
    text = config.get_text_config()
    home = next((name for name, value in vars(config).items() if value is text and name in settings), None)
    stated = settings if home is None else settings[home]
    fields = {field.name for field in dataclasses.fields(text)}
    for name in ("num_hidden_layers", "num_attention_heads") if text is config else ("num_hidden_layers",):
        alias = text.attribute_map.get(name, name)
        if alias in fields and alias not in stated and name not in stated:
            raise CheckpointError("checkpoint.config_key", f"{shown}: lacks {alias}")


def check_size(
    settings: Mapping[str, Any], config: Any, model_class: Any, entries: Mapping[str, TensorEntry], shown: str
) -> None:
    """Refuse a configuration that asks for more than the stored tensors, before anything is allocated.

    Raises:
        CheckpointError: `checkpoint.config_size`: more layers than tensors, or more weights than the files hold.
    """
    stored = sum(math.prod(entry.shape) for entry in entries.values())
    limit = max(len(entries), MAX_COUNT)
    for key, count in _counts(settings):
        if count > limit:
            raise CheckpointError(
                "checkpoint.config_size",
                f"{shown}: {visible(key, 40)} is {format_count(count)}, but the files hold "
                f"{format_count(len(entries))} tensors",
            )
    text = config.get_text_config()
    needed = int(getattr(text, "vocab_size", 0)) * int(getattr(text, "hidden_size", 1))
    buffers = 0
    if needed <= 2 * stored:
        with torch.device("meta"):
            model = model_class(config)
        needed = sum(weight.numel() for weight in model.parameters())
        buffers = sum(buffer.numel() for buffer in model.buffers())
    if needed > 2 * stored or buffers > 2 * stored + MAX_BUFFERS:
        raise CheckpointError(
            "checkpoint.config_size",
            f"{shown}: config needs {(needed + buffers) * 4 / 1e9:.3g} GB in float32, the files hold "
            f"{stored * 4 / 1e9:.3g} GB",
        )


def _counts(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield every number of layers, experts or blocks that a configuration states, at every depth."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif isinstance(value, int) and COUNT_KEY.match(key):
            yield key, value


# How the C library and torch say it, in exceptions of many types.
NO_MEMORY = ("Cannot allocate memory", "failed to map segment", "DefaultCPUAllocator")


@contextlib.contextmanager
def building(shown: str) -> Iterator[None]:
    """Silence transformers while a model is built or tried, and turn what it raises into a refusal.

    Raises:
        CheckpointError: `checkpoint.bad_config`, with the first words of what went wrong.
        ResourceError: the device's memory is full.
    """
    try:
        with quiet_transformers():
            yield
    except (LossprobeError, MemoryError):
        raise
    except torch.OutOfMemoryError:
        raise ResourceError("checkpoint.memory", f"{shown}: does not fit into the memory of the device") from None
    except Exception as error:  # noqa: BLE001 - the code of many families meets values it never saw: anything can come of it
        reason = visible(" ".join(str(error).split()) or type(error).__name__, 160)
        if any(sign in str(error) for sign in NO_MEMORY):
            raise ResourceError(
                "checkpoint.memory", f"{shown}: out of memory while the model is built: {reason}"
            ) from None
        raise CheckpointError("checkpoint.bad_config", f"{shown}: no model can be built: {reason}") from None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports and bars while it loads: what they say is checked, and said, here."""
    logging: Any = transformers.utils.logging  # untyped, and its levels are logging's own
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
