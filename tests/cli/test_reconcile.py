"""`lossprobe reconcile` as a user calls it: from a log, of chat data, of a stored run, and with bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from logged_models import chat_tokenizer, saved, small_llama

from lossprobe.cli.main import run


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, code, id_, *arguments) -> str:
    got, out, err = call(capsys, *arguments)
    assert (got, out) == (code, ""), err
    assert err.startswith(f"lossprobe: error[{id_}]: "), err
    return err


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANSWERS = ("the mat", "four five six", "hello", "the cat sat on the mat and ran home", "the dog is home", "six")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A checkpoint of step 30 with its log, and conversations, in one folder."""
    folder = tmp_path_factory.mktemp("reconcile")
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = TEMPLATE
    saved(folder / "checkpoint-30", small_llama(len(tokenizer)), tokenizer)
    turns = [
        [{"role": "user", "content": f"the answer {answer[:5]}"}, {"role": "assistant", "content": answer}]
        for answer in ANSWERS
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    (folder / "plain.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in ANSWERS))
    return folder


@pytest.fixture
def inside(material, monkeypatch):
    """The folder, as the working folder."""
    monkeypatch.chdir(material)
    return material


def eval_loss(capsys, *options) -> float:
    """Return what the protocol of TRL says."""
    _, out, _ = call(
        capsys,
        "perplexity",
        "checkpoint-30",
        "chat.jsonl",
        "--protocol",
        "trl",
        "--rows-per-batch",
        2,
        "--json",
        *options,
    )
    return next(row["value"] for row in json.loads(out)["rows"] if row["measure"] == "eval_loss")


def write_log(folder, **entry) -> None:
    history = [{"step": 30, "loss": float("nan")}, {"step": 30, **entry}]
    (folder / "log.json").write_text(json.dumps({"global_step": 30, "log_history": history}))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("assistant", "only the assistant's"),
        ("all", "all tokens of"),
    ],
)
def test_a_log_of_conversations_is_explained_by_mask_and_batches(score, words, inside, capsys):
    value = eval_loss(capsys, "--score", score)
    write_log(inside, eval_loss=value, eval_entropy=1.0, eval_runtime=0.5, eval_samples_per_second=12.0,
              eval_steps_per_second=6.0)  # fmt: skip
    code, out, _ = call(capsys, "reconcile", "checkpoint-30", "chat.jsonl", "--log", "log.json", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["verdict"] == "explained"
    assert result["rows"][0]["recipe"].startswith(f"TRL's SFTTrainer; {words}")
    assert result["rows"][0]["recipe"].endswith("batches of 2")
    assert result["finding"].startswith("eval_loss at step 30 ")


def test_the_order_of_the_rows_is_that_of_a_file(inside, capsys):
    """A number that protocol `trl` makes of rows in another order: by that order, and not without."""
    Path("order.txt").write_text("0 3 1 5 2 4")
    value = f"{eval_loss(capsys, '--order', 'order.txt'):.9f}"
    assert eval_loss(capsys, "--order", "as-is") == eval_loss(capsys) != float(value)
    arguments = ("reconcile", "checkpoint-30", "chat.jsonl", "--logged", value, "--json")
    _, out, _ = call(capsys, *arguments, "--order", "order.txt")
    assert json.loads(out)["rows"][0]["recipe"].endswith("batches of 2")
    assert json.loads(out)["verdict"] == "explained"
    _, out, _ = call(capsys, *arguments)
    agreeing = [row["recipe"] for row in json.loads(out)["rows"] if row["agrees"]]
    assert not any(recipe.endswith("batches of 2") for recipe in agreeing)
    Path("order.txt").write_text("5 2 0")
    refused(capsys, 2, "order.numbers", *arguments, "--order", "order.txt")
    call(capsys, "score", "checkpoint-30", "chat.jsonl", "-q")
    refused(capsys, 2, "order.numbers", "reconcile", "--logged", value, "--order", "order.txt")


def test_a_stored_run_answers_for_averages(inside, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    call(capsys, "score", "checkpoint-30", "plain.jsonl", "-q")
    _, out, _ = call(capsys, "reconcile", "--logged", "6.1", "--table", "--plot")
    assert max(map(len, out.splitlines())) <= 80
    assert "with the checkpoint and the text the others are tried too" in " ".join(out.split())
    assert (inside / "reconcile.png").is_file()


@pytest.mark.parametrize(
    ("id_", "options"),
    [
        ("reconcile.number", ()),
        ("reconcile.number", ("--logged", "3.2", "--log", "log.json")),
        ("reconcile.logged", ("--logged", "nan")),
        ("reconcile.logged", ("--logged", "0")),
        ("reconcile.logged", ("--logged=-3",)),
        ("reconcile.logged", ("--logged", "loss")),
        ("reconcile.option", ("--logged", "3.2", "--bos", "never")),
        ("reconcile.option", ("--logged", "3.2", "--score", "all")),
        ("usage", ("--log", "none.json")),
        ("log.no_loss", ("--log", "chat.jsonl")),
        ("log.step", ("--log", "log.json", "--step", "31")),
        ("log.no_evaluation", ("--log", "log.json", "--metric", "eval_other")),
    ],
)
def test_bad_input_is_refused_before_anything_is_scored(id_, options, inside, capsys):
    write_log(inside, eval_loss=3.0)
    refused(capsys, 2, id_, "reconcile", "checkpoint-30", "chat.jsonl", *options)


def test_a_log_of_a_diverged_model_is_refused(inside, capsys):
    write_log(inside, eval_loss=float("nan"))
    assert "NaN" in refused(
        capsys, 2, "reconcile.logged", "reconcile", "checkpoint-30", "chat.jsonl", "--log", "log.json"
    )


@pytest.mark.thorough
@pytest.mark.parametrize(("score", "words"), [("auto", "only the assistant's tokens"), ("all", "all tokens")])
def test_own_windows_of_long_conversations_say_what_they_score(inside, score, words, capsys):
    asked, said = "four five " * 40, "the mat is home " * 30
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    Path("long.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    arguments = ("checkpoint-30", "long.jsonl", "--context", 64)
    _, out, _ = call(capsys, "perplexity", *arguments, "--score", score, "--json")
    logged = json.loads(out)["rows"][0]["value"]
    _, out, _ = call(capsys, "reconcile", *arguments, "--logged", f"{logged:.7f}", "--json")
    agreeing = [row["recipe"] for row in json.loads(out)["rows"] if row["agrees"] and "own windows" in row["recipe"]]
    assert len(agreeing) == 1
    assert words in agreeing[0]
