#!/usr/bin/env bash
# Package: triton 3.7.1 (torch 2.13.0), Linux on x86_64; no GPU is needed.
# Guess: a kernel whose results are right under TRITON_INTERPRET=1, the way to test kernels without a GPU, also compiles
#   for a GPU; whether it does can only be seen with one.
# What happens: the interpreter runs the function as Python. The compiler refuses three of these four kernels: a float of
#   the module, a variable that is 0 before a loop and a block in it, and Python's sum of a list. The package brings the
#   assembler of CUDA, so that compiling for a GPU works on a machine without one.
# Why it matters: tests of a loss kernel that run in CI by the interpreter pass for a kernel that no GPU can run. A test that
#   also compiles it, for a stated target, finds that on the CPU.
# Seen:
#   interpreted: {"scale": "ok", "carry": "ok", "total": "ok", "plain": "ok"}
#   compiled for sm_90: {"scale": "CompilationError", "carry": "CompilationError", "total": "CompilationError", "plain": "ok"}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy || exit 2
"$work/env/bin/pip" install --quiet --no-deps triton==3.7.1 || exit 2
cd "$work"
cat > kernels.py <<'EOF2'
import triton
import triton.language as tl

SCALE = 2.0


@triton.jit
def scale(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, tl.load(x + at) * SCALE)


@triton.jit
def carry(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    total = 0
    for _ in range(2):
        total = total + tl.load(x + at)
    tl.store(out + at, total)


@triton.jit
def total(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, sum([tl.load(x + at), tl.load(x + at)]))


@triton.jit
def plain(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, tl.load(x + at) * 2.0)
EOF2
cat > tried.py <<'EOF2'
import json
import os

import kernels
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = ("scale", "carry", "total", "plain")
SIGNATURE = {"x": "*fp32", "out": "*fp32", "SIZE": "constexpr"}


def interpreted(kernel):
    x, out = torch.arange(8.0), torch.zeros(8)
    kernel[(1,)](x, out, SIZE=8)
    return "ok" if out.equal(2 * x) else "wrong"


def compiled(kernel):
    source = ASTSource(kernel, signature=SIGNATURE, constexprs={"SIZE": 8})
    try:
        binary = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
    except triton.compiler.errors.CompilationError as error:
        return type(error).__name__
    return "ok" if len(binary) > 1000 else "empty"


way = interpreted if "TRITON_INTERPRET" in os.environ else compiled
print(json.dumps({name: way(getattr(kernels, name)) for name in NAMES}))
EOF2
first=$(TRITON_INTERPRET=1 "$work/env/bin/python" tried.py)
second=$(TRITON_CACHE_DIR="$work/cache" "$work/env/bin/python" tried.py)
echo "interpreted: $first"
echo "compiled for sm_90: $second"
[ "$first" = '{"scale": "ok", "carry": "ok", "total": "ok", "plain": "ok"}' ]
[ "$second" = '{"scale": "CompilationError", "carry": "CompilationError", "total": "CompilationError", "plain": "ok"}' ]
