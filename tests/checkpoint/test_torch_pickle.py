"""The pickle inside a torch file: nothing in it is run, imported, or allowed to crash or outlast the process."""

import collections
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch

from lossprobe.checkpoint.files.pickle_outline import outline_pickle
from lossprobe.checkpoint.files.torch_file import read_torch_file
from lossprobe.errors import CheckpointError


def save(path, content=None, **options):
    torch.save(
        {"model": {"a": torch.arange(12.0), "b": torch.ones(2, 3)}} if content is None else content, path, **options
    )
    return path


def with_pickle(path, data):
    """Write a torch archive around a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": data, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"x/{name}", content)
    return path


def refused(path, id):
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    assert (caught.value.id, caught.value.exit_code) == (id, 3)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.message.isprintable()
    assert "weights_only" not in caught.value.message
    return caught.value.message


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_asks_torch_for_weights_only_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    seen = {}
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: (seen.update(options), real(path, **options))[1])
    read_torch_file(save(tmp_path / "a.pt"))
    assert seen == {"map_location": "cpu", "weights_only": True}


def test_a_bare_pickle_is_refused(tmp_path):
    path = save(tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert "not a torch file but a bare pickle" in refused(path, "checkpoint.not_torch_file")
    path.write_bytes(pickle.dumps({"a": Runs(os.system, f"echo ran > {tmp_path / 'canary'}")}))
    refused(path, "checkpoint.not_torch_file")
    assert not (tmp_path / "canary").exists()


def test_a_hostile_pickle_does_not_run(tmp_path):
    canary = tmp_path / "canary"
    path = save(tmp_path / "a.pt", {"model_state": Runs(os.system, f"echo ran > {canary}")})
    assert f"contains {os.system.__module__}.system; not loaded" in refused(path, "checkpoint.unsafe_pickle")
    assert not canary.exists()
    with zipfile.ZipFile(path) as archive:  # shows that the file would run code
        pickle.loads(archive.read("a/data.pkl"))
    assert canary.read_text() == "ran\n"


def test_nothing_of_a_hostile_file_reaches_the_interpreter(tmp_path):
    """In a process of its own, because an audit hook stays: no import by name, no process, no socket."""
    path = save(tmp_path / "a.pt", {"model_state": Runs(os.system, "true")})
    script = (
        "import sys, pathlib\n"
        "from lossprobe.checkpoint.files.torch_file import read_torch_file\n"
        "from lossprobe.errors import CheckpointError\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, _: seen.append(event))\n"
        "try:\n    read_torch_file(pathlib.Path(sys.argv[1]))\n"
        "except CheckpointError as error:\n    print(error.id)\n"
        "bad = ('os.system', 'subprocess', 'socket', 'pickle.find_class')\n"
        "print([event for event in seen if event.startswith(bad)], len(seen) > 0)\n"
    )
    shown = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)
    assert shown.stdout.splitlines() == ["checkpoint.unsafe_pickle", "[] True"]


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_named(tmp_path, protocol):
    path = with_pickle(tmp_path / "a.pt", pickle.dumps({"a": Runs(os.system, "true")}, protocol))
    assert f"contains {os.system.__module__}.system" in refused(path, "checkpoint.unsafe_pickle")


@pytest.mark.parametrize(
    "name",
    ["pandas.read_csv", "os.spawnv_passfds", "builtins.eval", "subprocess.Popen", "numpy.load", "torch.hub.load"],
)
def test_functions_are_named(tmp_path, name):
    module, _, function = name.rpartition(".")
    path = with_pickle(tmp_path / "a.pt", f"\x80\x02c{module}\n{function}\n)R.".encode("latin-1"))
    assert f"contains {name}; not loaded" in refused(path, "checkpoint.unsafe_pickle")


def test_a_global_with_control_characters_is_shown_escaped(tmp_path):
    path = with_pickle(tmp_path / "a.pt", b"\x80\x02cos\x1b[2J\nsystem\n)R.")
    assert r"contains os\x1b[2J.system; not loaded" in refused(path, "checkpoint.unsafe_pickle")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (collections.defaultdict(int), "__builtin__.long, collections.defaultdict"),
        (frozenset([1]), "__builtin__.frozenset"),
        (bytearray(b"x"), "__builtin__.bytearray"),
        (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (torch.ones(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.ones(2, dtype=torch.uint16), "torch._utils._rebuild_tensor_v3"),
    ],
)
def test_objects_other_than_tensors_are_named(tmp_path, value, names):
    message = refused(save(tmp_path / "a.pt", {"args": value}), "checkpoint.foreign_objects")
    assert "holds objects other than tensors: " in message
    assert names in message


def test_a_structure_that_contains_itself_is_refused(tmp_path):
    loop = []
    loop.append(loop)
    path = save(tmp_path / "a.pt", {"model": {"a\n": loop}})
    assert r"unknown structure: model.a\n.0 contains itself" in refused(path, "checkpoint.unknown_structure")


def test_a_structure_that_only_shares_parts_is_read(tmp_path):
    shared = {"betas": (0.9, 0.95), "t": torch.ones(1)}
    content = {"groups": [shared, shared]}
    assert len(read_torch_file(save(tmp_path / "a.pt", content)).content["groups"]) == 2


def test_deep_nesting_is_refused(tmp_path):
    deep = []
    for _ in range(40):
        deep = [deep]
    assert "nests more than 32 deep" in refused(save(tmp_path / "a.pt", {"a": deep}), "checkpoint.unknown_structure")


@pytest.mark.parametrize(
    "body",
    [
        b"N" + b"\x85" * 1_000_000,  # a tuple in a tuple in a tuple: hashing it overflows the C stack
        b"Nq\x00" + b"h\x00h\x00\x86q\x00" * 60,  # pairs of the same pair: hashing them takes 2^60 steps
    ],
)
def test_tuples_that_cannot_be_hashed_are_refused_before_they_are(tmp_path, body):
    path = with_pickle(tmp_path / "a.pt", b"\x80\x02}(" + body + b"K\x01u.")
    assert "tuples nest to more than 1000 items" in refused(path, "checkpoint.unknown_structure")


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"\x80\x02]q\x00.", "checkpoint.unknown_structure"),  # a list
        (b"\x80\x02}q\x00K\x01K\x02s.", "checkpoint.unknown_structure"),  # keys that are no text
        (b"\x80\x04\x95\x02\0\0\0\0\0\0\0}.", "checkpoint.unknown_structure"),  # another protocol
        (b"\x80\x02}r\xff\xff\xff\xff.", "checkpoint.unknown_structure"),  # memo index 2^32
        (b"\x80\x02}q\x00(u", "checkpoint.unknown_structure"),  # no end
        (b"\x80\x02(X\x07\0\0\0storageNNNNtQ.", "checkpoint.unknown_structure"),  # no such tensor data
        (b"\x80\x02K\x01Q.", "checkpoint.unknown_structure"),
        (b"\x80\x02}}K\x01s.", "checkpoint.damaged"),  # a dict as key
        (b"", "checkpoint.unknown_structure"),
    ],
)
def test_other_pickles_are_refused(tmp_path, data, id):
    refused(with_pickle(tmp_path / "a.pt", data), id)


def test_a_huge_pickle_is_refused_unread(tmp_path):
    path = with_pickle(tmp_path / "a.pt", b"\x80\x02}" + b"0" * (16 << 20))
    assert "data.pkl has 16,777,219 bytes (limit 16,777,216)" in refused(path, "checkpoint.unknown_structure")


def test_the_outline_names_without_importing():
    outline = outline_pickle(pickle.dumps([Runs(os.system, "true"), {"a": 1}], 4))
    assert outline.globals == {f"{os.system.__module__}.system"}
    assert {"STACK_GLOBAL", "REDUCE"} <= outline.opcodes
    assert outline.storages == set()
    with pytest.raises(ValueError, match="contradict each other"):
        outline_pickle(b"\x80\x02h\x07.")


def test_the_outline_finds_declared_data(tmp_path):
    table = torch.ones(2, 3, dtype=torch.float16)
    with zipfile.ZipFile(save(tmp_path / "a.pt", {"a": table, "b": table, "c": torch.ones(5)})) as archive:
        outline = outline_pickle(archive.read("a/data.pkl"))
    assert outline.storages == {("data/0", 12), ("data/1", 20)}
