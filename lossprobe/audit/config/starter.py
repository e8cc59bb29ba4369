"""Writes a commented audit file to start from, for `lossprobe audit init`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lossprobe.audit.config.schema import NAME
from lossprobe.errors import UsageError
from lossprobe.units import visible

BASELINE = "lossprobe-baseline"
HEAD = """\
# The checks that `lossprobe audit` runs on a checkpoint. Paths are relative to the folder of this file.
# `lossprobe audit --print-config` shows every setting, and where its value comes from.
schema = 1

[model]
checkpoint = {checkpoint}
# tokenizer = "tokenizer.json"   # needed if the checkpoint has none
# device = "auto"                # default: cpu; auto: a GPU if there is one
# dtype = "auto"                 # default: float32; auto: as the weights are stored

# The model that this one was made from, for checks of the distance from it (mean_kl_nats, same_top_share).
# [reference]
# checkpoint = "base-model"

[eval]
# context = 256                  # most input tokens of a window; default: the model's limit
# stride = 128                   # new tokens scored by each window; default: windows do not overlap
"""
DATA = """
# A text that the model was not trained on. Checks refer to it by its name.
[data.{name}]
path = {path}
# sha256 = "…"                   # sha256 of the file; a file that has changed is refused
"""
REST = """
# Stored losses of an earlier model, from which changes are measured. Make them with `lossprobe baseline update`, and
# commit the folder.
[baseline]
path = "{baseline}"
missing = "error"                # if there is no baseline: error, warn (checks are inconclusive) or create

[stats]
confidence = 0.95                # confidence level of the intervals that decide
seed = 0                         # seed of the order of documents, with stop_early
stop_early = false               # true: score documents in random order, and stop once every check is decided
"""
CHECKS = """
# The loss may rise by at most 0.01 nats per token, which is 1 % of perplexity.
# A check passes or fails if its whole interval lies on one side of the limit. If the interval contains the limit, the
# check is inconclusive, which only warns; with inconclusive = "fail" the audit fails.
[[check]]
id = "no-regression{suffix}"
data = "{name}"
metric = "nll"
max_increase = 0.01

# The model must not become overconfident: confidence minus accuracy may rise by at most 0.01.
[[check]]
id = "no-overconfidence{suffix}"
data = "{name}"
metric = "confidence_gap"
max_increase = 0.01

# The share of tokens with a loss above 10 nats (a probability below 0.005 %) may rise by at most 1 in 1,000.
[[check]]
id = "no-new-disasters{suffix}"
data = "{name}"
metric = "share_above"
nats = 10.0
max_increase = 0.001

# A limit that needs no baseline. Remove the leading # and set it to what the model reaches.
# [[check]]
# id = "good-enough{suffix}"
# data = "{name}"
# metric = "perplexity"
# max = 20.0
"""


def starting_file(checkpoint: Path, texts: Sequence[Path], folder: Path) -> str:
    """Return the text of a commented audit file for a checkpoint and at least one text, to be saved in `folder`.

    Paths below `folder` or below its parent are written relative to it, all others as absolute paths.

    Raises:
        UsageError: no text, standard input, or a name that TOML cannot hold.
    """
    if not texts:
        raise UsageError("audit.no_data", "no text: an audit needs at least one")
    names = _text_names(texts)
    parts = [HEAD.format(checkpoint=_path_literal(checkpoint, folder))]
    parts += [DATA.format(name=name, path=_path_literal(text, folder)) for name, text in zip(names, texts, strict=True)]
    parts.append(REST.format(baseline=BASELINE))
    for name in names:
        parts.append(CHECKS.format(name=name, suffix="" if len(names) == 1 else f"-{name}"))
    return "".join(parts)


def toml_string(text: str) -> str:
    r"""Return a text as a TOML string on one line, with unprintable characters escaped.

    Raises:
        UsageError: the text contains half a surrogate pair, as the name of a file does that is not UTF-8.

    >>> print(toml_string('a "b"\\\n'))
    "a \"b\"\\\u000A"
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("audit.path", f"{visible(text, 200)}: its name is not UTF-8, and TOML cannot hold it")
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _path_literal(path: Path, folder: Path) -> str:
    written = _relative(path, folder)
    if Path("-") in (path, written):
        raise UsageError("audit.path", "-: an audit needs a file or folder; standard input cannot be read twice")
    return toml_string(written.as_posix())


def _relative(path: Path, folder: Path) -> Path:
    """Return a path relative to the folder if it lies below it or below its parent, else the absolute path."""
    whole = _whole(path)
    base = _whole(folder)
    if whole.is_relative_to(base):
        return whole.relative_to(base)
    real = folder.resolve()  # the system follows a link before it goes up from it
    beside = real.parent
    if beside != Path(beside.anchor) and whole.is_relative_to(beside):
        return Path("..") / whole.relative_to(beside)
    return whole


def _whole(path: Path) -> Path:
    """Return the absolute path; links are resolved only if the path contains `..`, which may go up through a link."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _text_names(texts: Sequence[Path]) -> list[str]:
    """Return a different name for each text, made of its file's name, that needs no quotes in a TOML header."""
    names: list[str] = []
    for text in texts:
        stem = re.sub(r"\.(gz|jsonl|ndjson|txt|md|text)\b", "", text.name, flags=re.IGNORECASE)
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60] or "text"
        name, number = plain, 2
        while name.lower() in (known.lower() for known in names):
            name, number = f"{plain}-{number}", number + 1
        assert re.fullmatch(NAME.pattern, name), name
        names.append(name)
    return names
