"""Read small YAML files of a checkpoint that hold only plain values."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from lossprobe.checkpoint.files.plain_files import open_plain
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.units import format_count

MAX_YAML_BYTES = 64 << 10
MAX_YAML_NESTING = 4


def read_yaml(path: Path) -> tuple[dict[object, object], str]:
    """Return the mapping in a small YAML file, and the sha256 of its bytes.

    Raises:
        CheckpointError: the file is unreadable, larger than 64 KiB, not YAML in UTF-8, not a mapping, nests too deeply,
            or has tags, anchors, aliases or a repeated key.
    """
    try:
        with open_plain(path) as stream:
            data = stream.read(MAX_YAML_BYTES + 1)
        if len(data) > MAX_YAML_BYTES:
            raise refusal("checkpoint.bad_config", path, f"more than {format_count(MAX_YAML_BYTES)} bytes")
        text, depth = data.decode("utf-8"), 0
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            kind = type(token).__name__
            depth += kind.endswith("StartToken") - kind.endswith("EndToken")  # the document itself counts as level 1
            if depth > MAX_YAML_NESTING or kind in {"AliasToken", "AnchorToken", "TagToken"}:
                what = f"line {token.start_mark.line + 1}: aliases, anchors, tags and deep nesting are not allowed"
                raise refusal("checkpoint.bad_config", path, what)
        node, stated = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except OSError as error:
        raise refusal("checkpoint.unreadable", path, f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f"line {mark.line + 1}: " if mark else ""
        raise refusal("checkpoint.bad_config", path, f"{where}not YAML in UTF-8") from None
    if not isinstance(node, yaml.MappingNode) or len(node.value) != len(stated):
        raise refusal("checkpoint.bad_config", path, "not a mapping that gives each key once")
    return stated, hashlib.sha256(data).hexdigest()
