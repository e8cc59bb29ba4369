"""Train the bundled pair of checkpoints: the same model with and without label smoothing.

Both models see the same data in the same order from the same seed; only the loss differs. The text is
the Jargon File 4.0.0 (24 July 1996, public domain). Twelve epochs are enough for the unsmoothed model
to become over-confident on held-out entries, which the pair is meant to show.

    python examples/train_pair.py            # about 15 minutes on two cores

Writes `jargon-plain/` and `jargon-smoothed/` beside this file, each a Hugging Face directory with
float16 weights. The runs are seeded and single-threaded, so they repeat on the same processor and
library versions; another processor may round differently and end a few thousandths of a nat away.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
END_OF_TEXT = "<|endoftext|>"
SEED = 20261124
VOCAB_SIZE = 1024
CONTEXT = 256
BATCH = 16
PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
SMOOTHING = {"jargon-plain": 0.0, "jargon-smoothed": 0.1}


def read_entries(path: Path) -> list[str]:
    """Return the text of every record of a JSONL file."""
    return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]


def train_tokenizer(entries: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 1,024 entries that puts one <|endoftext|> before a document."""
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
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, model_max_length=CONTEXT
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, entries: list[str]) -> torch.Tensor:
    """Return all entries as one int64 stream, each preceded by <|endoftext|>."""
    return torch.tensor([token for entry in entries for token in tokenizer(entry)["input_ids"]])


def new_model() -> GPT2LMHeadModel:
    """Return the untrained model: GPT-2 style, 4 layers of width 160, tied head, 1.44 M parameters."""
    torch.manual_seed(SEED)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB_SIZE,
            n_positions=CONTEXT,
            n_embd=160,
            n_layer=4,
            n_head=4,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def learning_rate(step: int, steps: int) -> float:
    """Return linear warm-up, then a cosine down to a tenth of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * (0.55 + 0.45 * math.cos(math.pi * progress))


def epoch_batches(stream: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Return one epoch as [BATCH, CONTEXT + 1] pieces of the same windows, in a fresh order."""
    starts = torch.arange(0, len(stream) - CONTEXT - 1, CONTEXT)
    starts = starts[torch.randperm(len(starts), generator=generator)]
    rows = stream[starts[:, None] + torch.arange(CONTEXT + 1)]
    return list(rows.split(BATCH))


@torch.no_grad()
def held_out_nats(model: GPT2LMHeadModel, stream: torch.Tensor) -> float:
    """Return the mean loss in nats per token over consecutive windows of the held-out stream."""
    model.eval()
    starts = torch.arange(0, len(stream) - CONTEXT - 1, CONTEXT)
    rows = stream[starts[:, None] + torch.arange(CONTEXT + 1)]
    logits = model(rows[:, :-1]).logits.flatten(0, 1)
    model.train()
    return float(functional.cross_entropy(logits.double(), rows[:, 1:].flatten()))


def train(name: str, output: Path, epochs: int) -> None:
    """Train one model of the pair and write it as a Hugging Face directory with float16 weights."""
    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(output / name)
    stream = token_stream(tokenizer, read_entries(HERE / "jargon-train.jsonl"))
    valid = token_stream(tokenizer, read_entries(HERE / "jargon-valid.jsonl"))
    model = new_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(SEED)
    steps = epochs * math.ceil(len(stream) / CONTEXT / BATCH)
    step = 0
    for epoch in range(epochs):
        for rows in epoch_batches(stream, generator):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            logits = model(rows[:, :-1]).logits.flatten(0, 1)
            loss = functional.cross_entropy(logits, rows[:, 1:].flatten(), label_smoothing=SMOOTHING[name])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        print(f"{name} epoch {epoch + 1}: held-out {held_out_nats(model, valid):.4f} nats/token", flush=True)
    model.half().save_pretrained(output / name)
    (output / name / "generation_config.json").unlink()  # not needed for the loss


def main() -> None:
    """Train both models side by side, one process and one thread each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the two checkpoints")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    tokenizer = train_tokenizer(read_entries(HERE / "jargon-train.jsonl"))
    for name in SMOOTHING:
        tokenizer.save_pretrained(arguments.output / name)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=train, args=(name, arguments.output, arguments.epochs)) for name in SMOOTHING]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode != 0 for worker in workers):
        raise SystemExit("training failed; see the message above")


if __name__ == "__main__":
    main()
