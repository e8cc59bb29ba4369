"""Checkpoints of one name are told apart by their folders."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lossprobe.run.names import distinct_names, names_with_folders

CASES = {
    "files": ((("m.pt", "/x/a/m.pt"), ("m.pt", "/x/b/m.pt")), ["a/m.pt", "b/m.pt"]),
    "deeper": ((("m.pt", "/x/a/out/m.pt"), ("m.pt", "/x/b/out/m.pt")), ["a/out/m.pt", "b/out/m.pt"]),
    "a folder's files": ((("m", "/x/a/m/config.json"), ("m", "/x/b/m/w.safetensors")), ["a/m", "b/m"]),
    "a file of the folder's name": (
        (("model", "/a/model/model.safetensors"), ("model", "/b/model/model.safetensors")),
        ["a/model", "b/model"],
    ),
    "one inside the other": ((("m.pt", "/x/m.pt"), ("m.pt", "/x/a/x/m.pt")), ["x/m.pt", "a/x/m.pt"]),
    "at the root": ((("m.pt", "/m.pt"), ("m.pt", "/a/m.pt")), ["m.pt #1", "m.pt #2"]),
    "only where names are equal": ((("m", "/a/m"), ("n", "/a/n"), ("m", "/b/m")), ["a/m", "n", "b/m"]),
    "one twice": ((("m", "/a/m"), ("m", "/b/m"), ("m", "/a/m")), ["a/m #1", "b/m", "a/m #2"]),
    "the same": ((("m", "/a/m"), ("m", "/a/m")), ["m #1", "m #2"]),
    "unknown": ((("m", None), ("m", "/a/m")), ["m #1", "m #2"]),
}


@pytest.mark.parametrize(("runs", "expected"), CASES.values(), ids=CASES)
def test_names(runs, expected):
    found = [SimpleNamespace(name=name, inputs=() if file is None else (file,)) for name, file in runs]
    assert distinct_names(found) == expected
    assert len(set(expected)) == len(expected)
    assert names_with_folders(found) == [name.partition(" #")[0] for name in expected]
