"""One shard's part in a run that several processes score together, and the end of such a run.

    RUN/plan/shards          how many shards there are; gone with the plan
    RUN/plan/.shard-3        the lock of shard 3

The shards that run make the plan together, each some blocks of it (`run.plan_blocks`). Each then scores its own parts
of this one plan and writes them by their names, so that a shard that was killed goes on where it was, whichever machine
it runs on next. `gather` checks every part and writes run.json.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from lossprobe.errors import CheckpointError, NothingToScoreError, OutputError, TextError
from lossprobe.plan.shard import Shard
from lossprobe.run.files import json_bytes, read_sealed, sealed, sha256_of_json, writing
from lossprobe.run.folder import TEMPORARY, Folder
from lossprobe.run.manifest import SHARDS, START_OVER, damaged, is_count
from lossprobe.run.part_records import record_name
from lossprobe.run.part_store import FOLDERS, PartStore
from lossprobe.run.plan_blocks import PlanBlocks
from lossprobe.run.presence import confirm_files, content_at, gone, hint_for, lost_file
from lossprobe.run.reader import Run, open_run
from lossprobe.run.run_folders import is_run
from lossprobe.run.schema import MANIFEST, PLAN, PLAN_PARTS, ROUTING
from lossprobe.run.shard_locks import take_shard_lock
from lossprobe.run.shown import shown_run
from lossprobe.run.store import RunStore
from lossprobe.run.twin import twin_of
from lossprobe.run.twin_files import part_of
from lossprobe.run.written import WrittenFolder
from lossprobe.units import plural

REMOVE = "lossprobe runs remove takes it away; on object storage, a tool of the store does"
NAMED = 20  # most shards that a message names
TEMPORARY_PART = re.compile(rf"\.part-([0-9]+)\..*{re.escape(TEMPORARY)}")


class ShardStore(PartStore):
    """The folder of a run as one shard writes it, beside others; opened while the lock of the folder is held.

    Args:
        path: the run directory, with a plan, whole or begun.
        shard: the shard.

    Raises:
        OutputError: another process works as this shard, or the run is divided among another number of shards.
    """

    def __init__(self, path: Path, shard: Shard) -> None:
        shown = shown_run(path)
        super().__init__(path, WrittenFolder.unlocked(path))
        self.blocks = PlanBlocks(self._folder)
        try:
            with writing(path):
                self._folder.folder(PLAN_PARTS, make=True).close()  # what is missing in it is told where it is read
                begun = _keep_count(self._folder, shown, shard)
                lock = take_shard_lock(self._folder, shard.index)
            if lock is None:
                what = f"{shown}: another process works as shard {shard}"
                raise OutputError("output.locked", what, hint="wait until it has ended")
            self._lock = lock
            if self._twin is not None and begun:
                self._twin.send([SHARDS])
            self.plan(whole=False)
            self._remove_temporary_files(shard)
        except BaseException:
            self._folder.close()
            raise

    def __enter__(self) -> ShardStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock of the shard; what stops the process is noted what is kept.

        Raises:
            OutputError: the run was removed or replaced meanwhile, or its last parts cannot be sent.
        """
        self.note_kept(error, blocks=True)
        lost = self.gone_instead(error)
        try:
            if error is None:
                self._confirm()
        finally:
            if self._twin is not None:
                self._twin.stop_sending()
            self._lock.release()
            self._folder.close()
        if lost is not None:
            raise lost from None

    def _confirm(self) -> None:
        """Send what is left, and refuse a run that is not there with the parts that this process has scored.

        On object storage others may have completed it meanwhile, which removes its plan and the records of parts.
        """
        if self._twin is not None:
            self._twin.finish_sending()
        files = [name for name in self._folder.digests if not name.startswith(f"{PLAN_PARTS}/")]
        records = {record_name(part) for part in map(part_of, files) if part is not None}
        lost = lost_file(self._place, [*files, *sorted(records)], self._folder.sizes)
        if lost is None and sha256_of_json(content_at(self._place, PLAN)) == self._plan_sha256:
            return
        if content_at(self._place, MANIFEST).get("settings") != self._settings:
            name, what = lost or (PLAN, f"{PLAN} is missing, or another one")
            raise gone(self.shown, what, hint_for(self._place, name))
        confirm_files(self._place, self.shown, files, self._folder.sizes)

    def _remove_temporary_files(self, shard: Shard) -> None:
        """Remove what killed processes left of the parts of this shard: who holds its lock is their only writer."""
        for table in (*FOLDERS, ROUTING):
            with contextlib.suppress(OSError), self._folder.folder(table) as inner:
                for match in filter(None, map(TEMPORARY_PART.fullmatch, inner.names())):
                    if shard.owner(int(match[1])) == shard:
                        inner.remove(match[0])


def _keep_count(folder: WrittenFolder, shown: str, shard: Shard) -> bool:
    """Note among how many shards a run is divided, and return whether that was not noted before.

    Raises:
        OutputError: it is divided among another number.
    """
    count = shard_count(folder)
    if count is None:
        folder.write(SHARDS, json_bytes(sealed({"shards": shard.count})))
    elif count != shard.count:
        raise OutputError(
            "shard.other_count", f"{shown}: is scored by {count} shards, and this is shard {shard}",
            hint=f"go on with `shard` 1/{count} to {count}/{count}; without `shard` one process does all that is left",
        )  # fmt: skip
    return count is None


def shard_count(folder: Folder) -> int | None:
    """Return the number of shards of an unfinished run; None if it has none, or the file that says it is damaged."""
    try:
        content, sound = read_sealed(folder, SHARDS)
    except ValueError:
        return None
    count = content.get("shards")
    return count if sound and isinstance(count, int) and is_count(count, least=1) else None


@contextlib.contextmanager
def without_overwrite(hint: str, again: str | None = None) -> Iterator[None]:
    """Give errors about a run that stands in the way, or is damaged, another hint: shards cannot overwrite it.

    Args:
        hint: the hint.
        again: that of a run which was removed in part, where the same call scores nothing; None where it does.
    """
    try:
        yield
    except OutputError as error:
        if error.id in ("output.other_settings", "run.damaged") or error.hint == START_OVER:
            error.hint = hint
        elif error.id == "output.gone" and again is not None:
            error.hint = again
        raise


@contextlib.contextmanager
def without_plan_of_refused(path: Path) -> Iterator[None]:
    """Remove a plan that was begun if the text is refused or its tokenizer fails, unless other shards still run."""
    try:
        yield
    except (TextError, CheckpointError, NothingToScoreError):
        with contextlib.suppress(OutputError), RunStore(path, among_shards=True) as store:
            store.forget_blocks()
        raise


@without_overwrite(f"{REMOVE}; then run its shards again", again="run its shards again, then gather")
def gather(path: Path) -> tuple[Run, bool]:
    """Return the run whose parts shards have scored, complete, and whether it was complete before.

    Every part is checked against the hashes that its shard wrote, and run.json is written last. It is the file that
    one process would have written.

    Raises:
        UsageError: the path is no run.
        OutputError: parts are missing or damaged (the message names their shards), a shard is running, or the run
            cannot be written.
    """
    if twin_of(path) is None and not is_run(path):
        open_run(path)  # says what it is instead
    with RunStore(path) as store:
        store.bring()
        if not is_run(path):
            open_run(path)  # there is none on object storage
        if (path / MANIFEST).exists():
            run = open_run(path)
            run.check()
            store.drop_plan()
            return run, True
        plan = store.plan(whole=False)
        if plan is None:
            what = f"{shown_run(path)}: the shards were stopped before their plan was complete"
            raise OutputError("run.unfinished", what, hint="run all shards again, then gather")
        if "files" not in plan:
            raise damaged(path, "unfinished run: its plan keeps no hashes of its parts", REMOVE)
        missing, broken = store.pending(range(len(plan["part_rows"])))
        if missing:
            raise _unfinished(store, plan, missing, broken)
        store.finish(plan)
    return open_run(path), False


def _unfinished(store: RunStore, plan: dict[str, Any], missing: list[int], broken: list[int]) -> OutputError:
    """Return the error for a run with missing parts; it names the shards that have to run again."""
    with WrittenFolder.unlocked(store.path) as folder:
        count = shard_count(folder)
    what = f"{store.shown}: {len(missing):,} of {plural(len(plan['part_rows']), 'part')} missing"
    what += f" ({len(broken):,} of them damaged)" if broken else ""
    if count is None:
        return OutputError("run.unfinished", what, hint="repeat the score command to resume it")
    owners = Counter(Shard(1, count).owner(part).index for part in missing)
    named = [f"{index}/{count} ({number:,})" for index, number in sorted(owners.items())[:NAMED]]
    named += ["…"] if len(owners) > NAMED else []
    return OutputError(
        "run.unfinished", f"{what}, of {plural(len(owners), 'shard')}: {', '.join(named)}",
        hint="run these shards again, then gather",
    )  # fmt: skip
