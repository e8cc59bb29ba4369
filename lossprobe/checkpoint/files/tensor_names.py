"""Names of tensors without what wrappers put into them: torch.compile, DDP, FSDP, activation checkpoints, Lightning."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.units import visible

# No module is called so by anything but a wrapper, so these go wherever they stand.
WRAPPERS: Final = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module"}
)
LEADING: Final = WRAPPERS | {"module"}  # DDP's and DeepSpeed's: only at the start, of all names
HOLDERS: Final = ("base_model.model.", "model.")  # where peft and Lightning keep the model; also names of models' own


@dataclass(frozen=True)
class PlainNames:
    """Stored names and what they are without wrappers.

    Attributes:
        plain: stored name → plain name.
        removed: what was taken out, such as "module." (at the start) or "._fsdp_wrapped_module." (inside).
    """

    plain: Mapping[str, str]
    removed: tuple[str, ...]

    def notices(self) -> tuple[str, ...]:
        """Return the line that tells what was taken out, if anything was."""
        if not self.removed:
            return ()
        return (f"tensor names are read without {', '.join(self.removed)}, which a wrapper put there",)

    def without(self, holder: str) -> PlainNames:
        """Return these names without a start that all of them have."""
        plain = {stored: name.removeprefix(holder) for stored, name in self.plain.items()}
        return PlainNames(plain, (*self.removed, holder))


def plain_names(path: Path, stored: Iterable[str]) -> PlainNames:
    """Return tensor names without the parts that wrappers put into them.

    Args:
        path: the checkpoint that messages name.
        stored: the names as they are stored.

    Raises:
        CheckpointError: only some names start with a wrapper's part, or two become the same.
    """
    plain = {name: name for name in stored}
    removed: dict[str, None] = {}
    while True:
        starts = {name.partition(".")[0] for name in plain.values()}
        if len(starts) != 1 or not starts <= LEADING:
            break
        (start,) = starts
        removed[f"{start}."] = None
        plain = {name: short.partition(".")[2] for name, short in plain.items()}
    for start in sorted(starts & LEADING):
        some = [name for name in plain.values() if name.startswith(f"{start}.")]
        if some:
            what = f"{len(some)} of {len(plain)} tensor names start with {start}.: two models in one file?"
            raise refusal("checkpoint.mixed_names", path, what)
    for name, short in plain.items():
        parts = short.split(".")
        kept = [part for part in parts if part not in WRAPPERS]
        removed |= {f".{part}.": None for part in parts if part in WRAPPERS}
        plain[name] = ".".join(kept)
    first: dict[str, str] = {}
    for name, short in plain.items():
        if first.setdefault(short, name) != name:
            pair = listed([first[short], name])
            what = f"tensors {pair} are one without {', '.join(removed)}: two models in one file?"
            raise refusal("checkpoint.mixed_names", path, what)
    return PlainNames(plain, tuple(removed))


def holders_of(names: PlainNames) -> list[PlainNames]:
    """Return the names without each start that is common to all and can be where a program keeps its model."""
    return [
        names.without(holder) for holder in HOLDERS if all(name.startswith(holder) for name in names.plain.values())
    ]


def fitted_names(names: PlainNames, expected: Collection[str]) -> PlainNames:
    """Return names without a holder's start, where none is expected with it and some are without it."""
    if any(name in expected for name in names.plain.values()):
        return names
    fitting = (each for each in holders_of(names) if any(name in expected for name in each.plain.values()))
    return next(fitting, names)


def common_start(names: Iterable[str]) -> str:
    """Return words that name the start which all of several names share, or nothing where there is none."""
    starts = {name.partition(".")[0] for name in names}
    return f"; all names start with {visible(min(starts), 40)}." if len(starts) == 1 else ""
