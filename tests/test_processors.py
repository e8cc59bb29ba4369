"""Threads by the processors that a process may use, from files as Linux and container runtimes write them."""

from __future__ import annotations

import os

import pytest

from lossprobe import processors
from lossprobe.processors import (
    available_processors,
    described_processors,
    pressure,
    processor_quota,
    settle_threads,
)

PRESSURE = "some avg10={} avg60=58.87 avg300=64.67 total=1124556412\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
# What is limited, the lines of /proc/self/cgroup, files below /sys/fs/cgroup, and the processors allowed.
GROUPS = {
    "Docker, version 2": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "no limit, version 2": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "the group above": ("0::/kube/pod/x\n", {"kube/cpu.max": "200000 100000", "kube/pod/x/cpu.max": "max 100000"}, 2.0),
    "the narrower one": ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
    "a group of the host": ("0::/system.slice/docker-1f.scope\n", {"cpu.max": "300000 100000"}, 3.0),
    "version 1": (
        "9:memory:/y\n4:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "no limit, version 1": (
        "4:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "another controller": ("3:cpuset:/x\n", {"cpuset/x/cpu.max": "100000 100000"}, None),
    "damaged": ("nonsense\n0::/\n", {"cpu.max": "1 2 3\n"}, None),
    "a period of 0": ("0::/\n", {"cpu.max": "100000 0\n"}, None),
    "no Linux": (None, {}, None),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that writes the files of a machine and returns their root; no variable for threads is set."""
    for name in (processors.THREADS, *processors.WAITING_CHOSEN):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that the test's own value is removed again
        monkeypatch.delenv(name)

    def written(groups=None, limits=(), waited=None):
        files = {f"sys/fs/cgroup/{name}": text for name, text in dict(limits).items()}
        files |= {"proc/self/cgroup": groups} if groups is not None else {}
        files |= {"proc/pressure/cpu": PRESSURE.format(waited)} if waited is not None else {}
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
        return tmp_path

    return written


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_is_that_of_the_narrowest_group(machine, name):
    groups, limits, expected = GROUPS[name]
    assert processor_quota(machine(groups, limits)) == expected


@pytest.mark.parametrize(("quota", "threads"), [("250000", "2"), ("50000", "1"), ("800000", None), ("1600000", None)])
def test_no_more_threads_than_the_quota_has_processors(machine, monkeypatch, quota, threads):
    monkeypatch.setattr(processors, "available_processors", lambda: 8)
    settle_threads(machine("0::/\n", {"cpu.max": f"{quota} 100000"}))
    assert os.environ.get("OMP_NUM_THREADS") == threads
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.parametrize(("waited", "policy"), [("72.90", "passive"), ("24.99", None), ("x", None), (None, None)])
def test_threads_sleep_where_others_use_the_processors(machine, waited, policy):
    root = machine(waited=waited)
    assert pressure(root) == (float(waited) if waited not in (None, "x") else 0.0)
    settle_threads(root)
    assert os.environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize("name", processors.WAITING_CHOSEN)
def test_what_the_user_has_set_stands(machine, monkeypatch, name):
    monkeypatch.setattr(processors, "available_processors", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setenv(name, "1")
    before = dict(os.environ)
    settle_threads(machine("0::/\n", {"cpu.max": "100000 100000"}, "90.00"))
    assert dict(os.environ) == before


def test_doctor_says_what_decides(machine, monkeypatch):
    monkeypatch.setattr(processors, "available_processors", lambda: 8)
    root = machine("0::/\n", {"cpu.max": "150000 100000"}, "72.90")
    expected = "8 processors, a quota of 1.5; for 73 % of the last 10 s a process waited for one"
    assert described_processors(root) == expected
    assert described_processors(root / "nowhere") == "8 processors"


def test_this_machine_has_a_processor():
    assert 1 <= available_processors() <= (os.cpu_count() or 1)
    assert 0.0 <= pressure() <= 100.0
