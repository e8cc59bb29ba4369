#!/usr/bin/env bash
# Package: transformers 5.23.0 (tokenizers 0.23.3).
# Guess: added_tokens_decoder in tokenizer_config.json maps ids to tokens, so a token declared as 310 has id 310, or the
#   folder is refused.
# What happens: for a fast tokenizer the declared ids only give the order. A token that tokenizer.json lacks gets the next
#   free id, here 256 in place of 310, and nothing is said.
# Why it matters: the model reads another row of its embedding, one that was never trained for this token, and the
#   loss of every text with that token is wrong while all shapes fit (vocabularies are usually padded).
# Seen:
#   declared 310, given {'<|user|>': 256}
#   declared 310 and 300, given {'<|user|>': 257, '<|end|>': 256}
#   declared 256, the next free id, given {'<|user|>': 256}
#   warnings []
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import json
import logging
import os

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
transformers.logging.add_handler(handler)


def ids_given(declared):
    """The ids that the loaded tokenizer gives to the tokens declared in tokenizer_config.json."""
    os.makedirs("folder", exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save("folder/tokenizer.json")
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    tokens = {str(index): {"content": content, **flags} for content, index in declared.items()}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": tokens}
    with open("folder/tokenizer_config.json", "w") as file:
        json.dump(config, file)
    loaded = AutoTokenizer.from_pretrained("folder")
    return {token: loaded.convert_tokens_to_ids(token) for token in declared}


one = ids_given({"<|user|>": 310})
two = ids_given({"<|user|>": 310, "<|end|>": 300})
next_free = ids_given({"<|user|>": 256})
print("declared 310, given", one)
print("declared 310 and 300, given", two)
print("declared 256, the next free id, given", next_free)
print("warnings", warnings)
assert one == {"<|user|>": 256}
assert two == {"<|end|>": 256, "<|user|>": 257}
assert next_free == {"<|user|>": 256}
assert not warnings
EOF
