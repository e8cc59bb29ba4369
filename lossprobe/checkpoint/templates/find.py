"""Find the chat template of a checkpoint's tokenizer, in the places and the order in which transformers looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.plain_files import read_at_most, stands
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.checkpoint.tokenizers.tokenizer_files import MAX_SETTINGS_BYTES
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, visible

CONFIG, FILE, FOLDER, LEGACY = (
    "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates", "chat_template.json",
)  # fmt: skip
DEFAULT, TOOL_USE = "default", "tool_use"
MAX_BYTES = 1 << 20


def find_template(folder: Path, special_tokens: Mapping[str, str]) -> tuple[ChatTemplate | None, tuple[Path, ...]]:
    """Return the template in a tokenizer's folder, or None, and the files that it was read from.

    Files of their own stand above the entries of tokenizer_config.json, all of them: transformers takes none of the
    entries where such a file is. chat_template.json is a processor's, and counts where there is nothing else.

    Args:
        folder: the folder of the tokenizer.
        special_tokens: names that the template may use, and their texts.

    Raises:
        CheckpointError: a file cannot be read or is not what belongs there, or no template is the one to use.
    """
    more = sorted((folder / FOLDER).glob("*.jinja")) if (folder / FOLDER).is_dir() else []
    files = [*([folder / FILE] if stands(folder / FILE) else []), *more]
    named = {DEFAULT if file.parent == folder else file.name.removesuffix(".jinja"): read_text(file) for file in files}
    if named:
        return _chosen(named, str(files[0]), special_tokens), tuple(files)
    for name in (CONFIG, LEGACY):
        file = folder / name
        if stands(file):
            value = read_json(file, MAX_SETTINGS_BYTES).get("chat_template")
            if value:
                named = _by_name(value, file)
                return _chosen(named, str(file), special_tokens), (file,)
    return None, ()


def given_template(file: Path, special_tokens: Mapping[str, str]) -> ChatTemplate:
    """Return the template that a user names in place of the checkpoint's own: a Jinja file, or a folder or JSON file.

    Raises:
        CheckpointError: it cannot be read, or holds no template.
    """
    if file.is_dir():
        found, _ = find_template(file, special_tokens)
    elif file.suffix == ".json":
        value = read_json(file, MAX_SETTINGS_BYTES).get("chat_template")
        found = _chosen(_by_name(value, file), str(file), special_tokens) if value else None
    else:
        found = ChatTemplate(read_text(file), str(file), "", dict(special_tokens))
    if found is None:
        what = f"{visible(str(file), 200)}: holds no chat template"
        raise CheckpointError("template.missing", what, hint="name a Jinja file with `chat_template`")
    return found


def read_text(file: Path) -> str:
    """Return the text of a template's file.

    Raises:
        CheckpointError: it cannot be read, is too large, or is not UTF-8.
    """
    shown = visible(str(file), 200)
    data = read_at_most(file, MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise CheckpointError("template.broken", f"{shown}: larger than {format_count(MAX_BYTES)} bytes, the limit")
    try:
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise CheckpointError("template.broken", f"{shown}: not UTF-8 at byte {error.start}") from None


def _by_name(value: Any, file: Path) -> dict[str, str]:
    """Return templates by name from an entry `chat_template`: one template, or a list or an object of named ones.

    Raises:
        CheckpointError: it is neither.
    """
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        value = {each.get("name"): each.get("template") for each in value}
    if isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair):
        return value
    what = f"{visible(str(file), 200)}: chat_template is neither a template nor a list of named templates"
    raise CheckpointError("template.broken", what)


def _chosen(named: Mapping[str, str], origin: str, special_tokens: Mapping[str, str]) -> ChatTemplate:
    """Return the template to use, with the one for tools.

    Raises:
        CheckpointError: none of several templates is the default one.
    """
    if DEFAULT not in named:
        names = visible(", ".join(sorted(named)), 160)
        what = f"{visible(origin, 200)}: several chat templates, none of them named default: {names}"
        raise CheckpointError("template.missing", what, hint="name the file of one with `chat_template`")
    return ChatTemplate(named[DEFAULT], origin, named.get(TOOL_USE, ""), dict(special_tokens))
