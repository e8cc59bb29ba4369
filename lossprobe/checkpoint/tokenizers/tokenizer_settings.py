"""Read what the files beside a tokenizer.json add to it: more tokens, other flags, and which tokens are BOS and EOS.

tokenizer_config.json, special_tokens_map.json and added_tokens.json may describe the same tokens, in forms of several
versions of transformers. Which file counts, and in which order tokens are added, follows transformers 5. Where two
files contradict each other, a notice gives both values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lossprobe.errors import CheckpointError
from lossprobe.units import visible

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA = ("extra_special_tokens", "additional_special_tokens")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ID = re.compile(r"[0-9]{1,10}")
SHOWN = 60  # characters of a token in a message

Token = dict[str, Any]  # "content" and FLAGS; also "text": True where the file gives only a string


@dataclass
class TokenSettings:
    """The tokens that the files beside a tokenizer.json describe.

    Attributes:
        named: role ("bos_token", "image_token", ...) → token, or None where a file says that there is none.
        extra: special tokens without a role.
        by_id: declared id → token; these are added first, in the order of the ids.
        origin: name of the file that `by_id` comes from.
        left_out: text of a token → the file that names it, for files that are ignored beside tokenizer_config.json.
        notices: contradictions between files, one line each.
    """

    named: dict[str, Token | None] = field(default_factory=dict)
    extra: list[Token] = field(default_factory=list)
    by_id: dict[int, Token] = field(default_factory=dict)
    origin: str = CONFIG
    left_out: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def content(self, role: str) -> str:
        """Return the text of the token with this role, "" for none."""
        token = self.named.get(role)
        return token["content"] if token else ""

    def add_to(self, definition: dict[str, Any]) -> dict[str, Any]:
        """Return a tokenizer.json with these tokens added as transformers adds them.

        Where nothing changes, the same object is returned.
        """
        stored = definition.get("added_tokens") or []
        if not isinstance(stored, list) or not all(isinstance(entry, dict) for entry in stored):
            return definition  # not a list of tokens; the library refuses it when it builds the tokenizer
        vocabulary = _vocabulary(definition)
        own = {entry.get("content") for entry in stored}
        tokens = {entry.get("content"): entry for entry in stored}
        differing = []
        for token in self._tokens(stored):
            content = token["content"]
            before = tokens.get(content)
            if before is None:
                tokens[content] = {"id": vocabulary.get(content, _next_id(vocabulary, tokens.values())), **token}
                continue
            changed = {name: token[name] for name in FLAGS if before.get(name) != token[name]}
            tokens[content] = before | changed
            if changed and content in own:
                values = ", ".join(f"{name} is {before.get(name)} and {value}" for name, value in changed.items())
                differing.append(f"{_shown(content)}: {values} in tokenizer.json and {self.origin}; the latter is used")
        self._note(differing)
        missing = {
            content: file for content, file in self.left_out.items() if content not in tokens.keys() | vocabulary
        }
        self._note(
            [f"{_shown(content)}: only in {file}, left out beside {CONFIG}" for content, file in missing.items()]
        )
        added = list(tokens.values())
        return definition if added == stored else definition | {"added_tokens": added}

    def _tokens(self, stored: list[dict[str, Any]]) -> Iterator[Token]:
        """Yield the tokens in the order in which transformers adds them to those that tokenizer.json has."""
        roles = [*(role for role in NAMED if role in self.named), *(role for role in self.named if role not in NAMED)]
        named = [token for role in roles if (token := self.named[role])]
        names = {token["content"] for token in named}
        by_id = self.by_id
        if self.origin == ADDED:  # this file has no flags, so for ids in tokenizer.json those there count
            by_id = by_id | {entry["id"]: entry for entry in stored if type(entry.get("id")) is int}
        listed = [token for _, token in sorted(by_id.items())]
        known = {entry.get("content") for entry in [*stored, *listed]}
        further: list[Token] = []
        for token in [*named, *self.extra]:
            if token["content"] not in known and token not in further:  # of two forms of a token, the last one counts
                further.append(token)
        for token in [*listed, *further]:
            flags = {name: token[name] for name in FLAGS}
            yield {"content": token["content"], **flags, "special": token["special"] or token["content"] in names}

    def _note(self, lines: list[str]) -> None:
        """Add the first of several notices of one kind, with the number of the others."""
        if lines:
            more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
            self.notices.append(f"{lines[0]}, as in transformers{more}")

    def note_ids(self, ids: Mapping[str, int]) -> None:
        """Add a notice where a token's declared id differs from the one it has in `ids` (text → id by the library)."""
        got = {
            declared: (token["content"], ids.get(token["content"])) for declared, token in sorted(self.by_id.items())
        }
        self._note([
            f"{_shown(content)}: id {declared} in {self.origin}, but {index} in the vocabulary; that is used"
            for declared, (content, index) in got.items()
            if index not in (None, declared)
        ])  # fmt: skip


def read_settings(
    config: Mapping[str, Any], special_map: Mapping[str, Any] | None = None, added: Mapping[str, Any] | None = None
) -> TokenSettings:
    """Return the tokens that tokenizer_config.json, special_tokens_map.json and added_tokens.json define together.

    A tokenizer_config.json with `added_tokens_decoder` is complete, and the two older files are ignored. Otherwise
    special_tokens_map.json overrides it, role by role.

    Raises:
        CheckpointError: `tokenizer.settings`: an entry of a list of tokens by id is not valid.
    """
    settings = TokenSettings(named=_named(config), extra=_extra(config))
    decoder = config.get("added_tokens_decoder")
    if decoder is not None:
        settings.by_id = _by_id(decoder.items() if isinstance(decoder, dict) else [(None, decoder)], CONFIG)
        _note_ignored(settings, special_map or {}, added or {})
        return settings
    if special_map:
        _overrule(settings, special_map, listed=_has_list(config))
    if added:
        older = special_map or {}
        found = [token for role in NAMED if (token := settings.named.get(role)) and ("text" in token or role in older)]
        # transformers reads objects of tokenizer_config.json as tokens only later, so they make none special here.
        special = {token["content"] for token in [*found, *settings.extra] if "text" in token or token in found}
        settings.origin = ADDED
        tokens = ((str(index), _plain(content, special=content in special)) for content, index in added.items())
        settings.by_id = _by_id(tokens, ADDED)
    for role, token in settings.named.items():  # for a token in both, the flags in the list by id count
        listed = [each for each in settings.by_id.values() if token and each["content"] == token["content"]]
        if listed and role in NAMED:
            settings.named[role] = listed[-1]
    return settings


def plain_forms(config: Mapping[str, Any], special_map: Mapping[str, Any]) -> bool:
    """Return whether transformers 5 can read all tokens; it refuses some forms that are accepted here."""
    named = [config.get(role) for role in NAMED]
    listed = [value for key in EXTRA if isinstance(config.get(key), list) for value in config[key]]
    older = [value for values in special_map.values() if isinstance(values, list) for value in values]
    return all(value is None or isinstance(value, str) or _is_typed(value) for value in [*named, *listed]) and all(
        isinstance(value, str) for value in older
    )


def _is_typed(value: object) -> bool:
    return isinstance(value, dict) and value.get("__type") == "AddedToken"


def _overrule(settings: TokenSettings, special_map: Mapping[str, Any], *, listed: bool) -> None:
    """Override the settings with special_tokens_map.json, and add a notice where BOS or EOS differ."""
    for role, token in _named(special_map, special=True).items():
        if role not in NAMED and "text" in (settings.named.get(role) or {}):
            continue  # only the usual roles are overridden
        before, after = settings.content(role), token["content"] if token else ""
        if role in ("bos_token", "eos_token") and before and before != after:
            settings.notices.append(
                f"{role} is {_shown(before)} in {CONFIG} and {_shown(after) or 'none'} in {MAP}; the latter is used, as"
                " in transformers"
            )
        settings.named[role] = token
    key = EXTRA[0] if EXTRA[0] in special_map or listed else EXTRA[1]  # the older key counts only without a list
    further = _extra({EXTRA[0]: special_map.get(key)}, special=True)
    settings.extra += [token for token in further if token not in settings.extra]


def _has_list(config: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer_config.json has a list of special tokens without roles, even an empty one."""
    newer = config.get(EXTRA[0])
    return (EXTRA[0] in config and not isinstance(newer, dict)) or (EXTRA[1] in config and not newer)


def _note_ignored(settings: TokenSettings, special_map: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    """Record the tokens of the older, ignored files in `left_out`, and add a notice where their BOS or EOS differs."""
    told = set()
    for role in ("bos_token", "eos_token"):
        older = _named(special_map).get(role)
        if older and older["content"] != settings.content(role):
            settings.notices.append(
                f"{role} is {_shown(settings.content(role)) or 'none'} in {CONFIG} and {_shown(older['content'])} in"
                f" {MAP}; the former is used, as in transformers"
            )
            told.add(older["content"])
    older_tokens = [*_named(special_map).values(), *_extra(special_map)]
    contents = {token["content"]: MAP for token in older_tokens if token}
    settings.left_out = {
        name: file for name, file in (dict.fromkeys(added, ADDED) | contents).items() if name not in told
    }


def _named(settings: Mapping[str, Any], *, special: bool = False) -> dict[str, Token | None]:
    """Return the tokens with a role, by role."""
    found = {
        key: _token(value, special=special)
        for key, value in settings.items()
        if key.endswith("_token") and not isinstance(value, bool)  # add_bos_token is a flag
    }
    named = {role: token for role, token in found.items() if token or role in NAMED}
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        group = settings.get(key)
        if isinstance(group, dict):
            named |= {str(role): token for role, value in group.items() if (token := _token(value, special=special))}
    return named


def _extra(settings: Mapping[str, Any], *, special: bool = False) -> list[Token]:
    """Return the special tokens without a role; the older key counts where the newer one is empty."""
    listing = settings.get(EXTRA[0]) or settings.get(EXTRA[1])
    if not isinstance(listing, list):
        return []
    return [token for value in listing if (token := _token(value, special=special))]


def _by_id(listing: Iterable[tuple[Any, Any]], file: str) -> dict[int, Token]:
    """Return the tokens of a list of (id, token) by id.

    Raises:
        CheckpointError: an entry is not a token, its key is not an id, or two entries have the same id.
    """
    tokens: dict[int, Token] = {}
    for key, value in listing:
        token = _token(value) if isinstance(value, dict) else None
        if token is None or not ID.fullmatch(str(key)):
            what = f"{file}: entry {visible(str(key), 20)} does not map a token id to a token"
            raise CheckpointError("tokenizer.settings", what)
        if int(key) in tokens:
            what = f"{file}: id {int(key)} is {_shown(tokens[int(key)]['content'])} and {_shown(token['content'])}"
            raise CheckpointError("tokenizer.settings", what)
        tokens[int(key)] = token
    return tokens


def _token(value: object, *, special: bool = False) -> Token | None:
    """Return a token with all flags; files give a string, or an object with some of the flags.

    Args:
        value: the value in the file; anything that is not a token gives None.
        special: whether an object counts as special that does not say so; a string always does.
    """
    if isinstance(value, str):
        return _plain(value, special=True) | {"text": True} if value else None
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or not value["content"]:
        return None
    flags = {name: value.get(name) is True for name in FLAGS}
    flags["special"] = special or flags["special"]
    flags["normalized"] = value["normalized"] is True if "normalized" in value else not flags["special"]
    return {"content": value["content"], **flags}


def _plain(content: str, *, special: bool) -> Token:
    """Return a token with the flags that transformers gives to a bare string."""
    return {
        "content": content, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": not special, "special": special,
    }  # fmt: skip


def _vocabulary(definition: dict[str, Any]) -> dict[str, int]:
    """Return token → id of a tokenizer.json's model, {} where the vocabulary has an unknown form."""
    model = definition.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # Unigram: pieces with scores
        return {str(entry[0]): index for index, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    return vocabulary if isinstance(vocabulary, dict) else {}


def _next_id(vocabulary: Mapping[str, int], tokens: Iterable[dict[str, Any]]) -> int:
    """Return the id that the `tokenizers` library gives to the next token that is not in the vocabulary."""
    ids: list[int] = [entry["id"] for entry in tokens if type(entry.get("id")) is int]
    return max([len(vocabulary) - 1, *ids]) + 1


def _shown(content: str) -> str:
    return visible(content, SHOWN)
