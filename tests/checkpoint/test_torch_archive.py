"""Checksums of torch files find damaged weights, which torch itself would read silently."""

import hashlib
import io
import struct
import zipfile
import zlib

import pytest
import torch
from checkpoint.test_torch_file import refused

from lossprobe.checkpoint.files.torch_archive import Record, hash_archive
from lossprobe.checkpoint.files.torch_file import read_torch_file
from lossprobe.errors import CheckpointError

CONTENT = {"model": {"a": torch.arange(4000.0), "b": torch.ones(30, 40)}}


@pytest.fixture
def path(tmp_path):
    torch.save(CONTENT, tmp_path / "a.pt")
    return tmp_path / "a.pt"


@pytest.fixture
def without_checksums(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({**CONTENT, "none": torch.empty(0)}, tmp_path / "a.pt")  # nothing has the checksum 0 anyway
    finally:
        torch.serialization.set_crc32_options(before)
    return tmp_path / "a.pt"


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", ["data/0", "data/1"])
def test_a_flipped_bit_of_a_weight_is_refused(path, name, share):
    with zipfile.ZipFile(path) as archive:
        data, count = archive.read(f"a/{name}"), len(archive.namelist())
    flip(path, path.read_bytes().index(data) + int(share * len(data)))
    loaded = torch.load(path, weights_only=True)["model"]
    assert any(not torch.equal(loaded[key], CONTENT["model"][key]) for key in loaded), "the control: torch is silent"
    message = refused(path, "checkpoint.checksum")
    assert f"damaged: a/{name} is not what its checksum says (1 of {count} records wrong)" in message


def test_every_record_is_compared(path):
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        name, padding = struct.unpack_from("<HH", whole, entry.header_offset + 26)
        flip(path, entry.header_offset + 30 + name + padding)
        assert f"damaged: {entry.filename} is not what" in refused(path, "checkpoint.checksum")
        path.write_bytes(whole)
    assert read_torch_file(path).notices == ()


def test_a_file_without_checksums_is_read_and_told(without_checksums):
    file = read_torch_file(without_checksums)
    assert torch.equal(file.content["model"]["a"], CONTENT["model"]["a"])
    assert file.sha256 == hashlib.sha256(without_checksums.read_bytes()).hexdigest()
    assert file.notices == ("a.pt: written without checksums, so that damage to it cannot be detected",)


def test_a_file_that_became_shorter_is_damaged(path):
    records = {"a": Record("a/a", 0, 3, zlib.crc32(b"abc")), "b": Record("a/b", 3, 9, zlib.crc32(b"def"))}
    with pytest.raises(CheckpointError, match=r"a/b is not what its checksum says \(1 of 2 records wrong\)"):
        hash_archive(path, io.BytesIO(b"abc"), records)
