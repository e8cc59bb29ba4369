"""What a run will be, known before a model is loaded: its settings, and the name they give it."""

from __future__ import annotations

import re
from dataclasses import asdict
from importlib import metadata
from typing import Any

from lossprobe import __version__
from lossprobe.checkpoint.interface import PADDED, Checkpoint
from lossprobe.passes.known_text import skipped_of, text_sha256
from lossprobe.plan.options import ScoreOptions
from lossprobe.plan.rows import WindowPolicy
from lossprobe.run.files import sha256_of_json
from lossprobe.run.identity import divide_facts
from lossprobe.text.documents import Source

# Goes up when a fault is mended that moved what a pass stores, so that no run with the fault is found and used again.
PASS_VERSION = "2"
DEPENDENCIES = ("numba", "torch", "transformers", "tokenizers")
UNSTORED = frozenset({"name", "notices", "files", "hashes"})  # facts that decide no number


def describe(checkpoint: Checkpoint, source: Source, policy: WindowPolicy, options: ScoreOptions) -> dict[str, Any]:
    """Return the identity of a run; see `run.identity`."""
    facts, _ = divided_facts(checkpoint)
    if facts["batching"] == PADDED:  # as every run was scored before there was another way
        del facts["batching"]
    tokenizer = checkpoint.tokenizer
    text = {"sha256": text_sha256(source), "kept": options.keep_text}
    if skipped := skipped_of(source):  # the same documents without bad ones beside them are another run
        text["skipped"] = skipped
    return {
        "checkpoint": facts,
        "tokenizer": {"kind": tokenizer.kind, "sha256": tokenizer.sha256},
        "text": text,
        "windows": asdict(policy),
        "versions": versions(),
    }


def measured_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was measured when a checkpoint was opened; see `run.identity`."""
    return divided_facts(checkpoint)[1]


def divided_facts(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of a checkpoint that are stored: those of the identity, and those that were measured."""
    return divide_facts({key: value for key, value in asdict(checkpoint.facts).items() if key not in UNSTORED})


def versions() -> dict[str, str]:
    """Return the versions of what decides a run's numbers."""
    ours = {"lossprobe": __version__, "pass": PASS_VERSION}
    return ours | {name: metadata.version(name) for name in DEPENDENCIES}


def run_name(settings: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the directory name of a run: what it is, for people, and a hash of its settings."""
    words = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "-", label).strip("-.") or "x" for label in labels.values())
    return f"{words[:60]}-{sha256_of_json(settings)[:10]}"
