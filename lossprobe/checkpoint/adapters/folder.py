"""Find out whether a folder holds an adapter, and which folder holds the base that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lossprobe.checkpoint.adapters.config import CONFIG, AdapterConfig
from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.plain_files import read_at_most, stands
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.files.weight_files import INDEX, SINGLE
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.units import visible

WEIGHTS: Final = "adapter_model.safetensors"
PICKLED: Final = "adapter_model.bin"
TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "tokenizer.model", "vocab.json", "tekken.json",
)  # fmt: skip
TEMPLATES: Final = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
QUANTISED_NAME: Final = re.compile(r"(?i)(bnb|[48]-?bit|gptq|awq|int[48]|nf4|fp8|nvfp4|mxfp4|quantized)(?![a-z])")
QUANTISED_CARD: Final = re.compile(rb"quantization config was used during training|load_in_[48]bit: True")
MAX_CARD_BYTES: Final = 1 << 20


def is_adapter(path: Path) -> bool:
    """Return whether a path is a folder that holds an adapter.

    Raises:
        CheckpointError: `adapter.two_models`: it also holds the weights of a whole model.
    """
    if not path.is_dir() or not stands(path / CONFIG):
        return False
    whole = next((name for name in (SINGLE, INDEX) if stands(path / name)), None)
    if whole is not None:
        hint = "move one of them to a folder of its own"
        raise refusal("adapter.two_models", path, f"holds both {CONFIG} and {whole}: an adapter or a model?", hint)
    return True


def weights_of(folder: Path) -> Path:
    """Return the file of an adapter's weights.

    Raises:
        CheckpointError: `adapter.no_weights`: there is none; a pickled one is not opened.
    """
    if stands(folder / WEIGHTS):
        return folder / WEIGHTS
    what, hint = f"no {WEIGHTS} beside {CONFIG}", None
    if stands(folder / PICKLED):
        what += f", only {PICKLED}, which is not opened"
        hint = "load it with peft and save it again: save_pretrained writes safetensors"
    raise refusal("adapter.no_weights", folder, what, hint)


def find_base(folder: Path, recorded: str, given: Path | None) -> Path:
    """Return the folder of the base: the given one, else the local folder that adapter_config.json names.

    Args:
        folder: the adapter's folder.
        recorded: what adapter_config.json names; "" for nothing. A relative path counts from the working folder, where
            training ran, or from the adapter's folder; a name of the hub is never downloaded.
        given: the folder that the user names; None for none.

    Raises:
        UsageError: `adapter.base`: there is no such folder, or there are two.
        CheckpointError: `adapter.base_kind`: the base is an adapter itself, or no Hugging Face folder.
    """
    base = given if given is not None else _recorded_folder(folder, recorded)
    shown = visible(str(base), 200)
    if not base.exists():
        raise UsageError("adapter.base", f"`base` {shown}: does not exist", hint="lossprobe never downloads a model")
    if base.is_dir() and stands(base / CONFIG):
        hint = "merge it into its own base first, and give the result"
        raise refusal("adapter.base_kind", base, "the base is an adapter itself", hint)
    if not base.is_dir() or not stands(base / "config.json"):
        what = "the base of an adapter must be a Hugging Face folder (config.json and safetensors)"
        raise refusal("adapter.base_kind", base, what)
    return base


def _recorded_folder(folder: Path, recorded: str) -> Path:
    shown = visible(str(folder), 200)
    if not recorded:
        raise UsageError("adapter.base", f"{shown}: names no base model", hint="give its folder with `base`")
    places = [path for path in (Path(recorded), folder / recorded) if path.is_dir()]
    found = {path.resolve(): path for path in places}
    named = f"{shown}: names the base {visible(recorded, 120)}"
    if len(found) > 1:
        both = " and ".join(visible(str(path), 120) for path in found.values())
        raise UsageError("adapter.base", f"{named}, and there are two: {both}", hint="name one of them with `base`")
    if not found:
        hint = "get that model, and give its folder with `base`"
        raise UsageError("adapter.base", f"{named}, which is no folder here; nothing is downloaded", hint=hint)
    return next(iter(found.values()))


def doubts(folder: Path, config: AdapterConfig, base: Path, model: Any, quantised: str | None) -> Iterator[str]:
    """Yield why an adapter may belong to another base than the one that is used, one line each.

    Args:
        folder: the adapter's folder.
        config: what its adapter_config.json says.
        base: the folder of the base.
        model: the base's model.
        quantised: how the base is quantised; None where it is not.
    """
    settings = read_json(base / "config.json")
    own = settings.get("_name_or_path")
    names = {path.name.lower() for path in (base, base.resolve(), *([Path(own)] if isinstance(own, str) else []))}
    recorded = Path(config.recorded_base.rstrip("/"))
    if config.recorded_base and recorded.name.lower() not in names and not _is_same(recorded, base):
        shown = visible(config.recorded_base, 120)
        yield f"the adapter was trained on {shown}; it is used on {visible(str(base), 120)}, which has another name"
    if config.base_class and config.base_class != type(model).__name__:
        yield f"the adapter was trained on a {visible(config.base_class, 60)}; the base is a {type(model).__name__}"
    if quantised:
        yield f"the base is quantised ({quantised}): the adapter runs beside its weights as they are dequantised"
    elif why := _quantised_training(folder, config.recorded_base):
        yield f"the adapter was trained on a quantised base ({why}); on this one, which is not, it is another model"


def _is_same(recorded: Path, base: Path) -> bool:
    return recorded.is_dir() and recorded.resolve() == base.resolve()


def _quantised_training(folder: Path, recorded: str) -> str:
    """Return what says that an adapter was trained on a quantised base; "" where nothing does."""
    name = Path(recorded.rstrip("/")).name
    if QUANTISED_NAME.search(name):
        return f"its name is {visible(name, 80)}"
    there = Path(recorded) / "config.json"
    if recorded and stands(there) and read_json(there).get("quantization_config"):
        return f"{visible(str(there), 120)} says so"
    card = folder / "README.md"
    try:
        said = stands(card) and QUANTISED_CARD.search(read_at_most(card, MAX_CARD_BYTES))
    except CheckpointError:  # a card that cannot be read says nothing
        return ""
    return "its README.md says so" if said else ""


def tokenizer_place(folder: Path, base: Path) -> Path:
    """Return the folder of the tokenizer: the adapter's own where it holds one, else the base's."""
    return folder if any(stands(folder / name) for name in TOKENIZER_FILES) else base


def template_place(folder: Path, base: Path) -> Path:
    """Return the folder of the chat template: the adapter's own where it holds one, else the base's."""
    config = folder / "tokenizer_config.json"
    in_config = stands(config) and bool(read_json(config, 16 << 20).get("chat_template"))
    return folder if in_config or any(stands(folder / name) for name in TEMPLATES) else base
