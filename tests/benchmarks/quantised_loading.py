"""Compares loading quantised folders with what transformers needs for the plain model. Linux only.

    python tests/benchmarks/quantised_loading.py [ROUNDS]

A Llama of 342 million parameters is written in each layout, with random codes: how long a code takes does not depend on
its value. In each round every folder is loaded once, in turn, each in a process of its own, and what transformers takes
for the plain bfloat16 folder in the same round is the measure; what is imported does not count. In bfloat16 it would
only map the file into memory, and read it at the first use. A second line has transformers once more, as a measure of
the noise. Printed are, for each layout, the ratio of the processor time (median, lowest and highest of the rounds) and
of the rise of the memory (highest).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import memory
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lossprobe.checkpoint.families.huggingface import load_folder
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.quantized.bitsandbytes import NF4

TINY = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "vocab_size": 8192}
SIZES = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 6, "vocab_size": 8192}
GROUP = 128
TOKENIZER = Path(__file__).parents[2] / "examples" / "jargon-plain" / "tokenizer.json"


def random_words(*shape: int) -> torch.Tensor:
    """Return random int32."""
    return torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int64).int()


def small(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Return scales that keep weights of a usual size."""
    return (torch.rand(shape) * 0.004 + 0.001).to(dtype)


def gptq(outputs: int, inputs: int, bits: int, by_activation: bool) -> dict[str, torch.Tensor]:
    """Return the parts of a GPTQ weight, version 1."""
    groups = inputs // GROUP
    order = torch.arange(inputs) // GROUP
    middle = sum((1 << bits - 1) - 1 << bits * place for place in range(32 // bits)) if bits != 3 else 0
    zeros = torch.full((groups, outputs * bits // 32), middle, dtype=torch.int64).int()
    return {
        ".qweight": random_words(inputs * bits // 32, outputs),
        ".qzeros": zeros,
        ".scales": small(groups, outputs),
        ".g_idx": (order[torch.randperm(inputs)] if by_activation else order).int(),
    }


def awq(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    """Return the parts of an AWQ weight."""
    groups = inputs // GROUP
    codes, zeros = random_words(inputs, outputs // 8), random_words(groups, outputs // 8)
    return {".qweight": codes, ".qzeros": zeros, ".scales": small(groups, outputs)}


def packed(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    """Return the parts of a weight of compressed-tensors, int4."""
    shape = torch.tensor([outputs, inputs])
    scale = small(outputs, inputs // GROUP, dtype=torch.bfloat16)
    return {".weight_packed": random_words(outputs, inputs // 8), ".weight_scale": scale, ".weight_shape": shape}


def fp8(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    """Return the parts of a fine-grained FP8 weight."""
    codes = torch.randn(outputs, inputs).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale_inv": small(outputs // 128, inputs // 128, dtype=torch.float32)}


def nvfp4(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    """Return the parts of an NVFP4 weight of compressed-tensors."""
    return {
        ".weight_packed": torch.randint(0, 256, (outputs, inputs // 2), dtype=torch.uint8),
        ".weight_scale": (torch.rand(outputs, inputs // 16) + 1).to(torch.float8_e4m3fn),
        ".weight_global_scale": torch.tensor([300.0]),
    }


def nf4(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    """Return the parts of an NF4 weight of bitsandbytes."""
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [outputs, inputs]}
    return {
        ".weight": torch.randint(0, 256, (outputs * inputs // 2, 1), dtype=torch.uint8),
        ".weight.absmax": torch.rand(outputs * inputs // 64) * 0.05,
        ".weight.quant_map": torch.tensor(NF4),
        ".weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode())).byte(),
    }


GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}
WEIGHTS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": True}
FP4 = WEIGHTS | {"type": "float", "strategy": "tensor_group", "group_size": 16}


def scheme(form: str, weights: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of compressed-tensors."""
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"], "config_groups": groups}


LAYOUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gptq 4": (lambda *size: gptq(*size, 4, False), GPTQ),
    "gptq 4, by activation": (lambda *size: gptq(*size, 4, True), GPTQ | {"desc_act": True}),
    "gptq 3": (lambda *size: gptq(*size, 3, False), GPTQ | {"bits": 3, "sym": False}),
    "gptq 3, by activation": (lambda *size: gptq(*size, 3, True), GPTQ | {"bits": 3, "sym": False, "desc_act": True}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "int4": (packed, scheme("pack-quantized", WEIGHTS)),
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "nvfp4": (nvfp4, scheme("nvfp4-pack-quantized", FP4)),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}  # fmt: skip


def write(folder: Path, sizes: dict[str, int]) -> None:
    """Write the plain model and all layouts of it."""
    torch.manual_seed(0)
    config = LlamaConfig(num_attention_heads=16, num_key_value_heads=16, tie_word_embeddings=False, **sizes)
    model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder / "plain")
    plain = model.state_dict()
    said = json.loads((folder / "plain" / "config.json").read_text("utf-8"))
    for name, (make, settings) in LAYOUTS.items():
        stored = {}
        for full, tensor in plain.items():
            parts = make(*tensor.shape) if "proj" in full else {".weight": tensor}
            stored |= {full.removesuffix(".weight") + end: part for end, part in parts.items()}
        place = folder / name
        place.mkdir(parents=True)
        safetensors.torch.save_file(stored, place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(said | {"quantization_config": settings}), "utf-8")
        (place / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())


def load(place: Path) -> tuple[float, float]:
    """Load a folder in float32, and return the processor seconds and the rise of the memory in MB."""
    kept: list[object] = []
    start = time.process_time()
    if place.name == "plain":
        rise = memory.rise_of(lambda: kept.append(AutoModelForCausalLM.from_pretrained(place, dtype="float32")))
    else:
        rise = memory.rise_of(lambda: kept.append(load_folder(place, LoadOptions(dtype="float32"))))
    return time.process_time() - start, rise


def measured(place: Path) -> tuple[float, float]:
    """Return what `load` returns in a process of its own that has imported all."""
    command = [sys.executable, __file__, "measure", str(place)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    seconds, rise = json.loads(done.stdout.splitlines()[-1])
    return seconds, rise


def main() -> int:
    """Print a line for each layout."""
    if sys.argv[1:2] == ["measure"]:
        torch.set_num_threads(1)
        place = Path(sys.argv[2])
        load(place.parent / "tiny" / place.name)  # what is imported and compiled at the first use
        print(json.dumps(load(place)))
        return 0
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, SIZES)
        write(folder / "tiny", TINY)
        plain, layouts = folder / "plain", [folder / name for name in LAYOUTS]
        found = [([measured(plain)], [measured(place) for place in (plain, *layouts)]) for _ in range(rounds)]
    usual, most = statistics.median(each[0][0][0] for each in found), max(each[0][0][1] for each in found)
    print(f"transformers, float32: {usual:.2f} s, {most:.0f} MB")
    for number, name in enumerate(["transformers again", *LAYOUTS]):
        times = [ours[number][0] / theirs[0][0] for theirs, ours in found]
        memories = [ours[number][1] / theirs[0][1] for theirs, ours in found]
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:22} time {statistics.median(times):.2f} ({spread}), memory {max(memories):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
