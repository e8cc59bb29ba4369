"""Which runs may stand side by side: those that scored the same tokens of the same text under the same windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lossprobe.errors import NotComparableError
from lossprobe.units import visible

Settings = Mapping[str, Mapping[str, Any]]


class Described(Protocol):
    """A run, or one that is not scored yet but whose settings are known."""

    @property
    def name(self) -> str:
        """The checkpoint's name."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What says under "settings" how the text was or will be scored."""


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


def differing(first: Described, second: Described) -> list[str]:
    """Return in what two runs differ that makes their numbers incomparable, for people."""
    return differing_settings(first.manifest["settings"], second.manifest["settings"], IDENTITY)


def differing_settings(first: Settings, second: Settings, identity: Mapping[tuple[str, str], str]) -> list[str]:
    """Return in what two runs' settings differ, for people; `identity` says what to look at and how to call it."""
    found = ((words, _setting(first, *key), _setting(second, *key)) for key, words in identity.items())
    return [f"{words} ({_shown(one)} and {_shown(other)})" for words, one, other in found if one != other]


def refuse_different(runs: Sequence[Described]) -> None:
    """Refuse runs that differ in text, tokenizer, windows or BOS.

    Raises:
        NotComparableError: the message names the runs and the difference.
    """
    for run in runs[1:]:
        found = differing(runs[0], run)
        if found:
            names = f"{visible(runs[0].name, 80)} and {visible(run.name, 80)}"
            raise NotComparableError(
                "runs.different",
                f"{names} differ in {', '.join(found)}",
                hint=_what_helps(runs[0], run),
            )


def _what_helps(first: Described, second: Described) -> str:
    """Return what to do about runs that differ: looking anyway helps only where both have the same text and tokens."""
    one, other = (_setting(run.manifest["settings"], "text", "sha256") for run in (first, second))
    if one != other:
        return "score both with the same text and options"
    if not same_tokenizer(first, second):
        return "lossprobe compare takes models with different tokenizers"
    contexts = [_setting(run.manifest["settings"], "windows", "context") for run in (first, second)]
    same = "the same options" if contexts[0] == contexts[1] else f"`context` {min(contexts)}"
    return f"score both with {same}, or look anyway with `allow_different`"


def same_tokens(runs: Sequence[Described]) -> bool:
    """Return whether the rows of all runs are the same tokens in the same order, so that losses can be paired."""
    keys = [name for name, words in IDENTITY.items() if words in PAIRED]
    settings = [run.manifest["settings"] for run in runs]
    return all(_setting(other, *key) == _setting(settings[0], *key) for other in settings[1:] for key in keys)


def same_tokenizer(first: Described, second: Described) -> bool:
    """Return whether two runs tokenized alike, so that their windows and BOS can be compared."""
    one, other = (_setting(run.manifest["settings"], "tokenizer", "sha256") for run in (first, second))
    return bool(one == other)


def _setting(settings: Settings, group: str, key: str) -> Any:
    return settings.get(group, {}).get(key, ABSENT.get((group, key)))


def _shown(value: Any) -> str:
    return visible(str(value), 12)
