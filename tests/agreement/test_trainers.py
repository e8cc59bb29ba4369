"""transformers' Trainer and TRL's SFTTrainer, in this process, against `--protocol`; skipped without them."""

from __future__ import annotations

import pytest
import torch
from logged_models import TEXTS, chat_tokenizer, rows, saved, small_llama, word_tokenizer

from lossprobe.analysis.options import LoggedOptions
from lossprobe.analysis.protocols.protocols import measure_protocol
from lossprobe.passes.protocols import score_protocol
from lossprobe.text.documents import StringSource

pytest.importorskip("accelerate", reason="needs accelerate, in an environment of its own")

pytestmark = pytest.mark.filterwarnings("default")  # of their own many dependencies

BATCH = 3
ARGUMENTS = {"per_device_eval_batch_size": BATCH, "report_to": [], "use_cpu": True, "disable_tqdm": True}


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def small_gpt2(entries):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(2)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=entries, n_embd=16, n_layer=2, n_head=2, n_positions=128))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return model.eval()


def padded(tokenizer, texts):
    """Return a batch, padded on the right, with every token of the rows as a label."""
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    inputs, labels = (torch.nn.utils.rnn.pad_sequence(ids, True, value) for value in (0, -100))
    return {"input_ids": inputs, "attention_mask": (labels != -100).long(), "labels": labels}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_trainer(family, smoothing):
    from transformers import Trainer, TrainingArguments

    tokenizer = word_tokenizer()
    model = {"llama": small_llama, "gpt2": small_gpt2}[family](61)
    arguments = TrainingArguments("out", label_smoothing_factor=smoothing, remove_unused_columns=False, **ARGUMENTS)
    trainer = Trainer(model, arguments, data_collator=lambda batch: padded(tokenizer, batch), eval_dataset=rows())
    logged = trainer.evaluate()["eval_loss"]
    run = score_protocol("trainer", saved("model", model, tokenizer), StringSource(rows()))[0]
    found = measure_protocol(run, "trainer", LoggedOptions(rows_per_batch=BATCH, smoothing=smoothing))
    assert found.value == pytest.approx(logged, rel=1e-6)


def test_trl():
    trl = pytest.importorskip("trl", reason="needs trl 1.16.0, in an environment of its own")
    from datasets import Dataset

    tokenizer = chat_tokenizer()
    model = small_llama(len(tokenizer))
    texts = Dataset.from_list([{"text": text} for text in TEXTS])
    checkpoint = saved("model", model, tokenizer)
    trainer = trl.SFTTrainer(
        model, trl.SFTConfig("out", bf16=False, **ARGUMENTS), train_dataset=texts, eval_dataset=texts,
        processing_class=tokenizer,
    )  # fmt: skip
    logged = trainer.evaluate()
    run = score_protocol("trl", checkpoint, StringSource(TEXTS))[0]
    table = measure_protocol(run, "trl", LoggedOptions(rows_per_batch=BATCH)).table.set_index("measure")["value"]
    for measure in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy"):
        assert table[measure] == pytest.approx(logged[measure], rel=1e-6), measure
