"""Find the files of a tokenizer and read each once, with the limits that hold for all JSON of a checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

from lossprobe.checkpoint.files.foreign import saved_again
from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.plain_files import stands
from lossprobe.checkpoint.tokenizers.tokenizer_settings import ADDED, CONFIG, MAP
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

TOKENIZER = "tokenizer.json"
MAX_TOKENIZER_BYTES = 256 << 20
MAX_SETTINGS_BYTES = 16 << 20  # tokenizer_config.json can describe every added token at length
# Files that belong to a tokenizer but are not read here; they are listed so that no result is written over them.
BESIDE = ("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json")
VERSIONED = re.compile(r"tokenizer\.([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})\.json")


@dataclass(frozen=True)
class TokenizerFiles:
    """The content of a tokenizer's files.

    Attributes:
        shown: name of the tokenizer for messages.
        definition: content of tokenizer.json.
        config: content of tokenizer_config.json, {} where there is none.
        special_map: content of special_tokens_map.json, or None.
        added: content of added_tokens.json, or None.
        model: content of the config.json in the same folder, or None; AutoTokenizer may choose a class by it.
        paths: every file that was read or belongs to the tokenizer.
    """

    shown: str
    definition: dict[str, Any]
    config: dict[str, Any]
    special_map: dict[str, Any] | None = None
    added: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    paths: tuple[Path, ...] = ()


def read_tokenizer_files(path: Path) -> TokenizerFiles:
    """Return the content of a tokenizer's files.

    Args:
        path: a folder with a tokenizer.json, or such a file under any name; the other files lie beside it.

    Raises:
        CheckpointError: there is no tokenizer.json, or a file is unreadable, too large, or not a JSON object.
    """
    folder = path if path.is_dir() else path.parent
    names = (CONFIG, MAP, ADDED, *(("config.json",) if path.is_dir() else ()))
    beside = {name: folder / name for name in names}
    there = {name: file for name, file in beside.items() if stands(file)}
    found = {name: read_json(file, MAX_SETTINGS_BYTES) for name, file in there.items()}
    config = found.get(CONFIG, {})
    file = folder / _file_name(config) if path.is_dir() else path
    if not stands(file):
        raise CheckpointError(
            "tokenizer.missing",
            f"{visible(str(file if path.is_dir() and file.name != TOKENIZER else path), 200)}: no tokenizer.json found",
            hint=_other_files(folder),
        )
    return TokenizerFiles(
        visible(str(file), 200),
        read_json(file, MAX_TOKENIZER_BYTES),
        config,
        found.get(MAP),
        found.get(ADDED),
        found.get("config.json"),
        (file, *there.values(), *(folder / name for name in BESIDE if stands(folder / name))),
    )


def _other_files(folder: Path) -> str:
    """Return what to do about a folder without tokenizer.json, which depends on the files that it has instead.

    transformers rebuilds vocab.json and merges.txt as they are; of a sentencepiece model it loses BOS and
    normalisation, and other formats it reads as an empty vocabulary, so that no conversion is advised there.
    """
    if stands(folder / "vocab.json") and stands(folder / "merges.txt"):
        command = saved_again("AutoTokenizer", folder)
        return f"make one of vocab.json and merges.txt, and copy it into the folder: {command}"
    names = ("tokenizer.model", "tekken.json", *sorted(file.name for file in folder.glob("*.tiktoken")))
    kept = next((name for name in names if stands(folder / name)), None)
    if kept is None:
        return "get the tokenizer.json of the same model, or name one with `tokenizer`"
    return (
        "get the tokenizer.json that belongs to the same model (hf download REPO tokenizer.json --local-dir FOLDER), "
        f"or name one with `tokenizer`; converting {visible(kept, 40)} can lose its BOS and its normalisation"
    )


def _file_name(config: dict[str, Any]) -> str:
    """Return the name of the file that holds a folder's tokenizer.

    Some folders hold further ones for later versions of transformers, such as tokenizer.4.0.0.json.
    """
    installed = Version(Version(metadata.version("transformers")).base_version)
    listed = config.get("fast_tokenizer_files")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    fitting = [name for name in names if (match := VERSIONED.fullmatch(name)) and Version(match[1]) <= installed]
    return max(fitting, default=TOKENIZER)  # compared as strings, as in transformers
