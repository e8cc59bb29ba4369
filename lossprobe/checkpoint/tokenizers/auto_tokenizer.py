"""Find out whether transformers' AutoTokenizer makes the same tokens as tokenizer.json itself.

In transformers 5 many classes (GPT2, Qwen2, GPTNeoX, Cohere, Gemma, Llama, T5, BERT, ...) take only the vocabulary and
the merges from a tokenizer.json and use a pre-tokenizer and a normalizer of their own. `AutoTokenizerChild` loads the
files as AutoTokenizer does, in a child process, which takes a second. `quick_look` first inspects the class that
AutoTokenizer would choose and often answers without that process.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tokenizers.models import BPE
from transformers import TokenizersBackend
from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
    TOKENIZER_MAPPING_NAMES,
    tokenizer_class_from_name,
)

from lossprobe.checkpoint.tokenizers.frames import DEFAULT_LIMITS, Limits
from lossprobe.checkpoint.tokenizers.sandbox import Sandbox
from lossprobe.checkpoint.tokenizers.spans import component_types
from lossprobe.checkpoint.tokenizers.tokenizer_files import TOKENIZER, TokenizerFiles
from lossprobe.checkpoint.tokenizers.tokenizer_settings import ADDED, CONFIG, MAP, plain_forms, read_settings
from lossprobe.errors import CheckpointError

# Keys of config.json by which AutoTokenizer chooses a class.
CLASS_KEYS = ("model_type", "tokenizer_class", "model_name", "transformers_version")
MODEL_FLAGS = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
               "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}  # fmt: skip
ONLY_TEXT = [{"Sequence": {"id": "A", "type_id": 0}}]  # a template that adds no token to a text


@dataclass(frozen=True)
class AutoTokenizerResult:
    """The tokenizer that AutoTokenizer loads from the files.

    Attributes:
        class_name: the class that AutoTokenizer chooses.
        definition: the tokenizer that this class builds, as the JSON of a tokenizer.json.
        bos_id: its bos_token_id, or None.
        eos_id: its eos_token_id, or None.
        names: text of the BOS and of the EOS token, "" for none.
        splits_special: whether it splits names of special tokens in a text like other text.
        same: whether it gives the same tokens as our definition for all probe texts.
        counts: number of tokens of the probe texts by our definition, and by AutoTokenizer's.
    """

    class_name: str
    definition: bytes
    bos_id: int | None
    eos_id: int | None
    names: tuple[str, str]
    splits_special: bool
    same: bool
    counts: tuple[int, int]


class AutoTokenizerChild:
    """A child process that loads a tokenizer's files as AutoTokenizer does.

    It starts when this object is made and works in parallel until `result` waits for it.

    Args:
        files: the tokenizer's files.
        ours: our tokenizer.json, to compare with.
        limits: memory and time that the child may use.

    Raises:
        ResourceError: no process can be started.
    """

    def __init__(self, files: TokenizerFiles, ours: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
        named = {TOKENIZER: files.definition, CONFIG: files.config or None, MAP: files.special_map, ADDED: files.added}
        if files.model is not None:
            named["config.json"] = {key: files.model[key] for key in CLASS_KEYS if key in files.model}
        content = json.dumps({name: each for name, each in named.items() if each is not None}).encode()
        self._shown = files.shown
        self._sandbox = Sandbox([content, ours], files.shown, limits, "tokenizers.auto_tokenizer_worker")
        self._sandbox.begin()

    def result(self) -> AutoTokenizerResult:
        """Wait for the child process, end it, and return what AutoTokenizer loaded.

        Raises:
            CheckpointError: `tokenizer.auto_tokenizer`: AutoTokenizer cannot load these files; or the child exceeds
                its limits.
        """
        try:
            facts, definition = self._sandbox.open()
        except CheckpointError as error:
            if error.id != "tokenizer.broken":
                raise
            reason = f"transformers' AutoTokenizer cannot load it: {error.reason}"
            raise CheckpointError("tokenizer.auto_tokenizer", reason, subject=self._shown) from None
        finally:
            self._sandbox.close()
        found = json.loads(facts)
        return AutoTokenizerResult(
            found["class"],
            bytes(definition),
            found["bos"],
            found["eos"],
            tuple(found["names"]),
            found["splits_special"],
            found["same"],
            tuple(found["counts"]),
        )


def quick_look(files: TokenizerFiles, known: Collection[str]) -> dict[str, str] | None:
    """Return whether AutoTokenizer makes the same tokens as the files, as far as the chosen class shows it.

    Args:
        files: the tokenizer's files.
        known: the added tokens of all files.

    Returns:
        None where only the child process can tell. Otherwise the tokens are the same, and the dict holds the BOS and
        EOS that the class names where the files do not ("bos_token" and "eos_token" → text).
    """
    odd = files.config.get("split_special_tokens") or files.config.get("fix_mistral_regex")
    if odd or not plain_forms(files.config, files.special_map or {}):
        return None
    model = files.model or {}
    declared = files.config.get("tokenizer_class") or model.get("tokenizer_class")
    if declared and not isinstance(declared, str):
        return None  # only AutoTokenizer itself can tell what it does with such a value
    family = str(model.get("model_type"))
    names = {declared} if declared else {TOKENIZER_MAPPING_NAMES.get(family)}
    if {family, str(model.get("model_name"))} & MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS:
        names.add(TOKENIZER_MAPPING_NAMES.get(family))  # transformers uses this class and not the declared one
    answers = [_look_at(name, files, known) for name in names if name is not None]
    certain = [answer for answer in answers if answer is not None]
    if len(certain) < len(answers) or any(answer != certain[0] for answer in certain):
        return None
    return certain[0] if certain else {}


def _look_at(name: object, files: TokenizerFiles, known: Collection[str]) -> dict[str, str] | None:
    """Return what `quick_look` returns, for the one class of this name."""
    if not isinstance(name, str) or not name.endswith(("Tokenizer", "TokenizerFast")):
        return {}  # transformers falls back to TokenizersBackend, which uses tokenizer.json unchanged
    pipeline = component_types([files.definition.get("pre_tokenizer"), files.definition.get("decoder")])
    if name.removesuffix("Fast") == "LlamaTokenizer" and "ByteLevel" in pipeline:
        return {}  # Llama 3 and similar, often declared so by mistake; transformers uses tokenizer.json
    kind: Any = tokenizer_class_from_name(name)
    if kind is None or kind is TokenizersBackend:
        return {}
    if not isinstance(kind, type) or not issubclass(kind, TokenizersBackend):
        return None
    if kind.__init__ is TokenizersBackend.__init__:  # neither this class nor a parent changes anything
        return {}
    given = {key: value for key, value in files.config.items() if isinstance(value, bool)}
    empty = _without_vocabulary(kind, given)
    if empty is None or not _same_pipeline(json.loads(empty.backend_tokenizer.to_str()), files.definition):
        return None
    named = read_settings(files.config, files.special_map, files.added).named
    defaults = {role: str(token) for role, token in empty._special_tokens_map.items() if token and role not in named}
    if not all(content in known for content in defaults.values()):
        return None  # the class would add a token
    return {role: token for role, token in defaults.items() if role in ("bos_token", "eos_token")}


def _without_vocabulary(kind: Any, given: dict[str, bool]) -> Any:
    """Return a BPE tokenizer of a class with an empty vocabulary, or None where the class needs other arguments.

    Of the files' settings only booleans are passed, and only to parameters that are boolean: as a file name, True
    would be opened as file descriptor 1, standard output.
    """
    parameters = inspect.signature(kind).parameters
    if getattr(kind, "model", None) is not BPE or not {"vocab", "merges"} <= parameters.keys():
        return None
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {name for name, each in parameters.items() if each.default is each.empty and each.kind not in any_number}
    known = {key: value for key, value in given.items() if key in parameters}
    if needed <= {"vocab", "merges"} and all(_takes_yes_or_no(parameters[key]) for key in known):
        return kind(vocab={}, merges=[], **known)
    return None


def _takes_yes_or_no(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.default, bool) or "bool" in str(parameter.annotation)


def _same_pipeline(built: dict[str, Any], definition: dict[str, Any]) -> bool:
    """Return whether a class and a tokenizer.json have the same normalizer, pre-tokenizer and BPE settings.

    Two that do the same but are written differently count as different.

    Args:
        built: definition of the tokenizer that the class built.
        definition: the tokenizer.json.
    """
    theirs, ours = built["model"], definition.get("model") or {}
    return (
        all(_plain(built.get(part)) == _plain(definition.get(part)) for part in ("normalizer", "pre_tokenizer"))
        and ours.get("type") == "BPE"
        and all(
            (theirs.get(flag) or None) == (ours.get(flag, default) or None) for flag, default in MODEL_FLAGS.items()
        )
        and (built.get("post_processor") or {}).get("single", ONLY_TEXT) == ONLY_TEXT
    )


def _plain(part: Any) -> Any:
    """Return a part of a definition without settings that change no token, and with defaults that old files omit."""
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if not isinstance(part, dict):
        return part
    content = {key: _plain(value) for key, value in part.items() if key != "trim_offsets"}
    return {"use_regex": True} | content if part.get("type") == "ByteLevel" else content
