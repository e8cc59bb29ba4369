"""Train a small chat model that explains words of the Jargon File, and write the conversations to judge it by.

    python examples/train_chat.py            # under two minutes on two cores

Writes beside this file:

- `chat.jsonl`: 80 held-out conversations (a system prompt; questions and answers; every third asks a second question).
- `pairs.jsonl`: 80 held-out questions with the right answer (`chosen`) and that of another entry (`rejected`).
- `jargon-chat/` and `jargon-chat-early/`: the model after the last epoch and after half of them, each a Hugging Face
  directory with float16 weights and a chat template (ChatML).
- `jargon-chat/train.jsonl`: its training conversations.

The model is of Llama's kind: 2 layers of width 96, a context of 256 tokens, byte-level BPE of 1,024 entries, 0.3 M
parameters. As in most chat training only the assistant's words and its ends of turn have a loss. The text is the Jargon
File 4.0.0 (24 July 1996, public domain). The run is seeded; another processor may end a few thousandths of a nat away.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SYSTEM = "You explain the words of hackers in one or two sentences."
QUESTIONS = ("What is {}?", "What does {} mean?", "Explain {}.")
SECOND_QUESTIONS = ("And {}?", "And what is {}?")
SEED = 20261128
MOST_ANSWERS = 1200
CONTEXT = 256
BATCH = 16
PEAK_LEARNING_RATE = 4e-3
WARMUP_STEPS = 30
UNSCORED = -100  # the label of tokens without a loss, in torch

Message = dict[str, str]


def read_answers(path: Path) -> list[tuple[str, str]]:
    """Return (word, explanation) of the entries of a JSONL file that explain more than a reference to another entry."""
    answers = []
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        text = record["text"].partition(f":{record['entry']}:")[2]
        text = re.sub(r"^(\s*(/[^/]*/|\[[^\]]*\]|1\.))+", "", text)  # pronunciation, part of speech, origin
        sentences = re.split(r"(?<=[.!?])\s+", " ".join(re.sub(r"[{}]", "", text).split()))
        answer = " ".join(sentences[:2])
        answer = answer[:240].rsplit(" ", 1)[0] if len(answer) > 240 else answer
        if len(answer) > 40 and len(answers) < MOST_ANSWERS:
            answers.append((record["entry"], answer))
    return answers


def make_conversations(answers: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return one record an entry; every third asks for the entry after it too."""
    records = []
    for number, (word, answer) in enumerate(answers):
        messages = [_message("system", SYSTEM)]
        messages += [_message("user", QUESTIONS[number % 3].format(word)), _message("assistant", answer)]
        if number % 3 == 0:
            other, other_answer = answers[(number + 1) % len(answers)]
            messages.append(_message("user", SECOND_QUESTIONS[number % 2].format(other)))
            messages.append(_message("assistant", other_answer))
        records.append({"messages": messages, "questions": len(messages) // 2, "id": f"jargon-{number}"})
    return records


def make_pairs(answers: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return one record an entry: its question, its own answer, and the answer of the entry after it."""
    records = []
    for number, (word, answer) in enumerate(answers):
        other = answers[(number + 1) % len(answers)][1]
        records.append(
            {
                "prompt": [_message("system", SYSTEM), _message("user", QUESTIONS[number % 3].format(word))],
                "chosen": [_message("assistant", answer)],
                "rejected": [_message("assistant", other)],
                "id": f"jargon-{number}",
            }
        )
    return records


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 1,024 entries, the names of the template's control tokens among them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, model_max_length=CONTEXT, chat_template=TEMPLATE
    )


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> tuple[list[int], list[int]]:
    """Return ids and labels of a conversation: only what the assistant says, with its end of turn, has a label."""
    ids: list[int] = []
    labels: list[int] = []
    for message in messages:
        head = tokenizer.encode(f"{START}{message['role']}\n", add_special_tokens=False)
        said = tokenizer.encode(f"{message['content']}{END}", add_special_tokens=False)
        line_end = tokenizer.encode("\n", add_special_tokens=False)
        ids += head + said + line_end
        scored = said if message["role"] == "assistant" else [UNSCORED] * len(said)
        labels += [UNSCORED] * len(head) + scored + [UNSCORED] * len(line_end)
    return ids[:CONTEXT], labels[:CONTEXT]


def new_model() -> LlamaForCausalLM:
    """Return the untrained model."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1024,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def learning_rate(step: int, steps: int) -> float:
    """Return linear warm-up, then a cosine down to a tenth of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * (0.55 + 0.45 * math.cos(math.pi * progress))


def batches(rows: list[tuple[list[int], list[int]]], generator: torch.Generator) -> list[tuple[torch.Tensor, ...]]:
    """Return one epoch as (ids, labels) of rows of about the same length, in a fresh order."""
    order = sorted(torch.randperm(len(rows), generator=generator).tolist(), key=lambda row: len(rows[row][0]) // 16)
    made = []
    for start in range(0, len(order), BATCH):
        chosen = [rows[row] for row in order[start : start + BATCH]]
        longest = max(len(ids) for ids, _ in chosen)
        ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids, _ in chosen])
        labels = torch.tensor([[*labels, *[UNSCORED] * (longest - len(labels))] for _, labels in chosen])
        made.append((ids, labels))
    return [made[at] for at in torch.randperm(len(made), generator=generator).tolist()]


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean loss in nats over the labelled tokens of a batch."""
    logits = model(ids[:, :-1]).logits.flatten(0, 1)
    return functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=UNSCORED)


def train(tokenizer: PreTrainedTokenizerFast, records: list[dict[str, Any]], output: Path, epochs: int) -> None:
    """Train the model and write it twice: after half of the epochs, and after the last."""
    torch.set_flush_denormal(True)
    rows = [encode(tokenizer, record["messages"]) for record in records]
    model = new_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(SEED)
    steps = epochs * math.ceil(len(rows) / BATCH)
    step = 0
    for epoch in range(1, epochs + 1):
        total = 0.0
        for ids, labels in batches(rows, generator):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            loss = loss_of(model, ids, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            total += loss.item()
        print(f"epoch {epoch}: training loss {total / math.ceil(len(rows) / BATCH):.4f} nats", flush=True)
        if epoch == max(1, epochs // 2):
            save(model, tokenizer, output / "jargon-chat-early")
    save(model, tokenizer, output / "jargon-chat")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model with float16 weights, and its tokenizer with the chat template."""
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def main() -> None:
    """Write the data, then train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the checkpoints and the data")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    held_out = read_answers(HERE / "jargon-valid.jsonl")[:80]
    answers = read_answers(HERE / "jargon-train.jsonl")
    records = make_conversations(answers)
    (arguments.output / "jargon-chat").mkdir(parents=True, exist_ok=True)
    write_records(arguments.output / "chat.jsonl", make_conversations(held_out))
    write_records(arguments.output / "pairs.jsonl", make_pairs(held_out))
    write_records(arguments.output / "jargon-chat" / "train.jsonl", records)
    tokenizer = train_tokenizer([message["content"] for record in records for message in record["messages"]])
    train(tokenizer, records, arguments.output, arguments.epochs)


if __name__ == "__main__":
    main()
