"""Computes the settings and the name of a run before a model is loaded."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib import metadata
from typing import Any

from lossprobe import __version__
from lossprobe.checkpoint.interface import PADDED, Checkpoint, Tokenizer
from lossprobe.passes.known_text import kind_of, sides_of, skipped_of, text_sha256
from lossprobe.passes.planning import tokens_sha256
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.run.files import sha256_of_json
from lossprobe.run.identity import divide_facts
from lossprobe.run.texts import Vocabulary
from lossprobe.text.documents import Source
from lossprobe.text.examples import DataKind
from lossprobe.text.stage import Stage, no_stage

# Increase it when a fix changes stored numbers, so that runs with the fault are not reused.
PASS_VERSION = "2"
DEPENDENCIES = ("numba", "torch", "transformers", "tokenizers")
UNSTORED = frozenset({"name", "notices", "files", "hashes"})  # facts that do not change any number


@dataclass(frozen=True)
class PlannedRun:
    """What is known of a run before its text is scored.

    It holds the tokenizer, and with one that llama.cpp runs its model: keep it no longer than the checkpoint.

    Attributes:
        name: the checkpoint's name.
        manifest: its settings, as in the manifest of a stored run.
        source: the text.
        tokenizer: what cuts the text into tokens.
        policy: windows and BOS.
    """

    name: str
    manifest: dict[str, Any]
    source: Source = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    policy: WindowPolicy = field(repr=False)

    @cached_property
    def tokens_sha256(self) -> str:
        """The hash of the tokens of its text, as that of the run will be; the whole text is tokenized for it."""
        return tokens_sha256(self.source, self.tokenizer, self.policy)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The bytes of each token id."""
        ids = range(self.manifest["settings"]["checkpoint"]["vocab_size"])
        return Vocabulary({index: self.tokenizer.token_bytes(index) for index in ids}, self.tokenizer.special_ids)


def describe(
    checkpoint: Checkpoint,
    source: Source,
    policy: WindowPolicy,
    options: ScoreOptions,
    stage: Stage = no_stage,
) -> dict[str, Any]:
    """Return the identity of a run; see `run.identity`. `stage` is called with words for how much text was read."""
    text = {"sha256": text_sha256(source, stage), "kept": options.keep_text}
    if (kind := kind_of(source)) is not DataKind.TEXT:
        text["kind"] = kind.value
    if sides := sides_of(source):
        text["sides"] = sides
    if skipped := skipped_of(source):  # a run without bad records is another run than one that left some out
        text["skipped"] = skipped
    return {
        **describe_model(checkpoint),
        "text": text,
        "windows": asdict(policy),
        "versions": versions(),
    }


def describe_model(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the part of a run's identity that the checkpoint alone decides."""
    facts, _ = divided_facts(checkpoint)
    if facts["batching"] == PADDED:  # left out, since older runs, all scored this way, do not have it
        del facts["batching"]
    for key in ("router", "quantization"):  # left out for models without them, as in older runs
        if facts[key] is None:
            del facts[key]
    tokenizer = checkpoint.tokenizer
    return {"checkpoint": facts, "tokenizer": {"kind": tokenizer.kind, "sha256": tokenizer.sha256}}


def measured_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was measured when a checkpoint was opened; see `run.identity`."""
    return divided_facts(checkpoint)[1]


def divided_facts(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the stored facts of a checkpoint: those of its identity, and those measured when it was opened."""
    return divide_facts({key: value for key, value in asdict(checkpoint.facts).items() if key not in UNSTORED})


def versions() -> dict[str, str]:
    """Return the versions of lossprobe and of the libraries that a run's numbers depend on."""
    ours = {"lossprobe": __version__, "pass": PASS_VERSION}
    return ours | {name: version_of(name) for name in DEPENDENCIES}


@cache
def version_of(name: str) -> str:
    """Return the version of an installed library; its files are read once a process, which takes a millisecond."""
    return metadata.version(name)


def run_name(settings: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the directory name of a run: checkpoint and text for people, and a hash of its settings."""
    words = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.") or "x" for label in labels.values())
    return f"{words[:60]}-{sha256_of_json(settings)[:10]}"
