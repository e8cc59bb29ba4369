"""Tokenizes a text as another tool does, and counts how its tokens differ from the checkpoint's own."""

from __future__ import annotations

from lossprobe.checkpoint.deferred import opened
from lossprobe.checkpoint.interface import Checkpoint, MultiReaderTokenizer, Tokenizer, Tokens
from lossprobe.checkpoint.retokenized import RetokenizedCheckpoint
from lossprobe.passes.known_text import tokens_of
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.text.documents import Document, Source
from lossprobe.units import plural


def checkpoint_of_tool(protocol: str, checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with the tokenizer, BOS and EOS that a tool would use for it.

    Raises:
        CheckpointError: the tool cannot read the tokenizer's files.
    """
    checkpoint = opened(checkpoint)
    own = checkpoint.tokenizer
    reader = PROTOCOLS[protocol].reader
    if not reader or not isinstance(own, MultiReaderTokenizer):
        return checkpoint
    return RetokenizedCheckpoint(checkpoint, own.read_by(reader))


class TokenCounts:
    """Counts the tokens of a text by a tool's tokenizer and by the checkpoint's own.

    Args:
        checkpoint: from `checkpoint_of_tool`.
        source: the text.
    """

    def __init__(self, checkpoint: Checkpoint, source: Source) -> None:
        own = checkpoint.own_tokenizer if isinstance(checkpoint, RetokenizedCheckpoint) else None
        same = getattr(own, "canonical", None) == getattr(checkpoint.tokenizer, "canonical", None)
        self._own: Tokenizer | None = None if same else own
        self._source = source
        self.differ = False
        self.theirs = self.ours = 0

    def add(self, document: Document, tokens: Tokens) -> None:
        """Add one document; `tokens` are the tool's tokens of it."""
        if self._own is not None:
            ids = tokens_of(self._source, document, self._own).ids
            self.ours, self.theirs = self.ours + len(ids), self.theirs + len(tokens.ids)
            self.differ |= ids.tolist() != tokens.ids.tolist()

    def __str__(self) -> str:
        """Return both counts, in words."""
        return (
            f"reads the tokenizer's files otherwise: {plural(self.theirs, 'token')}, which are scored here, where "
            f"{plural(self.ours, 'token')} are scored without `protocol`"
        )
