"""Open nanoGPT checkpoints (`ckpt.pt`): GPT-2's architecture under other tensor names, run by transformers' GPT-2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lossprobe.checkpoint.files.constants import Constants
from lossprobe.checkpoint.files.hashes import combined_sha256
from lossprobe.checkpoint.files.key_filter import KeyFilter
from lossprobe.checkpoint.files.plain_files import absolute, followed_links, stands
from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.checkpoint.files.tensor_names import PlainNames, fitted_names, plain_names
from lossprobe.checkpoint.files.tensors import check_finite, check_tensors
from lossprobe.checkpoint.files.torch_file import TorchFile, dtypes, tensors_in
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.characters import check_vocab_size, read_meta_pkl
from lossprobe.units import visible

NORM_EPS = 1e-5
GPT2_VOCABULARIES = (50257, 50304)  # GPT-2's own size, and nanoGPT's default: padded to a multiple of 64
SIZES = ("n_layer", "n_head", "n_embd", "block_size")
KNOWN_ARGS = frozenset({*SIZES, "bias", "vocab_size", "dropout"})
# Keys that forks of nanoGPT add and that change speed, training or names, but not the logits.
HARMLESS_ARGS = re.compile(
    r"(use_)?(flash|flash_attn|flash_attention|sdpa|compile|(gradient|activation)_checkpointing|fused\w*)"
    r"|(\w+_)?(dropout|pdrop)|name|device|dtype|seed|init_std|initializer_range|(base_|max_|min_)?learning_rate|lr"
    r"|weight_decay|betas|beta1|beta2|grad_clip|batch_size|out_dir|dataset|wandb_\w+"
)
ACTIVATIONS: Final = {"erf": "gelu", "tanh": "gelu_pytorch_tanh"}
ENDS: Final = frozenset({"transformer.wte.weight", "lm_head.weight"})
MASK: Final = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
TRANSPOSED = re.compile(r"\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")


def is_nanogpt(content: Mapping[str, object]) -> bool:
    """Return whether the content of a torch file is a nanoGPT checkpoint.

    The sizes in model_args decide, because llama2.c's checkpoints have the same top-level keys.
    """
    args = content.get("model_args")
    return "model" in content and isinstance(args, dict) and args.keys() >= set(SIZES)


def load_nanogpt(file: TorchFile, options: LoadOptions) -> Checkpoint:
    """Return the model and tokenizer of a nanoGPT checkpoint.

    Args:
        file: the content of `ckpt.pt`.
        options: device ("auto" already resolved), dtype, GELU kind (the file does not say which one it was trained
            with), and the tokenizer (meta.pkl or a Hugging Face tokenizer.json) when no meta.pkl lies beside the file.

    Raises:
        CheckpointError: model_args contradicts the stored tensors; a tensor is missing, unexpected, of the wrong shape
            or not finite; or there is no tokenizer, or a character tokenizer with another vocabulary size.
    """
    names, tensors = _stored_tensors(file)
    ignored = KeyFilter(options.ignore_config, "model_args")
    args, told = _parse_args(file, tensors, ignored)
    tensors, untold = _with_both_ends(tensors)
    check_tensors(file.path, tensors, _expected_shapes(args))
    check_finite(file.path, tensors)
    tokenizer = _open_tokenizer(file.path, options, args.vocab_size)
    stored, dtype = dtypes(tensors, options.dtype)
    tied = torch.equal(tensors["transformer.wte.weight"], tensors["lm_head.weight"])
    heads = () if tied else ("lm_head.weight differs from transformer.wte.weight; the stored head is used",)
    words, more = getattr(tokenizer, "files", ()), getattr(tokenizer, "notices", ())
    links = followed_links(words) if options.tokenizer is None else ()
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
        config_from=f"{ignored.source}, gelu {options.gelu}",
        notices=(*file.notices, *names.notices(), *told, *ignored.notices, *untold, *heads, *links, *more),
        files=absolute((file.path, *words)),
        hashes=((str(file.path.absolute()), file.sha256),),
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


def _stored_tensors(file: TorchFile) -> tuple[PlainNames, dict[str, torch.Tensor]]:
    """Return the tensor names without wrappers' parts, and the tensors by these names, mask buffers left out."""
    stored = tensors_in(file, "model")
    names = fitted_names(plain_names(file.path, stored), ENDS)
    tensors = {names.plain[name]: tensor for name, tensor in stored.items()}
    masks = {name for name in tensors if MASK.fullmatch(name) and Constants().holds(name, tensors[name])}
    return names, {name: tensor for name, tensor in tensors.items() if name not in masks}


def _with_both_ends(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the tensors with both embedding and head, and a notice where one was missing.

    nanoGPT ties the two, so the one that is stored also serves as the other.
    """
    absent = [name for name in ENDS if name not in tensors]
    if len(absent) != 1:
        return dict(tensors), ()
    (present,) = ENDS - {*absent}
    notice = f"{absent[0]} is not stored; nanoGPT ties it to {present}"
    return {**tensors, absent[0]: tensors[present]}, (notice,)


def _parse_args(
    file: TorchFile, tensors: Mapping[str, torch.Tensor], ignored: KeyFilter
) -> tuple[_Args, tuple[str, ...]]:
    """Return the model's sizes, and a notice about the keys of model_args that were not used.

    The vocabulary size comes from the embedding's shape, all other sizes from model_args.

    Raises:
        CheckpointError: model_args has an unknown key or an impossible value, or contradicts the embedding.
    """
    stated = file.content["model_args"]
    if not isinstance(stated, dict):
        raise refusal("checkpoint.bad_config", file.path, f"model_args is {type(stated).__name__}, not a dict")
    stated = ignored.removed_from(stated)
    others = sorted(str(key)[:40] for key in stated if key not in KNOWN_ARGS)
    unknown = [key for key in others if not HARMLESS_ARGS.fullmatch(key)]
    if unknown:
        what = f"model_args has unknown keys: {listed(unknown)}; a changed nanoGPT computes something else"
        hint = f"`ignore_config` {visible(unknown[0], 40)}, where you know that it does not matter"
        raise refusal("checkpoint.bad_config", file.path, what, hint)
    told = (
        (f"model_args: {listed(others)} not used, since they do not change what the model computes",) if others else ()
    )
    for name in SIZES:
        value = stated.get(name)
        # Bounds that no valid file exceeds: a layer has at least 6 tensors, and every size is a side of some tensor.
        limit = len(tensors) if name == "n_layer" else max(max(tensor.shape, default=0) for tensor in tensors.values())
        if type(value) is not int or not 1 <= value <= limit:
            shown = visible(str(value)[:40]) if isinstance(value, str | int | float) else type(value).__name__
            what = f"model_args: {name} is {shown}, not a whole number from 1 to {limit}"
            raise refusal("checkpoint.bad_config", file.path, what)
    if stated["n_embd"] % stated["n_head"]:
        what = f"model_args: n_embd {stated['n_embd']} is not divisible by n_head {stated['n_head']}"
        raise refusal("checkpoint.bad_config", file.path, what)
    bias = stated.get("bias", True)  # older nanoGPT had no such option and always used biases
    if type(bias) is not bool and not (type(bias) is int and bias in (0, 1)):
        raise refusal(
            "checkpoint.bad_config", file.path, f"model_args: bias is {type(bias).__name__}, not true or false"
        )
    embedding = tensors.get("transformer.wte.weight", tensors.get("lm_head.weight"))
    vocab_size = len(embedding) if embedding is not None and embedding.dim() else 0
    if vocab_size and stated.get("vocab_size") not in (None, vocab_size):
        shown = visible(str(stated["vocab_size"])[:40])
        what = f"vocab_size {shown} in model_args, {vocab_size} in transformer.wte.weight"
        raise refusal("checkpoint.vocab_size", file.path, what)
    sizes = {name: stated[name] for name in SIZES}
    return _Args(**sizes, vocab_size=vocab_size, bias=bool(bias)), told


def _expected_shapes(args: _Args) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a model of these sizes has, by name."""
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
    """Return transformers' GPT-2 with the stored weights; biases that the checkpoint lacks are zero."""
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
    with torch.device("meta"):  # allocates no memory: the stored tensors become the parameters below
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


def _open_tokenizer(path: Path, options: LoadOptions, vocab_size: int) -> Tokenizer:
    """Return the tokenizer that the user named, or else that of the meta.pkl beside the checkpoint."""
    beside, given = path.parent / "meta.pkl", options.tokenizer
    if given is None and not stands(beside):
        if vocab_size in GPT2_VOCABULARIES:
            what = f"vocab {vocab_size} needs `tokenizer` with a local tokenizer.json of GPT-2"
            raise refusal(
                "tokenizer.missing", path, what, "GPT-2's own is on the Hugging Face hub; nothing is downloaded"
            )
        what = f"vocab {vocab_size} needs `tokenizer` meta.pkl"
        raise refusal("tokenizer.missing", path, what, "nanoGPT keeps it in data/<dataset>/, not with the checkpoint")
    file = beside if given is None else given
    if file.is_dir() and stands(file / "meta.pkl"):
        file = file / "meta.pkl"
    if file.is_dir() or file.suffix == ".json":
        from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer

        tokenizer = open_tokenizer(file, options.special_strings)
        tokenizer.compare_with_auto_tokenizer()
        return tokenizer
    characters = read_meta_pkl(file)
    check_vocab_size(path, characters, vocab_size)
    return characters
