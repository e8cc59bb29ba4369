"""Make a transformers configuration from a config.json, checked before any memory is allocated.

A config.json comes from others and is not trusted. Only its plain values are used, and transformers' own loader, which
would follow names of code and kernels, does not read it. It must state the numbers of layers and heads, and must not
ask for larger tensors than the files hold.
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
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.errors import CheckpointError, LossprobeError, ResourceError
from lossprobe.units import format_count, visible

# Keys that are left out: they say what transformers loads, from where, or what a forward pass returns.
MACHINERY = re.compile(
    r"_.*|.*_implementation|auto_map|transformers_weights|quantization_config|fusion_config|distributed_config|torchscript"
)
# All attributes that every configuration has are left out too, except these.
COMMON_KEPT = {"model_type", "is_encoder_decoder", "rope_scaling", "per_layer_config", "chunk_size_feed_forward"}
# Keys that state a number of layers, experts or blocks.
COUNT_KEY = re.compile(r"(n|num)_\w*(layer|expert|block)")
MAX_COUNT = 4096  # most layers or experts; no model has more, and building more takes minutes
MAX_BUFFERS = 1 << 28  # most elements of buffers beyond the stored tensors: masks and rotary tables of long contexts
INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


def build_config(settings: Mapping[str, Any], shown: str) -> Any:
    """Return the transformers configuration object of a config.json, built from its plain values.

    Args:
        settings: the content of config.json.
        shown: its path, for messages.

    Raises:
        CheckpointError: transformers has no causal language model of this family; the file names an external kernel,
            or states no number of layers or heads; or the family's class refuses a value.
    """
    family = settings.get("model_type")
    if not isinstance(family, str):
        raise CheckpointError("checkpoint.no_family", f"{shown}: lacks model_type", hint=_family_of(settings))
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


def _family_of(settings: Mapping[str, Any]) -> str:
    """Return what to add to a config.json without model_type, if its `architectures` name a class of transformers."""
    named = settings.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    families = [family for family, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name in names]
    if not families:
        return "add the model_type of its family, as its authors publish it"
    named_alike = [family for family in families if names[0].lower().startswith(re.sub("[-_]", "", family))]
    kinds = " or ".join(f'"model_type": "{family}"' for family in (named_alike or families)[:3])
    return f"add {kinds}, the family of {', '.join(names[:1])}"


def causal_model(config: Any) -> tuple[Any, Any]:
    """Return the class of a family's language model, and the configuration from which that class is built.

    In a family with images or sound whose text part has its own class, that is the configuration of the text part.
    """
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    text_class = config.sub_configs.get("text_config")
    own = text_class is None or model_class.config_class is not text_class
    return model_class, config if own else config.get_text_config()


def without_other_parts(model_class: Any, config: Any) -> Any:
    """Return a subclass of a text part's class that ignores stored tensors of image and sound parts.

    Most such classes ignore them already.

    Args:
        model_class: the class of the text part.
        config: the configuration of the whole model.
    """
    passed_over = [*(model_class._keys_to_ignore_on_load_unexpected or ()), *_other_parts(config)]
    members = {"_keys_to_ignore_on_load_unexpected": passed_over, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), members)


def _other_parts(config: Any) -> list[str]:
    """Return patterns for the names of tensors that belong neither to the text model nor to its head.

    A part is found by the names of its modules. In files, where transformers renames tensors, its names begin like its
    configuration's: vision_config, vision_tower.
    """
    from transformers import PreTrainedModel

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
    """Return whether a module contains one of the given modules."""
    return any(part is each for part in module.modules() for each in parts)


def _plain_values(settings: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """Return the settings that describe the model, nested ones included, without those of `MACHINERY`."""
    plain = {}
    for key, value in settings.items():
        if "_implementation" in key and "/" in str(value):
            raise CheckpointError(
                "checkpoint.external_kernel",
                f"{shown}: {visible(key, 40)} names an external kernel, {visible(str(value), 60)}",
            )
        common = hasattr(transformers.PreTrainedConfig, key) and key not in COMMON_KEPT
        if not common and not MACHINERY.fullmatch(key):
            plain[key] = _plain_value(value, shown)
    return plain


def _plain_value(value: Any, shown: str) -> Any:
    """Return one value of the settings, with nested settings filtered."""
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in INFINITIES:  # how transformers writes an infinity
            return INFINITIES[value["__float__"]]
        return _plain_values(value, shown)
    return [_plain_value(item, shown) for item in value] if isinstance(value, list) else value


def _check_stated(settings: Mapping[str, Any], config: Any, shown: str) -> None:
    """Refuse a configuration that does not state the number of layers or of heads.

    A wrong number of heads fits the same weights, so a default could give wrong losses unnoticed. In a nested
    configuration the heads may be missing, because transformers itself leaves them out where they equal the default.
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
    """Refuse a configuration that asks for more than the files hold, before any memory is allocated.

    Args:
        settings: the content of config.json.
        config: the configuration of the language model.
        model_class: its class.
        entries: the stored tensors by name.
        shown: path of config.json, for messages.

    Raises:
        CheckpointError: `checkpoint.config_size`: more layers or experts than stored tensors (and than 4096), or more
            than twice the stored weights.
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
    """Yield every key and value that states a number of layers, experts or blocks, nested ones included."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif isinstance(value, int) and COUNT_KEY.match(key):
            yield key, value


# Texts by which the C library and torch report that memory ran out, in exceptions of many types.
NO_MEMORY = ("Cannot allocate memory", "failed to map segment", "DefaultCPUAllocator")


@contextlib.contextmanager
def building(shown: str) -> Iterator[None]:
    """Silence transformers in the block, and turn exceptions of its code into errors of this package.

    Args:
        shown: name of the checkpoint, for messages.

    Raises:
        CheckpointError: `checkpoint.bad_config`, with the start of the original message.
        ResourceError: `checkpoint.memory`: the memory of the machine or the device is full.
    """
    try:
        with quiet_transformers():
            yield
    except (LossprobeError, MemoryError):
        raise
    except torch.OutOfMemoryError:
        raise ResourceError("checkpoint.memory", f"{shown}: does not fit into the memory of the device") from None
    except Exception as error:  # noqa: BLE001 - the code of any family, with values it was not written for, can raise anything
        reason = visible(" ".join(str(error).split()) or type(error).__name__, 160)
        if any(sign in str(error) for sign in NO_MEMORY):
            raise ResourceError(
                "checkpoint.memory", f"{shown}: out of memory while the model is built: {reason}"
            ) from None
        raise CheckpointError("checkpoint.bad_config", f"{shown}: no model can be built: {reason}") from None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' log messages and progress bars in the block; this package checks and reports itself."""
    logging: Any = transformers.utils.logging  # the module has no types; its levels are those of `logging`
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
