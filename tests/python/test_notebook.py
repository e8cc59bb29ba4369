"""The notebook of examples/ runs top to bottom, and the Python blocks of its page do too."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from bundled import EXAMPLES

NOTEBOOK = EXAMPLES / "notebook" / "loss_of_a_model.ipynb"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "howto" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
NEEDED = ("jargon-plain", "jargon-smoothed", "jargon-valid.jsonl")


@pytest.fixture
def examples(tmp_path):
    """A copy of what the bundled pair needs, so that no run is stored in the checkout."""
    (tmp_path / "examples").mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (EXAMPLES / name).is_dir() else shutil.copy
        copy(EXAMPLES / name, tmp_path / "examples" / name)
    return tmp_path / "examples"


def read():
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")  # of the libraries that run notebooks
def test_the_notebook_runs_top_to_bottom(examples):
    from nbclient import NotebookClient

    notebook = read()
    (examples / "notebook").mkdir()
    where = {"metadata": {"path": str(examples / "notebook")}}
    NotebookClient(notebook, timeout=120, resources=where).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in data for data in shown) == 1
    assert sum("<table" in data.get("text/html", "") for data in shown) >= 6
    assert any("40.449" in data.get("text/html", "") for data in shown)


def test_the_stored_notebook_has_no_outputs():
    for cell in read().cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_python_blocks_of_the_page_run_one_after_the_other(examples, monkeypatch):
    monkeypatch.chdir(examples.parent)
    text = examples / "jargon-valid.jsonl"
    lines = text.read_text("utf-8").splitlines(keepends=True)
    text.unlink()
    text.write_text("".join(lines[:24]), "utf-8")  # no block names a number of the text
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) > 4
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{PAGE.name}: block {number}", "exec"), names)
