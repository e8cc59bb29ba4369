"""Writes small nanoGPT checkpoints for tests of commands."""

import pickle
from pathlib import Path

import torch


def write_nanogpt(path: Path, seed: int, text: str, context: int = 16) -> None:
    """Write a model with random weights whose characters are those of a text, and the meta.pkl beside it."""
    characters = sorted(set(text))
    symbols, width = len(characters), 8
    stoi = {character: index for index, character in enumerate(characters)}
    meta = {"vocab_size": symbols, "itos": dict(enumerate(characters)), "stoi": stoi}
    (path.parent / "meta.pkl").write_bytes(pickle.dumps(meta))
    torch.manual_seed(seed)
    state = {
        f"transformer.{name}.weight": torch.randn(rows, width) for name, rows in (("wte", symbols), ("wpe", context))
    }
    shapes = {"ln_1": (width,), "ln_2": (width,), "attn.c_attn": (3 * width, width), "attn.c_proj": (width, width)}
    shapes |= {"mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
    state |= {f"transformer.h.0.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    state |= {"transformer.ln_f.weight": torch.ones(width), "lm_head.weight": state["transformer.wte.weight"]}
    args = {"n_layer": 1, "n_head": 2, "n_embd": width, "block_size": context, "bias": False, "vocab_size": symbols}
    torch.save({"model": state, "model_args": args}, path)
