"""The command `lossprobe inspect`."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.adapters import adapter_option, on_named_base
from lossprobe.cli.options import declared_option, json_option
from lossprobe.cli.wording import with_options
from lossprobe.errors import CheckpointError
from lossprobe.report.chat_template import told_template
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.interface import Checkpoint

LABEL = 16  # characters of a label

HEADS = {
    "linear": "body and head split exactly: the head is one matrix, run on chunks of rows",
    "model": "body and head split exactly: the model's own head code (scaled or soft-capped logits) on chunks of rows",
    "streamed": "in another program, which sends the logits of a window in chunks of rows",
    "full": "body and head cannot be told apart: full forward passes, which hold all logits of a batch",
}

BATCHES = {
    "padded": "windows of any length together, the shorter ones padded",
    "equal lengths": "only windows of equal length together",
    "one window": "each window alone",
}


@click.command(short_help="Show the family, sizes, tokenizer and hashes of a checkpoint.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@declared_option("dtype", LoadOptions)
@declared_option("tokenizer", LoadOptions)
@declared_option("ignore_config", LoadOptions)
@declared_option("chat_template", LoadOptions)
@declared_option("base", LoadOptions)
@declared_option("merge", LoadOptions)
@adapter_option
@declared_option("dequantize", LoadOptions)
@json_option
def inspect(as_json: bool, **choices: Any) -> None:
    """Show what a checkpoint is: family, sizes, hashes, tokenizer, BOS rule, chat template, and how its head is run.

    Of an adapter also: kind, rank, scaling, what it changes, and the base that is used.

    \b
    Example:
      lossprobe inspect my-model
    """
    from lossprobe.checkpoint.detect import open_checkpoint

    given = {name: choices.pop(name) for name in ("checkpoint", "adapter")}
    options = on_named_base(given, LoadOptions(**choices))
    opened = open_checkpoint(given["checkpoint"], options)
    facts = asdict(opened.facts)
    del facts["hashes"]
    facts["notices"] = [with_options(notice) for notice in opened.facts.notices]
    words = opened.tokenizer
    facts["tokenizer"] = {
        "kind": words.kind, "sha256": words.sha256, "bos_id": words.bos_id, "adds_bos": words.adds_bos,
    }  # fmt: skip
    facts["chat_template"] = _template(opened)
    if as_json:
        click.echo(json.dumps(facts, indent=1, allow_nan=False))
        return
    for name, value in _described(facts).items():
        click.echo(_wrapped(name, value))
    for notice in facts["notices"]:
        click.echo(f"notice: {notice}", err=True)


def _template(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return what the chat template of a checkpoint does; None without one. A faulty one has the key "error"."""
    from lossprobe.checkpoint.interface import ChatTokenizer
    from lossprobe.checkpoint.templates.renderer import Renderer

    tokenizer = checkpoint.tokenizer
    if not isinstance(tokenizer, ChatTokenizer) or tokenizer.chat_template is None:
        return None
    template = tokenizer.chat_template
    about = {"origin": template.origin, "sha256": template.sha256, "for_tools": bool(template.tool_source)}
    try:
        return about | asdict(Renderer(template, checkpoint.facts.name).behaviour())
    except CheckpointError as error:
        return {"error": with_options(error.message)}


def _routers(router: dict[str, Any]) -> str:
    chosen = f"{router['layers']} layers, {router['experts_per_token']} of {router['experts']} experts per token"
    if not router["measured"]:
        chosen = "load-balancing loss not measured"
    coefficient = router["coefficient"]
    return chosen if coefficient is None else f"{chosen}, load-balancing loss times {coefficient:g}"


def _adapter(adapter: dict[str, Any]) -> dict[str, str]:
    """Return what an adapter is as label → text."""
    how = "merged into the base's weights" if adapter["merged"] else "run beside the base's weights"
    recorded = adapter["recorded_base"]
    named = f" (adapter_config.json names {visible(recorded, 120)})" if recorded else " (the adapter names none)"
    return {
        "adapter": f"{adapter['kind']} of rank {adapter['rank']}, scaling {adapter['scaling']}, "
        f"{adapter['parameters']:,} parameters, {how}",
        "changes": adapter["targets"] or "no matrix",
        **({"replaces": adapter["replaced"]} if adapter["replaced"] else {}),
        "base": f"{visible(adapter['base'], 120)}{named}",
    }


def _quantised(facts: dict[str, Any]) -> str:
    return "quantised" if facts["adapter"] is None else "base quantised"


def _described(facts: dict[str, Any]) -> dict[str, str]:
    """Return the facts of a checkpoint as label → text, in the order in which they are printed."""
    words = facts["tokenizer"]
    bos = words["bos_id"]
    unknown = "unknown"
    return {
        "name": facts["name"],
        "family": f"{facts['family']} (configuration from {facts['config_from']})",
        "parameters": f"{facts['parameters']:,}" if facts["parameters"] is not None else unknown,
        "vocabulary": f"{facts['vocab_size']:,} entries",
        "context length": _context(facts["context_length"], hard=facts["hard_limit"]),
        "dtype": f"stored {facts['stored_dtype']}, computed in {facts['compute_dtype']}",
        **({} if facts["adapter"] is None else _adapter(facts["adapter"])),
        **({} if facts["quantization"] is None else {_quantised(facts): facts["quantization"]}),
        **({} if facts["router"] is None else {"routers": _routers(facts["router"])}),
        "tied head": {True: "yes", False: "no", None: unknown}[facts["tied"]],
        "head": HEADS[facts["head"]],
        "kernels": facts["kernels"],
        "batches": BATCHES[facts["batching"]],
        "tokenizer": words["kind"],
        "BOS": "none"
        if bos is None
        else f"id {bos}, {'added by the tokenizer itself' if words['adds_bos'] else 'not added by the tokenizer'}",
        "chat template": told_template(facts["chat_template"]),
        "weights sha256": facts["sha256"],
        "tokenizer hash": words["sha256"],
    }


def _wrapped(name: str, value: str) -> str:
    """Return a label and its text: on a terminal as lines that fit it, in a pipe as one line."""
    width = max(shutil.get_terminal_size((10_000, 24)).columns, LABEL + 64)  # a hash has 64 characters
    lines = textwrap.wrap(value, width - LABEL, break_long_words=False, break_on_hyphens=False)
    return f"{name:<{LABEL}}" + f"\n{'':<{LABEL}}".join(lines)


def _context(length: int | None, *, hard: bool) -> str:
    if length is None:
        return "no limit"
    return f"{length:,} tokens{'' if hard else ', no hard limit'}"
