"""Hugging Face directories: any decoder-only family that transformers knows, from safetensors alone.

transformers builds the model; the tensors are read here and handed over, because transformers would load a
checkpoint with missing or surplus tensors and only print a report. Nothing in the directory can run code,
name a kernel, or make anything be fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossprobe.checkpoint.causal_lm import CausalLM
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, LoadOptions
from lossprobe.checkpoint.json_file import read_json
from lossprobe.checkpoint.safetensors_file import TensorEntry, file_sha256, read_tensors, scan_header
from lossprobe.checkpoint.tensors import check_finite
from lossprobe.checkpoint.tokenizers import open_tokenizer
from lossprobe.checkpoint.weight_files import find_weights
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, visible

DROPPED_KEYS = ("auto_map", "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype")
STORED_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BUILD_ERRORS = (ValueError, TypeError, RuntimeError, KeyError, AttributeError, AssertionError, StrictDataclassError)


def is_huggingface(path: Path) -> bool:
    """Return whether a path is a directory with a config.json."""
    return path.is_dir() and (path / "config.json").is_file()


def load_huggingface(path: Path, options: LoadOptions) -> Checkpoint:
    """Return the model of a Hugging Face directory, in eval mode, split into body and head.

    Raises:
        CheckpointError: everything that makes the numbers doubtful: see the module's docstring.
    """
    shown = visible(str(path), 200)
    settings = read_json(path / "config.json")
    config = build_config(settings, f"{shown}/config.json")
    files = find_weights(path)
    entries = {name: entry for file in files for name, entry in scan_header(file).items()}
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    check_size(config, model_class, entries, f"{shown}/config.json")
    stored = stored_dtype(entries)
    dtype = stored if options.dtype == "auto" else options.dtype
    model = build_model(model_class, config, files, DTYPES.get(dtype, torch.float32), shown)
    check_finite(path, dict(model.named_parameters()))
    tokenizer = open_tokenizer(options.tokenizer or path)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    text_config = config.get_text_config()
    facts = CheckpointFacts(
        name=path.resolve().name,
        family=str(settings["model_type"]),
        sha256=hash_files([path / "config.json", *files]),
        vocab_size=int(text_config.vocab_size),
        context_length=getattr(text_config, "max_position_embeddings", None),
        parameters=sum(weight.numel() for weight in model.parameters()),
        stored_dtype=stored,
        compute_dtype=str(model.dtype).removeprefix("torch."),
        device=options.device,
        tied=None if head is None else head.weight is embedding.weight,
        config_from="config.json",
        notices=getattr(tokenizer, "notices", ()),
    )
    return CausalLM(model.to(options.device), facts, tokenizer)


def build_config(settings: Mapping[str, Any], shown: str) -> Any:
    """Return the transformers configuration object of a config.json, made in code from its plain values.

    Raises:
        CheckpointError: a family that is no causal language model of transformers (which never runs code from a
            checkpoint), a kernel by name, quantised weights, or values the family refuses.
    """
    family = settings.get("model_type")
    if not isinstance(family, str):
        raise CheckpointError("checkpoint.no_family", f"{shown}: lacks model_type")
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        custom = " and needs custom code, which is never run" if "auto_map" in settings else ""
        raise CheckpointError(
            "checkpoint.unknown_family",
            f"{shown}: model_type {visible(family, 40)!r} is no causal language model of transformers "
            f"{transformers.__version__}{custom}",
        )
    for key, value in settings.items():
        if "attn_implementation" in key and "/" in str(value):
            raise CheckpointError(
                "checkpoint.external_kernel", f"{shown}: {key} names an external kernel, {visible(str(value), 60)}"
            )
    if settings.get("quantization_config"):
        raise CheckpointError("checkpoint.quantized", f"{shown}: quantised weights are not supported")
    plain = {
        key: value
        for key, value in settings.items()
        if key not in DROPPED_KEYS and key != "model_type" and "attn_implementation" not in key
    }
    try:
        with quiet_transformers():
            return transformers.AutoConfig.for_model(family, **plain)
    except BUILD_ERRORS as error:
        raise CheckpointError("checkpoint.bad_config", f"{shown}: {_first_line(error)}") from None


def check_size(config: Any, model_class: Any, entries: Mapping[str, TensorEntry], shown: str) -> None:
    """Refuse a configuration that asks for more than the stored tensors, before anything is allocated.

    Raises:
        CheckpointError: more layers than tensors, or more weights than the files hold.
    """
    stored = sum(_numel(entry) for entry in entries.values())
    text = config.get_text_config()
    layers = int(getattr(text, "num_hidden_layers", 0))
    if layers > len(entries):
        raise CheckpointError(
            "checkpoint.config_size",
            f"{shown}: {format_count(layers)} layers, but the files hold {len(entries)} tensors",
        )
    embedding = int(getattr(text, "vocab_size", 0)) * int(getattr(text, "hidden_size", 1))
    needed = embedding
    if embedding <= 2 * stored:
        try:
            with torch.device("meta"), quiet_transformers():
                needed = sum(weight.numel() for weight in model_class(config).parameters())
        except BUILD_ERRORS as error:
            raise CheckpointError(
                "checkpoint.bad_config", f"{shown}: no model can be built: {_first_line(error)}"
            ) from None
    if needed > 2 * stored:
        raise CheckpointError(
            "checkpoint.config_size",
            f"{shown}: config needs {needed * 4 / 1e9:.3g} GB in float32, the files hold {stored * 4 / 1e9:.3g} GB",
        )


def build_model(model_class: Any, config: Any, files: list[Path], dtype: torch.dtype, shown: str) -> Any:
    """Return the model with exactly the stored tensors, in eval mode, on the CPU.

    Raises:
        CheckpointError: a tensor that is missing, unexpected or of another shape; all named.
    """
    tensors = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    count = len(tensors)
    attention = "sdpa" if model_class._supports_sdpa else "eager"
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except BUILD_ERRORS as error:
        raise CheckpointError(
            "checkpoint.bad_config", f"{shown}: no model can be built: {_first_line(error)}"
        ) from None
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


def stored_dtype(entries: Mapping[str, TensorEntry]) -> str:
    """Return the dtype of most stored weights, in torch's words."""
    sizes: dict[str, int] = {}
    for entry in entries.values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + _numel(entry)
    code = max(sorted(sizes), key=lambda dtype: sizes[dtype])
    return STORED_DTYPES.get(code, code.lower())


def hash_files(files: list[Path]) -> str:
    """Return one sha256 over the names and contents of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports and bars while it loads: what they say is checked, and said, here."""
    logging: Any = transformers.utils.logging  # untyped, and its levels are logging's own
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _numel(entry: TensorEntry) -> int:
    return int(torch.Size(entry.shape).numel())


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return visible(lines[0] if lines else type(error).__name__, 160)
