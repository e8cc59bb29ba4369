"""Find text that a BPE vocabulary has no token for, character by character."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.tokenizers.spans import byte_level_alphabet, component_types

BYTE_NAMES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


class Alphabet:
    """Finds characters (or bytes of characters) for which a BPE model has no token.

    A BPE model starts from single characters or bytes. It drops one that is not in its vocabulary, or replaces it by
    the unknown token.

    Args:
        definition: the parsed tokenizer.json.
        backend: the `tokenizers.Tokenizer` built from it.
        vocabulary: token → id, without added tokens.

    Attributes:
        complete: whether every text has tokens; always True for models other than BPE.
        vanishes: whether text without a token is dropped, and not replaced by the unknown token.
    """

    def __init__(self, definition: dict[str, Any], backend: Any, vocabulary: dict[str, int]) -> None:
        model = definition["model"]
        self._rewrite = backend.normalizer.normalize_str if definition.get("normalizer") else None
        self._split = backend.pre_tokenizer.pre_tokenize_str if definition.get("pre_tokenizer") else None
        parts = component_types([definition.get("pre_tokenizer"), definition.get("normalizer")])
        self._bytes = "ByteLevel" in parts
        self._letters = {byte: letter for letter, byte in byte_level_alphabet().items()}
        self._vocabulary = vocabulary
        self._fallback = bool(model.get("byte_fallback"))
        self._forms = _forms(model)
        self._lost: dict[str, int] = {}
        self._kept: dict[str, bytes] = {}
        is_bpe = model.get("type", "BPE") == "BPE"
        self.complete = not is_bpe or self._is_complete()
        self.vanishes = not self.complete and not model.get("unk_token")

    def lost(self, text: str) -> int:
        """Return how many bytes of the text have no token; each character is looked up on its own."""
        total = 0
        for character in text:
            if character not in self._lost:
                self._lost[character] = self._lost_of(character)
            total += self._lost[character]
        return total

    def kept(self, text: str) -> npt.NDArray[np.bool_]:
        """Return bool [bytes of the text], True where a token stands for the byte; each character is looked up alone.

        The answer is right only where no normalizer rewrites the text.
        """
        for character in set(text) - self._kept.keys():
            self._kept[character] = self._kept_of(character)
        return np.frombuffer(b"".join(map(self._kept.__getitem__, text)), np.bool_)

    def _kept_of(self, character: str) -> bytes:
        data = character.encode()
        if not self._spelled(character):  # the tokenizer drops it by a rule, such as a blank between words
            return bytes(len(data))
        if self._bytes:
            return bytes(self._knows(self._letters[byte]) for byte in data)
        return bytes([self.lost(character) == 0]) * len(data)

    def _is_complete(self) -> bool:
        """Return whether the vocabulary has a token for each of the 256 bytes."""
        if self._bytes:
            return all(self._knows(letter) for letter in byte_level_alphabet())
        return self._fallback and self._vocabulary.keys() >= BYTE_NAMES

    def _knows(self, letter: str) -> bool:
        """Return whether the vocabulary has a character in every form that it can take in a word."""
        return all(form.format(letter) in self._vocabulary for form in self._forms)

    def _spelled(self, character: str) -> str:
        """Return the text that the model receives for a character after normalizer and pre-tokenizer."""
        spelled = str(self._rewrite(character)) if self._rewrite else character
        if self._split is not None:
            spelled = "".join(word for word, _ in self._split(spelled))
        if len(spelled) > 1 and spelled[0] in "\u2581\u0120" and not character.isspace():
            return spelled[1:]  # without the blank that the tokenizer puts before a text
        return spelled

    def _lost_of(self, character: str) -> int:
        letters = (letter for letter in self._spelled(character) if not self._spells(letter))
        return sum(1 if self._bytes else len(letter.encode()) for letter in letters)

    def _spells(self, letter: str) -> bool:
        if self._knows(letter):
            return True
        return self._fallback and all(f"<0x{byte:02X}>" in self._vocabulary for byte in letter.encode())


def _forms(model: dict[str, Any]) -> list[str]:
    """Return the forms of a character inside and at the end of a word ("##a", "a</w>"), as `str.format` patterns."""
    prefix, suffix = (
        (model.get(key) or "").replace("{", "{{").replace("}", "}}")
        for key in ("continuing_subword_prefix", "end_of_word_suffix")
    )
    return sorted({f"{start}{{0}}{end}" for start in {"", prefix} for end in {"", suffix}})
