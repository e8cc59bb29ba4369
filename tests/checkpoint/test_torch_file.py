"""Torch files: the good ones are read, and every bad one is refused before anything in it can run."""

import collections
import errno
import hashlib
import struct
import warnings
import zipfile

import pytest
import torch

from lossprobe.checkpoint.files.hashes import combined_sha256
from lossprobe.checkpoint.files.torch_file import check_tensor_bytes, read_torch_file
from lossprobe.errors import CheckpointError


def save(path, content=None, **options):
    torch.save(
        {"model": {"a": torch.arange(12.0), "b": torch.ones(2, 3)}} if content is None else content, path, **options
    )
    return path


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """Write the archive again, each entry as `change(name, data)` says: (name, data), or None to drop it."""
    with zipfile.ZipFile(path) as archive:
        entries = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in filter(None, entries):
            archive.writestr(name, data)
    return path


def refused(path, id):
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    assert (caught.value.id, caught.value.exit_code) == (id, 3)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.message.isprintable()
    assert "weights_only" not in caught.value.message
    return caught.value.message


def test_reads_plain_content(tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    content = {
        "model": collections.OrderedDict(a=table, tied=table, turned=table.t(), part=table[1], empty=torch.empty(0)),
        "optimizer": {
            "state": {0: {"exp_avg": torch.ones(2, dtype=torch.bfloat16)}},
            "betas": (0.9, 0.95),
            "groups": [{}],
        },
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "size": torch.Size([2, 3]),
        "dtype": torch.float32,
        "best_val_loss": torch.tensor(1.5),
        "count": 2**70,
        "flag": True,
        "none": None,
    }
    file = read_torch_file(save(tmp_path / "a.pt", content))
    assert file.content.keys() == content.keys()
    assert torch.equal(file.content["model"]["turned"], table.t())
    assert (file.content["count"], file.content["size"], file.content["dtype"]) == (2**70, (2, 3), torch.float32)
    assert file.path == tmp_path / "a.pt"
    assert len(file.sha256) == 64
    assert read_torch_file(save(tmp_path / "b.pt", content | {"flag": False})).sha256 != file.sha256


def test_the_hash_is_that_of_the_bytes(tmp_path):
    path = save(tmp_path / "a.pt")
    assert read_torch_file(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert combined_sha256({"a": "1", "b": "2"}) == combined_sha256({"b": "2", "a": "1"})
    assert len({combined_sha256(files) for files in ({"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1"})}) == 3


@pytest.mark.parametrize(
    ("data", "id", "message"),
    [
        (b"", "checkpoint.empty", "file is empty (0 bytes)"),
        (b"Hello\x1b[31m, text\n", "checkpoint.not_torch_file", 'not a torch file: it starts with "Hell"'),
        (b"\x1b[3", "checkpoint.not_torch_file", r'it starts with "\x1b[3"'),
        (b"PK", "checkpoint.not_torch_file", "not a torch file"),
        (b"PK\x03\x04", "checkpoint.truncated", "archive incomplete: no readable table of contents in 4 bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, data, id, message):
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    assert message in refused(path, id)


def test_what_is_not_a_readable_file_is_refused(tmp_path):
    assert "is not a file" in refused(tmp_path, "checkpoint.unreadable")
    assert "is not a file" in refused(tmp_path / "absent.pt", "checkpoint.unreadable")


def test_every_cut_of_the_archive_is_refused(tmp_path):
    path = save(tmp_path / "a.pt")
    data = path.read_bytes()
    for length in (5, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:length])
        assert f"archive incomplete: no readable table of contents in {length:,} bytes" in refused(
            path, "checkpoint.truncated"
        )


def test_a_hole_in_the_archive_is_refused(tmp_path):
    path = save(tmp_path / "a.pt")
    data = path.read_bytes()
    path.write_bytes(data[:100] + data[400:])
    assert "archive incomplete" in refused(path, "checkpoint.truncated")


def test_a_disk_error_is_no_damage(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    path = save(tmp_path / "a.pt")
    monkeypatch.setattr(zipfile, "ZipFile", fails)
    assert "cannot be read: Input/output error" in refused(path, "checkpoint.unreadable")


def test_a_zip_without_data_is_refused(tmp_path):
    path = rewrite(save(tmp_path / "a.pt"), lambda name, data: None if name.endswith("data.pkl") else (name, data))
    assert "a zip archive of 7 entries without data.pkl" in refused(path, "checkpoint.not_torch_file")


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../x", "other/x", "a//x", "a/", "a\\..\\x", "C:/x", "x"])
def test_a_bad_entry_name_is_refused_and_nothing_is_written(tmp_path, name):
    (tmp_path / "a" / "b").mkdir(parents=True)  # two folders to climb out of
    path = save(tmp_path / "a" / "b" / "a.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"hi")
    before = sorted(tmp_path.rglob("*"))
    assert "bad entry name" in refused(path, "checkpoint.bad_entry")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("top", ["", "C:", "a\\b", "a/.", "a/.."])
def test_a_bad_name_of_the_one_folder_is_refused_too(tmp_path, top):
    path = rewrite(save(tmp_path / "a.pt"), lambda name, data: (f"{top}/{name.partition('/')[2]}", data))
    assert "(entry 1 of " in refused(path, "checkpoint.bad_entry")


@pytest.mark.parametrize("name", [b"a", b"a/b\0c"])
def test_a_name_without_a_folder_or_with_a_nul_is_refused(tmp_path, name):
    placeholder = b"@" * len(name)  # zipfile itself writes no such name
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr(placeholder.decode(), b"x")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes().replace(placeholder, name))
    assert "(entry 1 of 1)" in refused(tmp_path / "a.pt", "checkpoint.bad_entry")


def test_an_encrypted_entry_is_refused(tmp_path):
    path = save(tmp_path / "a.pt")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flags of the last entry of the table of contents
    path.write_bytes(data)
    assert "encrypted entries are not allowed" in refused(path, "checkpoint.compressed")


@pytest.mark.parametrize("name", ["constants.pkl", "code/__torch__.py"])
def test_either_sign_of_torchscript_is_enough(tmp_path, name):
    path = save(tmp_path / "a.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"a/{name}", b"x")
    assert f"the archive holds {name} (1 code entries)" in refused(path, "checkpoint.torchscript")


def test_an_entry_that_reaches_one_byte_into_the_next_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/x", b"1234")
        archive.writestr("a/y", b"1234")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    for place in (entry + 20, entry + 24):  # its size, stored and whole
        data[place] += 1
    path.write_bytes(data)
    assert "entry a/x ends at byte" in refused(path, "checkpoint.bad_entry")


def test_an_entry_that_appears_twice_is_refused(tmp_path):
    path = save(tmp_path / "a.pt")
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a/data/0", b"\0" * 48)
    assert "entry a/data/0 appears twice" in refused(path, "checkpoint.bad_entry")


def test_entries_that_overlap_are_refused(tmp_path):
    path = save(tmp_path / "a.pt", {"a": torch.zeros(4096), "b": torch.ones(4096)})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"a/data/{i}").header_offset for i in (0, 1))
    start = data.rindex(struct.pack("<I", second))  # the second record's offset in the table of contents
    path.write_bytes(data[:start] + struct.pack("<I", first) + data[start + 4 :])
    assert "entry a/data/0 ends at byte" in refused(path, "checkpoint.bad_entry")


def test_compressed_entries_are_refused(tmp_path):
    path = rewrite(save(tmp_path / "a.pt", {"a": torch.zeros(100_000)}), lambda *entry: entry, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 4000
    assert "compressed entries are not allowed: a/data.pkl" in refused(path, "checkpoint.compressed")


def test_torchscript_is_refused(tmp_path):
    class Adds(torch.nn.Module):
        def forward(self, x):
            return x + 1

    path = tmp_path / "a.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Adds(), torch.ones(1)), path)
    assert "TorchScript is not supported" in refused(path, "checkpoint.torchscript")


@pytest.mark.parametrize("version", ["2.9.1+cu130", "1.13.0"])
def test_an_old_torch_is_refused(tmp_path, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    message = refused(save(tmp_path / "a.pt"), "checkpoint.torch_too_old")
    assert f"reading a .pt file needs torch 2.10 or later, {version} is installed" in message


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0"])
def test_a_new_torch_is_used(tmp_path, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    assert "model" in read_torch_file(save(tmp_path / "a.pt")).content


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda name, data: None if name.endswith("data/0") else (name, data), "is not in the archive (1 of 2"),
        (lambda name, data: (name, data[:-8] if name.endswith("data/0") else data), "holds 40 of 48 bytes (2 of 2"),
        (lambda name, data: (name, data + data if name.endswith("data/0") else data), "holds 96 of 48 bytes (2 of 2"),
    ],
)
def test_missing_tensor_data_is_refused(tmp_path, change, found):
    path = rewrite(save(tmp_path / "a.pt"), change)
    message = refused(path, "checkpoint.tensor_data")
    assert f"tensor data missing: data/0 {found} records present)" in message


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = save(tmp_path / "a.pt", {"model": {"a": torch.as_strided(torch.zeros(1), (10**6, 10**6), (0, 0))}})
    assert path.stat().st_size < 2000
    message = refused(path, "checkpoint.tensor_exceeds_storage")
    assert "tensor model.a is larger than its storage: needs 4,000,000,000,000 bytes, has 4" in message


def test_one_storage_under_many_names_is_refused(tmp_path):
    table = torch.zeros(10_000)
    path = save(tmp_path / "a.pt", {str(i): table[:9000] for i in range(50)})
    assert "tensors share storage: 1,800,000 bytes in all" in refused(path, "checkpoint.tensor_exceeds_storage")


def test_a_tensor_that_asks_for_more_than_its_record_is_refused(tmp_path):
    path = save(tmp_path / "a.pt", {"a": torch.arange(12.0)})
    size = b"K\x0c\x85"  # the shape, (12,)
    bigger = b"J" + struct.pack("<i", 10**9) + b"\x85"
    changed = rewrite(
        path, lambda name, data: (name, data.replace(size, bigger) if name.endswith("data.pkl") else data)
    )
    assert "torch cannot rebuild its tensors" in refused(changed, "checkpoint.damaged")


@pytest.mark.parametrize("value", [torch.eye(2).to_sparse(), torch.ones(2, device="meta")])
def test_only_dense_tensors_count_as_plain(tmp_path, value):
    with pytest.raises(CheckpointError, match=r"tensor a\.0 is not a plain dense tensor") as caught:
        check_tensor_bytes(tmp_path, {"a": [value]}, 1000)
    assert caught.value.id == "checkpoint.not_dense"


def test_a_file_that_changes_during_reading_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.pt")
    real = torch.load

    def load(path, **options):
        content = real(path, **options)
        save(path, {"a": torch.zeros(5000)})
        return content

    monkeypatch.setattr(torch, "load", load)
    assert "changed during reading" in refused(path, "checkpoint.changed")
