#!/usr/bin/env bash
# Package: trl 1.16.0 (its chat templates for assistant_only_loss), rendered by transformers 5.23.0 with jinja2 3.1.6.
# Guess: SFTTrainer(assistant_only_loss=True) scores what the assistant says and the token that ends the turn.
# What happens: the {% generation %} block of the patched template decides, and each family's is another stretch. For
#   DeepSeek and gpt-oss the header of the turn is scored too, for GLM the next turn's role token, for Qwen2.5 the line
#   end before the answer, for Gemma 3, Qwen3, LFM2 and Phi 3 the line end after the end of the turn. idefics3 and smolvlm
#   read only lists of parts: an answer that is a string is dropped, and only the end of the turn is scored.
# Why it matters: eval_loss of two families counts other tokens, of which headers and line ends are almost certain: it
#   looks lower than the loss of the answers. A loss over "the assistant's tokens" must say which.
# Seen, for the conversation user "Why?", assistant "So.":
#   llama3 ['So.<|eot_id|>']
#   qwen3 ['<think>\n\n</think>\n\nSo.<|im_end|>\n']
#   qwen2_5 ['\nSo.<|im_end|>\n']
#   gemma3 ['So.<end_of_turn>\n']
#   phi3 ['So.<|end|>\n', '<EOS>']
#   glm4moe ['\n<think></think>\nSo.<|user|>']
#   gptoss ['<|start|>assistant<|channel|>final<|message|>So.<|return|>']
#   deepseekv3 ['<｜Assistant｜>So.<｜end▁of▁sentence｜>']
#   idefics3 [' <end_of_utterance>\n']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet transformers==5.23.0 jinja2==3.1.6 || exit 2
"$work/env/bin/pip" install --quiet --no-deps trl==1.16.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
from importlib.metadata import distribution

from transformers.utils.chat_template_utils import render_jinja_template

MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
FAMILIES = ["llama3", "qwen3", "qwen2_5", "gemma3", "phi3", "glm4moe", "gptoss", "deepseekv3", "idefics3"]
folder = distribution("trl").locate_file("trl/chat_templates")
scored = {}
for family in FAMILIES:
    template = (folder / f"{family}_training.jinja").read_text("utf-8")
    texts, blocks = render_jinja_template(
        [MESSAGES], chat_template=template, return_assistant_tokens_mask=True,
        bos_token="<BOS>", eos_token="<EOS>", pad_token="<PAD>",
    )
    scored[family] = [texts[0][start:stop] for start, stop in blocks[0]]
    print(family, scored[family])
assert scored["llama3"] == ["So.<|eot_id|>"]
assert scored["qwen2_5"] == ["\nSo.<|im_end|>\n"]
assert scored["glm4moe"][0].endswith("<|user|>")
assert "assistant" in scored["gptoss"][0] and "Assistant" in scored["deepseekv3"][0]
assert "So." not in scored["idefics3"][0]
EOF
