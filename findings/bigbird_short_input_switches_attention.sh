#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0).
# Guess: BigBirdForCausalLM with is_decoder=True is causal, and what it gives for a long input does not depend on
#   earlier inputs.
# What happens: the default attention, block_sparse, has no causal mask: tokens at the end change the logits at the
#   beginning. An input too short for it switches the model to full causal attention; a warning says that it switches,
#   but not that it stays: all later inputs, long ones too, run with full attention.
# Why it matters: the loss of a long text is either one with a look at its future or a proper one, and which of the two
#   is decided by whether a short text came first.
# Seen:
#   fresh model: block_sparse, loss 6.2790, logits moved by later tokens 5.2524
#   after one short input: original_full, loss 6.2221, logits moved by later tokens 0.0000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import torch
from transformers import BigBirdConfig, BigBirdForCausalLM

torch.manual_seed(0)
config = BigBirdConfig(
    vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=512, block_size=16, num_random_blocks=2, is_decoder=True, initializer_range=0.3,
)
weights = BigBirdForCausalLM(config).state_dict()
tokens = torch.randint(70, 128, (1, 320))
other_end = tokens.clone()
other_end[0, 300:] = 70


@torch.no_grad()
def long_input(after_short):
    """The loss of the long input, and how far another end of it moves the logits of its first 250 tokens."""
    model = BigBirdForCausalLM(config).eval()
    model.load_state_dict(weights)
    if after_short:
        model(tokens[:, :64])
    result = model(tokens, labels=tokens)
    moved = (model(other_end).logits - result.logits)[0, :250].abs().max().item()
    return result.loss.item(), moved, model.bert.attention_type


fresh, fresh_moved, fresh_type = long_input(after_short=False)
after, after_moved, after_type = long_input(after_short=True)
print(f"fresh model: {fresh_type}, loss {fresh:.4f}, logits moved by later tokens {fresh_moved:.4f}")
print(f"after one short input: {after_type}, loss {after:.4f}, logits moved by later tokens {after_moved:.4f}")
assert (fresh_type, after_type) == ("block_sparse", "original_full")
assert abs(fresh - after) > 1e-3
assert fresh_moved > 0.01 and after_moved < 1e-4
EOF
