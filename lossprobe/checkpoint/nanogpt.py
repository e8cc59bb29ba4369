"""nanoGPT checkpoints (`ckpt.pt`): GPT-2's decoder with its weights under other names, run by transformers' class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lossprobe.checkpoint.causal_lm import CausalLM
from lossprobe.checkpoint.characters import check_vocab_size, read_meta_pkl
from lossprobe.checkpoint.hashes import combined_sha256
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, LoadOptions, Tokenizer
from lossprobe.checkpoint.tensors import check_finite, check_tensors
from lossprobe.checkpoint.torch_file import TorchFile, dtypes, listed, refusal, tensors_in
from lossprobe.units import visible

NORM_EPS = 1e-5
GPT2_VOCABULARIES = (50257, 50304)  # as published, and padded to a multiple of 64
COMPILED = "_orig_mod."  # what torch.compile puts before every name
SIZES = ("n_layer", "n_head", "n_embd", "block_size")
KNOWN_ARGS = frozenset({*SIZES, "bias", "vocab_size", "dropout"})
ACTIVATIONS: Final = {"erf": "gelu", "tanh": "gelu_pytorch_tanh"}
TRANSPOSED = re.compile(r"\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")


def is_nanogpt(content: Mapping[str, object]) -> bool:
    """Return whether the content of a torch file is a nanoGPT checkpoint (llama2.c's has other sizes in model_args)."""
    args = content.get("model_args")
    return "model" in content and isinstance(args, dict) and args.keys() >= set(SIZES)


def load_nanogpt(file: TorchFile, options: LoadOptions) -> Checkpoint:
    """Return the model and tokenizer of a nanoGPT checkpoint.

    Args:
        file: what `ckpt.pt` holds.
        options: device (resolved), dtype, GELU kind (the file does not say which one it was trained with), and
            the tokenizer: a meta.pkl or a Hugging Face tokenizer.json, when no meta.pkl lies next to the file.

    Raises:
        CheckpointError: model_args contradicts the stored tensors; a tensor missing, unexpected, of another shape
            or not finite; no tokenizer, or one with another vocabulary.
    """
    tensors = _stored_tensors(file)
    args = _parse_args(file, tensors)
    check_tensors(file.path, tensors, _expected_shapes(args))
    check_finite(file.path, tensors)
    tokenizer = _open_tokenizer(file.path, options.tokenizer, args.vocab_size)
    stored, dtype = dtypes(tensors, options.dtype)
    tied = torch.equal(tensors["transformer.wte.weight"], tensors["lm_head.weight"])
    facts = CheckpointFacts(
        name=file.path.name,
        family="nanogpt",
        sha256=combined_sha256({file.path.name: file.sha256}),
        vocab_size=args.vocab_size,
        context_length=args.block_size,
        parameters=sum(tensor.numel() for name, tensor in tensors.items() if not tied or name != "lm_head.weight"),
        stored_dtype=str(stored).removeprefix("torch."),
        compute_dtype=str(dtype).removeprefix("torch."),
        device=options.device,
        tied=tied,
        config_from=f"model_args, gelu {options.gelu}",
        notices=() if tied else ("lm_head.weight differs from transformer.wte.weight; the stored head is used",),
    )
    return CausalLM(_build_model(args, tensors, tied, dtype, options), facts, tokenizer)


@dataclass(frozen=True)
class _Args:
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    vocab_size: int
    bias: bool


def _stored_tensors(file: TorchFile) -> dict[str, torch.Tensor]:
    """Return the tensors by their plain names, without the mask buffers of old versions."""
    stored = tensors_in(file, "model")
    compiled = sum(name.startswith(COMPILED) for name in stored)
    if compiled not in {0, len(stored)}:
        what = f"{compiled} of {len(stored)} tensor names start with {COMPILED}: two models in one file?"
        raise refusal("checkpoint.mixed_names", file.path, what)
    tensors = {name.removeprefix(COMPILED): tensor for name, tensor in stored.items()}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not (re.fullmatch(r"transformer\.h\.\d+\.attn\.bias", name) and _is_mask(tensor))
    }


def _is_mask(tensor: torch.Tensor) -> bool:
    shape = tensor.shape
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]


def _parse_args(file: TorchFile, tensors: Mapping[str, torch.Tensor]) -> _Args:
    """Return the sizes: vocabulary and context from the tensors, the rest from model_args, neither contradicting."""
    stated = file.content["model_args"]
    if not isinstance(stated, dict):
        raise refusal("checkpoint.bad_config", file.path, f"model_args is {type(stated).__name__}, not a dict")
    unknown = sorted(str(key)[:40] for key in stated if key not in KNOWN_ARGS)
    if unknown:
        what = f"model_args has unknown keys: {listed(unknown)}; a changed nanoGPT computes something else"
        raise refusal("checkpoint.bad_config", file.path, what)
    for name in SIZES:
        value = stated[name]
        # A layer has at least 6 tensors, and no size can exceed what the file's tensors hold.
        limit = len(tensors) if name == "n_layer" else max(max(tensor.shape, default=0) for tensor in tensors.values())
        if type(value) is not int or not 1 <= value <= limit:
            shown = visible(str(value)[:40]) if isinstance(value, str | int | float) else type(value).__name__
            what = f"model_args: {name} is {shown}, not a whole number from 1 to {limit}"
            raise refusal("checkpoint.bad_config", file.path, what)
    if stated["n_embd"] % stated["n_head"]:
        what = f"model_args: n_embd {stated['n_embd']} is not divisible by n_head {stated['n_head']}"
        raise refusal("checkpoint.bad_config", file.path, what)
    bias = stated.get("bias", True)  # files from before the option have biases
    if type(bias) is not bool:
        raise refusal(
            "checkpoint.bad_config", file.path, f"model_args: bias is {type(bias).__name__}, not true or false"
        )
    embedding = tensors.get("transformer.wte.weight")
    vocab_size = len(embedding) if embedding is not None and embedding.dim() else 0
    if vocab_size and stated.get("vocab_size") not in (None, vocab_size):
        shown = visible(str(stated["vocab_size"])[:40])
        what = f"vocab_size {shown} in model_args, {vocab_size} in transformer.wte.weight"
        raise refusal("checkpoint.vocab_size", file.path, what)
    return _Args(**{name: stated[name] for name in SIZES}, vocab_size=vocab_size, bias=bias)


def _expected_shapes(args: _Args) -> dict[str, tuple[int, ...]]:
    width = args.n_embd
    linear = {"attn.c_attn": (3 * width, width), "attn.c_proj": (width, width)}
    linear |= {"mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (args.vocab_size, width),
        "transformer.wpe.weight": (args.block_size, width),
        "transformer.ln_f.weight": (width,),
        "lm_head.weight": (args.vocab_size, width),
    }
    for index in range(args.n_layer):
        block = f"transformer.h.{index}."
        shapes |= {f"{block}{norm}.weight": (width,) for norm in ("ln_1", "ln_2")}
        shapes |= {f"{block}{name}.weight": shape for name, shape in linear.items()}
    if args.bias:
        biased = [name for name in shapes if "wte" not in name and "wpe" not in name and name != "lm_head.weight"]
        shapes |= {f"{name.removesuffix('weight')}bias": shapes[name][:1] for name in biased}
    return shapes


def _build_model(
    args: _Args, tensors: Mapping[str, torch.Tensor], tied: bool, dtype: torch.dtype, options: LoadOptions
) -> torch.nn.Module:
    """Return GPT-2's class around the stored weights; a model without biases gets zeros, which is the same function."""
    config = GPT2Config(
        vocab_size=args.vocab_size,
        n_positions=args.block_size,
        n_embd=args.n_embd,
        n_layer=args.n_layer,
        n_head=args.n_head,
        activation_function=ACTIVATIONS[options.gelu],
        layer_norm_epsilon=NORM_EPS,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
    )
    model_class: Any = GPT2LMHeadModel
    with torch.device("meta"):  # no memory of its own: the stored tensors are taken over
        model: torch.nn.Module = model_class._from_config(config, attn_implementation="sdpa")
    state = {}
    for name, target in model.state_dict().items():
        tensor = tensors[name].detach() if name in tensors else torch.zeros(target.shape)
        tensor = tensor.to(options.device, dtype)
        state[name] = tensor.t().contiguous() if TRANSPOSED.search(name) else tensor
    if tied:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _open_tokenizer(path: Path, given: Path | None, vocab_size: int) -> Tokenizer:
    """Return the tokenizer that was named, or that of a meta.pkl next to the checkpoint."""
    beside = path.parent / "meta.pkl"
    if given is None and not beside.exists():
        if vocab_size in GPT2_VOCABULARIES:
            what = f"vocab {vocab_size} needs --tokenizer with a local tokenizer.json of GPT-2"
            raise refusal(
                "tokenizer.missing", path, what, "GPT-2's own is on the Hugging Face hub; nothing is downloaded"
            )
        what = f"vocab {vocab_size} needs --tokenizer meta.pkl"
        raise refusal("tokenizer.missing", path, what, "nanoGPT keeps it in data/<dataset>/, not with the checkpoint")
    file = beside if given is None else given
    if file.is_dir() and (file / "meta.pkl").exists():
        file = file / "meta.pkl"
    if file.is_dir() or file.suffix == ".json":
        from lossprobe.checkpoint.tokenizers import open_tokenizer

        return open_tokenizer(file)
    characters = read_meta_pkl(file)
    check_vocab_size(path, characters, vocab_size)
    return characters
