"""The load-balancing loss of mixtures of experts, held against transformers' own value for every batch."""

import numpy as np
import pytest
import torch
import transformers
from families.tiny import save

from lossprobe import StringSource, measure_objectives, open_checkpoint, score
from lossprobe.analysis.logged.routing import is_routed, routing_rows
from lossprobe.plan.options import ScoreOptions

TEXTS = ["the cat sat on the mat and", "a", "it was a dark and stormy night; the rain fell", "hello there world", "xyz"]
FAMILIES = {"mixtral": 0.001, "qwen3_moe": 0.001, "gpt_oss": 0.001, "olmoe": 0.01}


@pytest.fixture(scope="module", params=FAMILIES)
def routed(request, tmp_path_factory):
    """Return a checkpoint of a family, transformers' model of it, and a run of short texts."""
    folder = tmp_path_factory.mktemp("routed")
    save(request.param, folder / "model")
    run = score(open_checkpoint(folder / "model"), StringSource(TEXTS), output=folder / "run").run
    return request.param, own_model(folder / "model"), run


def own_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def own_loss(model, rows):
    """Return the load-balancing loss of one batch as transformers computes it, padded on the right with a mask."""
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = torch.tensor(row), 1
    with torch.inference_mode():
        return float(model(input_ids=ids, attention_mask=mask, output_router_logits=True).aux_loss)


def documents(run):
    return [list(rows["token_id"]) for _, rows in run.tokens(columns=["document", "token_id"]).groupby("document")]


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_batch_has_the_loss_of_transformers(routed, size):
    _, model, run = routed
    rows, sums = documents(run), routing_rows(run)
    assert [len(row) for row in rows] == [count // 4 for count in sums.tokens]  # 4 layers; the last token counts
    for order in (np.arange(len(rows)), np.array([3, 0, 4, 2, 1])):
        for start in range(0, len(rows), size):
            batch = order[start : start + size]
            [loss] = sums.take(batch).losses(np.array([0]))
            assert loss == pytest.approx(own_loss(model, [rows[row] for row in batch]), abs=1e-6)


def test_objectives_show_it_beside_the_token_loss(routed):
    family, model, run = routed
    result = measure_objectives(run)
    table = result.load_balancing.set_index("over")["load_balancing_loss"]
    rows = documents(run)
    assert table["all windows as one batch"] == pytest.approx(own_loss(model, rows), abs=1e-6)
    assert table["batches of 1"] == pytest.approx(np.mean([own_loss(model, [row]) for row in rows]), abs=1e-6)
    assert [name for name in table.index if name.startswith("layer")] == [f"layer {layer}" for layer in range(4)]
    assert result.load_balancing_coefficient == FAMILIES[family]
    assert result.load_balancing["weighted_nats"].to_numpy() == pytest.approx(FAMILIES[family] * table.to_numpy())


def test_each_window_of_a_long_text_is_a_row(tmp_path):
    save("mixtral", tmp_path / "model")
    run = score(
        open_checkpoint(tmp_path / "model"), StringSource(TEXTS), ScoreOptions(context=8), output=tmp_path / "run"
    ).run
    model = own_model(tmp_path / "model")
    frame = run.query('SELECT "window", expert, sum(probability) AS p, sum(slots) AS s, sum(tokens) AS n FROM routing '
                      "GROUP BY ALL ORDER BY ALL")  # fmt: skip
    tokens = run.tokens(columns=["document", "token", "token_id", "window", "context"])
    for window, rows in tokens.groupby("window"):
        last = rows.iloc[-1]
        one = tokens[(tokens["document"] == last["document"]) & (tokens["token"] <= last["token"])]
        seen = list(one["token_id"])[-(int(last["context"]) + 1) :]
        sums = frame[frame["window"] == window]
        loss = 4 * (sums["p"] * sums["s"] / sums["n"] ** 2).sum()
        assert loss == pytest.approx(own_loss(model, [seen]), abs=1e-6)


def test_a_dense_model_has_no_such_table(tmp_path):
    save("llama", tmp_path / "model")
    run = score(open_checkpoint(tmp_path / "model"), StringSource(TEXTS[:1]), output=tmp_path / "run").run
    assert not is_routed(run)
    assert not (run.path / "routing").exists()
    assert "router" not in run.manifest["settings"]["checkpoint"]
    assert measure_objectives(run).load_balancing is None
