"""Draws the picture of `lossprobe perplexity --protocol all`."""

from __future__ import annotations

from matplotlib.figure import Figure

from lossprobe.analysis.protocols.table import OWN, ProtocolTable
from lossprobe.report.style import BLUE, VERMILION, heading, label, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import format_count


def plot_protocols(run: Run, result: ProtocolTable) -> Figure:
    """Return a figure of the mean loss under each protocol, labelled with its number of tokens and mean context."""
    known = result.table.dropna(subset=["nats_per_token"]).reset_index(drop=True)
    figure = new_figure(9, 1.6 + 0.32 * len(known))
    axes = figure.subplots()
    base = float(known["nats_per_token"].iloc[0])
    axes.axvline(base, color=VERMILION, linestyle="--", linewidth=1.2)
    for row, (loss, protocol) in enumerate(zip(known["nats_per_token"], known["protocol"], strict=True)):
        axes.plot([base, loss], [row, row], color=BLUE, linewidth=1.6)
        axes.plot([loss], [row], "s" if protocol == OWN else "o", color=VERMILION if protocol == OWN else BLUE)
    names = [
        f"{protocol}\n{format_count(int(count))} tokens, context {context:,.0f}"
        for protocol, count, context in zip(
            known["protocol"], known["tokens_scored"], known["mean_context"], strict=True
        )
    ]
    axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    title = f"{heading(run)}: the same model and text under each tool's protocol"
    label(axes, "mean loss of the tokens it scores (nats per token); the dashed line is the default's", "", title)
    axes.grid(visible=False, axis="y")
    return figure
