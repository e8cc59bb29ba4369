"""Which runs may stand side by side: those that scored the same tokens of the same text under the same windows.

Tokens are the same where the tokenizers' files are, and also where two tokenizers made the same of this text: equal
ids, each over the same bytes. So a model and its export in another format, or with vocabulary entries added that the
text does not use, are compared token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lossprobe.errors import NotComparableError
from lossprobe.run.texts import Vocabulary
from lossprobe.units import format_count, plural, visible, visible_bytes

Settings = Mapping[str, Mapping[str, Any]]


class Described(Protocol):
    """A run, or one that is not scored yet but whose settings are known."""

    @property
    def name(self) -> str:
        """The checkpoint's name."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What says under "settings" how the text was or will be scored."""

    @property
    def tokens_sha256(self) -> str:
        """The hash of the tokens of its text; "" where it is not known."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The bytes of each token id."""


# What must be equal, and what a reader calls it.
IDENTITY = {
    ("text", "sha256"): "text",
    ("tokenizer", "sha256"): "tokenizer",
    ("windows", "context"): "context",
    ("windows", "stride"): "stride",
    ("windows", "layout"): "layout of the windows",
    ("windows", "bos_id"): "BOS",
    ("windows", "own_bos_id"): "second BOS",
    ("windows", "score_unknown"): "unknown tokens",
}
ABSENT = {("windows", "layout"): "rolling"}  # of runs that were stored before there were others
DTYPE = {("checkpoint", "compute_dtype"): "dtype"}  # moves losses by up to 0.4 nats: a change of the model it is not
BATCHING = {("checkpoint", "batching"): "batching"}  # of one family: one of them was scored before it was known
PAIRED = ("text", "tokenizer", "BOS", "second BOS")  # what must be equal for the rows of two runs to be the same tokens
TOKENIZER = ("tokenizer", "sha256")


def differing(first: Described, second: Described, identity: Mapping[tuple[str, str], str] = IDENTITY) -> list[str]:
    """Return in what two runs differ that makes their numbers incomparable, for people.

    Tokenizers differ only where they make other tokens of the text; see `tokenized_alike`.

    Args:
        first: a run.
        second: the other run.
        identity: what to look at, and how to call it.
    """
    one, other = (run.manifest["settings"] for run in (first, second))
    pairs = ((key, words, _setting(one, *key), _setting(other, *key)) for key, words in identity.items())
    return [
        f"{words} ({_shown(here)} and {_shown(there)})"
        for key, words, here, there in pairs
        if here != there and not (key == TOKENIZER and tokenized_alike(first, second))
    ]


def refuse_different(runs: Sequence[Described]) -> None:
    """Refuse runs that differ in text, tokenizer, windows or BOS.

    Raises:
        NotComparableError: the message names the runs and the difference.
    """
    for run in runs[1:]:
        found = differing(runs[0], run)
        if found:
            raise NotComparableError(
                "runs.different",
                f"{_both(runs[0], run)} differ in {', '.join(found)}",
                hint=_what_helps(runs[0], run),
            )


def _both(first: Described, second: Described) -> str:
    """Return the names of two runs: of their checkpoints, and of their texts where those are one."""
    texts = [run.manifest.get("labels", {}).get("text", "") for run in (first, second)]
    if first.name == second.name and texts[0] != texts[1]:
        return " and ".join(f"{visible(first.name, 80)} on {visible(text, 80)}" for text in texts)
    return f"{visible(first.name, 80)} and {visible(second.name, 80)}"


def _what_helps(first: Described, second: Described) -> str:
    """Return what to do about runs that differ: looking anyway helps only where both have the same text and tokens."""
    if not _equal(first, second, "text", "sha256"):
        return "score both with the same text and options"
    if not tokenized_alike(first, second):
        return "lossprobe compare takes models with different tokenizers"
    contexts = [_setting(run.manifest["settings"], "windows", "context") for run in (first, second)]
    same = "the same options" if contexts[0] == contexts[1] else f"`context` {min(contexts)}"
    if not _equal(first, second, "windows", "bos_id"):
        same = f"`bos` always or never and {same}" if contexts[0] != contexts[1] else "`bos` always or never"
    return f"score both with {same}; compare and calibration look anyway with `allow_different`"


def same_tokens(runs: Sequence[Described]) -> bool:
    """Return whether the rows of all runs are the same tokens in the same order, so that losses can be paired."""
    keys = {key: words for key, words in IDENTITY.items() if words in PAIRED}
    return all(not differing(runs[0], run, keys) for run in runs[1:])


def tokenized_alike(first: Described, second: Described) -> bool:
    """Return whether two runs have the same tokens of one text, by the tokenizers' files or else by the tokens.

    Without one text they do if the files are the same.
    """
    if _equal(first, second, *TOKENIZER):
        return True
    counts = [run.manifest.get("counts", {}).get("tokens") for run in (first, second)]
    known = None not in counts and _equal(first, second, "windows", "bos_id")
    if not _equal(first, second, "text", "sha256") or (known and counts[0] != counts[1]):
        return False  # told without reading the tokens
    return first.tokens_sha256 != "" and first.tokens_sha256 == second.tokens_sha256


def tokenizer_note(first: Described, second: Described) -> str | None:
    """Return what to say of two runs with the same tokens whose tokenizers' files differ; None where they do not."""
    if _equal(first, second, *TOKENIZER):
        return None
    one, other = (_shown(_setting(run.manifest["settings"], *TOKENIZER)) for run in (first, second))
    return f"the tokenizers' files differ ({one} and {other}), but every token of this text is the same, id and bytes"


def refuse_other_vocabulary(first: Described, second: Described) -> None:
    """Refuse models whose distributions are over entries of other meaning, for what compares whole distributions.

    They must have the same tokens of the text, and each id that stands for text in both the same bytes. One of them may
    have more ids, such as padding.

    Raises:
        NotComparableError: the message says what differs.
    """
    names = _both(first, second)
    paired = {key: words for key, words in IDENTITY.items() if words in PAIRED}
    found = differing(first, second, paired)
    if found:
        raise NotComparableError(
            "runs.different",
            f"{names} differ in {', '.join(found)}: a divergence needs the same tokens",
            hint="compare their losses, without `kl`",
        )
    if _equal(first, second, *TOKENIZER):
        return
    one, other = first.vocabulary, second.vocabulary
    special = one.special | other.special
    wrong = [
        index
        for index, data in one.entries.items()
        if data and other.entries.get(index) and index not in special and data != other.entries[index]
    ]
    if wrong:
        shown = " and ".join(visible_bytes(each.entries[wrong[0]]) for each in (one, other))
        raise NotComparableError(
            "runs.different_vocabulary",
            f"{names}: {plural(len(wrong), 'id')} {'stands' if len(wrong) == 1 else 'stand'} for other text, such as "
            f"id {format_count(wrong[0])} for {shown}: a divergence needs the same vocabulary",
            hint="compare their losses, without `kl`",
        )


def _equal(first: Described, second: Described, group: str, key: str) -> bool:
    one, other = (_setting(run.manifest["settings"], group, key) for run in (first, second))
    return bool(one == other)


def _setting(settings: Settings, group: str, key: str) -> Any:
    return settings.get(group, {}).get(key, ABSENT.get((group, key)))


def _shown(value: Any) -> str:
    return visible(str(value), 12)
