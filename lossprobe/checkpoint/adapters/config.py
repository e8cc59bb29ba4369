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
MERGE: Final = "merge it into its base with peft (merge_and_unload), and give the saved model"
NO_MODEL: Final = "it cannot be merged into one model either; score the base, or an adapter of another kind"
# Kinds that add tokens or layers, or route, so that peft cannot merge them.
NEVER_MERGED: Final = (
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING", "PROMPT_TUNING",
    "P_TUNING", "XLORA",
)  # fmt: skip
# They change what is computed in a way that is not supported here: why, and what to do. Where they are null, false or
# empty, they change nothing.
UNSUPPORTED: Final = {
    "alora_invocation_tokens": (
        "aLoRA acts from its invocation tokens on only, so that a loss depends on later text", NO_MODEL
    ),
    "arrow_config": ("Arrow routes between several adapters", "give one of these adapters"),
    "kasa_config": ("KaSA changes the base itself, also where the adapter is switched off", MERGE),
    "layer_replication": ("it builds another stack of layers from the base", MERGE),
    "loftq_config": (
        "LoftQ replaces the base by a quantised one",
        "give the base that LoftQ saved with `base`, and leave out loftq_config and init_lora_weights with "
        "`ignore_config`",
    ),
    "megatron_config": ("it is for layers of Megatron", MERGE),
    "monteclora_config": ("MonteCLoRA draws random samples in each pass", MERGE),
    "target_parameters": ("LoRA on bare parameters (experts of a mixture) is not supported", MERGE),
    "use_bdlora": ("block-diagonal LoRA is not supported", MERGE),
    "use_qalora": ("QA-LoRA is for GPTQ layers", NO_MODEL),
    "velora_config": ("VeLoRA is not supported", MERGE),
}  # fmt: skip
# How an untrained adapter is filled. These leave the weights of the base alone.
BASE_LEFT_ALONE: Final = (True, False, "gaussian", "orthogonal", "eva")
# These take out of the base what they put into the adapter; on the base as it is, the trained matrices are wrong. peft
# repeats the first two where it opens such an adapter. Fast PiSSA is random, and the others need the data of training.
REPEATED: Final = ("pissa", "olora")
CHANGES_BASE: Final = (*REPEATED, "corda", "loftq", "lora_ga")
BIASES: Final = ("none", "all", "lora_only")


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter_config.json says.

    Attributes:
        settings: its content, without the keys that the user wants ignored.
        notices: what was left out of the file because the user asked for it, one line each.
    """

    settings: Mapping[str, Any]
    notices: tuple[str, ...]

    @property
    def values(self) -> dict[str, Any]:
        """The keys that decide the function, for `peft.LoraConfig`."""
        return {key: value for key, value in self.settings.items() if key in HANDLED and value is not None}

    @property
    def recorded_base(self) -> str:
        """base_model_name_or_path; "" where the file names none."""
        base = self.settings.get("base_model_name_or_path")
        return base if isinstance(base, str) else ""

    @property
    def base_class(self) -> str:
        """Name of the class of the base's model that it was trained on; "" where the file names none."""
        mapping = self.settings.get("auto_mapping")
        return str(mapping.get("base_model_class") or "") if isinstance(mapping, dict) else ""


def read_adapter_config(folder: Path, ignore: tuple[str, ...] = ()) -> AdapterConfig:
    """Return what the adapter_config.json of a folder says; of its keys only the kind is checked, see `check_keys`.

    Args:
        folder: the adapter's folder.
        ignore: keys to leave out, as in `LoadOptions.ignore_config`.

    Raises:
        CheckpointError: `adapter.kind`: another kind of adapter than LoRA, or for another task. `adapter.config_key`:
            it states no kind.
    """
    path = folder / CONFIG
    stated = read_json(path)
    ignored = KeyFilter([key for key in ignore if key in stated], CONFIG)
    settings = ignored.removed_from(stated)
    _refuse_other_kind(path, settings)
    return AdapterConfig(settings, ignored.notices)


def check_keys(folder: Path, config: AdapterConfig) -> None:
    """Refuse keys of an adapter_config.json that are not known, not supported, missing or of the wrong type.

    Raises:
        CheckpointError: `adapter.config_key`: not known, not supported or missing. `adapter.config_value`: a value of
            the wrong type.
    """
    path, settings = folder / CONFIG, config.settings
    missing = [key for key in STATED if settings.get(key) is None]
    if missing:
        what = f"lacks {listed(missing)}, without which peft would use a default"
        raise refusal("adapter.config_key", path, what, hint="add it as the adapter was trained")
    _refuse_unsupported(path, settings)
    for key, value in config.values.items():
        holds, wanted = HANDLED[key]
        if not holds(value):
            shown = visible(repr(value), 60)
            raise refusal("adapter.config_value", path, f"{key} is {shown}; it must be {wanted}")


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
        raise refusal("adapter.kind", path, what, hint=NO_MODEL if kind in NEVER_MERGED else MERGE)
    if task not in (None, "CAUSAL_LM"):
        what = f"task_type is {visible(str(task), 40)}, not CAUSAL_LM: it does not predict the next token"
        raise refusal("adapter.kind", path, what, hint="give an adapter of a language model")


def _refuse_unsupported(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse keys that are not known or not supported, unless their value says that they are not used."""
    used = {key for key, value in settings.items() if not (value is None or value is False or value in ("", [], {}))}
    for key, (why, hint) in UNSUPPORTED.items():
        if key in used:
            raise refusal("adapter.config_key", path, f"{key} is set: {why}", hint)
    _refuse_changed_base(path, settings.get("init_lora_weights", True))
    unknown = sorted(used - {*HANDLED, *NOT_USED})
    if unknown:
        raise refusal(
            "adapter.config_key", path, f"unknown key {listed(unknown)}: it may change what is computed",
            hint="if you know that it does not, leave it out with `ignore_config`",
        )  # fmt: skip


def _refuse_changed_base(path: Path, start: object) -> None:
    """Refuse an adapter whose training began by changing the weights of the base."""
    if any(start is each or (isinstance(each, str) and start == each) for each in BASE_LEFT_ALONE):
        return
    what = f"init_lora_weights is {visible(str(start), 40)}"
    if not (isinstance(start, str) and start.startswith(CHANGES_BASE)):
        raise refusal("adapter.config_key", path, f"{what}: not supported", MERGE)
    convert = "save it from the training program with path_initial_model_for_weight_conversion: a plain LoRA"
    with_base = "if that base was saved, give it with `base`, and leave the key out with `ignore_config`"
    raise refusal(
        "adapter.config_key", path, f"{what}: such training changes the base's weights, which are not in the folder",
        hint=f"{MERGE}, or {convert}" if start in REPEATED else f"{convert}; {with_base}",
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
