"""A tokenizer of files, and the same files as other programs read them: other tokens, another BOS, another EOS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import transformers

from lossprobe.checkpoint.auto_tokenizer import Loaded, load_auto_tokenizer, quick_look
from lossprobe.checkpoint.interface import Tokenizer
from lossprobe.checkpoint.tokenizer_files import TokenizerFiles
from lossprobe.checkpoint.tokenizer_settings import TokenSettings, read_settings
from lossprobe.checkpoint.tokenizers import BackendTokenizer
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count


class FilesTokenizer(BackendTokenizer):
    """The tokenizer of a tokenizer.json and the files beside it.

    Where transformers' AutoTokenizer would make other tokens of a text, or names another BOS or EOS, a notice says so.

    Args:
        files: what was read.

    Raises:
        CheckpointError: as `BackendTokenizer`, or settings that are none.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        tokens = read_settings(files.config, files.special_map, files.added)
        super().__init__(files.definition, files.config, files.shown, tokens=tokens)
        self.files = files.paths
        self._loaded: Loaded | None = None
        unchanged = tokens.add_to(files.definition) is files.definition
        self._untouched = None if unchanged else files.definition  # else the vocabulary need not be held twice
        self._files = replace(files, definition={})
        defaults = quick_look(files, self.added_ids)
        self._as_transformers = defaults is not None
        if defaults is None:
            self.notices += tuple(f"{files.shown}: {notice}" for notice in self._compare())
        else:
            self._take_over(*(self.added_ids.get(defaults.get(role, "")) for role in ("bos_token", "eos_token")))
        self._named = (self.bos_id, self.eos_id)

    def seen_by(self, reader: str) -> Tokenizer:
        """Return the tokenizer that another program makes of the same files.

        Args:
            reader: "transformers" (AutoTokenizer), "tokenizers" (tokenizer.json alone, with the names of
                tokenizer_config.json), or "gguf" (what llama.cpp's converter writes).

        Raises:
            CheckpointError: AutoTokenizer cannot load the files, or splits special tokens in a text.
        """
        if reader == "transformers":
            return self.with_ends(*self._named, self.first_id) if self._as_transformers else self._of_transformers()
        if reader == "tokenizers":
            return self._of_tokenizers()
        bos_id, adds = gguf_bos(self._files.config, json.loads(self.canonical), self.bos_id)
        return self.with_ends(bos_id, self.eos_id, bos_id if adds else None)

    def _compare(self) -> list[str]:
        """Return what AutoTokenizer does otherwise, and take over the BOS and EOS that only its class names."""
        try:
            loaded = self._load()
        except CheckpointError as error:
            return [error.message.removeprefix(f"{self._files.shown}: ")]
        who = f"AutoTokenizer of transformers {transformers.__version__} takes {loaded.class_name}"
        if loaded.same:
            self._take_over(loaded.bos_id, loaded.eos_id)
        notices = []
        if not loaded.same:
            few, many = map(format_count, loaded.counts)
            counts = f"{many} tokens of a probe text, where there are {few} here" if few != many else "other tokens"
            notices.append(f"{who}, which makes {counts}; --protocol scores what a tool sees")
        for role, ours, theirs in (("BOS", self.bos_id, loaded.bos_id), ("EOS", self.eos_id, loaded.eos_id)):
            if ours != theirs:
                notices.append(f"{who}, whose {role} is {_id(theirs)}; here it is {_id(ours)}")
        self._as_transformers = loaded.same and not loaded.splits_special
        return notices

    def _take_over(self, bos_id: int | None, eos_id: int | None) -> None:
        self.bos_id = bos_id if self.bos_id is None else self.bos_id
        self.eos_id = eos_id if self.eos_id is None else self.eos_id
        self.adds_bos = self.bos_id is not None and self.first_id == self.bos_id

    def _load(self) -> Loaded:
        if self._loaded is None:
            files = replace(self._files, definition=json.loads(self.canonical))
            self._loaded = load_auto_tokenizer(files, self.canonical)
        return self._loaded

    def _of_transformers(self) -> Tokenizer:
        loaded = self._load()
        shown = self._files.shown
        if loaded.splits_special:
            raise CheckpointError(
                "tokenizer.auto_tokenizer",
                f"{shown}: split_special_tokens is set: AutoTokenizer splits special tokens in a text, which is not "
                "supported",
            )
        made = BackendTokenizer(loaded.definition, {}, shown, tokens=TokenSettings())
        return made.with_ends(loaded.bos_id, loaded.eos_id, made.first_id)

    def _of_tokenizers(self) -> Tokenizer:
        tokens = read_settings({key: self._files.config.get(key) for key in ("bos_token", "eos_token")})
        plain: BackendTokenizer = self
        if self._untouched is not None:
            plain = BackendTokenizer(self._untouched, {}, self._files.shown, tokens=TokenSettings())
        known = {data: index for index, data in plain._bytes.items() if index in plain.special_ids}
        bos_id, eos_id = (known.get(tokens.content(role).encode()) for role in ("bos_token", "eos_token"))
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


def _id(index: int | None) -> str:
    return "none" if index is None else f"id {index}"
