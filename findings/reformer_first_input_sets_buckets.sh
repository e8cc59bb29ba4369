#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0).
# Guess: with hash_seed set, a Reformer in eval mode (is_decoder=True) is a causal function of its input. (Without it the
#   hashing is random by design, as the documentation of hash_seed says.)
# What happens: if num_buckets is not set, which is the default, it is computed from the length of the first input and
#   then kept, in the config too; a long text scored after a short one gets the bucket count of the short one. Later tokens
#   move the logits of earlier ones, because they take part in the sorting by bucket that decides who sees whom.
#   And each forward pass seeds the global random generator of torch.
# Why it matters: the loss of a text depends on which text came first and on what follows in its window, and random
#   draws made between forward passes (samples, bootstraps) are the same each time.
# Seen:
#   fresh model: 32 buckets, loss 6.5649
#   after an input of 32: 4 buckets, loss 6.5710
#   logits of the first 199 tokens moved by tokens after 200: 7.6933
#   torch.rand after each of two forward passes: 0.3613 0.3613
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import copy

import torch
from transformers import ReformerConfig, ReformerModelWithLMHead

torch.manual_seed(0)
config = ReformerConfig(
    vocab_size=64, hidden_size=32, attention_head_size=16, feed_forward_size=64, num_attention_heads=2,
    is_decoder=True, attn_layers=["lsh", "lsh"], lsh_attn_chunk_length=16, axial_pos_shape=[16, 16],
    axial_pos_embds_dim=[16, 16], max_position_embeddings=256, hash_seed=0, initializer_range=0.3,
)
weights = ReformerModelWithLMHead(copy.deepcopy(config)).state_dict()
tokens = torch.randint(0, 64, (1, 256))
other_end = tokens.clone()
other_end[0, 200:] = 7


def fresh():
    """A model with the same weights that has seen no input."""
    model = ReformerModelWithLMHead(copy.deepcopy(config)).eval()
    model.load_state_dict(weights)
    return model


with torch.no_grad():
    long_first, short_first = fresh(), fresh()
    expected = long_first(tokens, labels=tokens)
    short_first(tokens[:, :32])
    seen = short_first(tokens, labels=tokens)
    moved = (long_first(other_end).logits - expected.logits)[0, :199].abs().max().item()
    draws = []
    for _ in range(2):
        long_first(tokens)
        draws.append(torch.rand(1).item())
print(f"fresh model: {long_first.config.num_buckets} buckets, loss {expected.loss:.4f}")
print(f"after an input of 32: {short_first.config.num_buckets} buckets, loss {seen.loss:.4f}")
print(f"logits of the first 199 tokens moved by tokens after 200: {moved:.4f}")
print(f"torch.rand after each of two forward passes: {draws[0]:.4f} {draws[1]:.4f}")
assert (long_first.config.num_buckets, short_first.config.num_buckets) == (32, 4)
assert abs(expected.loss - seen.loss) > 1e-3
assert moved > 0.01 and draws[0] == draws[1]
EOF
