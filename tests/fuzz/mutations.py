"""Damages bytes, JSON and TOML of files. Each function takes a random generator and a path; it returns what it did."""

from __future__ import annotations

import json
import math
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Mutation = Callable[[random.Random, Path], str]
EXTREMES = (
    0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**63 - 1, 2**63, 10**30, 0.0, -0.0, 0.5, 1e-320, 1e308,
    -1e308, math.nan, math.inf, -math.inf,
)  # fmt: skip
STRINGS = (
    "",
    "x",
    "../elsewhere/kept.txt",
    "/etc/hostname",
    "a\x00b",
    "\ud800",
    "é" * 300,
    "${HOME}",
    "NaN",
    "0",
    "\x1b[2J",
)
TYPES = (None, True, False, [], {}, [[]], {"a": 1}, "3", 3, 3.5, [1, 2, 3], ["a"])


# Bytes


def bytes_of(draw: random.Random, path: Path, start: int = 0, stop: int | None = None) -> str:
    """Damage some bytes of a file between two offsets."""
    data = bytearray(path.read_bytes())
    stop = len(data) if stop is None else min(stop, len(data))
    at = draw.randrange(start, max(start + 1, stop))
    way = draw.choice(("flip", "flip", "flip", "set", "truncate", "insert", "remove", "double", "zero", "append"))
    match way:
        case "flip":
            bit = draw.randrange(8)
            data[at : at + 1] = bytes(byte ^ (1 << bit) for byte in data[at : at + 1])
            way += f" bit {bit}"
        case "set":
            data[at : at + 1] = bytes([draw.choice((0, 1, 0x22, 0x2C, 0x7B, 0x7F, 0x80, 0xFF))])
        case "truncate":
            del data[at:]
        case "insert":
            data[at:at] = draw.randbytes(draw.choice((1, 4, 64)))
        case "remove":
            del data[at : at + draw.choice((1, 8, 100))]
        case "double":
            data[at:at] = data[at : at + 32]
        case "zero":
            data[at : at + 16] = bytes(len(data[at : at + 16]))
        case "append":
            data += draw.choice((b"\0", b" ", b"\n{}", draw.randbytes(100)))
    path.write_bytes(bytes(data))
    return f"{way} at {'the end' if way == 'append' else f'byte {at}'} of {path.name}"


def head_of_safetensors(draw: random.Random, path: Path) -> str:
    """Damage the header of a safetensors file: its length, its bytes, or its JSON."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    way = draw.choice(("length", "bytes", "json", "json"))
    if way == "length":
        value = draw.choice((0, 1, size - 1, size + 1, size + 8, len(data), 2**31, 2**63, 2**64 - 1))
        path.write_bytes(struct.pack("<Q", value) + data[8:])
        return f"header length {value}"
    if way == "bytes":
        return bytes_of(draw, path, 8, 8 + size)
    text, said = broken_json(draw, json.loads(data[8 : 8 + size]))
    header = text.encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    return f"header: {said}"


def data_of_safetensors(draw: random.Random, path: Path) -> str:
    """Change one bit of the weights, for which the file has no checksum."""
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    at = draw.randrange(8 + size, len(data))
    data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))
    return f"weights, byte {at}"


def record_of_zip(draw: random.Random, path: Path) -> str:
    """Damage one record of a torch file, and write the archive again with a matching checksum."""
    with zipfile.ZipFile(path) as archive:
        records = {each.filename: archive.read(each) for each in archive.infolist()}
    name = draw.choice([name for name in records if records[name]])
    if draw.random() < 0.6:
        name = next(each for each in records if each.endswith("data.pkl"))
    part = path.with_name("record")
    part.write_bytes(records[name])
    said = bytes_of(draw, part)
    records[name] = part.read_bytes()
    part.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for each, content in records.items():
            archive.writestr(each, content)
    return f"{name}: {said}"


# JSON and TOML


def json_file(draw: random.Random, path: Path) -> str:
    """Damage the bytes or the content of a JSON file."""
    if draw.random() < 0.3:
        return bytes_of(draw, path)
    text, said = broken_json(draw, json.loads(path.read_bytes()))
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"{path.name}: {said}"


def broken_json(draw: random.Random, content: Any) -> tuple[str, str]:
    """Return JSON with one value or key changed, and a description of the change."""
    places = list(_places(content))
    parent, key, where = draw.choice(places)
    old = parent[key]
    way = draw.choice(
        ("remove", "remove", "extreme", "extreme", "type", "type", "string", "rename", "double", "swap", "deep")
    )
    match way:
        case "remove":
            del parent[key]
        case "extreme":
            parent[key] = draw.choice(EXTREMES)
        case "type":
            parent[key] = draw.choice(TYPES)
        case "string":
            parent[key] = draw.choice(STRINGS)
        case "rename" if isinstance(parent, dict):
            parent[draw.choice((str(key) + " ", str(key).upper(), *STRINGS))] = parent.pop(key)
        case "double" if isinstance(parent, dict):
            other = draw.choice((old, draw.choice(EXTREMES), draw.choice(TYPES)))
            text = json.dumps(content)
            member = f"{json.dumps(key)}: {json.dumps(old)}"
            return text.replace(
                member, f"{member}, {json.dumps(key)}: {json.dumps(other)}", 1
            ), f"{where} twice, then {other!r}"
        case "swap":
            second, other, there = draw.choice(places)
            parent[key], second[other] = second[other], old
            way = f"swap with {there} of"
        case _:
            parent[key] = json.loads("[" * 400 + "]" * 400)
    value = parent[key] if (key in parent if isinstance(parent, dict) else key < len(parent)) else None
    try:
        return json.dumps(content), f"{way} {where}: {old!r:.40} → {value!r:.40}"
    except ValueError:  # the swap made a ring
        return "[]", "an empty list"


def _places(content: Any, where: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield (parent, key, path) of every value inside `content`."""
    members = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(members)[:60]:
        yield content, key, f"{where}/{key}"
        yield from _places(value, f"{where}/{key}")


def toml_file(draw: random.Random, path: Path) -> str:
    """Damage the bytes, a line or a value of a TOML file."""
    lines = path.read_text("utf-8").splitlines()
    at = draw.randrange(len(lines))
    way = draw.choice(("bytes", "remove", "double", "swap", "value", "value", "value", "key"))
    if way == "bytes":
        return bytes_of(draw, path)
    old = lines[at]
    match way:
        case "remove":
            del lines[at]
        case "double":
            lines.insert(at, old)
        case "swap":
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], old
        case "value":
            new = draw.choice(
                (*map(_toml, EXTREMES), *map(json.dumps, STRINGS), "[]", "{}", "true", "1979-05-27", "[1, 2]")
            )
            lines[at] = f"{old.split('=')[0]}= {new}"
        case "key":
            name, value = draw.choice(("a", '"\u0000"', "stats.seed", "max")), draw.choice(("1", "-1", "nan"))
            lines[at] = f"{name} = {value}"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return f"{way} line {at + 1} {old!r}"


def _toml(value: float) -> str:
    return repr(value) if isinstance(value, int) or math.isfinite(value) else str(value)
