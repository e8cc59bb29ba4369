"""Shapes of the models that `gpu` measures; their weights are random."""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config, LlamaConfig

CONTEXT = 2048
ENDS = {"max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
SHAPES: dict[str, tuple[Any, Any]] = {  # the real shape, and one to try the program out
    "gpt2": (
        GPT2Config(n_positions=CONTEXT, bos_token_id=0, eos_token_id=0),
        GPT2Config(vocab_size=500, n_positions=CONTEXT, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0),
    ),
    "llama-1b": (
        LlamaConfig(
            vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
            num_key_value_heads=4, **ENDS,
        ),
        LlamaConfig(vocab_size=300, num_key_value_heads=2, **SMALL, **ENDS),
    ),
    "llama-8b": (
        LlamaConfig(
            vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, **ENDS,
        ),
        LlamaConfig(vocab_size=700, num_key_value_heads=2, **SMALL, **ENDS),
    ),
}  # fmt: skip
