"""What programs printed that the package index does not have, for the bundled model and text.

llama.cpp, commit 0c1e570, built from its source with GNU 12.2. The model was written as an f32 GGUF with
`gguf.GGUFWriter`: architecture gpt2, every tensor as it is (Conv1D weights transposed), tokenizer model gpt2 with
pre-tokenizer gpt-2, BOS id 0, `add_bos_token` true as in tokenizer.json. Token ids are those of the model's own
tokenizer. The text is the `text` of all records joined by a blank line:

    llama-perplexity -m plain-f32.gguf -f joined.txt -c 256 -b 256 -t 1 -fa off -ctk f32 -ctv f32 --ppl-output-type 1

It prints six decimals of the mean, and its GELU comes from a table in float16, which moves the mean by about 1e-6.

evaluate 0.4.6, its metric "perplexity" (which lies on a hub, not in the package), transformers 5.23 and float32 weights
(by default transformers 5 takes them as they are stored, here in float16), with a padding token given to the tokenizer,
which the metric needs and does not find:

    metric.compute(predictions=texts, model_id="jargon-plain", max_length=256, add_start_token=True)

GPTQ, the script of the paper (IST-DASLab/gptq, commit 2d65066), transformers 4.57.6, torch 2.13.0. The script knows
OPT, whose formula with GPT-2's activation is that of GPT-2: the weights were written as an OPTForCausalLM (positions
behind two rows of zeros, Conv1D weights transposed), whose logits differ by 2e-5. It got the ids of the joined text,
the BOS first:

    opt.args = SimpleNamespace(nearest=False)
    model.seqlen = 256
    opt.opt_eval(model, tokenizer(joined, return_tensors="pt"), torch.device("cpu"))

LLaMA-Factory 0.9.5, transformers 5.6.0, torch 2.13.0, its import of torchaudio stubbed and its check of versions
switched off, on the first question and answer of each conversation of chat.jsonl, a space before the answer so that its
tokens are the same alone and behind "Assistant:". The template is its own "default", which is written below as a chat
template:

    python scripts/stat_utils/cal_ppl.py --model_name_or_path jargon-plain --dataset chat --template default
"""

from __future__ import annotations

import json

import pytest
from bundled import EXAMPLES

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.protocols import score_protocol
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import open_text


@pytest.fixture(scope="module")
def plain():
    return open_checkpoint(EXAMPLES / "jargon-plain")


def scored(plain, folder, protocol, monkeypatch, **options):
    monkeypatch.chdir(folder)
    text = open_text(EXAMPLES / "jargon-valid.jsonl")
    return score_protocol(protocol, plain, text, ScoreOptions(**options))[1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("context", "chunks", "nll", "perplexity", "error"),
    [(256, 90, 3.740883, 42.1352, 0.93510), (64, 360, 3.771271, 43.4353, 0.98245)],
)
def test_llama_cpp(plain, tmp_path, monkeypatch, context, chunks, nll, perplexity, error):
    result = scored(plain, tmp_path, "llama.cpp", monkeypatch, context=context)
    values = dict(zip(result.table["measure"], result.table["value"], strict=True))
    assert values["nll"] == pytest.approx(nll, rel=1e-6)
    assert result.value == pytest.approx(perplexity, rel=1e-5)
    assert values["perplexity_error"] == pytest.approx(error, rel=1e-5)
    assert result.tokens_scored == chunks * (context - 1 - context // 2)
    assert result.tokens_read == 23_083  # those of llama-tokenize, and the BOS


@pytest.mark.thorough
@pytest.mark.parametrize(("bos", "mean"), [("auto", 36.953759324316884), ("never", 39.702829286163926)])
def test_evaluate(plain, tmp_path, monkeypatch, bos, mean):
    result = scored(plain, tmp_path, "evaluate", monkeypatch, context=256, bos=bos)
    assert result.value == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize(
    ("context", "perplexity"),
    [(256, 44.06498718261719), pytest.param(64, 45.92446517944336, marks=pytest.mark.thorough)],
)
def test_gptq(plain, tmp_path, monkeypatch, context, perplexity):
    result = scored(plain, tmp_path, "gptq", monkeypatch, context=context)
    assert result.value == pytest.approx(perplexity, rel=1e-6)
    assert result.tokens_scored == 23_083 // context * (context - 1)


LLAMA_FACTORY_DEFAULT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'Human: ' + m['content'] + '<|endoftext|>\\nAssistant:' }}"
    "{% else %}{% generation %}{{ m['content'] + '<|endoftext|>\\n' }}{% endgeneration %}{% endif %}{% endfor %}"
)


def test_llama_factory(tmp_path, monkeypatch):
    (tmp_path / "default.jinja").write_text(LLAMA_FACTORY_DEFAULT)
    with (EXAMPLES / "chat.jsonl").open() as chat, (tmp_path / "first.jsonl").open("w") as first:
        for line in chat:
            question, answer = json.loads(line)["messages"][1:3]
            messages = [question, answer | {"content": " " + answer["content"]}]
            first.write(json.dumps({"messages": messages}) + "\n")
    monkeypatch.chdir(tmp_path)
    checkpoint = open_checkpoint(EXAMPLES / "jargon-plain", LoadOptions(chat_template=tmp_path / "default.jinja"))
    result = score_protocol("llama-factory", checkpoint, open_text(tmp_path / "first.jsonl"))[1]
    assert result.value == pytest.approx(66.92873878479004, rel=1e-6)
