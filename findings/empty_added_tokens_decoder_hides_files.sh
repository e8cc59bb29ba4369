#!/usr/bin/env bash
# Package: transformers 5.23.0 (tokenizers 0.23.3).
# Guess: "added_tokens_decoder": {} in tokenizer_config.json says that nothing is added there; it means the same as
#   leaving the key out.
# What happens: the mere presence of the key stops AutoTokenizer from reading special_tokens_map.json and
#   added_tokens.json. BOS and EOS become None and the added tokens fall apart into bytes.
# Why it matters: without BOS the first token has no context or another one, and control tokens are scored as ten ordinary
#   tokens; the mean loss moves and nothing is said.
# Seen:
#   key absent: bos <s>, eos </s>, '<|user|>hi' is 3 tokens: [256, 71, 72]
#   empty map: bos None, eos None, '<|user|>hi' is 10 tokens: [27, 91, 84, 82, 68, 81, 91, 29, 71, 72]
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


def load(extra):
    """The tokenizer of a folder with both older files, and with these entries in tokenizer_config.json."""
    os.makedirs("folder", exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save("folder/tokenizer.json")
    for name, content in {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **extra},
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>"},
        "added_tokens.json": {"<|user|>": 256, "<s>": 257, "</s>": 258},
    }.items():
        with open(f"folder/{name}", "w") as file:
            json.dump(content, file)
    return AutoTokenizer.from_pretrained("folder")


without, empty = load({}), load({"added_tokens_decoder": {}})
for label, tokenizer in (("key absent", without), ("empty map", empty)):
    ids = tokenizer("<|user|>hi")["input_ids"]
    print(f"{label}: bos {tokenizer.bos_token}, eos {tokenizer.eos_token}, '<|user|>hi' is {len(ids)} tokens: {ids}")
print("warnings", warnings)
assert not warnings
assert (without.bos_token, without.eos_token) == ("<s>", "</s>")
assert len(without("<|user|>hi")["input_ids"]) == 3
assert (empty.bos_token, empty.eos_token) == (None, None)
assert len(empty("<|user|>hi")["input_ids"]) == 10
EOF
