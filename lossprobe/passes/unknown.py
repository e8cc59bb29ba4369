"""Tells of what a tokenizer did to a text: unknown, rewritten and vanished text, names of special tokens, pieces."""

from __future__ import annotations

from typing import Any

from lossprobe.errors import TextError
from lossprobe.passes.known_text import templated
from lossprobe.text.documents import Source
from lossprobe.units import plural, visible


def check_unknown(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    """Add notices of what a tokenizer did to a text, or refuse the text if too much of it is not in the vocabulary.

    Args:
        counts: the `counts` of a plan or a run. Stored runs are checked too: they may have had a looser limit.
        source: the text, for its name and its notices.
        max_unknown: largest allowed share of unknown tokens, and of bytes without a token.

    Raises:
        TextError: the share is larger.
    """
    _refuse_unknown(counts, source, max_unknown)
    _refuse_vanished(counts, source, max_unknown)
    rewritten = counts.get("normalized_bytes", 0)
    if rewritten and not counts.get("vanished_bytes", 0):
        share = rewritten / counts["bytes"]
        _note(source, f"the tokenizer dropped or rewrote {plural(rewritten, 'byte')} ({share:.2%}) of the text")
    special = counts.get("special_strings", 0)
    if special:
        what = f"{plural(special, 'token')} {'is a control id' if special == 1 else 'are control ids'}"
        how = "trainers read them so too" if templated(source) else "`special_strings` text reads such names as text"
        _note(source, f"{what}, since the text holds the names; {how}")
    straddling = counts.get("straddling_tokens", 0)
    if straddling:
        what = f"{plural(straddling, 'token')} {'lies' if straddling == 1 else 'lie'} across an edge of two parts"
        _note(
            source,
            f"{what}, such as prompt and answer; such a token counts whole to the part that is scored, as in trainers",
        )
    cut = counts.get("documents_in_pieces", 0)
    if cut:
        what = f"{plural(cut, 'long document')} tokenized in pieces, by a tokenizer that can look farther than a piece"
        _note(source, f"{what}: the tokens may be others than those of the whole; selfcheck compares a sample")


def _note(source: Source, what: str) -> None:
    text = f"{source.name}: {what}"
    if text not in source.notices:
        source.notices.append(text)


def _refuse_unknown(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    unknown = counts["unknown_tokens"]
    if not unknown:
        return
    pieces: list[str] = counts["unknown_text"]
    share = unknown / counts["tokens"]
    shown = " ".join(f"U+{ord(piece):04X}" if len(piece) == 1 else visible(piece, 20) for piece in pieces)
    verb = "is" if unknown == 1 else "are"
    text = f"{plural(unknown, 'token')} ({share:.2%}) {verb} not in the vocabulary"
    text += f": {shown}" if shown else ""
    if share > max_unknown:
        hint = "`newlines` lf turns CRLF and CR into LF" if "\r" in "".join(pieces) else "see `max_unknown`"
        raise TextError("text.unknown", f"{source.name}: {text} (limit {max_unknown:.2%})", hint=hint)
    _note(source, text)


def _refuse_vanished(counts: dict[str, Any], source: Source, max_unknown: float) -> None:
    vanished = counts.get("vanished_bytes", 0)
    if not vanished:
        return
    share = vanished / counts["bytes"]
    text = f"{plural(vanished, 'byte')} ({share:.2%}) of the text vanished: the vocabulary has no token for them"
    if share > max_unknown:
        hint = "`max_unknown` 1 scores the tokens that are left; nothing is given per byte or per word then"
        raise TextError("text.vanished", f"{source.name}: {text} (limit {max_unknown:.2%})", hint=hint)
    _note(source, f"{text}; nothing is given per byte or per word")
