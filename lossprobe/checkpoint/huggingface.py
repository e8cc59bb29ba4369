"""Hugging Face directories: any decoder-only family that transformers knows, from safetensors alone.

transformers builds the model; the tensors are read here and handed over, because transformers would load a
checkpoint with missing or surplus tensors and only print a report. Nothing in the directory can run code,
name a kernel, or make anything be fetched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from lossprobe.checkpoint.causal_lm import CausalLM
from lossprobe.checkpoint.hashes import combined_sha256, file_sha256
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, LoadOptions
from lossprobe.checkpoint.json_file import read_json
from lossprobe.checkpoint.model_config import build_config, building, check_size
from lossprobe.checkpoint.safetensors_file import TensorEntry, read_tensors, scan_header
from lossprobe.checkpoint.tensors import check_finite, compute_dtype
from lossprobe.checkpoint.tokenizers import open_tokenizer
from lossprobe.checkpoint.weight_files import find_weights
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

STORED_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def is_huggingface(path: Path) -> bool:
    """Return whether a path is a directory with a config.json."""
    return path.is_dir() and (path / "config.json").is_file()


def load_huggingface(path: Path, options: LoadOptions) -> Checkpoint:
    """Return the model of a Hugging Face directory, in eval mode, split into body and head.

    Raises:
        CheckpointError: everything that makes the numbers doubtful: see the module's docstring.
        UsageError: a dtype that is not offered.
        ResourceError: the device's memory is full.
    """
    shown = visible(str(path), 200)
    settings = read_json(path / "config.json")
    config = build_config(settings, f"{shown}/config.json")
    files = find_weights(path)
    entries = {name: entry for file in files for name, entry in scan_header(file).items()}
    with building(shown):
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        check_size(settings, config, model_class, entries, f"{shown}/config.json")
    stored = stored_dtype(entries)
    model = build_model(model_class, config, files, compute_dtype(stored, options.dtype), shown)
    check_weights(path, model, entries)
    tokenizer = open_tokenizer(options.tokenizer or path)
    with building(shown):
        if tokenizer.bos_id is None:  # GPT-2's tokenizer files name no BOS, its config.json does
            tokenizer.bos_id = _configured_bos(settings, int(config.get_text_config().vocab_size))
        facts = CheckpointFacts(
            name=path.resolve().name,
            family=str(settings["model_type"]),
            sha256=combined_sha256({file.name: file_sha256(file) for file in (path / "config.json", *files)}),
            vocab_size=int(config.get_text_config().vocab_size),
            context_length=getattr(config.get_text_config(), "max_position_embeddings", None),
            hard_limit=not _has_rotary_positions(model),
            parameters=sum(weight.numel() for weight in model.parameters()),
            stored_dtype=stored,
            compute_dtype=str(model.dtype).removeprefix("torch."),
            device=options.device,
            tied=_tied(model),
            config_from="config.json",
            notices=getattr(tokenizer, "notices", ()),
        )
        return CausalLM(model.to(options.device), facts, tokenizer)


def _has_rotary_positions(model: Any) -> bool:
    """Return whether positions are computed from frequencies as they come, so that none is too large."""
    return any("inv_freq" in module._buffers for module in model.modules())


def build_model(model_class: Any, config: Any, files: list[Path], dtype: torch.dtype, shown: str) -> Any:
    """Return the model with exactly the stored tensors, in eval mode, on the CPU.

    Raises:
        CheckpointError: a tensor that is missing, unexpected or of another shape; all named.
    """
    tensors = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    count = len(tensors)
    attention = "sdpa" if model_class._supports_sdpa else "eager"
    with building(shown):
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, stored, wanted = mismatched[0]
        raise CheckpointError(
            "checkpoint.wrong_shape",
            f"{shown}: tensor {visible(name, 80)} has shape {list(stored)}, config.json wants {list(wanted)}"
            f"{_more(len(mismatched))}",
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            "checkpoint.missing_tensor",
            f"{shown}: tensor {visible(missing[0], 80)} is missing{_more(len(missing))} "
            f"({count} of {count + len(missing)} present)",
        )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected:
        raise CheckpointError(
            "checkpoint.unexpected_tensor",
            f"{shown}: unexpected tensor {visible(unexpected[0], 80)}{_more(len(unexpected))}",
        )
    return model.eval()


def check_weights(path: Path, model: Any, entries: Mapping[str, TensorEntry]) -> None:
    """Refuse weights that are not finite, or that are integers, which mean nothing without their scales.

    Raises:
        CheckpointError: `checkpoint.non_finite` or `checkpoint.quantized`, naming the tensor.
    """
    weights = dict(model.named_parameters())
    for name in sorted(weights.keys() & entries.keys()):
        if entries[name].dtype not in STORED_DTYPES:
            raise CheckpointError(
                "checkpoint.quantized",
                f"{visible(str(path), 200)}: tensor {visible(name, 80)} is stored as {entries[name].dtype}: "
                "quantised weights are not supported",
            )
    check_finite(path, weights)


def stored_dtype(entries: Mapping[str, TensorEntry]) -> str:
    """Return the dtype of most stored weights, in torch's words."""
    sizes: dict[str, int] = {}
    for entry in entries.values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + _numel(entry)
    code = max(sorted(sizes), key=lambda dtype: sizes[dtype])
    return STORED_DTYPES.get(code, code.lower())


def _tied(model: Any) -> bool | None:
    """Return whether head and embedding share their weights; None when there is no such head."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    return None if weight is None else weight is model.get_input_embeddings().weight


def _configured_bos(settings: Mapping[str, Any], vocab_size: int) -> int | None:
    """Return the bos_token_id that a config.json names, when it is an id that the model has."""
    bos = settings.get("bos_token_id")
    return bos if type(bos) is int and 0 <= bos < vocab_size else None


def _numel(entry: TensorEntry) -> int:
    return math.prod(entry.shape)


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
