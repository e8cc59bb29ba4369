"""Makes the undamaged files: tiny checkpoints, texts, finished and unfinished runs, an audit with its baseline."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path

SENTENCES = ("the cat sat on the mat.", "the rat ate the cat;", "once upon a time, there was a little girl")
PART_ROWS = 60  # rows in a part of the unfinished run, so that some parts are done and some are not
AUDIT = """schema = 1

[model]
checkpoint = "hf"

[eval]
context = 32

[data.text]
path = "text.jsonl"

[baseline]
path = "baseline"

[[check]]
id = "no-regression"
metric = "nll"
max_increase = 0.01

[[check]]
id = "good-enough"
metric = "perplexity"
max = 5000.0

[[check]]
id = "sure"
metric = "accuracy"
min = 0.0
where = "context >= 2"
"""


def make(folder: Path) -> None:
    """Write all files into an empty folder. It takes some seconds, so cases copy the folder."""
    from lossprobe.cli.main import run

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    records = [{"text": " ".join(SENTENCES[number % 3 :]), "source": f"s{number % 2}"} for number in range(8)]
    Path("text.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    Path("letters.txt").write_text("abcabdabeafbgchdiejfkglhminjokplqm\n" * 3, "utf-8")
    _checkpoints()
    Path("lossprobe.toml").write_text(AUDIT, "utf-8")
    Path("elsewhere").mkdir()
    Path("elsewhere", "kept.txt").write_text("of somebody else", "utf-8")
    for arguments in (
        ["score", "hf", "text.jsonl", "-o", "run", "--quiet"],
        ["score", "other", "text.jsonl", "-o", "other-run", "--quiet"],
        ["baseline", "update", "--quiet"],
        ["audit", "--quiet"],
    ):
        assert run(arguments) == 0, arguments
    _unfinished()


def _checkpoints() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    words = {"vocab_size": 288, "bos_token_id": 0, "eos_token_id": 1}
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    gpt2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48}
    for seed, (name, built) in enumerate(
        {
            "hf": lambda: GPT2LMHeadModel(GPT2Config(**words, **gpt2)),
            "other": lambda: GPT2LMHeadModel(GPT2Config(**words, **gpt2)),
            "sharded": lambda: LlamaForCausalLM(LlamaConfig(**words, **small, max_position_embeddings=48)),
        }.items()
    ):
        _spread(built, seed).save_pretrained(name, max_shard_size="20KB" if name == "sharded" else "1GB")
        tokenizer.save(f"{name}/tokenizer.json")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        Path(name, "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    _nanogpt()


def _spread(build, seed: int):
    """Return a model with random weights large enough that each of them changes the losses."""
    import torch

    torch.manual_seed(seed)
    model = build()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3) if weight.ndim > 1 else weight.add_(0.1 * torch.randn_like(weight))
    return model


def _nanogpt() -> None:
    """Write a ckpt.pt as nanoGPT does, with the meta.pkl of its characters."""
    import torch

    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 16, "bias": False, "vocab_size": 18, "dropout": 0.0}
    wide, model = sizes["n_embd"], {}
    shapes = {"wte": (18, wide), "wpe": (16, wide), "ln_f": (wide,), "h.0.ln_1": (wide,), "h.0.ln_2": (wide,)}
    shapes |= {"h.0.attn.c_attn": (3 * wide, wide), "h.0.attn.c_proj": (wide, wide)}
    shapes |= {"h.0.mlp.c_fc": (4 * wide, wide), "h.0.mlp.c_proj": (wide, 4 * wide)}
    torch.manual_seed(3)
    for name, shape in shapes.items():
        model[f"transformer.{name}.weight"] = 0.4 * torch.randn(shape) + (1.0 if len(shape) == 1 else 0.0)
    model["lm_head.weight"] = model["transformer.wte.weight"]
    Path("nano").mkdir()
    torch.save({"model": model, "model_args": sizes, "iter_num": 5, "config": {"dataset": "x"}}, "nano/ckpt.pt")
    letters = "abcdefghijklmnopq\n"
    meta = {"vocab_size": 18, "itos": dict(enumerate(letters)), "stoi": {c: i for i, c in enumerate(letters)}}
    Path("nano", "meta.pkl").write_bytes(pickle.dumps(meta))


def _unfinished() -> None:
    """Write a run of several parts that is stopped after the second part."""
    from lossprobe.checkpoint.detect import open_checkpoint
    from lossprobe.passes.score import score
    from lossprobe.plan import rows as plan
    from lossprobe.text.documents import open_text

    class Stopped(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if len(list(Path("unfinished", "tokens").glob("*.parquet"))) == 2:
            raise Stopped

    defaults = plan.cut_parts.__defaults__
    plan.cut_parts.__defaults__ = (PART_ROWS,)
    try:
        with contextlib.suppress(Stopped):
            score(
                open_checkpoint(Path("hf")), open_text([Path("text.jsonl")]), output=Path("unfinished"), progress=stop
            )
    finally:
        plan.cut_parts.__defaults__ = defaults
    assert Path("unfinished", "plan.json").exists()
