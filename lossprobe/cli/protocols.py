"""Implements `lossprobe perplexity --protocol`: the numbers that other tools would print for a text."""

from __future__ import annotations

from pathlib import Path

from lossprobe.analysis.options import LoggedOptions
from lossprobe.cli.options import Outputs, Scoring
from lossprobe.cli.order import check_order
from lossprobe.cli.present import present
from lossprobe.cli.progress import show_progress
from lossprobe.cli.sources import (
    check_output,
    load_checkpoint,
    read_text,
    say_notices,
    say_scored,
)
from lossprobe.errors import UsageError


def show_protocols(
    protocol: str, sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, logged: LoggedOptions
) -> None:
    """Score a text by the protocol of a tool, or of every tool, and show the numbers that they would print.

    Raises:
        UsageError: no checkpoint and text are given (a stored run has its own windows), `-o` is given with `all`, or
            `--plot` with a single protocol.
        LossprobeError: scoring fails.
    """
    if len(sources) < 2:
        raise UsageError(
            "protocol.sources",
            f"--protocol {protocol}: a stored run has its own windows",
            hint="name the checkpoint and the text: they are scored with the windows of the protocol",
        )
    show = _show_all if protocol == "all" else _show_one
    show(protocol, sources, outputs, scoring, logged)


def _show_one(
    protocol: str, sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, logged: LoggedOptions
) -> None:
    from lossprobe.analysis.protocols.protocols import logged_options, measure_protocol
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.passes.known_text import KeptTokens
    from lossprobe.passes.protocols import score_as_tool
    from lossprobe.report.views.protocols import protocol_view

    if outputs.plot is not None:
        raise UsageError("protocol.plot", f"--plot: only with --protocol all, not with {protocol}")
    logged_options(protocol, logged)
    check_order(sources[:1], sources[1:], scoring)
    check_output(sources[0], scoring.output)
    source = read_text(sources[1:], scoring, tokens=KeptTokens())
    checkpoint = load_checkpoint(sources[0], scoring, Opener())
    with show_progress(f"scoring {source.name}", quiet=scoring.quiet) as progress:
        scored = score_as_tool(
            protocol, checkpoint, source, scoring.score,
            output=scoring.output, overwrite=scoring.overwrite, progress=progress,
        )  # fmt: skip
    say_scored(scored, checkpoint, source, scoring)
    result = measure_protocol(scored.run, protocol, logged)
    present(protocol_view(scored.run, result, source.files), outputs)


def _show_all(
    protocol: str, sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, logged: LoggedOptions
) -> None:
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.passes.known_text import KeptTokens
    from lossprobe.passes.protocols import score_all_protocols
    from lossprobe.report.views.protocols import protocols_view

    if scoring.output is not None:
        from lossprobe.run.shown import shown_run

        shown = shown_run(scoring.output)
        raise UsageError("output.several_runs", f"-o {shown}: one place for the runs of --protocol {protocol}")
    check_order(sources[:1], sources[1:], scoring)
    check_output(sources[0], scoring.output)
    source = read_text(sources[1:], scoring, tokens=KeptTokens())
    checkpoint = load_checkpoint(sources[0], scoring, Opener())
    with show_progress(f"scoring {source.name}", quiet=scoring.quiet) as progress:
        run, result = score_all_protocols(checkpoint, source, scoring.score, progress, logged)
    say_notices(checkpoint, source, scoring)
    present(protocols_view(run, result), outputs)
