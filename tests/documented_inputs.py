"""Makes the models, texts and logs that the pages of docs/ name, in the working folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from bundled import EXAMPLES
from nanogpt_files import write_nanogpt
from training_logs import falling, made_log, overfitted, write_trainer_state

from lossprobe.cli.main import run

TEXT = "".join(f"{number} lazy dogs jump over {number + 1} quick brown foxes\n" for number in range(9))


def write_logs() -> None:
    """Write the logs that the page on training runs reads: one that over-fits, and two that part."""
    losses = falling(200)
    write_trainer_state(Path("trainer_state.json"), overfitted())
    write_trainer_state(Path("run-1.json"), made_log())
    slower = np.r_[losses[:80], losses[80:] + np.linspace(0.0, 0.5, 120)]
    write_trainer_state(Path("run-2.json"), made_log(train=slower))


def write_series() -> None:
    """Write what the page on checkpoints of a training reads: two tiny models as `my-run`, and a text."""
    for seed, step in enumerate((500, 1000)):
        folder = write_tiny(f"my-run/checkpoint-{step}", seed)
        shutil.copytree(folder, folder.name)
    for name in ("data.txt", "more.txt"):
        Path(name).write_text(TEXT)


def write_tiny(place: str, seed: int) -> Path:
    """Write a tiny model of the characters of `TEXT`."""
    folder = Path(place)
    folder.mkdir(parents=True)
    write_nanogpt(folder / "ckpt.pt", seed, TEXT)
    return folder


def write_report() -> None:
    """Write what the page on reports reads: tiny models, a text, and a run."""
    Path("data.txt").write_text(TEXT)
    names = ("my-model", "old-model", "new-model", "checkpoint-100", "checkpoint-200", "checkpoint-300")
    in_a_folder = [f"my-training/{name}" for name in names[-3:]]
    for seed, name in enumerate((*names, *in_a_folder)):
        write_tiny(name, seed)
    assert run(["score", "old-model", "data.txt", "-o", ".lossprobe/my-run", "--quiet"]) == 0


def write_sharded() -> None:
    """Write what the page on many machines reads: a tiny model and a text."""
    write_tiny("my-model", 0)
    Path("data.txt").write_text(TEXT)


def write_records(name: str, count: int) -> None:
    """Write the first records of the bundled text."""
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    Path(name).write_text("".join(lines[:count]), "utf-8")


def write_adapters() -> None:
    """Write what the page on adapters reads: the bundled model as base, adapters of it, records and pairs.

    The adapters name a model of a hub, which lies here under its name.
    """
    import transformers
    from adapter_files import configure, make_adapter

    Path("org").mkdir()
    for place in (Path("BASE"), Path("org/jargon-plain")):
        place.symlink_to(EXAMPLES / "jargon-plain")
    base = transformers.AutoModelForCausalLM.from_pretrained("BASE")
    names = ("MY_LORA", "LORA_A", "LORA_B", "LORA_C", "MY_DPO_LORA", *(f"RUN_FOLDER/checkpoint-{n}" for n in (1, 2)))
    for seed, name in enumerate(names):
        folder = make_adapter(base, Path(name), seed=seed, r=8, lora_alpha=16, target_modules=["c_attn"])
        configure(folder, base_model_name_or_path="org/jargon-plain")
    write_records("valid.jsonl", 6)
    sides = [{"prompt": f"The word {word} means ", "chosen": "a bug.", "rejected": word} for word in ("foo", "bar")]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in sides))


def write_gguf() -> None:
    """Write what the page on GGUF files reads: the bundled model, in Q8_0 where the page names a smaller type."""
    from gguf_files import gpt2_gguf

    shutil.copytree(EXAMPLES / "jargon-plain", "base-folder")
    for name, kind in (("F16", "F16"), ("Q4_K_M", "Q8_0")):
        Path(f"model.{name}.gguf").write_bytes(gpt2_gguf(Path("base-folder"), kind))
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines()
    Path("text.txt").write_text("\n\n".join(json.loads(line)["text"] for line in lines[:12]), "utf-8")


def write_quantised() -> None:
    """Write what the page on quantised models reads: a tiny Llama, the same in int4, and records."""
    import safetensors.torch
    from checkpoint import builders, quantized_files

    plain = builders.save(builders.model("llama", intermediate_size=64), Path("my-model"))
    shutil.copytree(plain, "my-model-w4a16")
    tensors = safetensors.torch.load_file(plain / builders.WEIGHTS)
    for name in [name for name in tensors if "proj" in name]:
        parts, _ = quantized_files.pack_quantized(tensors.pop(name).float(), 4, 16)
        module = name.removesuffix(".weight")
        tensors |= {module + end: part.contiguous() for end, part in parts.items()}
    safetensors.torch.save_file(tensors, Path("my-model-w4a16", builders.WEIGHTS))
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    said = {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"]}
    builders.reconfigure(Path("my-model-w4a16"), quantization_config=said | {"config_groups": groups})
    write_records("held-out.jsonl", 3)
