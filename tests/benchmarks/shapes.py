"""Makes checkpoints of several shapes with random weights, and a text, for the benchmarks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Shape:
    """A model shape.

    Attributes:
        name: description for the output.
        config: transformers configuration; it decides the model class.
        batch: windows in a forward pass, the same for every method.
    """

    name: str
    config: Any
    batch: int


SHAPES = {
    "gpt2": Shape("GPT-2 124M, V = 50,257", GPT2Config(bos_token_id=0, eos_token_id=0), 1),
    "llama": Shape(
        "Llama-like 60M, V = 32,000",
        LlamaConfig(
            vocab_size=32_000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
            max_position_embeddings=1024, bos_token_id=0, eos_token_id=0,
        ),
        1,
    ),
    "llama-1b": Shape(
        "Llama-like 1.1B, V = 32,000",
        LlamaConfig(
            vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
            num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=0, eos_token_id=0,
        ),
        1,
    ),
    "char": Shape(
        "character 10M, V = 256",
        GPT2Config(vocab_size=256, n_positions=256, n_embd=384, n_layer=6, n_head=6, bos_token_id=0, eos_token_id=0),
        16,
    ),
    "large-head": Shape(
        "Llama-like with V = 256,000",
        LlamaConfig(
            vocab_size=256_000, hidden_size=512, intermediate_size=1376, num_hidden_layers=2, num_attention_heads=8,
            max_position_embeddings=1024, bos_token_id=0, eos_token_id=0,
        ),
        1,
    ),
}  # fmt: skip
TINY = Shape(
    "one layer of 32, V = 1,024",
    GPT2Config(vocab_size=1024, n_positions=256, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0),
    4,
)


def texts() -> list[str]:
    """Return the bundled training text, one document a record."""
    with (EXAMPLES / "jargon-train.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def make_checkpoint(folder: Path, shape: Shape) -> Path:
    """Write a model with seeded random weights, and a byte-level tokenizer with at most as many entries."""
    torch.manual_seed(0)
    model_class = LlamaForCausalLM if isinstance(shape.config, LlamaConfig) else GPT2LMHeadModel
    model_class(shape.config).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.config.vocab_size, initial_alphabet=alphabet, show_progress=False, min_frequency=3
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_text(file: Path, checkpoint: Path, tokens: int) -> Path:
    """Write one document of at least `tokens` tokens, and return the file."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    pieces: list[str] = []
    count = 0
    while count < tokens:
        for piece in texts():
            pieces.append(piece)
            count += len(tokenizer.encode(piece).ids)
            if count >= tokens:
                break
    file.write_text("\n\n".join(pieces), encoding="utf-8")
    return file
