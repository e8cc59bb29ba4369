#!/usr/bin/env bash
# Package: bitsandbytes 0.50.2 (torch 2.13.0), on the CPU.
# Guess: a weight in 4 bits is read with the table that is stored beside it (quant_map in a safetensors file, `code` of
#   its QuantState), as the nested scales of the same weight are.
# What happens: the table is stored, loaded and then not used: dequantize_4bit goes by the name of the kind ("nf4", "fp4")
#   alone. Another table gives the same weights bit for bit. The table of the nested scales is used.
# Why it matters: whoever writes such files by their layout, with a table of their own (a calibrated one, say), gets NF4
#   from this library and the own table from a reader that goes by the file: two models from one file, neither told.
# Seen: table halved: weights equal bit for bit True; nested table halved: weights equal False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 bitsandbytes==0.50.2 || exit 2
cd "$work"
cat > tables.py <<'EOF'
import copy

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

torch.manual_seed(0)
packed, state = quantize_4bit(torch.randn(256, 512), quant_type="nf4", compress_statistics=True)
plain = dequantize_4bit(packed, copy.deepcopy(state))
halved = copy.deepcopy(state)
halved.code = halved.code / 2
nested = copy.deepcopy(state)
nested.state2.code = nested.state2.code / 2
own = torch.equal(plain, dequantize_4bit(packed, halved))
inner = torch.equal(plain, dequantize_4bit(packed, nested))
print(f"table halved: weights equal bit for bit {own}; nested table halved: weights equal {inner}")
assert own and not inner
EOF
OMP_NUM_THREADS=1 "$work/env/bin/python" tables.py
