r"""Which rules of a tokenizer can look farther than a piece of a long document (see `pieces`).

Most cannot, by what they are. A regular expression can where what repeats without end takes white space and other
characters alike, as in `<[^>]*>`: whether it matches here may hang on a character that is any distance away. Where it
takes only one of them (`\s+`, `\p{L}+`, `[^\s\p{N}]+`), or is one run of characters and nothing else (`[^\n]+`), the
next white space, or the next character that does not belong, ends its reach.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tokenizers
from tokenizers import normalizers

LOCAL = frozenset({
    "BertNormalizer", "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Lowercase", "Metaspace", "NFC",
    "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Punctuation", "Sequence", "Strip", "StripAccents",
    "UnicodeScripts", "Whitespace", "WhitespaceSplit",
})  # fmt: skip
WITH_PATTERN = ("Replace", "Split")
ENDLESS = 1000  # repeats that are as good as without end
WHITE, OTHER = " \n\t", "aZ\u00e9\u6f22" + "1.,<\"'-"
ANCHORS = frozenset({"^", "$", r"\A", r"\z", r"\Z", r"\b", r"\B", r"\G"})
OPEN = re.compile(r"\((?:\?(?:[ims]*-?[ims]*:|[=!>]|<[=!]|<\w+>))?(?!\?)")
OPTION = re.compile(r"\(\?[ims]*-?[ims]*\)")
ONE = re.compile(
    r"\\[pP]\{[^}]*\}|\\x\{[0-9A-Fa-f]+\}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|"  # by name or number
    r"\\[^0-9kgKRXxupP]|[^\\*+?(){|\[]",  # not what refers to a group, or opens or repeats something
    re.DOTALL,
)
REPEAT = re.compile(r"[*+?][+?]?|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\}")


class Atom(NamedTuple):
    """A part of a pattern: what it can take, whether it repeats without end, whether it is a group of others."""

    takes: frozenset[str]
    endless: bool
    group: bool = False


def unbounded_rules(definition: dict[str, Any]) -> list[str]:
    """Return the names of the components of a tokenizer.json that can look farther than a piece, each once."""
    parts = [part for key in ("normalizer", "pre_tokenizer") for part in _components(definition.get(key))]
    return sorted({str(part["type"]) for part in parts if not _is_local(part)})


def _components(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _components(value)


def _is_local(part: dict[str, Any]) -> bool:
    if part["type"] in LOCAL:
        return True
    if part["type"] not in WITH_PATTERN:
        return False
    pattern = part.get("pattern")
    if not isinstance(pattern, dict):
        return False
    return "String" in pattern or not is_unbounded(str(pattern.get("Regex", "")))


def is_unbounded(pattern: str) -> bool:
    r"""Return whether a regular expression can match on one thing or another because of text any distance away.

    What is not understood is taken to.

    >>> [is_unbounded(pattern) for pattern in (r"\s+(?!\S)|\p{L}+", "<[^>]*>", r"[^\n]+|\n+", r"a(?=[\s\S]*b)")]
    [False, True, False, True]
    """
    try:
        return any(_is_unbounded_branch(branch) for branch in _branches(pattern))
    except ValueError:
        return True


def _is_unbounded_branch(branch: list[Atom]) -> bool:
    """Return whether a branch repeats what takes white space and other text, unless that is all there is to it."""
    alone = len(branch) == 1 and not branch[0].group
    return not alone and any(atom.endless and len(atom.takes) > 1 for atom in branch)


def _branches(pattern: str) -> list[list[Atom]]:
    """Return the atoms of each alternative of a pattern; those of a group stand before the group itself.

    Raises:
        ValueError: something that is not understood.
    """
    branches: list[list[Atom]] = [[]]
    opened: list[int] = []  # where in the branch each open group starts
    at = 0
    while at < len(pattern):
        found = OPTION.match(pattern, at) or OPEN.match(pattern, at)
        if found is not None:
            at = found.end()
            if found.re is OPEN:
                opened.append(len(branches[-1]))
        elif pattern[at] == "|":
            at += 1
            if not opened:
                branches.append([])
        elif pattern[at] == ")" and opened:
            inside = branches[-1][opened.pop() :]
            at, endless = _repeats(pattern, at + 1)
            branches[-1].append(Atom(frozenset().union(*(atom.takes for atom in inside)), endless, group=True))
        else:
            stop = _stop(pattern, at)
            takes = _takes(pattern[at:stop])
            at, endless = _repeats(pattern, stop)
            branches[-1].append(Atom(takes, endless))
    return branches


def _stop(pattern: str, at: int) -> int:
    """Return where a single character, or a set of them, ends."""
    if pattern[at] != "[":
        found = ONE.match(pattern, at)
        if found is None:
            raise ValueError(pattern[at:])
        return found.end()
    depth = 0
    while at < len(pattern):
        depth += {"[": 1, "]": -1}.get(pattern[at], 0)
        at += 2 if pattern[at] == "\\" else 1
        if depth == 0:
            return at
    raise ValueError(pattern)


def _repeats(pattern: str, at: int) -> tuple[int, bool]:
    """Return where what says how often an atom comes ends, and whether that is without end."""
    endless = False
    while (found := REPEAT.match(pattern, at)) is not None:
        most = found["most"] if found["comma"] else found["least"]
        endless |= found[0][0] in "*+" or (found[0][0] == "{" and (not most or int(most) > ENDLESS))
        at = found.end()
    return at, endless


def _takes(atom: str) -> frozenset[str]:
    """Return what a single character, or a set of them, can take: "white" space, "other" text, both or neither."""
    if atom in ANCHORS:
        return frozenset()
    try:
        remove = normalizers.Replace(tokenizers.Regex(atom), "")
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(atom) from error
    kinds = {"white": WHITE, "other": OTHER}
    return frozenset(kind for kind, samples in kinds.items() if remove.normalize_str(samples) != samples)
