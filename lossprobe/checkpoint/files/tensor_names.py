"""Remove the parts that training wrappers (torch.compile, DDP, FSDP, Lightning, ...) add to tensor names.

A "plain" name is one without such parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.units import visible

# Only wrappers give modules these names, so they are removed at any place in a tensor name.
WRAPPERS: Final = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module"}
)
LEADING: Final = WRAPPERS | {"module"}  # DDP and DeepSpeed add "module"; removed only if every name starts with it
# Prefixes under which peft and Lightning keep the model. Models also use them themselves: removed only if that fits.
HOLDERS: Final = ("base_model.model.", "model.")


@dataclass(frozen=True)
class PlainNames:
    """Stored tensor names with their plain names.

    Attributes:
        plain: stored name → plain name.
        removed: the parts that were removed, such as "module." (at the start) or "._fsdp_wrapped_module." (inside).
    """

    plain: Mapping[str, str]
    removed: tuple[str, ...]

    def notices(self) -> tuple[str, ...]:
        """Return a notice that says which parts were removed, if any were."""
        if not self.removed:
            return ()
        return (f"tensor names are read without {', '.join(self.removed)}, which a training wrapper added",)

    def without(self, holder: str) -> PlainNames:
        """Return these names without the prefix `holder`, which all of them have."""
        plain = {stored: name.removeprefix(holder) for stored, name in self.plain.items()}
        return PlainNames(plain, (*self.removed, holder))


def plain_names(path: Path, stored: Iterable[str]) -> PlainNames:
    """Return the plain names of stored tensors.

    Args:
        path: the checkpoint, for messages.
        stored: the names as they are stored.

    Raises:
        CheckpointError: only some names start with a wrapper's prefix, or two stored names have the same plain name.
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
            what = f"tensors {pair} have the same name without {', '.join(removed)}: two models in one file?"
            raise refusal("checkpoint.mixed_names", path, what)
    return PlainNames(plain, tuple(removed))


def holders_of(names: PlainNames) -> list[PlainNames]:
    """Return one variant of the names for each prefix of `HOLDERS` that all of them have, without that prefix."""
    return [
        names.without(holder) for holder in HOLDERS if all(name.startswith(holder) for name in names.plain.values())
    ]


def fitted_names(names: PlainNames, expected: Collection[str]) -> PlainNames:
    """Return the names without a prefix of `HOLDERS` if only that makes some of them expected ones.

    Args:
        names: the plain names.
        expected: tensor names of the model; a few are enough.
    """
    if any(name in expected for name in names.plain.values()):
        return names
    fitting = (each for each in holders_of(names) if any(name in expected for name in each.plain.values()))
    return next(fitting, names)


def common_start(names: Iterable[str]) -> str:
    """Return an addition to a message that names the prefix which all names share, or "" where there is none."""
    starts = {name.partition(".")[0] for name in names}
    return f"; all names start with {visible(min(starts), 40)}." if len(starts) == 1 else ""
