"""A chat template, as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ChatTemplate:
    """The Jinja template with which a checkpoint makes a text of a conversation.

    Attributes:
        source: the template; "" where the files hold none that can be used, and `origin` then says why.
        origin: the file or key that it was read from, for messages.
        tool_source: the template for conversations with tools, where the checkpoint has one of its own; "" otherwise.
        special_tokens: names that the template may use, such as "bos_token", and their texts.
    """

    source: str
    origin: str
    tool_source: str = ""
    special_tokens: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of everything that decides what it renders."""
        deciding = [self.source, self.tool_source, sorted(self.special_tokens.items())]
        return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()
