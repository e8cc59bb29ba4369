"""Says what a user probably meant who typed a command or an option that does not exist."""

from __future__ import annotations

from pathlib import Path

import click

AUDIT_FILE = (
    "an audit takes its checkpoint and texts from a file: lossprobe audit init CHECKPOINT TEXT writes it, "
    "lossprobe audit then runs it"
)
A_COMMAND_FIRST = "a command comes first, as in lossprobe tokens CHECKPOINT TEXT; lossprobe --help lists all commands"
# What is typed in the place of a command → the command that is meant, by the group that has it.
WORDS = {
    "lossprobe": {
        "perplexity": ("eval", "evaluate", "ppl", "bits", "bpb", "loss", "nll", "measure"),
        "score": ("run", "profile", "start", "analyze", "analyse"),
        "positions --plot": ("plot", "draw", "figure", "picture", "context"),
        "compare A B TEXT": ("diff", "vs", "difference", "delta"),
        "compare A B TEXT --kl": ("kl", "divergence"),
        "calibration": ("ece", "calibrate", "temperature", "confidence"),
        "defects": ("mojibake", "quality", "dedup", "duplicates", "secrets", "lint", "faults"),
        "hardest": ("worst", "top", "hard", "outliers"),
        "curve LOG": ("log", "logs", "training", "monitor", "tensorboard", "health", "trainer"),
        "gap": ("overfit", "overfitting", "memorised", "memorized"),
        "audit": ("gate", "test", "ci", "assert"),
        "audit init": ("init", "config"),
        "baseline update": ("update", "accept"),
        "inspect": ("info", "describe", "model"),
        "explain": ("help", "man", "what", "define"),
        "runs": ("list", "ls", "history"),
        "runs latest": ("latest", "use", "select"),
        "runs remove": ("remove", "delete", "rm", "clean"),
        "doctor": ("version", "versions", "env", "devices"),
    },
    "audit": {"audit": ("run", "check", "start", "now"), "audit init": ("new", "create", "setup", "config"),
              "baseline update": ("update", "baseline", "accept"), "audit --print-config": ("show", "print", "list")},
    "baseline": {"baseline update": ("create", "init", "new", "save", "write", "store", "set", "add", "accept"),
                 "baseline show": ("list", "ls", "info", "print"), "baseline check": ("verify", "validate", "test")},
    "runs": {"runs": ("list", "ls", "show", "all"), "runs latest": ("use", "set", "select", "switch", "choose"),
             "runs remove": ("delete", "rm", "del", "clean", "clear", "prune")},
}  # fmt: skip


def meant(error: click.UsageError, root: click.Group) -> str | None:
    """Return a hint for a command or an option that does not exist; None where nothing can be said.

    Args:
        error: what click raised.
        root: the command `lossprobe`.
    """
    if error.ctx is None:
        return None
    if isinstance(error, click.NoSuchOption):
        return _other_commands(error.option_name, error.ctx, root)
    word = getattr(error, "command_name", None)  # click before 8.4 does not say it
    group = "lossprobe" if error.ctx.command is root else error.ctx.command.name or ""
    return None if word is None else _command(str(word), group)


def _command(word: str, group: str) -> str | None:
    """Return what was meant by a word in the place of a command of a group."""
    names = WORDS.get(group, {})
    found = next((name for name, words in names.items() if word.lower().lstrip("-") in words), None)
    if found is not None:
        return f"did you mean lossprobe {found}?"
    is_path = Path(word).exists() or "/" in word
    if group == "audit" and is_path:
        return AUDIT_FILE
    return A_COMMAND_FIRST if group == "lossprobe" and is_path else None


def _other_commands(option: str, context: click.Context, root: click.Group) -> str | None:
    """Return which commands have an option that the command of the context lacks."""
    having = [
        name for name, command in root.commands.items()
        if any(option in (*each.opts, *each.secondary_opts) for each in command.params)
    ]  # fmt: skip
    if not having or context.command is root:
        return None
    listed = ", ".join(having[:-1]) + " and " + having[-1] if len(having) > 1 else having[0]
    return f"{option} is an option of {listed}"
