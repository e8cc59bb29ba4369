"""Gives the checkpoints of several runs distinct names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lossprobe.run.reader import Run


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """Return distinct names of the checkpoints: equal names get their folders and, if these are equal too, a number."""
    names = names_with_folders(runs)
    total = Counter(names)
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        if total[name] > 1:
            seen[name] += 1
            names[index] = f"{name} #{seen[name]}"
    return names


def names_with_folders(runs: Sequence[Run]) -> list[str]:
    """Return the names of the checkpoints; equal names get as many of their folders as make them differ.

    Two checkpoints called final_model.pt become a/final_model.pt and b/final_model.pt. Runs of one checkpoint, and
    runs that do not say where theirs was, keep its name alone.
    """
    folders = [_folders(run) for run in runs]
    return [
        "/".join([*_shortest(own, [other for each, other in zip(runs, folders, strict=True) if each.name == run.name]),
                  run.name])
        for run, own in zip(runs, folders, strict=True)
    ]  # fmt: skip


def _folders(run: Run) -> tuple[str, ...]:
    """Return the folder names of the path of a run's checkpoint, innermost last; empty if the path is unknown."""
    place = place_of(run)
    return () if place is None else place.parent.parts[1:]  # without the root


def place_of(run: Run) -> Path | None:
    """Return the path of the checkpoint of a run when it was scored, as far as its files say; else None."""
    places = [place for file in map(Path, run.inputs) for place in (file, *file.parents)]
    return next((place for place in places if place.name == run.name), None)


def _shortest(own: tuple[str, ...], group: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return for each path the fewest of its last folders that tell the group apart."""
    places = set(group)
    if () in places:
        return ()
    depth = 0
    while len({_last(place, depth) for place in places}) < len(places):
        depth += 1
    return _last(own, depth)


def _last(parts: tuple[str, ...], count: int) -> tuple[str, ...]:
    return parts[max(len(parts) - count, 0) :]
