"""The small models and texts of the losses that trainers logged; see `passes.test_logged_goldens`."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions

LENGTHS = (5, 17, 9, 30, 4, 12, 7)
SPECIAL = ("<|pad|>", "<|bos|>", "<|im_end|>", "<|im_start|>", "<|eot|>")
TEXTS = [
    "the cat sat on the mat", "hello world", "the dog ran home and the cat sat on the mat and ran home", "four",
    "the answer is four five six", "hello the dog", "the mat is home",
]  # fmt: skip
CORPUS = "the cat sat on the mat and the dog ran home\n\nuser assistant system hello world the answer is four five six"


def small_llama(entries):
    """Return a model of two layers with logits that differ clearly."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=entries, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
    return model.eval()


def rows():
    """Return a text of each row: each word is the name of an id."""
    drawn = torch.Generator().manual_seed(1)
    ids = [[1, *torch.randint(3, 61, (length - 1,), generator=drawn).tolist()] for length in LENGTHS]
    return [" ".join(f"w{index}" for index in row) for row in ids]


def saved(folder, model, tokenizer, dtype="float32"):
    """Return the model, saved in a folder with its tokenizer and opened from there with this dtype."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_checkpoint(folder, LoadOptions(dtype=dtype))


def word_tokenizer():
    """Return a tokenizer of 61 words."""
    backend = Tokenizer(models.WordLevel({f"w{index}": index for index in range(61)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0")


def without_weights(model):
    """Return the model with zero weights: every token costs the logarithm of the vocabulary's size."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    return model


def chat_tokenizer():
    """Return a byte-level tokenizer, whose EOS ends the turns of a conversation."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([CORPUS] * 20, trainer)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "bos_token": "<|bos|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)
