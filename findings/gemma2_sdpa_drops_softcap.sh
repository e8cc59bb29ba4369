#!/usr/bin/env bash
# Package: transformers 5.20.2 and 5.21.0 (torch 2.13.0).
# Guess: a Gemma 2 loaded by its class computes what its config.json says, the soft cap of attention scores included, or
#   warns that it does not.
# What happens: up to 5.20.2 the class takes torch's scaled_dot_product_attention by default, which has no soft cap:
#   `attn_logit_softcapping` is read and left out without a word. With `attn_implementation="eager"` it is applied. From
#   5.21.0 on the class falls back to eager.
# Why it matters: losses of one checkpoint move with the release that scored it, and nothing in a log says why. A fine-tune
#   evaluated with an older release is compared with a number of another model.
# Seen:
#   5.20.2: sdpa by default, loss 12.2486; eager 12.4381; no soft cap 12.2486
#   5.21.0: eager by default, loss 12.4381; eager 12.4381; no soft cap 12.2486
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 || exit 2
cat > "$work/gemma2.py" <<'EOF'
import sys

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM

config = Gemma2Config(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=16, initializer_range=0.5, attn_logit_softcapping=2.0, query_pre_attn_scalar=1,
    final_logit_softcapping=None, sliding_window=4096, max_position_embeddings=128, pad_token_id=0,
)
torch.manual_seed(0)
weights = Gemma2ForCausalLM(config).state_dict()
ids = torch.randint(3, 64, (1, 100), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def scored(cap, **choices):
    """The attention that is used, and the mean loss."""
    changed = Gemma2Config(**{**config.to_dict(), "attn_logit_softcapping": cap})
    model = Gemma2ForCausalLM._from_config(changed, **choices).eval()
    model.load_state_dict(weights)
    logits = model(ids).logits
    return model.config._attn_implementation, cross_entropy(logits[0, :-1], ids[0, 1:]).item()


(used, loss), (_, eager), (_, without) = scored(2.0), scored(2.0, attn_implementation="eager"), scored(None)
print(f"{transformers.__version__}: {used} by default, loss {loss:.4f}; eager {eager:.4f}; no soft cap {without:.4f}")
assert abs(eager - without) > 0.01, "the soft cap changes nothing here"
lost = sys.argv[1] == "lost"
assert abs(loss - (without if lost else eager)) < 1e-4
EOF
cd "$work"
for each in 5.20.2:lost 5.21.0:kept; do
  "$work/env/bin/pip" install --quiet "transformers==${each%:*}" || exit 2
  HF_HUB_OFFLINE=1 "$work/env/bin/python" gemma2.py "${each#*:}"
done
