"""Recognises checkpoints that other programs wrote, by the names of their files, and says how to convert them.

Nothing is unpickled: of the files themselves at most a small JSON is read. The commands are
those of the documentation of transformers, DeepSpeed, torch, accelerate, verl, MLX, Megatron Bridge and NeMo.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.plain_files import stands
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
DEEPSPEED = re.compile(
    r"zero_to_fp32\.py|global_step\d+(_universal)?|.*mp_rank_\d+_model_states\.pt|.*_optim_states\.pt"
)
VERL = re.compile(r"model_world_size_\d+_rank_\d+\.pt")
MEGATRON = re.compile(r"latest_checkpointed_iteration\.txt|mp_rank_\d{2}(_\d{3})*")
SCRIPTS = "src/transformers/models"  # in the source of transformers; the package that is installed leaves them out
TRUST = "it reads a pickle: only for a checkpoint that you trust"
THEN_COMPLETE = "then add config.json and tokenizer"
THEN_LOAD = "then load it into the model, and save that with save_pretrained"
MAX_PARAMS_BYTES = 1 << 20


def foreign_folder(path: Path, names: Collection[str]) -> CheckpointError | None:
    """Return the error for a folder that another program wrote; None where it is not known.

    Args:
        path: the folder.
        names: the names in it.
    """
    own = any(name.endswith((".pt", ".pth", ".ckpt", ".bin")) for name in names)  # perhaps one that can be read
    exports = () if own else (_nemo, _mlx)
    for recognise in (_verl, _megatron, _deepspeed, _distributed, _consolidated, *exports):
        found: CheckpointError | None = recognise(path, names)
        if found is not None:
            return found
    return None


def foreign_file(path: Path) -> CheckpointError | None:
    """Return the error for a file in the place of a checkpoint that another program wrote; None where it is not known.

    Raises:
        CheckpointError: it cannot be read.
    """
    if path.suffix == ".nemo":
        script = f"python convert_MODEL_nemo_to_hf.py --input_name_or_path {_quoted(path)} --output_path OUT.bin"
        folder = "--hf_input_path FOLDER_OF_THE_BASE --hf_output_path OUT"
        where = "scripts/checkpoint_converters of NeMo up to 2.5; a family's script may take other options"
        hint = f"convert it with the script of its family: {script} {folder} ({where})"
        return refusal("checkpoint.other_format", path, "a NeMo archive", hint=hint)
    return _mlx(path, [path.name]) if path.suffix == ".npz" else None


def in_its_folder(path: Path) -> str | None:
    """Return a hint for a file of weights that belongs to the folder of a model or adapter; None for any other file."""
    configured = any(stands(path.parent / name) for name in ("config.json", "adapter_config.json"))
    return f"give its folder: {_quoted(path.parent)}" if configured else None


def missing_weights(path: Path, names: Sequence[str]) -> str | None:
    """Return what to do about a folder with a config.json but no weights that are read; None where nothing is known."""
    foreign = foreign_folder(path, names)
    if any(name.startswith("pytorch_model") and name.endswith((".bin", ".bin.index.json")) for name in names):
        return f"convert its pytorch_model files to safetensors first: {saved_again('AutoModelForCausalLM', path)}"
    if foreign is not None:
        return foreign.hint
    return lone_shards(names)


def refuse_mlx(path: Path, tensors: Collection[str]) -> None:
    """Refuse weights that MLX has quantised: beside each packed weight its scales and biases.

    Raises:
        CheckpointError: the tensors, by their names, are such weights.
    """
    stems = {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")}
    if not any(f"{stem}.weight" in tensors and f"{stem}.biases" in tensors for stem in stems):
        return
    command = f"mlx_lm.convert --hf-path {_quoted(path)} --mlx-path OUT --dequantize --dtype float32"
    raise refusal(
        "checkpoint.quantized", path, "weights that MLX has quantised are not supported",
        hint=f"dequantise them: {command}, which gives the losses of the quantised model",
    )  # fmt: skip


def lone_shards(names: Sequence[str]) -> str | None:
    """Return what to do about shards without an index; None where there are none."""
    shards = [match for name in names if (match := SHARD.fullmatch(name))]
    if not shards:
        return None
    stem, count = shards[0]["stem"], int(shards[0]["count"])
    there = {int(shard["number"]) for shard in shards if (shard["stem"], int(shard["count"])) == (stem, count)}
    missing = [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1) if number not in there]
    if not missing and count == 1:
        return f"rename {shards[0].group()} to {stem}.safetensors"
    wanted = [*missing[:4], f"{stem}.safetensors.index.json"]
    more = f" and {len(missing) - 4} more shards" if len(missing) > 4 else ""
    return f"get the rest of the same release: {', '.join(wanted)}{more}; hf download REPO FILE --local-dir FOLDER"


def _nemo(path: Path, names: Collection[str]) -> CheckpointError | None:
    archives = [name for name in names if name.endswith(".nemo")]
    if archives:
        return refusal(
            "checkpoint.other_format",
            path,
            "holds a NeMo archive",
            hint=f"name the archive: {_quoted(path / archives[0])}",
        )
    if {"context", "weights"} <= set(names):
        call = f'llm.export_ckpt(path=Path({_literal(path)}), target="hf", output_path=Path("OUT"))'
        command = _python(f"from pathlib import Path; from nemo.collections import llm; {call}")
        hint = f"export it with a NeMo that has nemo.collections.llm: {command}"
        return refusal("checkpoint.other_format", path, "a NeMo 2 checkpoint", hint=hint)
    return None


def _verl(path: Path, names: Collection[str]) -> CheckpointError | None:
    if not any(map(VERL.fullmatch, names)):
        return None
    command = f"python -m verl.model_merger merge --backend fsdp --local_dir {_quoted(path)} --target_dir OUT"
    what = "a checkpoint of verl, split into one part per process"
    return refusal("checkpoint.distributed", path, what, hint=f"join it with verl: {command} ({TRUST})")


def _megatron(path: Path, names: Collection[str]) -> CheckpointError | None:
    """Recognise Megatron; its own training program leaves out a file that the export needs, and had an older layout."""
    parts = "common.pt" in names and (".metadata" in names or any(name.endswith(".distcp") for name in names))
    if not (parts or any(map(MEGATRON.fullmatch, names))):
        return None
    steps = sorted(name for name in names if re.fullmatch(r"iter_\d+", name))
    place = path / steps[-1] if steps else path
    what = "a Megatron checkpoint, split into one part per process"
    if any(name.startswith("mp_rank_") for name in names):
        options = "--ckpt-convert-format torch_dist --ckpt-convert-save OUT"
        hint = f"write it anew first: the command of its training with {options}; then give OUT/torch_dist"
        return refusal("checkpoint.distributed", path, what, hint=hint)
    bridge = 'from megatron.bridge import AutoBridge; AutoBridge.from_hf_pretrained("THE MODEL IT WAS MADE FROM")'
    command = _python(f'{bridge}.export_ckpt({_literal(place)}, "OUT")')
    guide = "without run_config.yaml in that folder, make one as megatron-lm-to-megatron-bridge.md of its docs says"
    return refusal("checkpoint.distributed", path, what, hint=f"export it with Megatron Bridge: {command} ({guide})")


def _deepspeed(path: Path, names: Collection[str]) -> CheckpointError | None:
    """Recognise DeepSpeed; without states of the optimiser there is nothing that its script could join."""
    if not any(map(DEEPSPEED.fullmatch, names)):
        return None
    what = "a DeepSpeed checkpoint, split into one part per process"
    if "mp_rank_00_model_states.pt" in names and not any(name.endswith("_optim_states.pt") for name in names):
        place = _literal(path / "mp_rank_00_model_states.pt")
        code = f'import torch; torch.save(torch.load({place}, weights_only=False)["module"], "OUT.pt")'
        hint = f"take the weights out: {_python(code)} ({TRUST}); {THEN_LOAD}"
        return refusal("checkpoint.distributed", path, "a DeepSpeed checkpoint without ZeRO", hint=hint)
    inside = "zero_to_fp32.py" in names or any(re.fullmatch(r"global_step\d+(_universal)?", name) for name in names)
    script = "" if "zero_to_fp32.py" in names else "; the script is deepspeed/utils/zero_to_fp32.py"
    folder = _quoted(path if inside else path.parent)
    command = f"python zero_to_fp32.py . OUT --safe_serialization, in {folder}{script}"
    return refusal("checkpoint.distributed", path, what, hint=f"join it first: {command} ({TRUST}); {THEN_COMPLETE}")


def _distributed(path: Path, names: Collection[str]) -> CheckpointError | None:
    fsdp = sorted(name for name in names if re.fullmatch(r"pytorch_model_fsdp_\d+", name))
    if fsdp or re.fullmatch(r"pytorch_model_fsdp_\d+", path.name):
        place = path / fsdp[0] if fsdp else path
        hint = f"join it: accelerate merge-weights {_quoted(place)} OUT ({TRUST}); {THEN_COMPLETE}"
        return refusal("checkpoint.distributed", path, "an FSDP checkpoint, split into one part per process", hint=hint)
    if ".metadata" not in names and not any(name.endswith(".distcp") for name in names):
        return None
    command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {_quoted(path)} OUT.pt"
    hint = f"join it first: {command} ({TRUST}); {THEN_LOAD}"
    return refusal("checkpoint.distributed", path, "a distributed checkpoint (.distcp)", hint=hint)


def _consolidated(path: Path, names: Collection[str]) -> CheckpointError | None:
    """Recognise the layouts of Meta and Mistral; their params.json tells them apart."""
    parts = [name for name in names if re.fullmatch(r"consolidated\.\d+\.pth", name)]
    if not parts and "consolidated.safetensors" not in names:
        return None
    params = read_json(path / "params.json", MAX_PARAMS_BYTES) if stands(path / "params.json") else {}
    if not parts or "hidden_dim" in params or "tekken.json" in names:
        what = "weights in Mistral's own layout (consolidated)"
        options = f"--max_position_embeddings LENGTH{' --modules_are_split' if parts else ''}"
        command = f"python {SCRIPTS}/mistral/convert_mistral_weights_to_hf.py {_quoted(path)} OUT {options}"
    else:
        what = "weights in Meta's own layout (consolidated)"
        options = f"--output_dir OUT --num_shards {len(parts)} --llama_version 1 (or 2, 3, 3.1, 3.2)"
        command = f"python {SCRIPTS}/llama/convert_llama_weights_to_hf.py --input_dir {_quoted(path)} {options}"
    hint = f"get the model.safetensors of the same release, or, with the source of transformers: {command}"
    return refusal("checkpoint.other_format", path, what, hint=hint)


def _mlx(path: Path, names: Collection[str]) -> CheckpointError | None:
    if not any(re.fullmatch(r"weights(\.\d+)?\.npz", name) for name in names):
        return None
    return refusal(
        "checkpoint.other_format",
        path,
        "weights of MLX (.npz)",
        hint="get the safetensors of the model that they were made from",
    )


def saved_again(kind: str, path: Path) -> str:
    """Return a command that reads a folder with transformers, which runs no code of it, and saves it to OUT."""
    return _python(f'from transformers import {kind} as M; M.from_pretrained({_literal(path)}).save_pretrained("OUT")')


def _python(code: str) -> str:
    """Return a command line that runs a line of Python."""
    return visible(f"python -c {shlex.quote(code)}", 500)


def _literal(path: Path) -> str:
    """Return a path as a Python string in double quotes, which need no escape within the quotes of a shell."""
    return json.dumps(str(path), ensure_ascii=False)


def _quoted(path: Path) -> str:
    return visible(shlex.quote(str(path)), 200)
