"""Load the weights of a GGUF file, as numbers, into the class that transformers has for its architecture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.checkpoint.files.tensors import check_finite, compute_dtype
from lossprobe.checkpoint.gguf.architectures import Plan, plan_of
from lossprobe.checkpoint.gguf.header import GGUFHeader, GGUFTensor
from lossprobe.checkpoint.gguf.opened import Opened, facts_of
from lossprobe.checkpoint.interface import PADDED, Checkpoint
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.model.context import context_limit
from lossprobe.checkpoint.model.model_config import building
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import UsageError
from lossprobe.units import plural, visible

PLAIN: dict[str, Any] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8")}
LAYER = re.compile(r"blk\.(?P<number>\d{1,9})\.")
WHAT_IT_IS = (
    "the file's weights in transformers: llama.cpp, which rounds activations and keeps keys and values in float16, "
    "gives other losses"
)


def load_dequantized(opened: Opened, options: LoadOptions) -> Checkpoint:
    """Return the model of a GGUF file in transformers' class, with the tokenizer that llama.cpp runs.

    Args:
        opened: the measured headers, the tokenizer and the hashes.
        options: device ("auto" already resolved) and dtype.

    Raises:
        CheckpointError: an architecture, key or tensor that is not mapped completely; a tensor that is missing, of
            another shape, or not finite.
        UsageError: the package `gguf` is not installed, or `options.dtype` is not one of the choices.
    """
    path = opened.headers[0].path
    with building(visible(str(path), 200)):
        plan = plan_of(opened.headers)
    dtype = compute_dtype("float32", options.dtype)
    state = _state(opened.headers, plan)
    check_finite(path, state)
    model = _built(path, plan, state, dtype)
    with building(visible(str(path), 200)):
        limit = context_limit(model, visible(str(path), 200))
        facts = facts_of(opened, options)
        facts = replace(
            facts,
            family=f"{plan.config.model_type} (GGUF)",
            context_length=limit.length,
            hard_limit=limit.hard,
            parameters=sum(weight.numel() for weight in model.parameters()),
            compute_dtype=str(dtype).removeprefix("torch."),
            device=options.device,
            tied=plan.config.tie_word_embeddings,
            head="linear",
            kernels="plain",
            batching=PADDED,
            notices=(WHAT_IT_IS, *facts.notices),
        )
        return CausalLM(model.to(options.device), facts, opened.tokenizer)


def _state(headers: Sequence[GGUFHeader], plan: Plan) -> dict[str, torch.Tensor]:
    """Return the tensors as float32 by transformers' names.

    Raises:
        CheckpointError: a file has a tensor that the plan does not know.
    """
    state, unknown = {}, []
    for header in headers:
        for name, tensor in header.tensors.items():
            if name == plan.frequencies:
                continue
            found = plan.renamed(name)
            if found is None:
                unknown.append(name)
                continue
            own, change = found
            state[own] = change(torch.from_numpy(values_of(header.path, tensor))).contiguous()
    layers = plan.config.num_hidden_layers
    beyond = [name for name in unknown if (layer := LAYER.match(name)) and int(layer["number"]) >= layers]
    if beyond:
        what = f"the header says {plural(layers, 'layer')}, and there are {listed(sorted(beyond))}"
        raise refusal("checkpoint.unexpected_tensor", headers[0].path, what)
    if unknown:
        what = f"tensors that are not mapped: {listed(sorted(unknown))}"
        raise refusal("checkpoint.unexpected_tensor", headers[0].path, what, hint="leave out `dequantize`")
    return state


def _built(path: Path, plan: Plan, state: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """Return the model with exactly these tensors, in eval mode on the CPU."""
    with building(visible(str(path), 200)):
        model_class: Any = getattr(transformers, plan.class_name)
        model, report = model_class.from_pretrained(
            None, config=plan.config, state_dict=state, dtype=dtype, ignore_mismatched_sizes=True,
            output_loading_info=True,
        )  # fmt: skip
    misfit = {kind: sorted(str(each[0] if isinstance(each, tuple) else each) for each in report[f"{kind}_keys"])
              for kind in ("mismatched", "missing", "unexpected")}  # fmt: skip
    if misfit["mismatched"]:
        what = f"tensors of another shape than the header says: {listed(misfit['mismatched'])}"
        raise refusal("checkpoint.wrong_shape", path, what)
    if misfit["missing"]:
        raise refusal("checkpoint.missing_tensor", path, f"tensors are missing: {listed(misfit['missing'])}")
    if misfit["unexpected"]:
        what = f"tensors that the model does not have: {listed(misfit['unexpected'])}"
        raise refusal("checkpoint.unexpected_tensor", path, what)
    if plan.factors is not None:
        rotary = model.model.rotary_emb
        factors = torch.from_numpy(values_of(*plan.factors)).flatten()
        if factors.shape != rotary.inv_freq.shape:
            shapes = f"{list(factors.shape)}, the heads have {list(rotary.inv_freq.shape)}"
            raise refusal("checkpoint.wrong_shape", path, f"{plan.frequencies} has {shapes}")
        rotary.inv_freq = rotary.original_inv_freq = rotary.inv_freq / factors
    return model.eval().requires_grad_(False)


def values_of(path: Path, tensor: GGUFTensor) -> npt.NDArray[np.float32]:
    """Return the values of a tensor as float32, in its shape.

    Raises:
        CheckpointError: the file cannot be read.
        UsageError: the type needs the package `gguf`, which is not installed.
    """
    try:
        with open_plain(path) as stream:
            stream.seek(tensor.start)
            data = np.fromfile(stream, np.uint8, tensor.size)
    except OSError as error:
        raise unreadable(visible(str(path), 200), error) from None
    if len(data) != tensor.size:
        raise refusal("checkpoint.changed", path, "became shorter while it was read")
    if tensor.kind in PLAIN:
        return np.asarray(data.view(PLAIN[tensor.kind]), np.float32).reshape(tensor.shape)
    if tensor.kind == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        what = f"{visible(str(path), 200)}: `dequantize` of {tensor.kind} needs the package gguf"
        raise UsageError("gguf.package", what, hint='pip install "lossprobe[gguf]"') from None
    try:
        values = dequantize(data, GGMLQuantizationType[tensor.kind])
    except (NotImplementedError, KeyError):
        what = f"tensors of type {tensor.kind}, which the installed gguf does not dequantise"
        raise refusal("checkpoint.quantized", path, what, hint="leave out `dequantize`") from None
    return np.asarray(values, np.float32).reshape(tensor.shape)
