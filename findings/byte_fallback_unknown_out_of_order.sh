#!/usr/bin/env bash
# Package: tokenizers 0.23.3.
# Guess: in a BPE vocabulary with byte_fallback that lacks one of the 256 byte tokens, a character that needs this byte
#   becomes <unk> at its place; the other tokens stay in the order of the text.
# What happens: the <unk> is held back until a character of the vocabulary follows or the word ends. All characters that
#   are spelled in bytes overtake it, and the offsets follow the wrong order: "ж" is said to stand where "é" is.
# Why it matters: a pruned vocabulary lacks bytes easily. The model is then scored on a text with two characters
#   swapped, and each loss is shown at the other character.
# Seen (é is C3 A9, ж is D0 B6):
#   complete: aéжb ['a', '<0xC3>', '<0xA9>', '<0xD0>', '<0xB6>', 'b'], offsets in order
#   without C3, known letter next: aéb ['a', '<unk>', 'b'] [(0, 1), (1, 2), (2, 3)]
#   without C3, bytes next: aéжb ['a', '<0xD0>', '<0xB6>', '<unk>', 'b'] [(0, 1), (1, 2), (1, 2), (2, 3), (3, 4)]
#   without C3, bytes to the end: aéжжж ['a', '<0xD0>', '<0xB6>', '<0xD0>', '<0xB6>', '<0xD0>', '<0xB6>', '<unk>']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet tokenizers==0.23.3 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
from tokenizers import Tokenizer, models


def encode(text, missing=None):
    """Tokens and offsets under byte fallback, with all 256 byte tokens but the missing one."""
    pieces = ["<unk>", *(f"<0x{b:02X}>" for b in range(256) if b != missing), "a", "b"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    encoded = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)).encode(text)
    return encoded.tokens, encoded.offsets


for label, text, missing in (
    ("complete", "aéжb", None),
    ("without C3, known letter next", "aéb", 0xC3),
    ("without C3, bytes next", "aéжb", 0xC3),
    ("without C3, bytes to the end", "aéжжж", 0xC3),
):
    tokens, offsets = encode(text, missing)
    print(f"{label}: {text} {tokens} {offsets}")
assert encode("aéжb")[0] == ["a", "<0xC3>", "<0xA9>", "<0xD0>", "<0xB6>", "b"]
assert encode("aéb", 0xC3)[0] == ["a", "<unk>", "b"]
tokens, offsets = encode("aéжb", 0xC3)
assert tokens == ["a", "<0xD0>", "<0xB6>", "<unk>", "b"], tokens
assert offsets == [(0, 1), (1, 2), (1, 2), (2, 3), (3, 4)], offsets
tokens = encode("aéжжж", 0xC3)[0]
assert tokens == ["a", *["<0xD0>", "<0xB6>"] * 3, "<unk>"], tokens
EOF
