#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0, accelerate 1.15.0), on two CPU processes by gloo.
# Guess: `from_pretrained(…, distributed_config=DistributedConfig(tp_size=2))` gives the model that one process has, but for
#   rounding, or refuses: a class without a plan for tensor parallelism is refused. Each process holds about half.
# What happens: two families get other losses, without an error or a warning.
#   gemma3n_text: the plan divides mlp.gate_proj as "colwise", but in layers with activation sparsity (0.95 in the first
#   ten by default) the MLP cuts off below the mean plus a multiple of the deviation over all its outputs, and each process
#   takes both over its own half. Gathered outputs (the last plan below), or no sparsity, give the right losses.
#   hrm_text: save_pretrained packs gate, q, k and v of a layer in one matrix, gate and up of the MLP in another. On
#   loading each process first takes its half of the packed rows, by the plan of the parts, and splits that (Chunk): every
#   part gets rows of others. A file that has the parts under their own names gives the right losses.
#   gpt2 has no plan and is refused. With an override that only keeps a module whole ("replicate") it is not: two
#   processes hold all of it, each. A report of layers that are not sharded exists, but is made only if the level of the
#   logger "transformers.modeling_utils" itself was set to WARNING or higher, which `set_verbosity` does not do.
# Why it matters: a perplexity from several processes belongs to another model than the file holds, or needs the memory
#   that it was divided to save; nothing says so.
# Seen (mean loss in nats of 47 tokens, random weights; the token that is furthest off; what a process holds):
#   llama: whole 5.6760, two processes 5.6760, a token off by up to 0.0000; holds 12448 of 24736
#   gemma3n_text: whole 6.1203, two processes 6.0028, a token off by up to 1.5142; holds 35224 of 54168
#   gemma3n_text without sparsity: whole 5.9155, two processes 5.9155, a token off by up to 0.0000; holds 35224 of 54168
#   gemma3n_text, outputs gathered: whole 6.1203, two processes 6.1203, a token off by up to 0.0000; holds 35224 of 54168
#   hrm_text: whole 6.5804, two processes 6.1868, a token off by up to 6.5478; holds 25632 of 51232
#   hrm_text, parts not packed: whole 6.5804, two processes 6.5804, a token off by up to 0.0000; holds 25632 of 51232
#   gpt2: refused
#   gpt2, an override: whole 6.1410, two processes 6.1410, a token off by up to 0.0000; holds 30592 of 30592
#   warnings: 0; with the level set: The following layers were not sharded
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 || exit 2
cd "$work"
cat > models.py <<'EOF'
"""Writes a folder for each tiny model."""

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

TEXT = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BODY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "head_dim": 8}
LLAMA = BODY | {"num_hidden_layers": 2, "num_key_value_heads": 2}
GEMMA = BODY | {
    "num_hidden_layers": 4, "num_key_value_heads": 2, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 96, "laurel_rank": 8,
}
HRM = BODY | {"num_layers_per_stack": 2, "H_cycles": 2, "L_cycles": 2}


@torch.no_grad()
def save(folder, family, values, packed=True):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **TEXT, **values))
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.copy_(0.3 * noise if weight.ndim > 1 else weight + 0.1 * noise)
    model.save_pretrained(folder)
    if not packed:
        save_file(model.state_dict(), f"{folder}/model.safetensors", {"format": "pt"})


save("llama", "llama", LLAMA)
save("gemma", "gemma3n_text", GEMMA | {"activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0]})
save("gemma_dense", "gemma3n_text", GEMMA | {"activation_sparsity_pattern": [0.0] * 4})
save("hrm", "hrm_text", HRM)
save("hrm_parts", "hrm_text", HRM, packed=False)
save("gpt2", "gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64})
EOF
cat > divided.py <<'EOF'
"""Compares each model in two processes with the whole one; runs in both."""

import logging
import os
import warnings

import torch
import transformers
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

warned = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warned.append(record.getMessage())
transformers.logging.add_handler(handler)
ids = torch.randint(3, 96, (1, 48), generator=torch.Generator().manual_seed(0))
first = os.environ["RANK"] == "0"


def say(line):
    if first:
        print(line, flush=True)


def losses(model):
    return cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")


@torch.no_grad()
def compare(label, folder, tp_plan=None):
    """How far the loss of a token is off, and what part of the weights a process holds."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    whole = losses(model)
    warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distributed = DistributedConfig(tp_size=2, tp_plan=tp_plan)
        divided = AutoModelForCausalLM.from_pretrained(folder, distributed_config=distributed)
        two = losses(divided)
    assert not warned and not caught, (warned, [str(each.message) for each in caught])
    own = [each.to_local() if isinstance(each, DTensor) else each for each in divided.parameters()]
    held, every = sum(map(torch.numel, own)), model.num_parameters()
    off = (whole - two).abs().max().item()
    seen = f"whole {whole.mean():.4f}, two processes {two.mean():.4f}, a token off by up to {off:.4f}"
    say(f"{label}: {seen}; holds {held} of {every}")
    return off, held / every


llama = compare("llama", "llama")
gemma = compare("gemma3n_text", "gemma")
dense = compare("gemma3n_text without sparsity", "gemma_dense")
gathered = {"gate_proj": "colwise_gather_output", "up_proj": "colwise_gather_output", "down_proj": "rowwise_split_input"}
plan = {f"model.layers.*.mlp.{name}": style for name, style in gathered.items()}
gemma_gathered = compare("gemma3n_text, outputs gathered", "gemma", plan)
hrm = compare("hrm_text", "hrm")
parts = compare("hrm_text, parts not packed", "hrm_parts")
try:
    compare("gpt2", "gpt2")
    refused = False
except ValueError as error:
    refused = "has no `tp_plan`" in str(error)
    say("gpt2: refused" if refused else f"gpt2: {error}")
gpt2 = compare("gpt2, an override", "gpt2", {"transformer.wte": "replicate"})
logging.getLogger("transformers.modeling_utils").setLevel(logging.WARNING)
AutoModelForCausalLM.from_pretrained("llama", distributed_config=DistributedConfig(tp_size=2))
say(f"warnings: 0; with the level set: {warned[0].split(':')[0] if warned else 'none'}")
torch.distributed.destroy_process_group()
for off, part in (llama, dense, gemma_gathered, parts):
    assert off < 1e-3 and part < 0.7
for off, part in (gemma, hrm):
    assert off > 1 and part < 0.7
assert refused and gpt2[0] < 1e-3 and gpt2[1] == 1
assert "not sharded" in warned[0]
EOF
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 OMP_NUM_THREADS=1
"$work/env/bin/python" models.py
"$work/env/bin/python" -m torch.distributed.run --standalone --nproc-per-node 2 divided.py
