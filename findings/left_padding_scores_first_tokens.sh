#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0), Llama on the CPU.
# Guess: with an attention mask, and labels of -100 on the padding, the loss of a padded batch does not depend on the side
#   of the padding; a rotary model has no positions that could move.
# What happens: padded on the left, the first token of each padded row is scored too: after the shift its label belongs to
#   the last padding token, whose own attention is masked whole. Three rows of 5, 17 and 9 tokens have 28 targets padded
#   on the right and 30 padded on the left. The loss of the two extra ones depends on the id that pads.
# Why it matters: tokenizers of chat models often pad on the left, and a collator hands these rows to training and to
#   evaluation: eval_loss then has targets that no text has, the more the shorter the rows.
# Seen: targets 28 right, 30 left; ordinary targets apart by 6.2e-07; mean loss 5.890641 right, 5.788857 left, 5.990550
#   left with another padding id.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
cat > padded.py <<'EOF'
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=61, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.3,
)
model = LlamaForCausalLM(config).eval().double()
rows = [torch.randint(2, 61, (length,)) for length in (5, 17, 9)]
width = max(map(len, rows))


def batch(side, padding):
    ids, labels, mask = (torch.full((3, width), fill) for fill in (padding, -100, 0))
    for at, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[at, place], labels[at, place], mask[at, place] = row, row, 1
    return ids, labels, mask


def losses(side, padding):
    ids, labels, mask = batch(side, padding)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
    nats = cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    scored, after_padding = labels[:, 1:] != -100, mask[:, :-1] == 0
    assert abs(float(nats[scored.flatten()].mean() - output.loss)) < 1e-5  # the model sums in float32
    return float(output.loss), int(scored.sum()), nats[(scored & ~after_padding).flatten()]


right, left, other = losses("right", 0), losses("left", 0), losses("left", 1)
apart = float((right[2] - left[2]).abs().max())
print(f"targets {right[1]} right, {left[1]} left; ordinary targets apart by {apart:.1e}")
print(f"mean loss {right[0]:.6f} right, {left[0]:.6f} left, {other[0]:.6f} left with another padding id")
assert (right[1], left[1]) == (28, 30)
assert apart < 1e-5 and abs(right[0] - left[0]) > 1e-3 and abs(left[0] - other[0]) > 1e-4
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/env/bin/python" padded.py
