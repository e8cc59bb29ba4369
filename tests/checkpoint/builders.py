"""Builds tiny Hugging Face checkpoints: random models of several families, and one tokenizer of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model.attention import KIND
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

CORPUS = "the cat sat on the mat. the cat ate the rat. Once upon a time, there was a little girl."
SPECIALS = ("<unk>", "<s>", "</s>")
WEIGHTS = "model.safetensors"
VOCABULARY = 320  # size of every model's vocabulary; larger than that of any tokenizer here
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SMALL = COMMON | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": SMALL,
    "qwen3": SMALL | {"head_dim": 8, "tie_word_embeddings": True},
    "gpt_neox": {key: value for key, value in SMALL.items() if key != "num_key_value_heads"},
    "gemma2": SMALL | {"head_dim": 8, "final_logit_softcapping": 5.0, "sliding_window": 16},
    "granite": SMALL | {"logits_scaling": 8.0, "embedding_multiplier": 3.0},
    "cohere": SMALL,
    "bert": {key: value for key, value in SMALL.items() if key != "num_key_value_heads"},
}


def model(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random model in eval mode, with weights large enough that logits reach several units."""
    config = transformers.AutoConfig.for_model(family, **FAMILIES.get(family, {}) | changes)
    torch.manual_seed(seed)
    built = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).eval()
    with torch.no_grad():
        for weight in built.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.15)
    return built


def without_attention(kernels: str) -> str:
    """Return `CheckpointFacts.kernels` without what it says about attention, which depends on the processor."""
    return ", ".join(part for part in kernels.split(", ") if part != KIND)


def save(built: Any, path: Path, tokenizer: Tokenizer | None = None, **options: Any) -> Path:
    """Write a model with its tokenizer, by `save_pretrained`."""
    built.save_pretrained(path, **options)
    (tokenizer or byte_level_bpe()).save(str(path / "tokenizer.json"))
    return path


def reconfigure(path: Path, *, drop: tuple[str, ...] = (), **changes: Any) -> None:
    """Change keys of a config.json."""
    file = path / "config.json"
    content = {key: value for key, value in json.loads(file.read_text()).items() if key not in drop} | changes
    file.write_text(json.dumps(content))


def rewrite(
    path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], name: str = WEIGHTS
) -> None:
    """Replace the stored tensors by those that `change` returns for them."""
    file = path / name
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file)


def refused(path: Path, id: str, options: LoadOptions | None = None) -> str:
    """Return the message with which a checkpoint is refused, after checking its id and exit code."""
    with pytest.raises(CheckpointError) as caught:
        load_huggingface(path, options or LoadOptions())
    assert (caught.value.id, caught.value.exit_code) == (id, 3), caught.value.message
    assert caught.value.message.startswith((str(path), path.name))
    assert caught.value.message.isprintable()
    return caught.value.message


def _bpe(vocabulary: list[str], merges: list[tuple[str, str]], **options: Any) -> models.BPE:
    names = vocabulary + ["".join(pair) for pair in merges]
    return models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=merges, **options)


def byte_level_bpe() -> Tokenizer:
    """Return a tokenizer like GPT-2's: bytes, some merges, and one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("Ã", "©")]
    tokenizer = Tokenizer(_bpe(["<|endoftext|>", *alphabet], merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """Return a tokenizer like Llama 2's: a blank before the text, blanks as ▁, unknown characters as bytes."""
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(set(CORPUS) - {" "}), "▁"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("c", "a"), ("ca", "t"), ("▁", "cat"), ("▁", "▁")]
    tokenizer = Tokenizer(_bpe(pieces, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIALS])
    return tokenizer


def metaspace_unigram() -> Tokenizer:
    """Return a tokenizer like XLNet's and T5's: pieces with scores; unknown characters become <unk>."""
    pieces = [(name, 0.0) for name in SPECIALS] + [("▁the", -2.0), ("▁cat", -2.5), ("▁", -3.0), ("at", -3.5)]
    known = {piece for piece, _ in pieces}
    pieces += [(character, -5.0) for character in sorted(set(CORPUS) - {" "}) if character not in known]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def wordpiece() -> Tokenizer:
    """Return a tokenizer like BERT's: lower case, without accents and white space."""
    letters = sorted(set(CORPUS.lower()) - {" "})
    names = ["[UNK]", "[CLS]", *letters, *(f"##{letter}" for letter in letters), "the", "cat", "##at"]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]"])
    return tokenizer


def word_level() -> Tokenizer:
    """Return a tokenizer of whole words without white space; unknown words become [UNK]."""
    words = ["[UNK]", "the", "cat", "sat", "on", "mat", "."]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


TOKENIZERS = {
    "byte_level_bpe": byte_level_bpe,
    "sentencepiece_bpe": sentencepiece_bpe,
    "metaspace_unigram": metaspace_unigram,
    "wordpiece": wordpiece,
    "word_level": word_level,
}


def definition(name: str = "byte_level_bpe", **changes: Any) -> dict[str, Any]:
    """Return the content of a tokenizer.json, with some keys changed."""
    content: dict[str, Any] = json.loads(TOKENIZERS[name]().to_str())
    return content | changes


def write_settings(path: Path, **settings: Any) -> None:
    """Write a tokenizer_config.json."""
    content = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    (path / "tokenizer_config.json").write_text(json.dumps(content))
