"""Train a small model on the Jargon File and keep its checkpoints and its log, to look at with `lossprobe series`.

    python examples/train_series.py                                     # 30 seconds on two cores
    lossprobe series examples/jargon-series examples/jargon-valid.jsonl --plot

Writes into the folder of `--output`, `jargon-series/` beside this file, what the Trainer of transformers would write:
folders `checkpoint-N`, each a Hugging Face directory with float16 weights and a trainer_state.json with the log up to
step N: training loss, learning rate and gradient norm every five steps, and the held-out loss of the first entries of
jargon-valid.jsonl at each checkpoint.

The model is of Llama's kind: 2 layers of width 96, a context of 128 tokens, byte-level BPE of 512 entries, 0.27 M
parameters. The text is the Jargon File 4.0.0 (24 July 1996, public domain). The run is seeded; another processor may
end a few thousandths of a nat away. Two ways to spoil it:

    python examples/train_series.py --learning-rate 0.06 --output high          # ten times too high
    python examples/train_series.py --entries 12 --output overfitted            # a dozen entries again and again
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
END_OF_TEXT = "<|endoftext|>"
SEED = 20261128
VOCAB_SIZE = 512
CONTEXT = 128
BATCH = 4
LEARNING_RATE = 6e-3
STEPS = 500
WARMUP_STEPS = 30
LOG_EVERY = 5
KEPT = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # checkpoints, as shares of all steps
TOKENIZER_ENTRIES = 600
HELD_OUT_ENTRIES = 24


def read_entries(path: Path) -> list[str]:
    """Return the text of every record of a JSONL file."""
    return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]


def train_tokenizer(entries: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 512 entries that puts one <|endoftext|> before a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(entries, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=CONTEXT
    )


def new_model() -> LlamaForCausalLM:
    """Return the untrained model."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.06,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def windows_of(tokenizer: PreTrainedTokenizerFast, entries: list[str]) -> torch.Tensor:
    """Return all entries as one stream cut into windows, int64 [N, CONTEXT + 1]; what is left over is dropped."""
    stream = torch.tensor([token for entry in entries for token in tokenizer(entry)["input_ids"]])
    starts = torch.arange(0, len(stream) - CONTEXT, CONTEXT)
    return stream[starts[:, None] + torch.arange(CONTEXT + 1)]


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Return linear warm-up, then a cosine down to a tenth of the peak."""
    warmup = min(WARMUP_STEPS, steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def loss_of(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of the tokens of rows [B, CONTEXT + 1], in nats."""
    logits = model(rows[:, :-1]).logits
    return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def train(arguments: argparse.Namespace) -> None:
    """Train the model, and write its checkpoints with the log up to each of them."""
    torch.set_num_threads(1)  # so small a model is not faster with more
    texts = read_entries(HERE / "jargon-train.jsonl")
    tokenizer = train_tokenizer(texts[:TOKENIZER_ENTRIES])
    rows = windows_of(tokenizer, texts[: arguments.entries])
    held_out = windows_of(tokenizer, read_entries(HERE / "jargon-valid.jsonl")[:HELD_OUT_ENTRIES])
    model = new_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(SEED)
    kept = {max(1, round(share * arguments.steps)) for share in KEPT}
    per_epoch = math.ceil(len(rows) / BATCH)
    log: list[dict[str, Any]] = []
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, arguments.steps + 1):
        if not len(order):
            order = torch.randperm(len(rows), generator=generator)
        batch, order = rows[order[:BATCH]], order[BATCH:]
        rate = learning_rate(arguments.learning_rate, step - 1, arguments.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        epoch = step / per_epoch
        if step % LOG_EVERY == 0:
            log.append(
                {"epoch": epoch, "grad_norm": norm.item(), "learning_rate": rate, "loss": loss.item(), "step": step}
            )
        if step in kept:
            with torch.no_grad():
                evaluated = loss_of(model.eval(), held_out).item()
            model.train()
            log.append({"epoch": epoch, "eval_loss": evaluated, "step": step})
            save(model, tokenizer, arguments.output / f"checkpoint-{step}", log)
            print(
                f"step {step} of {arguments.steps}: training loss {loss.item():.3f}, held out {evaluated:.3f} nats",
                flush=True,
            )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, log: list[dict[str, Any]]) -> None:
    """Write a model with float16 weights, its tokenizer, and the log up to its step."""
    copy.deepcopy(model).half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # not needed for the loss
    tokenizer.save_pretrained(folder)
    state = {"epoch": log[-1]["epoch"], "global_step": log[-1]["step"], "log_history": log}
    (folder / "trainer_state.json").write_text(json.dumps(state, indent=1) + "\n", "utf-8")


def main() -> None:
    """Train into an empty folder; checkpoints of an earlier run there are removed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=HERE / "jargon-series", help="folder for the checkpoints")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="its peak")
    parser.add_argument("--entries", type=int, default=None, help="train on the first N entries only")
    arguments = parser.parse_args()
    for old in arguments.output.glob("checkpoint-*"):
        shutil.rmtree(old)
    train(arguments)


if __name__ == "__main__":
    main()
