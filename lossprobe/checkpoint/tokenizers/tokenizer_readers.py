"""Build the tokenizer of a folder's files, and the tokenizers that other programs build from the same files.

These can have other tokens, another BOS or another EOS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from lossprobe.checkpoint.interface import Tokenizer
from lossprobe.checkpoint.tokenizers.auto_tokenizer import AutoTokenizerChild, AutoTokenizerResult, quick_look
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.begun import BegunTokenizer
from lossprobe.checkpoint.tokenizers.tokenizer_settings import NAMED, TokenSettings, read_settings
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count

ENDS = ("bos_token", "eos_token")


class FilesTokenizer(BackendTokenizer):
    """The tokenizer of a tokenizer.json and the files beside it.

    A notice says where transformers' AutoTokenizer would make other tokens or names another BOS or EOS.

    Args:
        begun: the files, and what runs them.

    Raises:
        CheckpointError: as `BackendTokenizer`.
    """

    def __init__(self, begun: BegunTokenizer) -> None:
        files, tokens = begun.files, begun.backend.tokens
        super().__init__(
            files.definition,
            files.config,
            files.shown,
            tokens=tokens,
            special_strings=begun.special_strings,
            begun=begun.backend,
        )
        self.files = files.paths
        self._tokens = tokens
        self._files = replace(files, definition={})  # saves memory; the vocabulary is also in `canonical`
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
            self.notices += (f"{files.shown}: puts id {self.bos_id} before every text, which is used as its BOS",)

    def _take_over(self, bos_id: int | None, eos_id: int | None) -> None:
        """Use AutoTokenizer's BOS and EOS where the files themselves name none."""
        self._named = (bos_id, eos_id)
        self.name_bos(bos_id if self.bos_id is None else self.bos_id)
        self.eos_id = eos_id if self.eos_id is None else self.eos_id

    @property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens that a chat template may use: role such as "bos_token" → text, as in transformers."""
        named = {role: token["content"] for role, token in self._tokens.named.items() if token and role in NAMED}
        for role, index in zip(ENDS, self._named, strict=True):
            if role not in named and index is not None:
                named[role] = self.token_bytes(index).decode("utf-8", "replace")
        return named

    def compare_with_auto_tokenizer(self) -> None:
        """Wait for the child process with AutoTokenizer, if one was started, and add a notice for each difference."""
        if self._child is not None:
            self.notices += tuple(f"{self._files.shown}: {notice}" for notice in self._compare())

    def read_by(self, reader: str) -> Tokenizer:
        """Return the tokenizer that another program builds from the same files.

        Args:
            reader: "transformers" (AutoTokenizer), "tokenizers" (tokenizer.json alone, with BOS and EOS of
                tokenizer_config.json), or "gguf" (as llama.cpp's converter writes it).

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
        """Return notices about how AutoTokenizer differs, and use its BOS and EOS where the files name none."""
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
        """Return the result of AutoTokenizer, asking it once; raise its error again where it failed."""
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
        """Return the tokenizer that AutoTokenizer builds."""
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
        """Return the tokenizer.json without tokens of other files, with BOS and EOS of tokenizer_config.json."""
        tokens = read_settings({key: self._files.config.get(key) for key in ("bos_token", "eos_token")})
        plain: BackendTokenizer = self
        if self._untouched is not None:
            plain = BackendTokenizer(self._untouched, {}, self._files.shown, tokens=TokenSettings())
        known = {data: index for index, data in plain._bytes.items()}
        known |= {name.encode("utf-8", "surrogatepass"): index for name, index in plain.added_ids.items()}
        bos_id, eos_id = (known.get(tokens.content(role).encode("utf-8", "surrogatepass")) for role in ENDS)
        return plain.with_ends(bos_id, eos_id, plain.first_id)


def gguf_bos(config: Mapping[str, Any], definition: Mapping[str, Any], fallback: int | None) -> tuple[int | None, bool]:
    """Return the BOS id that llama.cpp's converter writes, and whether llama.cpp puts it before a text.

    The BOS is the one that tokenizer_config.json names, if tokenizer.json lists it, and otherwise `fallback`. Whether
    it is added: `add_bos_token` of tokenizer_config.json decides, then the post-processor of tokenizer.json; without
    either, only tokenizers of the sentencepiece kind (BPE with byte fallback) add it.

    Args:
        config: content of tokenizer_config.json.
        definition: content of tokenizer.json.
        fallback: the BOS id of config.json, or None.
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
    """Return the BOS or EOS ids that a config.json states; [None] where it states none.

    Args:
        model: content of config.json; its text_config counts where the top level states none.
        role: "bos" or "eos".
    """
    inner = model.get("text_config")
    key = f"{role}_token_id"
    value = model.get(key, inner.get(key) if isinstance(inner, dict) else None)
    return [each for each in (value if isinstance(value, list) else [value]) if type(each) is int] or [None]


def _id(index: int | None) -> str:
    return "none" if index is None else f"id {index}"


def open_tokenizer(path: Path, special_strings: str = "control", begun: BegunTokenizer | None = None) -> FilesTokenizer:
    """Return the tokenizer of a tokenizer.json.

    A comparison with transformers' AutoTokenizer may still run in another process afterwards;
    `compare_with_auto_tokenizer` waits for it.

    Args:
        path: the tokenizer.json, or a directory that holds one.
        special_strings: as in `LoadOptions`.
        begun: what `begin_tokenizer` made of the same; None if nothing did.

    Raises:
        CheckpointError: there is no tokenizer.json, it is not JSON, or the library cannot build a tokenizer from it.
    """
    return FilesTokenizer(begun or BegunTokenizer.of(path, special_strings))
