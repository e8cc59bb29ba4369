"""Objects that training programs save beside tensors are read without importing or calling what the file names."""

import argparse
import dataclasses
import datetime
import io
import pickle
import subprocess
import sys
import types
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
from checkpoint.test_torch_pickle import Runs, refused, save, with_pickle

from lossprobe.checkpoint.files.torch_extras import is_harmless
from lossprobe.checkpoint.files.torch_file import read_torch_file


@dataclasses.dataclass
class TrainConfig:
    lr: float = 6e-4
    out: Path = Path("out")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(1.25), 1.25),
        (np.float32(-0.5), -0.5),
        (np.float16(3.0), 3.0),
        (np.int64(-7), -7),
        (np.int32(7), 7),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.array([2.5]).astype(">f8")[0], 2.5),
    ],
)
def test_numbers_of_numpy_are_numbers(tmp_path, value, plain):
    got = read_torch_file(save(tmp_path / "a.pt", {"value": value})).content["value"]
    assert got == plain
    assert type(got) is type(plain)


@pytest.mark.parametrize(
    "value",
    [
        Path("out/x"),
        PureWindowsPath("c:/x"),
        argparse.Namespace(lr=1e-3, path=Path("x")),
        types.SimpleNamespace(a=1),
        datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC),
        datetime.timedelta(seconds=3),
        np.arange(5),
        np.ones((2, 3), np.float32),
        np.datetime64("2026-01-01"),
        TrainConfig(),
        {"deep": [TrainConfig(), (Path("x"), np.float64(1))]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_harmless_things_do_not_stand_in_the_way(tmp_path, value):
    path = save(tmp_path / "a.pt", {"model": {"a": torch.ones(2)}, "extra": value})
    assert torch.equal(read_torch_file(path).content["model"]["a"], torch.ones(2))


def test_nothing_that_is_named_is_imported_or_called(tmp_path):
    """In a process of its own: the modules of the classes are not there, and would show when they were loaded."""
    (tmp_path / "unseen_library.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass RunConfig:\n    def __setstate__(self, _):\n"
        f"        open({str(tmp_path / 'called')!r}, 'w').close()\n"
    )
    body = b"\x80\x02}(X\x01\0\0\0acunseen_library\nRunConfig\n)\x81}X\x01\0\0\0bK\x01sbu."
    path = with_pickle(tmp_path / "a.pt", body)
    script = (
        "import sys, pathlib\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lossprobe.checkpoint.files.torch_file import read_torch_file\n"
        "print(sorted(read_torch_file(pathlib.Path(sys.argv[1])).content), 'unseen_library' in sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == ["['a']", "False"]
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "called").exists()
    sys.path.insert(0, str(tmp_path))  # shows that the pickle would do both
    try:
        pickle.load(io.BytesIO(body))
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("unseen_library", None)
    assert (tmp_path / "ran").exists()
    assert (tmp_path / "called").exists()


def test_an_extra_is_no_tensor_and_no_setting(tmp_path):
    from lossprobe.checkpoint.files.torch_file import tensors_in
    from lossprobe.errors import CheckpointError

    file = read_torch_file(save(tmp_path / "a.pt", {"model": {"a": np.ones(3)}}))
    with pytest.raises(CheckpointError, match="a is Extra, not a floating-point tensor"):
        tensors_in(file, "model")


ENCODE = b"c_codecs\nencode\n"


def encoded(text, codec):
    return b"".join(b"X" + len(each).to_bytes(4, "little") + each for each in (text, codec)) + b"\x86R"


@pytest.mark.parametrize(
    "body",
    [
        ENCODE + encoded(b"x", b"utf-32"),
        ENCODE + encoded(b"x", b"punycode"),
        # The result of one as the text of the next: each doubles what it is given.
        (ENCODE + b"q\x01") + encoded(b"x", b"latin1") + (b"q\x02h\x01h\x02X\x03\0\0\0hex\x86Rq\x02" * 40),
        ENCODE + b"N\x85R",
        ENCODE + b"NR",
    ],
)
def test_encode_is_used_for_bytes_alone(tmp_path, body):
    path = with_pickle(tmp_path / "a.pt", b"\x80\x02}(X\x01\0\0\0a" + body + b"u.")
    assert "encode is called with more than a text and latin1" in refused(path, "checkpoint.unknown_structure")


def test_a_number_with_other_bytes_than_its_kind_is_refused(tmp_path):
    scalar = b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8\x85R" + ENCODE + encoded(b"abc", b"latin1")
    path = with_pickle(tmp_path / "a.pt", b"\x80\x02}(X\x01\0\0\0a" + scalar + b"\x86Ru.")
    refused(path, "checkpoint.damaged")


@pytest.mark.parametrize(
    "name",
    [
        "os.EvilConfig",
        "logging.config.dictConfig",
        "subprocess.Options",
        "torch.nn.Args",
        "builtins.Config",
        "re.Args",
        "datetime.dates",
        "numpy.dtypes",
        "program.ConfigLoader",
    ],
)
def test_names_of_libraries_are_not_harmless(tmp_path, name):
    assert not is_harmless(name)
    module, _, attribute = name.rpartition(".")
    body = f"\x80\x02}}(X\x01\0\0\0ac{module}\n{attribute}\n)Ru.".encode("latin-1")
    with pytest.raises(Exception, match=name.rpartition(".")[2]) as caught:
        read_torch_file(with_pickle(tmp_path / "a.pt", body))
    assert caught.value.id in ("checkpoint.unsafe_pickle", "checkpoint.foreign_objects")


def test_a_harmless_name_beside_a_harmful_one_does_not_help(tmp_path):
    import os

    path = save(tmp_path / "a.pt", {"a": Path("x"), "b": Runs(os.system, f"touch {tmp_path / 'ran'}")})
    assert "system; not loaded" in refused(path, "checkpoint.unsafe_pickle")
    assert not (tmp_path / "ran").exists()
