"""Which recipe gives a logged number: the numbers of `reconcile`."""

from __future__ import annotations

from lossprobe.terms.term import number

COMMAND = "lossprobe reconcile MODEL TEXT --logged 3.768"

NUMBERS = (
    number(
        "departures",
        "How far a recipe is from what a program does by itself: 0 for its defaults, 1 or 2 for each setting that "
        "differs.",
        how_to_read="It orders the recipes that agree, the most plausible first. It is a count, no probability.",
        command=COMMAND,
    ),
    number(
        "by_chance",
        "How many other values of recipes with as few departures would agree with the logged number by chance.",
        formula="n·w / 2r, for n values within ±r of the number and a band of width w",
        unit="values",
        how_to_read="Below 0.1 the agreement is hardly chance. Above 1 it says nothing: log more digits. In JSON, "
        "chance is the same among all values tried.",
        source="Loftsgaarden and Quesenberry 1965, the nearest-neighbour estimate of a density",
        command=COMMAND,
        aliases=("chance",),
    ),
    number(
        "tried",
        "The different numbers that the recipes tried give.",
        unit="values",
        how_to_read="Many recipes give one number, such as all sizes of batches with a single row: it counts once. "
        "recipes counts all of them, agreeing the values that agree.",
        command=COMMAND,
        aliases=("agreeing", "recipes"),
    ),
)
