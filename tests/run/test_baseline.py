"""Tests baselines: what they keep, which damage is found, and that the old one stays until the new one is complete."""

import json

import numpy as np
import pytest
from drawn_runs import document_numbers, draw_logits, draw_targets, write_drawn

from lossprobe.errors import NotComparableError, OutputError
from lossprobe.run import baseline as module
from lossprobe.run.baseline import BASELINE_FILE, MODEL_COLUMNS, open_baseline, select_documents, write_baseline
from lossprobe.run.files import sha256_of_json


@pytest.fixture
def drawn(tmp_path):
    rng = np.random.default_rng(0)
    logits = draw_logits(rng, 400, 30)
    return write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), document_numbers(rng, 400, 12))


def rows(run, columns):
    return run.query(f"SELECT document, token, token_id, unscored, {', '.join(columns)} FROM tokens")


def test_a_baseline_keeps_the_rows_of_its_run_bit_for_bit(drawn, tmp_path):
    write_baseline(drawn.run, tmp_path / "base", MODEL_COLUMNS)
    baseline = open_baseline(tmp_path / "base")
    assert baseline.manifest["columns"] == list(MODEL_COLUMNS)
    assert rows(baseline, MODEL_COLUMNS).equals(rows(drawn.run, MODEL_COLUMNS))
    assert baseline.name == "model"
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == [BASELINE_FILE, "tokens.parquet"]


def test_only_the_loss_is_kept_unless_more_is_asked_for(drawn, tmp_path):
    write_baseline(drawn.run, tmp_path / "base")
    assert open_baseline(tmp_path / "base").query("SELECT * FROM tokens").columns.tolist() == [
        "document", "token", "token_id", "unscored", "loss_nats",
    ]  # fmt: skip


def test_a_baseline_holds_no_text_and_takes_few_bytes_a_token(tmp_path):
    rng = np.random.default_rng(1)
    logits = draw_logits(rng, 20_000, 12)
    words = [b"confidential%d" % index for index in range(12)]
    targets, documents = draw_targets(rng, logits), document_numbers(rng, 20_000, 50)
    run = write_drawn(tmp_path / "run", logits, targets, documents, vocabulary=words).run
    write_baseline(run, tmp_path / "base")
    files = list((tmp_path / "base").iterdir())
    assert not any(b"confidential" in file.read_bytes() for file in files)
    assert sum(file.stat().st_size for file in files) < 6 * 20_000


def test_writing_again_replaces_it_and_the_same_run_gives_the_same_bytes(drawn, tmp_path):
    write_baseline(drawn.run, tmp_path / "base", MODEL_COLUMNS)
    before = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    write_baseline(drawn.run, tmp_path / "base")
    assert len(list((tmp_path / "base").iterdir())) == 2
    write_baseline(drawn.run, tmp_path / "base", MODEL_COLUMNS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()} == before


@pytest.mark.parametrize("step", ["sha256_of", "write_json"])
def test_a_failure_on_the_way_leaves_the_old_one_whole(drawn, tmp_path, monkeypatch, step):
    write_baseline(drawn.run, tmp_path / "base")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, step, fail)
    with pytest.raises((OSError, OutputError)):
        write_baseline(drawn.run, tmp_path / "base", MODEL_COLUMNS)
    monkeypatch.undo()
    assert open_baseline(tmp_path / "base").manifest["columns"] == ["loss_nats"]


def edit_json(folder, change):
    content = json.loads((folder / BASELINE_FILE).read_text())
    change(content)
    (folder / BASELINE_FILE).write_text(json.dumps(content))


def flip_byte(folder):
    file = next(folder.glob("tokens.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "id", "words"),
    [
        (flip_byte, "baseline.damaged", "damaged or edited"),
        (lambda folder: next(folder.glob("tokens.parquet")).unlink(), "baseline.damaged", "is missing"),
        (lambda folder: edit_json(folder, lambda c: c["counts"].update(tokens=1)), "baseline.damaged", "was edited"),
        (lambda folder: edit_json(folder, lambda c: c.update(files={})), "baseline.damaged", "was edited"),
        (lambda folder: edit_json(folder, lambda c: c.pop("sha256")), "baseline.damaged", "cannot be read"),
        (
            lambda folder: edit_json(folder, lambda c: c.update(schema=99)),
            "baseline.schema",
            "is lossprobe baseline 99",
        ),
        (lambda folder: (folder / BASELINE_FILE).write_text("[1"), "baseline.damaged", "cannot be read"),
        (lambda folder: (folder / BASELINE_FILE).write_text("[" * 100_000), "baseline.damaged", "cannot be read"),
        (lambda folder: (folder / BASELINE_FILE).write_text("[]"), "baseline.damaged", "cannot be read"),
        (lambda folder: (folder / BASELINE_FILE).unlink(), "baseline.missing", "no baseline here"),
    ],
)
def test_damage_and_edits_are_refused(drawn, tmp_path, damage, id, words):
    write_baseline(drawn.run, tmp_path / "base")
    damage(tmp_path / "base")
    with pytest.raises(NotComparableError, match=words) as caught:
        open_baseline(tmp_path / "base")
    assert (caught.value.id, caught.value.exit_code) == (id, 12)


def test_some_documents_are_copied_in_order_and_numbered_anew(drawn, tmp_path):
    write_baseline(drawn.run, tmp_path / "base")
    baseline = open_baseline(tmp_path / "base")
    (tmp_path / "some").mkdir()
    chosen = [2, 3, 11]
    found = rows(select_documents(baseline, chosen, tmp_path / "some"), ["loss_nats"])
    expected = rows(drawn.run, ["loss_nats"])
    expected = expected[expected["document"].isin(chosen)].reset_index(drop=True)
    assert found["document"].tolist() == [chosen.index(number) for number in expected["document"]]
    assert found.drop(columns="document").equals(expected.drop(columns="document"))


def rehash(folder, change):
    """Change baseline.json and compute its hash again, as somebody could who knows the format."""
    content = json.loads((folder / BASELINE_FILE).read_text())
    content.pop("sha256")
    change(content)
    (folder / BASELINE_FILE).write_text(json.dumps({**content, "sha256": sha256_of_json(content)}))


@pytest.mark.parametrize("key", ["settings", "labels", "counts", "files", "columns", "lossprobe"])
@pytest.mark.parametrize("value", [None, 5, [], {}, ["loss_nats", "x"]])
def test_a_manifest_that_is_not_ours_is_refused_although_its_hash_is_right(drawn, tmp_path, key, value):
    write_baseline(drawn.run, tmp_path / "base")
    rehash(tmp_path / "base", lambda content: content.pop(key) if value is None else content.update({key: value}))
    with pytest.raises(NotComparableError):
        open_baseline(tmp_path / "base")


def test_a_column_cannot_smuggle_sql(drawn, tmp_path):
    write_baseline(drawn.run, tmp_path / "base")
    evil = f"loss_nats) FROM tokens; COPY (SELECT 1) TO '{tmp_path}/written'; SELECT (1"
    rehash(tmp_path / "base", lambda content: content["columns"].append(evil))
    with pytest.raises(NotComparableError, match="not what lossprobe writes"):
        open_baseline(tmp_path / "base")
    assert not (tmp_path / "written").exists()


def test_columns_are_those_of_the_file(drawn, tmp_path):
    write_baseline(drawn.run, tmp_path / "base", MODEL_COLUMNS)
    rehash(tmp_path / "base", lambda content: content.update(columns=["loss_nats"]))
    with pytest.raises(NotComparableError, match="has other columns"):
        open_baseline(tmp_path / "base")
