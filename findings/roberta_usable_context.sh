#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0).
# Guess: a RoBERTa-like decoder with max_position_embeddings = 64 takes inputs of 64 tokens, as that name says elsewhere.
# What happens: positions are counted from pad_token_id + 1, so the usable context is max_position_embeddings -
#   pad_token_id - 1; the id of a token that never occurs decides how long a text may be. One token more raises an
#   error about an index, which names neither the limit nor positions.
# Why it matters: a program that scores at the stated context fails at the first full window, and an evaluation that
#   catches errors per document drops just the long documents.
# Seen:
#   pad_token_id 0: 63 tokens, then RuntimeError: index 64 is out of bounds for dimension 1 with size 64
#   pad_token_id 1: 62 tokens, then RuntimeError: index 64 is out of bounds for dimension 1 with size 64
#   pad_token_id 7: 56 tokens, then RuntimeError: index 64 is out of bounds for dimension 1 with size 64
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import torch
from transformers import RobertaConfig, RobertaForCausalLM


def longest(pad_token_id):
    """The longest input that a model with max_position_embeddings=64 takes, and the error of the next one."""
    config = RobertaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, is_decoder=True, pad_token_id=pad_token_id,
    )
    model = RobertaForCausalLM(config).eval()
    for length in range(50, 65):
        try:
            with torch.no_grad():
                model(torch.full((1, length), 50))
        except (IndexError, RuntimeError) as error:
            return length - 1, f"{type(error).__name__}: {error}"
    return 64, "none"


for pad in (0, 1, 7):
    length, error = longest(pad)
    print(f"pad_token_id {pad}: {length} tokens, then {error}")
    assert length == 64 - pad - 1
    assert "out of bounds" in error
EOF
