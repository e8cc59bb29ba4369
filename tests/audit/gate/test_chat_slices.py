"""Checks of an audit on roles and parts of conversations, by `where` and by `field`."""

import json

import pytest
from logged_models import chat_tokenizer, saved, small_llama

import lossprobe
from lossprobe.audit.config.reader import read_settings
from lossprobe.audit.gate.gate import run_audit

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SLICES = {
    "assistant": "where = \"role = 'assistant'\"",
    "user": 'field = "role"\nequals = "user"',
    "ends": "where = \"part = 'end_of_turn' and turn >= 1\"",
}
WANTED = {
    "assistant": lambda tokens: tokens["role"] == "assistant",
    "user": lambda tokens: tokens["role"] == "user",
    "ends": lambda tokens: (tokens["part"] == "end_of_turn") & (tokens["turn"] >= 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chat model, and six conversations of which every token is scored."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = TEMPLATE
    saved(folder / "model", small_llama(len(tokenizer)), tokenizer)
    said = ("the mat", "four five six", "hello", "the cat sat on the mat and ran home", "the dog is home", "six")
    turns = [[{"role": "user", "content": f"hello {each}"}, {"role": "assistant", "content": each}] for each in said]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    return folder


def audit(folder, limits):
    """Return the result of an audit with a highest loss for each slice."""
    checks = "".join(
        f'[[check]]\nid = "{name}"\nmetric = "nll"\nmax = {limit!r}\n{SLICES[name]}\n' for name, limit in limits.items()
    )
    data = '[data.chat]\npath = "chat.jsonl"\n[eval]\nscore = "all"\n'
    (folder / "lossprobe.toml").write_text(f'schema = 1\n[model]\ncheckpoint = "model"\n{data}{checks}')
    return run_audit(read_settings(folder / "lossprobe.toml"), lossprobe.open_checkpoint(folder / "model"))


def test_a_check_measures_the_tokens_of_its_role_turn_and_part(folder, monkeypatch):
    monkeypatch.chdir(folder)
    tokens = lossprobe.score("model", "chat.jsonl", score="all").run.tokens()
    scored = tokens[tokens["loss_nats"].notna()]
    means = {name: float(scored.loc[chosen(scored), "loss_nats"].mean()) for name, chosen in WANTED.items()}
    assert len({round(mean, 3) for mean in means.values()}) == 3
    far = {name: mean + 50 for name, mean in means.items()}
    kept = audit(folder, far)
    assert {check.check.id: check.measured for check in kept.checks} == pytest.approx(means, rel=1e-6)
    assert {check.check.id: check.tokens for check in kept.checks} == {
        name: int(chosen(scored).sum()) for name, chosen in WANTED.items()
    }
    assert kept.verdict == "pass"
    broken = {check.check.id: check.verdict for check in audit(folder, {**far, "assistant": 0.01}).checks}
    assert broken == {"assistant": "fail", "user": "pass", "ends": "pass"}


def test_a_role_that_no_token_has_is_inconclusive(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(SLICES, "assistant", "where = \"role = 'tool'\"")
    (check,) = audit(folder, {"assistant": 9.0}).checks
    assert check.verdict == "inconclusive"
    assert check.reason == "no token in role = 'tool' to measure"


@pytest.mark.parametrize("prompts", [("be short",) * 6, ("be short",) * 4 + ("the mat is home",) * 2])
def test_turns_that_are_the_same_in_many_conversations_count_once(folder, tmp_path, monkeypatch, prompts):
    told = [json.loads(line)["messages"] for line in (folder / "chat.jsonl").read_text().splitlines()]
    told = [[{"role": "system", "content": prompt}, *each] for prompt, each in zip(prompts, told, strict=True)]
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"messages": each}) + "\n" for each in told))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SLICES, "assistant", "where = \"role = 'system'\"")
    (check,) = audit(tmp_path, {"assistant": 50.0}).checks
    tokens = lossprobe.score("model", "chat.jsonl", score="all").run.tokens()
    scored = tokens[(tokens["role"] == "system") & tokens["loss_nats"].notna()]
    assert check.measured == pytest.approx(float(scored["loss_nats"].mean()), rel=1e-6)
    assert check.clusters == len(set(prompts))
    assert (check.measured_interval.low is None) == (len(set(prompts)) == 1)
    if len(set(prompts)) == 2:  # the jackknife of two clusters: half of how far their means are apart is the error
        (first, second) = (scored[scored["document"] < 4]["loss_nats"], scored[scored["document"] > 3]["loss_nats"])
        error = abs(first.mean() - second.mean()) / 2
        assert check.measured_interval.high - check.measured_interval.low == pytest.approx(2 * 12.706 * error, rel=1e-3)
