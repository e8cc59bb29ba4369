#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0, safetensors 0.8.0).
# Guess: a tensor in the checkpoint that the loader does not use is named among the unexpected keys, or at least compared
#   with what the config gives.
# What happens: a stored rotary_emb.inv_freq is dropped without a word and computed anew from rope_theta. If the config
#   lost or changed rope_theta (here 10,000 where the weights were made with 1,000,000), the only trace of the true base
#   is thrown away: no unexpected key, no warning.
# Why it matters: a conversion that forgets rope_theta gives another loss, not an absurd one, so nobody looks for it.
# Seen (tiny random model):
#   stored table [1.0, 0.1778, 0.0316, 0.0056] table in use [1.0, 0.3162, 0.1, 0.0316]
#   unexpected keys [] warnings []
#   loss as loaded 5.4453, with the stored table 5.1303
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import logging

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
transformers.logging.add_handler(handler)

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, initializer_range=0.3,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
)
LlamaForCausalLM(config).save_pretrained("model")
stored = 1 / 1_000_000 ** (torch.arange(0, 16, 2) / 16)
tensors = load_file("model/model.safetensors")
for name in ("model.layers.0.self_attn.rotary_emb", "model.layers.1.self_attn.rotary_emb", "model.rotary_emb"):
    tensors[f"{name}.inv_freq"] = stored.clone()
save_file(tensors, "model/model.safetensors", metadata={"format": "pt"})

model, info = LlamaForCausalLM.from_pretrained("model", output_loading_info=True)
tokens = torch.randint(0, 64, (1, 64))
used = model.model.rotary_emb.inv_freq
print("stored table", [round(v, 4) for v in stored[:4].tolist()], "table in use", [round(v, 4) for v in used[:4].tolist()])
print("unexpected keys", sorted(info["unexpected_keys"]), "warnings", warnings)
with torch.no_grad():
    loaded = model.eval()(tokens, labels=tokens).loss.item()
    used.copy_(stored)
    as_stored = model(tokens, labels=tokens).loss.item()
print(f"loss as loaded {loaded:.4f}, with the stored table {as_stored:.4f}")
assert not info["unexpected_keys"] and not info["mismatched_keys"] and not warnings
assert abs(loaded - as_stored) > 0.01
EOF
