#!/usr/bin/env bash
# Package: transformers 5.23.0 (torch 2.13.0), on the CPU.
# Guess: a configuration holds numbers and names, so that reading config.json costs little; what is heavy is imported with
#   the class of the model, and torch's compiler only when something is compiled.
# What happens: `import transformers` and AutoModelForCausalLM are light (they load when used), but the module of Llama's
#   configuration imports the checks of its values, these the activation functions, these the kernels of attention, and
#   these batched generation, whose cache has a method that is marked to be left out by torch.compile. That mark alone
#   imports torch._dynamo, torch._inductor and sympy, which no model has asked for.
# Why it matters: a command that only looks into config.json (to name a model, to count its layers) pays for a compiler
#   that it never uses; a time taken after importing AutoModelForCausalLM says nothing of it.
# Seen:
#   import torch: 0 modules of torch._dynamo, 0 of sympy
#   import AutoModelForCausalLM: 0 modules of torch._dynamo, 0 of sympy
#   LlamaConfig(): 93 modules of torch._dynamo, 419 of sympy
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 || exit 2
cd "$work"
cat > imports.py <<'PY'
import sys


def seen(after):
    dynamo, sympy = (sum(f"{name}.".startswith(f"{top}.") for name in sys.modules) for top in ("torch._dynamo", "sympy"))
    print(f"{after}: {dynamo} modules of torch._dynamo, {sympy} of sympy")
    return dynamo, sympy


import torch

assert seen("import torch") == (0, 0)
from transformers import AutoModelForCausalLM

assert seen("import AutoModelForCausalLM") == (0, 0)
from transformers import LlamaConfig

LlamaConfig()
assert "transformers.models.llama.modeling_llama" not in sys.modules
assert min(seen("LlamaConfig()")) > 50
PY
"$work/env/bin/python" imports.py
