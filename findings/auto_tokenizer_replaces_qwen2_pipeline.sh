#!/usr/bin/env bash
# Package: transformers 5.23.0 (tokenizers 0.23.3).
# Guess: a folder whose tokenizer_config.json says PreTrainedTokenizerFast is tokenized by its tokenizer.json, whatever
#   the model in config.json is.
# What happens: with model_type "qwen2" AutoTokenizer builds a Qwen2Tokenizer: vocabulary and merges come from the file, but
#   its normalizer and pre-tokenizer are replaced by those of Qwen2. "qwen3" and "llama" keep the file's own.
# Why it matters: a model trained from scratch in the qwen2 architecture with its own tokenizer is scored on other tokens
#   than it was trained on, more of them and less likely ones, and nothing is said.
# Seen:
#   tokenizer.json alone ['ab', 'Ġ', 'ab', 'Ġ', '12']
#   qwen2: Qwen2Tokenizer ['A', 'B', 'Ġ', 'ab', 'Ġ', '1', '2']
#   qwen3: TokenizersBackend ['ab', 'Ġ', 'ab', 'Ġ', '12']
#   llama: TokenizersBackend ['ab', 'Ġ', 'ab', 'Ġ', '12']
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
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
transformers.logging.add_handler(handler)

os.makedirs("folder")
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
merges = [("1", "2"), ("a", "b")]
vocabulary = alphabet + [left + right for left, right in merges]
own = Tokenizer(models.BPE({c: i for i, c in enumerate(vocabulary)}, merges))
own.normalizer = normalizers.Lowercase()
own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
own.save("folder/tokenizer.json")
with open("folder/tokenizer_config.json", "w") as file:
    json.dump({"tokenizer_class": "PreTrainedTokenizerFast"}, file)

text = "AB ab 12"
expected = own.encode(text).tokens
print("tokenizer.json alone", expected)
seen = {}
for model_type in ("qwen2", "qwen3", "llama"):
    with open("folder/config.json", "w") as file:
        json.dump({"model_type": model_type}, file)
    loaded = AutoTokenizer.from_pretrained("folder")
    seen[model_type] = loaded.tokenize(text)
    print(f"{model_type}: {type(loaded).__name__} {seen[model_type]}")
print("warnings", warnings)
assert seen["qwen3"] == seen["llama"] == expected
assert seen["qwen2"] == ["A", "B", "Ġ", "ab", "Ġ", "1", "2"]
assert not warnings
EOF
