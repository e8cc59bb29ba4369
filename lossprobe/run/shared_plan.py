"""A plan that several runs of one text share: made for the first of them, and copied for the others."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.files import read_sealed
from lossprobe.run.folder import Folder
from lossprobe.run.identity import Settings, identity_of
from lossprobe.run.manifest import plan_fault
from lossprobe.run.schema import MANIFEST, PLAN
from lossprobe.run.store import RunStore

DECIDING = ("text", "windows", "tokenizer", "versions")  # groups of settings that decide a plan, and the vocabulary


class SharedPlan:
    """Keeps the plan of the first run of one text, so that later ones copy it instead of tokenizing and planning anew.

    The plan stays in the folder of the first run, beside what is finished there, until the `with` block ends. A pass
    that is killed leaves it there, as any pass may leave its plan, and the next pass of that run removes it.
    """

    def __init__(self) -> None:
        self._place: Path | None = None

    def __enter__(self) -> SharedPlan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._place is not None:
            with contextlib.suppress(OutputError), RunStore(self._place) as store:  # who else holds it removes the plan
                if (self._place / MANIFEST).exists():  # else it was removed meanwhile, and with its plan it resumes
                    store.drop_plan()

    def keeps(self, place: Path) -> bool:
        """Return whether the plan of a run that was just finished is to stay: that of the first one is."""
        self._place = self._place or place
        return place == self._place

    def copy_into(self, store: RunStore, settings: Settings) -> dict[str, Any] | None:
        """Copy the files of the plan into a run, and return what `planning.write_plan` returned for them.

        Args:
            store: the run.
            settings: the identity of the run.

        Returns:
            None where no plan is kept, where it is one of another text, tokenizer or windows, and where a file of it is
            missing or not the one that was written.
        """
        if self._place is None or not settings["tokenizer"]["sha256"]:
            return None
        try:
            with Folder.open(self._place, follow=False) as kept:
                plan, sound = read_sealed(kept, PLAN)
                if not sound or plan_fault(plan, sealed=True) or _decided(identity_of(plan)) != _decided(settings):
                    return None
                store.start_plan()
                for name, sha256 in plan["files"].items():
                    with kept.open_file(name) as source, store.target(name) as target:
                        shutil.copyfileobj(source, target)
                    if target.sha256 != sha256:
                        return None
        except (OSError, ValueError):
            return None
        return {name: plan[name] for name in ("counts", "part_rows", "first_windows", "sample_every")}


def _decided(settings: Settings) -> list[Any]:
    """Return the settings that decide a plan."""
    return [settings["checkpoint"]["vocab_size"], *(settings.get(name) for name in DECIDING)]
