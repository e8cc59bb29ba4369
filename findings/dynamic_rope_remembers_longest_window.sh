#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0).
# Guess: a model in eval mode without a cache is a function of its input; the loss of a window does not depend on
#   which windows ran before it.
# What happens: with rotary embeddings of type "dynamic" the frequencies are stretched for the longest window so far
#   and stay so. Only a window strictly shorter than max_position_embeddings sets them back, so even a window of exactly
#   that length, which is no extension at all, is scored with stretched frequencies.
# Why it matters: a mean loss changes with the order of the documents, and a run that is resumed in the middle does not
#   agree with one that was not interrupted.
# Seen:
#   100 tokens: fresh model 5.4119, after a window of 128 5.4370
#    64 tokens: fresh model 5.4453, after a window of 128 5.3400
#   100 tokens: after windows of 128 and 63 5.4119
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, initializer_range=0.3,
    rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
)
weights = LlamaForCausalLM(config).state_dict()
tokens = torch.randint(0, 64, (1, 128))


@torch.no_grad()
def losses(*lengths):
    """The losses of windows of these lengths, one after the other in one model that starts fresh."""
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(weights)
    return [model(tokens[:, :n], labels=tokens[:, :n]).loss.item() for n in lengths]


fresh = losses(100)[0]
after_longer = losses(128, 100)[1]
at_limit = losses(64)[0]
at_limit_after_longer = losses(128, 64)[1]
after_reset = losses(128, 63, 100)[2]
print(f"100 tokens: fresh model {fresh:.4f}, after a window of 128 {after_longer:.4f}")
print(f" 64 tokens: fresh model {at_limit:.4f}, after a window of 128 {at_limit_after_longer:.4f}")
print(f"100 tokens: after windows of 128 and 63 {after_reset:.4f}")
assert abs(fresh - after_longer) > 1e-3
assert abs(at_limit - at_limit_after_longer) > 1e-3
assert abs(fresh - after_reset) < 1e-5
EOF
