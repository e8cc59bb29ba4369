"""Tests the self-check on models that keep every invariant, and on models that break exactly one of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoint import builders
from fakes import BOS, VOCAB, ByteTokenizer, SmallModel, checkpoint

from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError, NothingToScoreError
from lossprobe.passes.score import score
from lossprobe.passes.selfcheck import run_selfcheck
from lossprobe.plan.options import ScoreOptions
from lossprobe.scoring import measure
from lossprobe.text.documents import StringSource

LETTERS = "".join(map(chr, np.random.default_rng(4).integers(97, 123, 400)))
TEXTS = [LETTERS[:150], "café ☃", "", LETTERS[150:290], "x", LETTERS[290:]]
MUST_NOT = ["repetition", "batch size", "batch size", "padding side", "chunk size", "threads", "reductions",
            "order of documents"]  # fmt: skip
MAY = ["BOS", "context", "stride", "precision", "precision"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def checked(model, texts=TEXTS, reopen=None, tokens=4096, progress=None, **options):
    """Return the run, the result and the verdicts in the order of the checks."""
    made = checkpoint(model, sha256="") if callable(model) else model  # scored anew each time
    source = StringSource(texts)
    run, result = run_selfcheck(made, source, ScoreOptions(**options), reopen=reopen, tokens=tokens, progress=progress)
    assert result.table["check"].tolist()[: len(MUST_NOT)] == MUST_NOT
    assert (result.table["kind"] == "must not matter").sum() == len(MUST_NOT)
    return run, result, result.table["verdict"].str.partition(":")[0].tolist()


def moved(logits: torch.Tensor, amount: float | torch.Tensor) -> torch.Tensor:
    """Return a copy of logits with an amount added to those of even ids."""
    logits = logits.clone()
    logits[..., ::2] += amount
    return logits


def test_a_good_model_holds_everything():
    seen = []
    reopen = {"bfloat16": checkpoint(lambda ids: SmallModel()(ids).bfloat16().float(), sha256="")}
    run, result, verdicts = checked(
        SmallModel(),
        reopen=lambda dtype: reopen[dtype] if dtype in reopen else refuse(),
        progress=lambda *at: seen.append(at),
    )
    same = ["same"] * 3 + ["not checked"] + ["same"] * 4
    assert verdicts == [*same, "differs", "differs", "differs", "differs", "not checked"]
    assert result.table["check"].tolist() == MUST_NOT + MAY
    assert (result.exit_code, result.broken, result.notes) == (0, [], [])
    table = result.table
    assert table["verdict"][3] == "not checked: a callable checkpoint of this kind takes no padding on the left"
    assert table["verdict"].iloc[-1] == "not checked: no float16 here"
    assert table.loc[0, ["difference_nats", "largest_nats", "limit_nats"]].tolist() == [0.0, 0.0, 0.0]
    assert (table["limit_nats"][1:8] == 1e-5).all()
    assert table["setting"].tolist()[8:11] == [
        "without", "16 in place of 32", "16 in place of 32",
    ]  # fmt: skip
    assert seen == [(number, 13) for number in range(1, 14)]
    assert result.tokens == run.counts["scored_tokens"] == sum(len(text.encode()) for text in TEXTS)
    assert result.mean_loss_nats == pytest.approx(run.scalar("SELECT avg(loss_nats::DOUBLE) FROM tokens"), rel=1e-8)
    assert result.finding.startswith(f"7 invariants held on {result.tokens} tokens; what matters most is ")


def refuse():
    raise CheckpointError("x", "no float16 here")


@pytest.mark.parametrize(
    ("check", "options"),
    [
        ("BOS", {"bos": "never"}),
        ("context", {"context": 16}),
        ("stride", {"stride": 16}),
        ("precision", None),
    ],
)
def test_what_may_matter_is_what_a_pass_of_its_own_gives(check, options):
    run, result, _ = checked(SmallModel(), reopen=lambda dtype: checkpoint(SmallModel(3), sha256="other"))
    row = result.table.set_index("check").loc[check]
    row = row.iloc[0] if check == "precision" else row
    model = checkpoint(SmallModel(3) if options is None else SmallModel(), sha256="again")
    other = score(model, StringSource(TEXTS), ScoreOptions(**(options or {}))).run
    columns = "SELECT document, byte_stop, loss_nats::DOUBLE AS loss FROM tokens WHERE loss_nats IS NOT NULL"
    both = run.query(columns).merge(other.query(columns), on=["document", "byte_stop"])
    change = both["loss_y"] - both["loss_x"]
    assert row["tokens"] == len(both) == result.tokens - (5 if check == "BOS" else 0)
    assert row["difference_nats"] == pytest.approx(change.mean(), abs=1e-7)
    assert row["largest_nats"] == pytest.approx(change.abs().max(), rel=1e-6)
    assert row["mean_loss_nats"] == pytest.approx(both["loss_y"].mean(), rel=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_real_models_hold_all_eight(family, tmp_path):
    loaded = load_huggingface(builders.save(builders.model(family), tmp_path / family), LoadOptions())
    texts = [builders.CORPUS, "the cat " * 12, "a rat"]
    _, result, verdicts = checked(loaded, texts, context=24, stride=9)
    assert verdicts[:8] == ["same"] * 8
    assert result.exit_code == 0
    assert result.table["setting"][10] == "12 in place of 9"


def broken_rows(model, texts=TEXTS, **options) -> list[str]:
    """Return "check: setting" of the rows with the verdict BROKEN; also checks the exit code and the finding."""
    _, result, verdicts = checked(model, texts, **options)
    names = [
        f"{check}: {setting}"
        for check, setting, verdict in zip(result.table["check"], result.table["setting"], verdicts, strict=True)
        if verdict == "BROKEN"
    ]
    assert result.exit_code == (10 if names else 0)
    assert result.finding.startswith("BROKEN") == bool(names)
    return names


ONE_WINDOW, FOUR, CHUNKS = "batch size: 1 window a batch", "batch size: 4 windows a batch", (
    "chunk size: 63 rows of logits at once"
)  # fmt: skip
REVERSED = "order of documents: reversed"
EQUAL = [LETTERS[start : start + 30] for start in (0, 30, 60, 90)]  # four windows, one batch


def test_logits_that_depend_on_the_size_of_the_batch():
    model = SmallModel()
    assert broken_rows(lambda ids: moved(model(ids), 0.01 * len(ids))) == [ONE_WINDOW, FOUR]


def test_logits_that_depend_on_the_row_of_the_batch():
    model = SmallModel()

    def by_row(ids):
        return moved(model(ids), 0.01 * torch.arange(len(ids))[:, None, None])

    assert broken_rows(by_row, EQUAL) == [ONE_WINDOW, REVERSED]
    assert broken_rows(by_row, EQUAL, batch_size=1) == [FOUR]


def test_a_run_that_is_stored_already_was_scored_in_other_batches():
    model = SmallModel()

    def rounding(ids):  # of a matrix product of another shape
        return moved(model(ids), 1e-6 * len(ids))

    score(checkpoint(rounding), StringSource(EQUAL))
    _, result = run_selfcheck(checkpoint(rounding), StringSource(EQUAL), ScoreOptions(batch_size=1))
    assert result.table["check"].tolist()[:2] == ["stored run", "repetition"]
    assert 0 < result.table["largest_nats"][0] < 1e-5
    assert result.table["largest_nats"][1] == result.table["limit_nats"][1] == 0  # of two passes of its own
    assert (result.broken, result.exit_code) == ([], 0)


def test_a_stored_run_of_another_model():
    score(checkpoint(SmallModel(3)), StringSource(EQUAL))  # by the same name and sha256
    assert run_selfcheck(checkpoint(SmallModel()), StringSource(EQUAL))[1].broken == ["stored run"]


def test_logits_that_depend_on_padding():
    model = SmallModel()
    leaking = lambda ids: moved(model(ids), 0.01 * (ids == 0).sum(1)[:, None, None])  # noqa: E731 - as a model is given
    assert broken_rows(leaking, ["abcdefgh", "abc", "abcde"]) == [ONE_WINDOW]


def test_a_pass_that_is_never_the_same():
    generator = torch.Generator().manual_seed(0)
    model = SmallModel()
    names = broken_rows(lambda ids: moved(model(ids), torch.randn(1, generator=generator)))
    assert [name.partition(":")[0] for name in names] == [name for name in MUST_NOT if name != "padding side"]


def test_the_least_change_breaks_repetition():
    calls = []

    def drifting(ids):
        calls.append(len(ids))
        return moved(SmallModel()(ids), 1e-6 * len(calls))

    assert broken_rows(drifting, ["abcdefgh"]) == ["repetition: the same again"]


class Headed(CallableCheckpoint):
    """A model with a head of its own, and padding on the left."""

    def __init__(self, head=lambda hidden: hidden, left=None) -> None:
        super().__init__(SmallModel(), ByteTokenizer(), vocab_size=VOCAB, context_length=32)
        self._head, self._left = head, left

    def logits(self, hidden):
        return self._head(hidden)

    def hidden_left_padded(self, ids, padding):
        rows = [SmallModel()(row[None, int(skip) :])[0] for row, skip in zip(ids, padding, strict=True)]
        rows = [torch.nn.functional.pad(row, (0, 0, ids.shape[1] - len(row), 0)) for row in rows]
        return torch.stack(rows) if self._left is None else self._left(ids)


def test_a_head_that_depends_on_the_rows_in_a_chunk():
    assert broken_rows(Headed(lambda hidden: moved(hidden, 0.01 * (len(hidden) == 63)))) == [CHUNKS]
    assert broken_rows(Headed(lambda hidden: moved(hidden, 1e-4 * len(hidden)))) == [ONE_WINDOW, FOUR, *LEFT, CHUNKS]


LEFT = ["padding side: left, 4 windows a batch"]


def test_padding_on_the_left_that_is_not_masked():
    assert broken_rows(Headed()) == []
    assert broken_rows(Headed(left=SmallModel())) == LEFT


def test_threads(monkeypatch):
    used = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    model = SmallModel()
    assert broken_rows(lambda ids: moved(model(ids), 0.01 * (used[-1] == 1))) == ["threads: 1 in place of 3"]
    assert used == [3, 1, 3]


def test_reductions_that_are_not_exact(monkeypatch):
    def careless(*arguments, run=measure.run_head):
        result = run(*arguments)
        result.columns["loss_nats"].numpy()[:] += 1e-4
        return result

    monkeypatch.setattr(measure, "run_head", careless)
    assert broken_rows(SmallModel()) == ["reductions: plain float64"]


def test_one_document_has_no_order():
    _, result, verdicts = checked(SmallModel(), [LETTERS])
    assert verdicts[7] == "not checked"
    assert result.table["verdict"][7] == "not checked: one document"


def test_a_tokenizer_without_bos_and_a_context_that_cannot_be_halved():
    tokenizer = ByteTokenizer(adds_bos=False)
    _, result, verdicts = checked(checkpoint(SmallModel(), tokenizer=tokenizer), context=1)
    assert result.table["setting"][8] == "with one before each document"
    assert verdicts[8] == "no difference"  # of those that both score: no window but the first sees the BOS
    assert result.table["check"].tolist() == [*MUST_NOT, "BOS", "precision", "precision"]
    assert set(result.table["verdict"][9:]) == {"not checked: the checkpoint cannot be opened again"}
    tokenizer.bos_id = None
    _, result, _ = checked(checkpoint(SmallModel(), tokenizer=tokenizer))
    assert result.table["verdict"][8] == "not checked: the tokenizer has none"


def test_documents_of_one_token():
    _, result, verdicts = checked(SmallModel(), ["x", "y"])
    assert result.table["tokens"][8] == 0
    assert verdicts[8].startswith("not checked")


def test_nothing_to_score():
    with pytest.raises(NothingToScoreError):
        checked(SmallModel(), [""])


def test_the_sample_is_what_is_scored_and_checked():
    run, result, verdicts = checked(SmallModel(), tokens=200)
    assert result.tokens == run.counts["scored_tokens"] == 200
    assert result.notes == ["a sample: the first 200 tokens of strings"]
    assert verdicts[:3] == ["same"] * 3
    assert run.query("SELECT text FROM documents ORDER BY document")["text"].tolist() == [*TEXTS[:3], TEXTS[3][:41]]
    assert run.query("SELECT token_id FROM tokens LIMIT 1")["token_id"][0] == BOS


def test_what_does_not_fit_into_memory_is_not_checked():
    model = SmallModel()

    def small(ids):
        if len(ids) > 3:
            raise torch.OutOfMemoryError("no room")
        return model(ids)

    _, result, verdicts = checked(small, EQUAL)
    assert verdicts[:8] == ["same", "same", "not checked", "not checked", "same", "same", "not checked", "same"]
    assert "out of memory" in result.table["verdict"][2]
    assert result.exit_code == 0
