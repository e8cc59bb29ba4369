#!/usr/bin/env bash
# Package: transformers 5.23.0.
# Guess: Phi3Config still reads the first released Phi-3 long-context configs, whose rope_scaling has the type "su": the
#   class has code that renames "su" and "yarn" to "longrope" for backward compatibility.
# What happens: "yarn" loads, "su" raises a KeyError about a missing original_max_position_embeddings, although the config
#   has it at the top level, where Phi-3 keeps it. The rename comes after the step that copies the length into the rotary
#   parameters, and that step knows "yarn" and "longrope" but not "su".
# Why it matters: an intact checkpoint cannot be scored, and the message sends the reader to a value that is there.
#   Renaming the type to "longrope" in config.json, or repeating the length inside rope_scaling, loads the same model.
# Seen:
#   longrope: longrope
#   yarn: longrope
#   su: KeyError: Missing required keys in `rope_parameters` for 'rope_type'='longrope': {'original_max_position_embeddings'}
#   su, length repeated inside: longrope
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet transformers==5.23.0 || exit 2
cd "$work"
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'EOF'
import json
import os

from transformers import AutoConfig

os.makedirs("folder")


def load(rope_type, **extra):
    """The rotary parameters of a Phi-3 config with this type, or the error."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    config = {
        "model_type": "phi3", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 64,
        "intermediate_size": 64, "pad_token_id": 0, "eos_token_id": 2, "rope_theta": 10000.0,
        "max_position_embeddings": 128, "original_max_position_embeddings": 64,
        "rope_scaling": {"type": rope_type, **factors, **extra},
    }
    with open("folder/config.json", "w") as file:
        json.dump(config, file)
    try:
        return AutoConfig.from_pretrained("folder").rope_parameters["rope_type"]
    except KeyError as error:
        return f"KeyError: {error.args[0]}"


seen = {name: load(name) for name in ("longrope", "yarn", "su")}
seen["su, length repeated inside"] = load("su", original_max_position_embeddings=64)
for name, result in seen.items():
    print(f"{name}: {result}")
assert seen["longrope"] == seen["yarn"] == seen["su, length repeated inside"] == "longrope"
assert seen["su"].startswith("KeyError") and "original_max_position_embeddings" in seen["su"]
EOF
