"""Give the tokenizer of an opened checkpoint its chat template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.plain_files import absolute
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.templates.find import find_template, given_template
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.errors import CheckpointError


def with_template(checkpoint: Any, path: Path, options: LoadOptions) -> Checkpoint:
    """Return a checkpoint whose tokenizer has its chat template, or the one that the user names.

    A fault of the checkpoint's own template is raised only when a conversation needs it, as plain text never does: such
    a template has no source.

    Args:
        checkpoint: as its family opens it; its facts get the template's files.
        path: the path of the checkpoint.
        options: as in `open_checkpoint`.

    Raises:
        CheckpointError: the template that the user names cannot be read.
    """
    tokenizer = checkpoint.tokenizer
    special = getattr(tokenizer, "special_tokens", None)
    if options.chat_template is not None:
        tokenizer.chat_template = given_template(options.chat_template, special or {})
        files: tuple[Path, ...] = () if options.chat_template.is_dir() else (options.chat_template,)
    elif special is not None:
        place = options.tokenizer or path
        try:
            found, files = find_template(place if place.is_dir() else place.parent, special)
        except CheckpointError as error:
            found, files = ChatTemplate("", error.message), ()
        tokenizer.chat_template = found
    else:
        return checkpoint  # type: ignore[no-any-return]
    known = checkpoint.facts.files
    checkpoint.facts = replace(checkpoint.facts, files=tuple(dict.fromkeys((*known, *absolute(files)))))
    return checkpoint  # type: ignore[no-any-return]
