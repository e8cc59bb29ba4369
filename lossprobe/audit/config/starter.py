"""A commented audit file to start from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lossprobe.audit.config.schema import NAME
from lossprobe.errors import UsageError
from lossprobe.units import visible

BASELINE = "lossprobe-baseline"
HEAD = """\
# What `lossprobe audit` holds a checkpoint to. Paths are relative to the folder of this file.
# `lossprobe audit --print-config` shows every setting, and where its value comes from.
schema = 1

[model]
checkpoint = {checkpoint}
# tokenizer = "tokenizer.json"   # where the checkpoint has none
# device = "auto"                # cpu, unless said otherwise
# dtype = "auto"                 # float32, unless said otherwise; auto: as the weights are stored

[eval]
# context = 256                  # most tokens that a window shows the model; the model's own limit otherwise
# stride = 128                   # new tokens per window; windows do not overlap otherwise
"""
DATA = """
# A text that the model was not trained on. Checks call it by its name.
[data.{name}]
path = {path}
# sha256 = "…"                   # of the file: a text that changed is then refused
"""
REST = """
# What changes are measured from. Make it with `lossprobe baseline update`, and commit the folder.
[baseline]
path = "{baseline}"
missing = "error"                # without a baseline: error, warn (checks are inconclusive) or create

[stats]
confidence = 0.95                # of the intervals that decide
seed = 0                         # of the order of documents, with stop_early
stop_early = false               # true: score documents in random order, and end once every check is decided
"""
CHECKS = """
# The loss must not rise: by 0.01 nats per token at the most, which is 1 % of perplexity.
# A check passes or fails when the whole interval lies on one side of the limit. On both sides, it is inconclusive,
# which only warns; inconclusive = "fail" is stricter.
[[check]]
id = "no-regression{suffix}"
data = "{name}"
metric = "nll"
max_increase = 0.01

# The model must not become surer of itself than it is right: confidence minus accuracy, by a hundredth at the most.
[[check]]
id = "no-overconfidence{suffix}"
data = "{name}"
metric = "confidence_gap"
max_increase = 0.01

# No new disasters: tokens that cost more than 10 nats (a probability below 0.005 %), by 1 in 1,000 more at the most.
[[check]]
id = "no-new-disasters{suffix}"
data = "{name}"
metric = "share_above"
nats = 10.0
max_increase = 0.001

# A limit that no baseline moves. Take off the # and set it to what the model reaches.
# [[check]]
# id = "good-enough{suffix}"
# data = "{name}"
# metric = "perplexity"
# max = 20.0
"""


def starting_file(checkpoint: Path, texts: Sequence[Path], folder: Path) -> str:
    """Return a commented audit file for a checkpoint and at least one text, to stand in `folder`.

    Paths below or beside the folder are written relative to it, all others in full.

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
    r"""Return a text as a TOML string on one line, with everything that cannot be seen escaped.

    Raises:
        UsageError: it holds half a surrogate pair, as does the name of a file that is no UTF-8.

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
    """Return a path as seen from the folder, where it lies below it or beside it; else the whole path."""
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
    """Return the absolute path: with its links, unless it goes up through one."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _text_names(texts: Sequence[Path]) -> list[str]:
    """Return a name for each text: that of its file, in letters that a header needs no quotes for; no two alike."""
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
