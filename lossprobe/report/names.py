"""Names of models, shortened so that they stay different, of their weights, and of the windows of a run."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

from rich.cells import cell_len

from lossprobe.plan.windows import Layout
from lossprobe.run.identity import measured_of
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

ELLIPSIS = "…"
CUT: dict[str, str] = {Layout.FIRST: "first", Layout.LAST: "last"}


def in_words(name: str, run: Run) -> str:
    """Return the name of a run's model, with how a quantiser stored its weights, or what an adapter is.

    "my-export in int8 (compressed-tensors, weights only)"; "my-lora (LoRA of rank 8 on my-model)". Of an adapter the
    weights that are stored so are those of its base, and its own words say it.
    """
    kind = kind_words(run)
    return f"{name} {kind if kind.startswith('in ') else f'({kind})'}" if kind else name


def kind_words(run: Run) -> str:
    """Return what the adapter of a run is, or how a quantiser stored its weights; "" for a model of neither kind."""
    model, adapter = run.settings.checkpoint, measured_of(run.manifest).get("adapter")
    if isinstance(adapter, dict):
        return visible(str(adapter.get("words")), 160)
    return "" if model.quantization is None else f"in {visible(str(model.stored_dtype), 60)}"


def windows_in_words(run: Run) -> str:
    """Return how windows lie over the documents of a run, such as "context 256" or "cut to the last 64 tokens".

    What is cut is named by the tokens that are left, of which the last is a target only: one more than the context; and
    by how many tokens were cut off. Where none was, documents are whole. A run of pairs says so if it has both sides.
    """
    sides = "both sides of each pair, " if run.settings.text.sides else ""
    return sides + _layout_in_words(run)


def _layout_in_words(run: Run) -> str:
    context, layout = run.context, run.settings.windows.layout
    if layout in CUT:
        cut_off = int(run.counts["unscored_tokens"].get("truncated", 0))
        kept = f"cut to the {CUT[layout]} {format_count(context + 1)} tokens ({format_count(cut_off)} cut off)"
        return kept if cut_off else "whole documents"
    return f"context {context}" if layout == Layout.ROLLING else f"context {context}, windows {layout}"


def short_names(names: list[str], width: int) -> list[str]:
    r"""Return the names, safe to show, each at most `width` cells wide and no two equal.

    A long name is cut in the middle, because checkpoints of one training often differ only at the end of their names.
    Names that are equal (or equal after the cut) get #1, #2, … at the end, in their order.

    Args:
        names: one for each model, in any order, with or without repetitions.
        width: most cells of a name, of which a wide character takes two; at least 8.

    >>> short_names(["a_very_long_name_000100000", "a_very_long_name_000200000", "b"], 20)
    ['a_very_lon…000100000', 'a_very_lon…000200000', 'b']
    >>> short_names(["run", "run", "x\n"], 20)
    ['run#1', 'run#2', 'x\\n']
    """
    shown = [_cut(name, width) for name in names]
    repeated = {name for name, count in Counter(shown).items() if count > 1}
    taken = set(shown)
    numbers: Counter[str] = Counter()
    for index, name in enumerate(shown):
        if name not in repeated:
            continue
        numbered = name
        while numbered in taken:  # a model may itself be called "run#1"
            numbers[name] += 1
            suffix = f"#{numbers[name]}"
            numbered = _cut(names[index], width - len(suffix)) + suffix
        taken.add(numbered)
        shown[index] = numbered
    return shown


def _cut(name: str, width: int) -> str:
    """Return a name, safe to show, without its middle if it is longer than `width`; no escape is split."""
    pieces = [visible(character) for character in name]
    if sum(map(cell_len, pieces)) <= width:
        return "".join(pieces)
    kept = width - len(ELLIPSIS)
    head = _leading(pieces, (kept + 1) // 2)
    tail = _leading(pieces[::-1], kept // 2)
    return "".join([*head, ELLIPSIS, *tail[::-1]])


def _leading(pieces: list[str], width: int) -> list[str]:
    """Return the first pieces that together fit into `width` cells."""
    return pieces[: sum(end <= width for end in accumulate(map(cell_len, pieces)))]
