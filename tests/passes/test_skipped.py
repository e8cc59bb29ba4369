"""Bad files and records that are left out of a text, as a run counts them."""

import json

import pytest
from fakes import SmallModel, checkpoint

from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.errors import BadTextError
from lossprobe.passes.score import score_into
from lossprobe.text.documents import open_text
from lossprobe.text.options import TextOptions

GOOD = [json.dumps({"text": text}) for text in ("A first document.", "And a second one.")]


def scored(folder, name, lines, **options):
    path = folder / "texts" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    source = open_text(path, TextOptions(**options))
    return score_into(None, checkpoint(SmallModel()), source)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_coverage_counts_what_was_left_out(folder):
    result = scored(folder, "a.jsonl", [GOOD[0], "not JSON", '{"txt": "x"}', GOOD[1]], skip_bad=True)
    coverage = measure_perplexity(result.run).coverage
    assert (coverage["records_skipped"], coverage["files_skipped"]) == (2, 0)
    assert result.run.counts["documents"] == 2


def test_the_good_documents_alone_are_another_run_with_the_same_loss(folder):
    some = scored(folder, "a.jsonl", [GOOD[0], "not JSON", GOOD[1]], skip_bad=True).run
    alone = scored(folder, "a.jsonl", GOOD, skip_bad=True).run
    assert some.path != alone.path
    assert measure_perplexity(alone).coverage["records_skipped"] == 0
    assert "skipped" not in alone.manifest["settings"]["text"]
    losses = "SELECT loss_nats FROM tokens ORDER BY document, token"
    assert some.query(losses).equals(alone.query(losses))


def test_bad_records_are_refused_before_anything_is_stored(folder):
    with pytest.raises(BadTextError):
        scored(folder, "a.jsonl", [GOOD[0], "not JSON"])
    assert not (folder / ".lossprobe").exists()
