"""Parts scored in another process, in any order, with a worker lost: the run is the same to the byte."""

import multiprocessing
import random

import pytest
from fakes import SmallModel, checkpoint
from stored_runs import TEXTS, tree

from lossprobe.passes import planning
from lossprobe.passes.engines import LocalEngine
from lossprobe.passes.score import score_into
from lossprobe.plan import rows as plan
from lossprobe.text.documents import StringSource


def opened(model: int = 0):
    return checkpoint(SmallModel(model), sha256=f"model {model}")


def work(connection) -> None:
    """Run a worker: open the checkpoint, then score each part that arrives and send its scores back."""
    engine = LocalEngine(opened())
    while True:
        part, options = connection.recv()
        ((_, scores),) = engine.score([part], options, lambda tokens: None)
        connection.send((part.index, scores))


class OneLostWorker:
    """An engine that scores parts in another process in random order; one process is killed while it has a part."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.started = 0

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.started += 1

    def score(self, parts, options, advance):
        parts = list(parts)
        random.Random(3).shuffle(parts)
        self.start()
        for number, part in enumerate(parts):
            self.connection.send((part, options))
            if number == self.kill_at:
                self.process.kill()
            try:
                index, scores = self.connection.recv()
            except (EOFError, ConnectionResetError):
                self.start()
                self.connection.send((part, options))
                index, scores = self.connection.recv()
            assert index == part.index
            yield part, scores
        self.process.kill()


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Return a function that scores the texts in parts of 128 rows into a folder, by an engine."""
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 128))

    def run(name, engine=None, progress=None):
        score_into(tmp_path / name, opened(), StringSource(TEXTS), engine=engine, progress=progress)
        return tree(tmp_path / name)

    return run


@pytest.mark.thorough
def test_a_run_is_the_same_to_the_byte_wherever_its_parts_were_scored(scored):
    engine, said = OneLostWorker(kill_at=1), []
    elsewhere = scored("elsewhere", engine, lambda done, total: said.append((done, total)))
    assert engine.started == 2, "one worker was lost"
    here = scored("here")
    assert len([name for name in here if name.startswith("tokens/")]) > 2
    assert elsewhere == here
    total = said[-1][1]
    assert said[-1] == (total, total)
    assert [done for done, _ in said] == sorted(done for done, _ in said)
