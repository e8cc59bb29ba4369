r"""Find rules of a tokenizer whose result can depend on text at any distance.

With such a rule a long document can get other tokens when it is tokenized in pieces (see `pieces`). Most kinds of
rules are bounded by what they do. A regular expression is unbounded if it repeats without limit something that matches
both white space and other characters, as in `<[^>]*>`: whether it matches can depend on a character at any distance.
If the repeat matches only one of the two (`\s+`, `\p{L}+`, `[^\s\p{N}]+`), or is the whole pattern (`[^\n]+`), the
match ends at the next character that it does not take.
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
ENDLESS = 1000  # a higher limit of repeats counts as no limit
WHITE, OTHER = " \n\t", "aZ\u00e9\u6f22" + "1.,<\"'-"
ANCHORS = frozenset({"^", "$", r"\A", r"\z", r"\Z", r"\b", r"\B", r"\G"})
OPEN = re.compile(r"\((?:\?(?:[ims]*-?[ims]*:|[=!>]|<[=!]|<\w+>))?(?!\?)")
OPTION = re.compile(r"\(\?[ims]*-?[ims]*\)")
ONE = re.compile(
    r"\\[pP]\{[^}]*\}|\\x\{[0-9A-Fa-f]+\}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|"  # by name or number
    r"\\[^0-9kgKRXxupP]|[^\\*+?(){|\[]",  # excluded: references to groups, openings and repeats
    re.DOTALL,
)
REPEAT = re.compile(r"[*+?][+?]?|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\}")


class Atom(NamedTuple):
    """A part of a regular expression: one character, a set of characters, or a group.

    Attributes:
        takes: the kinds of characters that it can match: "white" (white space), "other" (text).
        endless: whether it repeats without limit.
        group: whether it is a group of other parts.
    """

    takes: frozenset[str]
    endless: bool
    group: bool = False


def unbounded_rules(definition: dict[str, Any]) -> list[str]:
    """Return the types of the components of a tokenizer.json that are unbounded, sorted, each once."""
    parts = [part for key in ("normalizer", "pre_tokenizer") for part in _components(definition.get(key))]
    return sorted({str(part["type"]) for part in parts if not _is_local(part)})


def _components(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every component in a part of a tokenizer.json, nested ones included."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _components(value)


def _is_local(part: dict[str, Any]) -> bool:
    """Return whether the result of a component depends only on text nearby."""
    if part["type"] in LOCAL:
        return True
    if part["type"] not in WITH_PATTERN:
        return False
    pattern = part.get("pattern")
    if not isinstance(pattern, dict):
        return False
    return "String" in pattern or not is_unbounded(str(pattern.get("Regex", "")))


def is_unbounded(pattern: str) -> bool:
    r"""Return whether what a regular expression matches can depend on text at any distance.

    A pattern that this parser does not understand counts as unbounded.

    >>> [is_unbounded(pattern) for pattern in (r"\s+(?!\S)|\p{L}+", "<[^>]*>", r"[^\n]+|\n+", r"a(?=[\s\S]*b)")]
    [False, True, False, True]
    """
    try:
        return any(_is_unbounded_branch(branch) for branch in _branches(pattern))
    except ValueError:
        return True


def _is_unbounded_branch(branch: list[Atom]) -> bool:
    """Return whether a branch repeats without limit something that matches both white space and other text.

    A branch that is nothing but one such repeat is bounded.
    """
    alone = len(branch) == 1 and not branch[0].group
    return not alone and any(atom.endless and len(atom.takes) > 1 for atom in branch)


def _branches(pattern: str) -> list[list[Atom]]:
    """Return the atoms of each top-level alternative of a pattern; the atoms of a group stand before the group.

    Raises:
        ValueError: the pattern holds something that this parser does not understand.
    """
    branches: list[list[Atom]] = [[]]
    opened: list[int] = []  # index of the first atom of each group that is not closed yet
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
    """Return the index after the single character or the set of characters that starts at `at`."""
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
    """Return the index after the repeat marks that start at `at`, and whether they allow unlimited repeats."""
    endless = False
    while (found := REPEAT.match(pattern, at)) is not None:
        most = found["most"] if found["comma"] else found["least"]
        endless |= found[0][0] in "*+" or (found[0][0] == "{" and (not most or int(most) > ENDLESS))
        at = found.end()
    return at, endless


def _takes(atom: str) -> frozenset[str]:
    """Return the kinds of characters that a single character or a set matches: "white" space, "other" text.

    Raises:
        ValueError: the `tokenizers` library does not accept the expression.
    """
    if atom in ANCHORS:
        return frozenset()
    try:
        remove = normalizers.Replace(tokenizers.Regex(atom), "")
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(atom) from error
    kinds = {"white": WHITE, "other": OTHER}
    return frozenset(kind for kind, samples in kinds.items() if remove.normalize_str(samples) != samples)
