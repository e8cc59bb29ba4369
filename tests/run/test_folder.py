"""Tests `Folder`: follows no link, never blocks on a pipe, replaces files as a whole, and removes leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lossprobe.errors import OutputError
from lossprobe.run.files import atomic_target
from lossprobe.run.folder import Folder, NotFollowedError
from lossprobe.run.latest import write_latest
from lossprobe.run.locked import LockedFolder

SECRET = b"outside"


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def place(tmp_path):
    """Return a folder; beside it is a folder with a file, neither of which a link may lead to."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(SECRET)
    return tmp_path / "folder"


def put_link(path):
    path.symlink_to(path.parents[1] / "outside" / "file")


def put_dangling_link(path):
    path.symlink_to(path.parents[1] / "outside" / "new")


IRREGULAR = {"link": put_link, "dangling": put_dangling_link, "pipe": os.mkfifo, "folder": os.mkdir}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_only_regular_files_are_read(place, kind):
    IRREGULAR[kind](place / "x")
    with Folder.open(place) as folder:
        for read in (folder.read, folder.open_file, folder.regular):
            with pytest.raises(NotFollowedError, match=r"symbolic link|no regular file"):
                read("x")


@pytest.mark.parametrize("name", ["in/file", "in/new"])
def test_nothing_is_reached_through_a_linked_folder(place, name):
    (place / "in").symlink_to(place.parent / "outside")
    with Folder.open(place) as folder:
        for use in (folder.read, folder.regular, lambda name: folder.write(name, b"x"), lambda _: folder.folder("in")):
            with pytest.raises(NotFollowedError, match="symbolic link"):
                use(name)
    assert names(place.parent / "outside") == ["file"]


def test_a_file_is_replaced_and_never_written_into(place):
    put_link(place / "link")
    os.link(place.parent / "outside" / "file", place / "hard")
    with Folder.open(place) as folder:
        for name in ("link", "hard"):
            folder.write(name, b"new")
            assert (place / name).read_bytes() == b"new"
            assert not (place / name).is_symlink()
        folder.remove("link")
    assert (place.parent / "outside" / "file").read_bytes() == SECRET


def test_a_link_is_removed_and_not_what_it_leads_to(place):
    (place / "in").symlink_to(place.parent / "outside")
    with Folder.open(place) as folder:
        folder.remove("in")
        folder.remove("nothing")
    assert not (place / "in").is_symlink()
    assert (place.parent / "outside" / "file").read_bytes() == SECRET


def test_a_folder_that_takes_the_name_later_is_no_concern(place):
    with Folder.open(place) as folder:
        place.rename(place.parent / "moved")
        place.symlink_to(place.parent / "outside")
        folder.write("x", b"new")
        assert folder.names() == ["x"]
    assert (place.parent / "moved" / "x").read_bytes() == b"new"
    assert names(place.parent / "outside") == ["file"]


def test_a_linked_folder_is_opened_only_where_it_may_be(place):
    (place / "link").symlink_to(place.parent / "outside")
    with Folder.open(place / "link") as folder:
        assert folder.names() == ["file"]
    with pytest.raises(NotFollowedError, match="symbolic link"):
        Folder.open(place / "link", follow=False)
    with Folder.open(place / "link" / ".." / "folder", follow=False) as folder:
        assert folder.names() == ["link"], "links on the way are the user's own"


@pytest.mark.parametrize("kind", IRREGULAR)
def test_a_lock_is_a_file_of_its_own(place, kind):
    IRREGULAR[kind](place / ".lock")
    with pytest.raises(OutputError, match=r"\.lock is (a symbolic link|no regular file)") as caught:
        LockedFolder(place)
    assert (caught.value.id, caught.value.exit_code) == ("output.link", 6)
    assert (place.parent / "outside" / "file").read_bytes() == SECRET
    assert names(place.parent / "outside") == ["file"]


def test_the_holder_of_a_lock_is_never_written_through_a_link(place):
    put_link(place / ".lock-holder")
    folder = LockedFolder(place)
    assert (place / ".lock-holder").read_text() == str(os.getpid())
    folder.unlock(remove=False)
    assert (place.parent / "outside" / "file").read_bytes() == SECRET
    assert names(place) == [".lock"]


WRITER = """
import sys, time
from pathlib import Path
from lossprobe.run.files import atomic_target
with atomic_target(Path(sys.argv[1])) as target:
    target.write(b"half")
    print("written", flush=True)
    time.sleep(60)
"""


def start_writer(path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"written\n"
    return process


def test_the_next_writer_removes_what_a_killed_one_left_and_no_more(place):
    dead, alive = start_writer(place / "x.csv"), start_writer(place / "x.csv")
    left = {name for name in names(place) if f".{dead.pid}." in name}
    kept = {name for name in names(place) if f".{alive.pid}." in name}
    assert (len(left), len(kept)) == (1, 1)
    dead.kill()
    dead.communicate()
    others = {".y.csv.999999999.tmp", ".x.csv.notes.tmp", ".x.csv.12.tmp.txt"}
    for name in others:
        (place / name).write_bytes(b"")
    with atomic_target(place / "x.csv") as target:
        target.write(b"whole")
    assert set(names(place)) == {"x.csv", *kept, *others}
    alive.kill()
    alive.communicate()
    with atomic_target(place / "x.csv") as target:
        target.write(b"whole")
    assert set(names(place)) == {"x.csv", *others}


@pytest.mark.parametrize(
    ("pid", "age", "stays"),
    [("999999999", 0, False), ("1", 0, True), ("1", 2 * 24 * 3600, False), ("own", 0, False)],
)
def test_a_file_whose_writer_may_live_elsewhere_is_left_for_a_day(place, pid, age, stays):
    name = f".x.csv.{os.getpid() if pid == 'own' else pid}.tmp"
    (place / name).write_bytes(b"half")
    os.utime(place / name, (time.time() - age,) * 2)
    with atomic_target(place / "x.csv") as target:
        target.write(b"whole")
    assert (name in names(place)) == stays


def test_a_name_that_leads_away_is_no_leftover(place):
    put_link(place / ".x.csv.999999999.tmp")
    with atomic_target(place / "x.csv") as target:
        target.write(b"whole")
    assert (place.parent / "outside" / "file").read_bytes() == SECRET


def test_the_pointer_to_the_latest_run_is_never_written_through_a_link(place):
    runs = place / ".lossprobe"
    runs.symlink_to(place.parent / "outside")
    with pytest.raises(OutputError, match="symbolic link"):
        write_latest(runs, place / "run")
    assert names(place.parent / "outside") == ["file"]
    runs.unlink()
    runs.mkdir()
    for name in ("latest", ".gitignore"):
        (runs / name).symlink_to(place.parent / "outside" / "file")
    write_latest(runs, place / "run")
    assert (place.parent / "outside" / "file").read_bytes() == SECRET
    assert (runs / "latest").read_bytes() == os.fsencode(place / "run") + b"\n"
