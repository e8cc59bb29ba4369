"""Read adapter_config.json strictly: every key is known here, and one that peft would only warn about is refused.

Facts about the keys are those of peft 0.21 (`LoraConfig`, `PeftConfig`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.key_filter import KeyFilter
from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.units import visible

CONFIG: Final = "adapter_config.json"
KIND: Final = "LORA"
STATED: Final = ("r", "lora_alpha", "target_modules")  # a default in their place could be another function, unnoticed
# They say how or from where the adapter was trained, and change nothing once it is.
NOT_USED: Final = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "inference_mode", "init_lora_weights",
        "lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision",
        "runtime_config", "task_type",
    }
)  # fmt: skip
# They change what is computed in a way that is not supported here; null, false or empty they change nothing.
UNSUPPORTED: Final = {
    "alora_invocation_tokens": "aLoRA acts from its invocation tokens on only, so that a loss depends on later text",
    "arrow_config": "Arrow routes between several adapters",
    "kasa_config": "KaSA changes the base itself, also where the adapter is switched off",
    "layer_replication": "it builds another stack of layers from the base",
    "loftq_config": "LoftQ replaces the base by a quantised one",
    "megatron_config": "it is for layers of Megatron",
    "monteclora_config": "MonteCLoRA draws random samples in each pass",
    "target_parameters": "LoRA on bare parameters (experts of a mixture) is not supported",
    "use_bdlora": "block-diagonal LoRA is not supported",
    "use_qalora": "QA-LoRA is for GPTQ layers",
    "velora_config": "VeLoRA is not supported",
}
# How an untrained adapter is filled; the ones that are not named here also change the weights of the base.
BASE_LEFT_ALONE: Final = (True, False, "gaussian", "orthogonal", "eva")
CHANGES_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
BIASES: Final = ("none", "all", "lora_only")


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter_config.json says.

    Attributes:
        values: the keys that decide the function, for `peft.LoraConfig`.
        recorded_base: base_model_name_or_path; "" where the file names none.
        base_class: name of the class of the base's model that it was trained on; "" where the file names none.
        notices: what was left out of the file because the user asked for it, one line each.
    """

    values: Mapping[str, Any]
    recorded_base: str
    base_class: str
    notices: tuple[str, ...]


def read_adapter_config(folder: Path, ignore: tuple[str, ...] = ()) -> AdapterConfig:
    """Return what the adapter_config.json of a folder says.

    Args:
        folder: the adapter's folder.
        ignore: keys to leave out, as in `LoadOptions.ignore_config`.

    Raises:
        CheckpointError: `adapter.kind`: another kind of adapter than LoRA, or for another task. `adapter.config_key`: a
            key that is not known, not supported or missing. `adapter.config_value`: a value of the wrong type.
    """
    path = folder / CONFIG
    stated = read_json(path)
    ignored = KeyFilter([key for key in ignore if key in stated], CONFIG)
    settings = ignored.removed_from(stated)
    _refuse_other_kind(path, settings)
    missing = [key for key in STATED if key not in settings]
    if missing:
        what = f"lacks {listed(missing)}, without which peft would use a default"
        raise refusal("adapter.config_key", path, what, hint="add it as the adapter was trained")
    _refuse_unsupported(path, settings)
    values = {key: value for key, value in settings.items() if key in HANDLED and value is not None}
    for key, value in values.items():
        holds, wanted = HANDLED[key]
        if not holds(value):
            shown = visible(repr(value), 60)
            raise refusal("adapter.config_value", path, f"{key} is {shown}; it must be {wanted}")
    mapping = settings.get("auto_mapping")
    base = settings.get("base_model_name_or_path")
    return AdapterConfig(
        values,
        base if isinstance(base, str) else "",
        str(mapping.get("base_model_class") or "") if isinstance(mapping, dict) else "",
        ignored.notices,
    )


def _refuse_other_kind(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse an adapter that is no LoRA, or not for predicting the next token."""
    kind, task = settings.get("peft_type"), settings.get("task_type")
    if kind is None and {"lora_parameters", "fine_tune_type"} & settings.keys():
        hint = "fuse it with mlx_lm.fuse, and give the fused model"
        raise refusal("adapter.kind", path, "an adapter of MLX, not of peft", hint=hint)
    if kind is None:
        raise refusal("adapter.config_key", path, "lacks peft_type", hint='add "peft_type": "LORA" if it is one')
    if kind != KIND:
        what = f"peft_type is {visible(str(kind), 40)}: of the adapters of peft only LoRA is supported"
        raise refusal("adapter.kind", path, what, hint="merge it into its base where that is possible")
    if task not in (None, "CAUSAL_LM"):
        what = f"task_type is {visible(str(task), 40)}, not CAUSAL_LM: it does not predict the next token"
        raise refusal("adapter.kind", path, what)


def _refuse_unsupported(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse keys that are not known or not supported, unless their value says that they are not used."""
    start = settings.get("init_lora_weights", True)
    if not any(start is each or (isinstance(each, str) and start == each) for each in BASE_LEFT_ALONE):
        changes = isinstance(start, str) and start.startswith(CHANGES_BASE)
        why = "such training changes the base's weights, which are not in the folder" if changes else "not supported"
        raise refusal(
            "adapter.config_key", path, f"init_lora_weights is {visible(str(start), 40)}: {why}",
            hint="save it again with path_initial_model_for_weight_conversion, which makes it a plain LoRA",
        )  # fmt: skip
    used = {key for key, value in settings.items() if not (value is None or value is False or value in ("", [], {}))}
    for key, why in UNSUPPORTED.items():
        if key in used:
            raise refusal("adapter.config_key", path, f"{key} is set: {why}")
    unknown = sorted(used - {*HANDLED, *NOT_USED})
    if unknown:
        raise refusal(
            "adapter.config_key", path, f"unknown key {listed(unknown)}: it may change what is computed",
            hint="if you know that it does not, leave it out with `ignore_config`",
        )  # fmt: skip


def _count(value: object) -> bool:
    return type(value) is int and value >= 1


def _number(value: object) -> bool:
    return type(value) in (int, float)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def _names_or_pattern(value: object) -> bool:
    return _names(value) or (isinstance(value, str) and bool(value))


def _indices(value: object) -> bool:
    return isinstance(value, list) and all(type(index) is int and index >= 0 for index in value)


def _mapping_to(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


# Key that decides the function → what a value must be, and that in words.
HANDLED: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "r": (_count, "a whole number, at least 1"),
    "lora_alpha": (_number, "a number"),
    "target_modules": (_names_or_pattern, "a list of names, or a pattern"),
    "exclude_modules": (_names_or_pattern, "a list of names, or a pattern"),
    "fan_in_fan_out": (_flag, "true or false"),
    "bias": (lambda value: value in BIASES, f"one of {', '.join(BIASES)}"),
    "lora_bias": (_flag, "true or false"),
    "use_rslora": (_flag, "true or false"),
    "use_dora": (_flag, "true or false"),
    "modules_to_save": (_names, "a list of names"),
    "layers_to_transform": (lambda value: _indices(value) or _indices([value]), "a list of layer numbers, or one"),
    "layers_pattern": (_names_or_pattern, "a list of names, or a name"),
    "rank_pattern": (_mapping_to(_count), "an object of whole numbers, at least 1"),
    "alpha_pattern": (_mapping_to(_number), "an object of numbers"),
    "trainable_token_indices": (
        lambda value: _indices(value) or _mapping_to(_indices)(value), "a list of token ids, or an object of such lists"
    ),
    "ensure_weight_tying": (_flag, "true or false"),
}  # fmt: skip
