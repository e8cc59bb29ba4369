#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0).
# Guess: padding on the right, masked, cannot change the logits of the real tokens of a causal model.
# What happens: the sparse attention of deepseek_v32 and glm_moe_dsa keeps the index_topk keys with the best index score.
#   The score is a sum over heads after a ReLU; with few index heads many keys score exactly 0, and which of the tied keys
#   topk keeps depends on the length of the row. So padding changes which keys a token sees. With 16 heads ties are
#   too rare to show.
# Why it matters: small models of these families (tests, ablations) get another loss in each batch size; neither
#   value is wrong, but they are not comparable.
# Seen:
#   deepseek_v32, 2 index heads: alone 5.7281, padded 5.6959, one token up to 0.7520
#   deepseek_v32, 16 index heads: alone 6.0835, padded 6.0835, one token up to 0.0000
#   glm_moe_dsa, 2 index heads: alone 5.6226, padded 5.6066, one token up to 0.6757
#   glm_moe_dsa, 16 index heads: alone 5.8877, padded 5.8877, one token up to 0.0000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import torch
from torch.nn.functional import cross_entropy
from transformers import DeepseekV32Config, DeepseekV32ForCausalLM, GlmMoeDsaConfig, GlmMoeDsaForCausalLM


@torch.no_grad()
def compare(config_class, model_class, index_heads):
    """The loss of 40 tokens alone and padded to 128 with a mask, and the largest change of one token's loss."""
    torch.manual_seed(0)
    config = config_class(
        vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
        first_k_dense_replace=1, index_topk=8, index_head_dim=16, index_n_heads=index_heads,
        max_position_embeddings=256, initializer_range=0.3,
    )
    model = model_class(config).eval()
    ids = torch.randint(0, 64, (1, 40))
    padded = torch.cat([ids, torch.zeros(1, 88, dtype=torch.long)], 1)
    mask = (torch.arange(128) < 40).long()[None]
    alone = cross_entropy(model(ids).logits[0, :39], ids[0, 1:], reduction="none")
    logits = model(padded, attention_mask=mask).logits
    beside = cross_entropy(logits[0, :39], ids[0, 1:], reduction="none")
    return alone.mean().item(), beside.mean().item(), (alone - beside).abs().max().item()


for name, pair in {
    "deepseek_v32": (DeepseekV32Config, DeepseekV32ForCausalLM),
    "glm_moe_dsa": (GlmMoeDsaConfig, GlmMoeDsaForCausalLM),
}.items():
    for heads in (2, 16):
        alone, padded, worst = compare(*pair, heads)
        print(f"{name}, {heads} index heads: alone {alone:.4f}, padded {padded:.4f}, one token up to {worst:.4f}")
        assert worst > 0.01 if heads == 2 else worst < 1e-3
EOF
