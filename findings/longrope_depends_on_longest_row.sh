#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0).
# Guess: in a batch padded on the right, with a causal model and an attention mask, each row gets the logits that it
#   gets alone.
# What happens: LongRoPE (Phi-3 and others) has one frequency table for short and one for long texts, and picks the table
#   for the whole batch by its highest position, padding included. A short text beside a long one, or merely padded
#   past original_max_position_embeddings, is scored with the long table. The attention mask changes nothing.
# Why it matters: the loss depends on the batch size and on how texts are grouped; larger batches look like another model.
# Seen:
#   alone 5.4403, padded to 60 5.4403
#   beside a row of 100: 4.9038, with an attention mask 4.9038
#   no second row, padded to 100, with an attention mask: 4.9038
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import torch
from torch.nn.functional import cross_entropy
from transformers import Phi3Config, Phi3ForCausalLM

torch.manual_seed(0)
config = Phi3Config(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=128, original_max_position_embeddings=64, initializer_range=0.3,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
    rope_parameters={
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
        "short_factor": [1.0] * 8, "long_factor": [1 + 0.5 * i for i in range(8)],
    },
)
model = Phi3ForCausalLM(config).eval()
short, long = torch.randint(3, 64, (1, 20)), torch.randint(3, 64, (1, 100))
padded = torch.cat([short, torch.zeros(1, 80, dtype=torch.long)], 1)
both = torch.cat([padded, long])
mask = torch.ones_like(both)
mask[0, 20:] = 0


@torch.no_grad()
def loss(ids, mask=None):
    """The loss of the 20 tokens of the short text in the first row."""
    logits = model(ids, attention_mask=mask).logits
    return cross_entropy(logits[0, :19], short[0, 1:]).item()


alone, little_padding = loss(short), loss(padded[:, :60])
beside, beside_masked, much_padding = loss(both), loss(both, mask), loss(padded, mask[:1])
print(f"alone {alone:.4f}, padded to 60 {little_padding:.4f}")
print(f"beside a row of 100: {beside:.4f}, with an attention mask {beside_masked:.4f}")
print(f"no second row, padded to 100, with an attention mask: {much_padding:.4f}")
assert abs(alone - little_padding) < 1e-4
for other in (beside, beside_masked, much_padding):
    assert abs(alone - other) > 0.01
EOF
