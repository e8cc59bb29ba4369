"""A tokenizer of files, and the same files as other programs read them: other tokens, another BOS, another EOS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import transformers

from lossprobe.checkpoint.interface import Tokenizer
from lossprobe.checkpoint.tokenizers.auto_tokenizer import AutoTokenizerChild, AutoTokenizerResult, quick_look
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.tokenizer_files import TokenizerFiles
from lossprobe.checkpoint.tokenizers.tokenizer_settings import TokenSettings, read_settings
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count

ENDS = ("bos_token", "eos_token")


class FilesTokenizer(BackendTokenizer):
    """The tokenizer of a tokenizer.json and the files beside it.

    Where transformers' AutoTokenizer would make other tokens of a text, or names another BOS or EOS, a notice says so.

    Args:
        files: what was read.
        special_strings: as `LoadOptions` has it.

    Raises:
        CheckpointError: as `BackendTokenizer`, or settings that are none.
    """

    def __init__(self, files: TokenizerFiles, special_strings: str = "control") -> None:
        try:
            tokens = read_settings(files.config, files.special_map, files.added)
        except CheckpointError as error:
            raise CheckpointError(error.id, f"{files.shown}: {error.message}") from None
        super().__init__(files.definition, files.config, files.shown, tokens=tokens, special_strings=special_strings)
        self.files = files.paths
        self._files = replace(files, definition={})  # the vocabulary is not held twice, unless a token was added to it
        self._untouched = None if tokens.add_to(files.definition) is files.definition else files.definition
        self._loaded: AutoTokenizerResult | None = None
        self._refused: CheckpointError | None = None
        self._child: AutoTokenizerChild | None = None
        self._as_transformers = True
        named = {role: self.added_ids.get(tokens.content(role)) for role in ENDS}
        defaults = quick_look(files, self.added_ids)
        if defaults is None:
            self._child = AutoTokenizerChild(files, self.canonical)
        else:
            named |= {role: self.added_ids[content] for role, content in defaults.items()}
        self._take_over(named["bos_token"], named["eos_token"])
        if self._child is None and self.bos_id != self._named[0]:
            self.notices += (f"{files.shown}: puts id {self.bos_id} before a text, which is taken for its BOS",)

    def _take_over(self, bos_id: int | None, eos_id: int | None) -> None:
        """Make what AutoTokenizer calls BOS and EOS ours, where the files themselves name none."""
        self._named = (bos_id, eos_id)
        self.bos_id = bos_id if self.bos_id is None else self.bos_id
        self.eos_id = eos_id if self.eos_id is None else self.eos_id
        self.adds_bos = self.bos_id is not None and self.first_id == self.bos_id

    def compare_with_auto_tokenizer(self) -> None:
        """Wait for what AutoTokenizer makes of the files, where that was asked, and keep it as a notice."""
        if self._child is not None:
            self.notices += tuple(f"{self._files.shown}: {notice}" for notice in self._compare())

    def read_by(self, reader: str) -> Tokenizer:
        """Return the tokenizer that another program makes of the same files.

        Args:
            reader: "transformers" (AutoTokenizer), "tokenizers" (tokenizer.json alone, with the names of
                tokenizer_config.json), or "gguf" (what llama.cpp's converter writes).

        Raises:
            CheckpointError: AutoTokenizer cannot load the files, or splits special tokens in a text.
        """
        self.compare_with_auto_tokenizer()
        if reader == "transformers":
            return self.with_ends(*self._named, self.first_id) if self._as_transformers else self._of_transformers()
        if reader == "tokenizers":
            return self._of_tokenizers()
        model = self._files.model
        fallback = self.bos_id if model is None else stated_ids(model, "bos")[0]
        bos_id, adds = gguf_bos(self._files.config, json.loads(self.canonical), fallback)
        return self.with_ends(bos_id, self.eos_id, bos_id if adds else None)

    def _compare(self) -> list[str]:
        """Return what AutoTokenizer does otherwise, and take over the BOS and EOS that only its class names."""
        self._as_transformers = False
        try:
            loaded = self._load()
        except CheckpointError as error:
            return [error.told_of(self._files.shown)]
        named = zip(loaded.names, (loaded.bos_id, loaded.eos_id), strict=True)
        self._take_over(*(index if self.added_ids.get(name) == index else None for name, index in named))
        self._named = (loaded.bos_id, loaded.eos_id)
        differing = []
        if not loaded.same:
            few, many = map(format_count, loaded.counts)
            differing.append(
                f"{many} tokens of a probe text, where there are {few} here" if few != many else "other tokens"
            )
        for role, ours, theirs in (("BOS", self.bos_id, loaded.bos_id), ("EOS", self.eos_id, loaded.eos_id)):
            if ours != theirs:
                differing.append(f"{role} {_id(theirs)}, where it is {_id(ours)} here")
        self._as_transformers = loaded.same and not loaded.splits_special
        if not differing:
            return []
        return [
            f"AutoTokenizer of transformers {transformers.__version__} takes {loaded.class_name} and makes "
            f"{' and '.join(differing)}; `protocol` scores what a tool sees"
        ]

    def _load(self) -> AutoTokenizerResult:
        if self._refused is not None:
            raise self._refused
        if self._loaded is None:
            child = self._child or self._ask()
            self._child = None
            try:
                self._loaded = child.result()
            except CheckpointError as error:
                self._refused = error
                raise
        return self._loaded

    def _ask(self) -> AutoTokenizerChild:
        return AutoTokenizerChild(replace(self._files, definition=json.loads(self.canonical)), self.canonical)

    def _of_transformers(self) -> Tokenizer:
        loaded = self._load()
        shown = self._files.shown
        if loaded.splits_special:
            raise CheckpointError(
                "tokenizer.auto_tokenizer",
                "split_special_tokens is set: AutoTokenizer splits special tokens in a text, which is not supported",
                subject=shown,
            )
        made = BackendTokenizer(
            json.loads(loaded.definition.decode("utf-8", "surrogatepass")), {}, shown, tokens=TokenSettings()
        )
        return made.with_ends(loaded.bos_id, loaded.eos_id, made.first_id)

    def _of_tokenizers(self) -> Tokenizer:
        tokens = read_settings({key: self._files.config.get(key) for key in ("bos_token", "eos_token")})
        plain: BackendTokenizer = self
        if self._untouched is not None:
            plain = BackendTokenizer(self._untouched, {}, self._files.shown, tokens=TokenSettings())
        known = {data: index for index, data in plain._bytes.items()}
        known |= {name.encode("utf-8", "surrogatepass"): index for name, index in plain.added_ids.items()}
        bos_id, eos_id = (known.get(tokens.content(role).encode("utf-8", "surrogatepass")) for role in ENDS)
        return plain.with_ends(bos_id, eos_id, plain.first_id)


def gguf_bos(config: Mapping[str, Any], definition: Mapping[str, Any], fallback: int | None) -> tuple[int | None, bool]:
    """Return the BOS that llama.cpp's converter writes, and whether llama.cpp puts it before a text.

    The name in tokenizer_config.json counts where tokenizer.json lists it, then config.json's id. `add_bos_token` there
    counts more than the template of tokenizer.json; where neither is, sentencepiece's kind gets one.

    Args:
        config: tokenizer_config.json.
        definition: tokenizer.json.
        fallback: the BOS where tokenizer_config.json names none.
    """
    tokens = read_settings(config)
    names = {tokens.content(role) for role in ("bos_token", "cls_token")} - {""}
    listed = {entry["content"]: entry["id"] for entry in definition.get("added_tokens") or []}
    name = tokens.content("bos_token") or tokens.content("cls_token")
    bos_id = listed.get(name, fallback)
    wanted = config.get("add_bos_token")
    if isinstance(wanted, bool):
        return bos_id, wanted
    processor = definition.get("post_processor") or {}
    for part in processor.get("processors", [processor]):
        if part.get("type") == "RobertaProcessing":
            return bos_id, True
        single = part.get("single") or []
        if part.get("type") == "TemplateProcessing" and len(single) > 1 and "SpecialToken" in single[0]:
            return bos_id, not config or single[0]["SpecialToken"]["id"] in names
    model = definition["model"]
    return bos_id, model.get("type") == "BPE" and model.get("byte_fallback") is True


def stated_ids(model: Mapping[str, Any], role: str) -> list[int | None]:
    """Return the BOS or EOS ids that a config.json states, one or several; [None] where it states none.

    Args:
        model: config.json; what its text_config says counts where it says nothing itself.
        role: "bos" or "eos".
    """
    inner = model.get("text_config")
    key = f"{role}_token_id"
    value = model.get(key, inner.get(key) if isinstance(inner, dict) else None)
    return [each for each in (value if isinstance(value, list) else [value]) if type(each) is int] or [None]


def _id(index: int | None) -> str:
    return "none" if index is None else f"id {index}"
