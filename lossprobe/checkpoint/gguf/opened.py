"""A GGUF model whose header has been measured, with what is said about it; models in several files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lossprobe.checkpoint.files.hashes import combined_sha256
from lossprobe.checkpoint.files.plain_files import absolute, stands
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.gguf.header import GGUFHeader, described_type, quantised_types, read_header
from lossprobe.checkpoint.gguf.process import LlamaProcess
from lossprobe.checkpoint.gguf.stated import impossible_ids
from lossprobe.checkpoint.gguf.tokenizer import LlamaTokenizer
from lossprobe.checkpoint.interface import ONE_WINDOW, CheckpointFacts
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.units import visible

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MOST_PARTS = 9999


@dataclass(frozen=True)
class Opened:
    """A GGUF model whose header has been measured.

    Attributes:
        headers: of all its parts.
        process: llama.cpp with the model, or with its vocabulary alone.
        tokenizer: its tokenizer.
        hashes: the sha256 of each part.
    """

    headers: list[GGUFHeader]
    process: LlamaProcess
    tokenizer: LlamaTokenizer
    hashes: dict[Path, str]


def facts_of(opened: Opened, options: LoadOptions) -> CheckpointFacts:
    """Return the facts of a model that llama.cpp runs."""
    headers, process, hashes = opened.headers, opened.process, opened.hashes
    architecture = headers[0].text("general.architecture")
    length = headers[0].keys.get(f"{architecture}.context_length")
    names = {name for header in headers for name in header.tensors}
    kinds = quantised_types(headers)
    return CheckpointFacts(
        name=headers[0].path.name,
        family=f"{architecture} (GGUF)",
        sha256=combined_sha256({file.name: digest for file, digest in hashes.items()}),
        vocab_size=process.facts["vocab_size"],
        context_length=length if type(length) is int and length > 0 else None,
        hard_limit=False,
        parameters=process.facts["parameters"],
        stored_dtype=described_type(headers),
        quantization=f"GGUF, {', '.join(kinds)}" if kinds else None,
        compute_dtype="llama.cpp",
        device="cpu",
        tied="output.weight" not in names,
        head="streamed",
        kernels=f"llama.cpp's own ({process.package}, llama.cpp {process.facts['llama']}), keys and values in float16",
        batching=ONE_WINDOW,
        config_from="the file's header",
        notices=(*_notices(options, opened.tokenizer), *impossible_ids(headers[0])),
        files=absolute(hashes),
        hashes=tuple((str(file.absolute()), digest) for file, digest in hashes.items()),
    )


def read_parts(path: Path) -> list[GGUFHeader]:
    """Return the headers of all parts of a model; the one header of a file that stands alone.

    Raises:
        CheckpointError: a header does not fit its file, or a part is missing or belongs to another model.
    """
    first = read_header(path)
    if "split.count" not in first.keys:
        return [first]
    count, number = first.number("split.count"), first.number("split.no", 0)
    named = PART.fullmatch(path.name)
    if count <= 1:
        return [first]
    if number or (named and int(named["number"]) != 1):
        start = f"{named['stem']}-00001-of-{named['count']}.gguf" if named else "its first part"
        raise refusal("checkpoint.missing_shard", path, f"part {number + 1} of {count}", hint=f"give {start}")
    if named is None or int(named["count"]) != count or count > MOST_PARTS:
        what = f"the first of {count} parts, but its name does not end in -00001-of-{count:05}.gguf"
        raise refusal("checkpoint.missing_shard", path, what, hint="give the parts the names that they were made with")
    files = [path.with_name(f"{named['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]
    missing = [file.name for file in files if not stands(file)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        what = f"{len(missing)} of its {count} parts {verb} missing: {visible(missing[0], 120)}"
        raise refusal("checkpoint.missing_shard", path, what, hint="put all parts into one folder")
    headers = [first, *(read_header(file) for file in files[1:])]
    for place, header in enumerate(headers):
        stated = (header.keys.get("split.no"), header.keys.get("split.count"))
        if stated != (place, count):
            what = f"says that it is part {stated[0]} of {stated[1]}, not {place} of {count} (from 0)"
            raise refusal("checkpoint.bad_index", header.path, what)
    total, stated_total = sum(len(header.tensors) for header in headers), first.keys.get("split.tensors.count")
    if stated_total is not None and stated_total != total:
        raise refusal("checkpoint.bad_index", path, f"its parts hold {total} tensors, it says {stated_total}")
    return headers


def _notices(options: LoadOptions, tokenizer: LlamaTokenizer) -> tuple[str, ...]:
    device = (
        ""
        if options.device == "cpu" or options.dequantize
        else f"`device` {options.device}: llama.cpp runs on the CPU here"
    )
    end = "llama.cpp puts an EOS after every text, which is not scored here" if tokenizer.last_ids else ""
    return tuple(filter(None, (device, end)))
