#!/usr/bin/env bash
# Package: tokenizers 0.23.3.
# Guess: a character that a BPE vocabulary without unk_token lacks raises an error, or is at least a gap in the offsets; the
#   letters around it stay apart.
# What happens: the character vanishes, its neighbours are merged across the gap ("aéb" becomes the token "ab"), and the
#   offsets of that word are counted as if the character had not been there, so they point at other text. Words
#   after it are right again, and a word of unknown characters only gives nothing at all.
# Why it matters: the model is scored on text that is not in the file, losses per character or byte are divided by bytes
#   that no token stands for, and a table of tokens with their text shows text that the token does not mean.
# Seen:
#   'c ab c': tokens ['c', 'ab', 'c'], text at their offsets ['c', 'ab', 'c']
#   'c aéb c': tokens ['c', 'ab', 'c'], text at their offsets ['c', 'aé', 'c']
#   'c éab c': tokens ['c', 'ab', 'c'], text at their offsets ['c', 'é', 'c']
#   'éüö': tokens [], text at their offsets []
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet tokenizers==0.23.3 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
from tokenizers import Tokenizer, models, pre_tokenizers

tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2, "ab": 3}, [("a", "b")]))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()


def encode(text):
    """Tokens, and the pieces of the text that their offsets point at."""
    encoded = tokenizer.encode(text)
    return encoded.tokens, [text[start:end] for start, end in encoded.offsets]


for text in ("c ab c", "c aéb c", "c éab c", "éüö"):
    tokens, spans = encode(text)
    print(f"{text!r}: tokens {tokens}, text at their offsets {spans}")
assert encode("c ab c") == (["c", "ab", "c"], ["c", "ab", "c"])
assert encode("c aéb c") == (["c", "ab", "c"], ["c", "aé", "c"])
assert encode("c éab c") == (["c", "ab", "c"], ["c", "é", "c"])
assert encode("éüö") == ([], [])
EOF
