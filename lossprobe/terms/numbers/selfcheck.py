"""How far a loss moves when what should not matter changes: the numbers of `selfcheck`."""

from __future__ import annotations

from lossprobe.terms.term import number

NUMBERS = (
    number(
        "largest_nats",
        "The largest change of any token's loss when a setting is changed.",
        unit="nats",
        how_to_read="Of settings that must not matter it stays below largest_limit_nats (10⁻³ in float32, 0.5 in half "
        "precision), and the mean change below limit_nats (10⁻⁵, 5·10⁻³); else the invariant is broken: exit code 10.",
        command="lossprobe selfcheck MODEL TEXT",
        aliases=("limit_nats", "largest_limit_nats"),
    ),
)
