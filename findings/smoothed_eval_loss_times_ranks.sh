#!/usr/bin/env bash
# Package: transformers 5.14.1 (torch 2.13.0, accelerate 1.15.0), on two CPU processes by gloo.
# Guess: eval_loss with label_smoothing_factor is of the size of one without, whatever the number of processes.
# What happens: with label smoothing and several processes the loss is multiplied by their number. The label smoother
#   divides by the labels of its own process, the Trainer then multiplies as if it had divided by those of all of them
#   (average_tokens_across_devices, the default). 4.57.6 does so too; 5.15.1 divides by all labels.
# Why it matters: a run on 8 processes logs 8 times its loss: e^loss is no perplexity, and no other tool gives it. A
#   single process, or smoothing 0, shows nothing.
# Seen (a model that gives every token the same probability, 61 tokens: every loss is ln 61 = 4.110874):
#   one process 4.110874 two processes without smoothing 4.110874 with smoothing 8.221748
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.14.1 accelerate==1.15.0 || exit 2
cd "$work"
cat > evaluate.py <<'EOF'
import os

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

config = LlamaConfig(
    vocab_size=61, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=32,
)
model = LlamaForCausalLM(config)
with torch.no_grad():
    for weight in model.parameters():
        weight.zero_()
rows = [{"input_ids": [3] * 9, "labels": [3] * 9} for _ in range(8)]
losses = []
for smoothing in (0.0, 0.1):
    arguments = TrainingArguments(
        output_dir="out", per_device_eval_batch_size=2, label_smoothing_factor=smoothing, use_cpu=True, report_to=[],
        disable_tqdm=True,
    )
    losses.append(Trainer(model=model, args=arguments, eval_dataset=rows).evaluate()["eval_loss"])
if int(os.environ.get("RANK", "0")) == 0:
    print("losses", *losses)
EOF
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
one=$("$work/env/bin/python" evaluate.py | grep ^losses)
two=$("$work/env/bin/python" -m torch.distributed.run --standalone --nproc-per-node 2 evaluate.py | grep ^losses)
python3 - "$one" "$two" <<'EOF'
import math
import sys

one, two = ([float(word) for word in said.split()[1:]] for said in sys.argv[1:])
print(f"one process {one[1]:.6f} two processes without smoothing {two[0]:.6f} with smoothing {two[1]:.6f}")
assert all(abs(loss - math.log(61)) < 1e-5 for loss in [*one, two[0]])
assert abs(two[1] - 2 * math.log(61)) < 1e-5
EOF
