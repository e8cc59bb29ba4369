"""What is said of a pass in a log, and before the first one of a machine, whose loops are compiled first."""

from __future__ import annotations

import io

import numba
import numpy as np
import pytest
from bundled import CHECKPOINT
from fakes import SmallModel, checkpoint
from rich.console import Console

from lossprobe.cli import progress
from lossprobe.cli.main import COMPILING, run
from lossprobe.cli.progress import lines_of, show_progress
from lossprobe.compiling import tell_of_compiling
from lossprobe.passes.known_text import KnownText, text_sha256
from lossprobe.passes.score import score as scoring
from lossprobe.plan.options import ScoreOptions
from lossprobe.scoring import row_loops
from lossprobe.text.documents import StringSource


@pytest.fixture
def uncompiled(monkeypatch):
    """Loops that are kept nowhere, as on a new machine; a short one is enough."""
    kept = row_loops.measure_rows

    @numba.njit
    def first(found):
        return found.size

    @numba.njit
    def second(found):
        return found.size + 1

    def measure_rows(z, *others):
        assert (first(z), second(z)) == (z.size, z.size + 1)
        kept(z, *others)

    monkeypatch.setattr(row_loops, "measure_rows", measure_rows)


def score(folder, text, *arguments: str) -> int:
    return run(["score", str(CHECKPOINT), str(text), "-o", str(folder / "run"), "--overwrite", *arguments])


def test_compiling_is_told_once_and_only_where_it_happens(tmp_path, text, capsys, uncompiled):
    assert score(tmp_path, text) == 0
    assert capsys.readouterr().err.splitlines().count(f"lossprobe: {COMPILING}") == 1, "of two loops"
    assert score(tmp_path, text, "--context", "32") == 0  # another pass
    assert COMPILING not in capsys.readouterr().err


def test_quiet_is_quiet_about_it(tmp_path, text, capsys, uncompiled):
    assert score(tmp_path, text, "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_what_is_compiled_after_the_block_is_not_told():
    told = []
    loop = numba.njit(lambda x: x.size)
    with tell_of_compiling(lambda: told.append("compiling")):
        pass
    assert loop(np.ones(3)) == 3
    assert told == []


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: a list of one number of seconds."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_log_gets_a_line_every_30_seconds_and_one_at_the_end(capsys, clock):
    with show_progress("scoring x", quiet=False) as advance:
        advance(1000, 100_000)  # a resumed pass: these are no work of it
        for done in range(2000, 101_000, 1000):
            clock[0] += 1
            advance(done, 100_000)
    assert capsys.readouterr().err.splitlines() == [
        "lossprobe: scoring x: 31% of 100,000 tokens, 1,000.0 tokens/s, 1 min 09 s left",
        "lossprobe: scoring x: 61% of 100,000 tokens, 1,000.0 tokens/s, 39 s left",
        "lossprobe: scoring x: 91% of 100,000 tokens, 1,000.0 tokens/s, 9 s left",
        "lossprobe: scoring x: 100,000 tokens in 1 min 39 s, 1,000.0 tokens/s",
    ]


def test_the_speed_in_a_log_leaves_out_the_first_batch_which_may_have_compiled_the_model(capsys, clock):
    with show_progress("scoring x", quiet=False) as advance:
        advance(0, 100_000)
        clock[0] += 300
        advance(1000, 100_000)  # too early to say how fast it is
        assert capsys.readouterr().err == ""
        for done in range(2000, 4000, 1000):
            clock[0] += 1
            advance(done, 100_000)
    assert capsys.readouterr().err.splitlines()[0] == (
        "lossprobe: scoring x: 2% of 100,000 tokens, 1,000.0 tokens/s, 1 min 38 s left"
    )


def test_a_log_tells_of_tokenizing_every_30_seconds_and_the_time_of_the_pass_is_without_it(capsys, clock):
    with show_progress("scoring x", quiet=False) as advance:
        for tokens in range(0, 70_000, 1000):
            clock[0] += 1
            advance.stage(f"tokenizing: {tokens:,} tokens")
        advance(0, 40_000)
        for done in range(1000, 41_000, 1000):
            clock[0] += 1
            advance(done, 40_000)
    assert capsys.readouterr().err.splitlines() == [
        "lossprobe: scoring x, tokenizing: 29,000 tokens",
        "lossprobe: scoring x, tokenizing: 59,000 tokens",
        "lossprobe: scoring x: 75% of 40,000 tokens, 1,000.0 tokens/s, 10 s left",
        "lossprobe: scoring x: 40,000 tokens in 40 s, 1,000.0 tokens/s",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_reading_a_long_text_is_told_every_30_seconds(capsys, clock, quiet):
    class Slow(StringSource):
        def documents(self):
            for document in super().documents():
                clock[0] += 0.011
                yield document

    for source in (KnownText(Slow(["a cat"] * 5500)), Slow(["a cat"] * 5500)):
        text_sha256(source, lines_of("many", quiet=quiet))
        expected = [] if quiet else ["lossprobe: many, reading: 3,000 documents"]
        assert capsys.readouterr().err.splitlines() == expected


def test_a_bar_shows_tokenizing_and_then_the_tokens():
    def shown(bar):
        console = Console(width=120, file=io.StringIO())
        console.print(bar.get_renderable())
        return console.file.getvalue()

    with progress._bar("scoring x", "tokens") as advance:
        assert shown(advance._bar).strip() == ""
        advance.stage("tokenizing: 5,000 tokens")
        before = shown(advance._bar)
        advance.stage("")
        advance(250, 1000)
        after = shown(advance._bar)
    assert "scoring x, tokenizing: 5,000 tokens" in before
    assert "%" not in before
    assert "tokenizing" not in after
    assert " 25% 250/1,000 tokens" in after


@pytest.mark.parametrize("kind", ["_bar", "_lines"])
def test_no_pass_of_several_with_one_display_is_said_to_tokenize_while_it_scores(monkeypatch, tmp_path, kind):
    """As those of `reconcile`, which plans each of its passes."""
    monkeypatch.chdir(tmp_path)
    shown = []
    with getattr(progress, kind)("scoring x", "tokens") as advance:

        class Watched:
            def stage(self, words):
                advance.stage(words)

            def __call__(self, done, total):
                advance(done, total)
                words = advance._bar.tasks[0].description if kind == "_bar" else f"scoring x{advance._stage}"
                shown.append(words)

        for context in (8, 16):
            model = checkpoint(SmallModel(0), sha256="model")
            scored = scoring(model, StringSource(["a cat"] * 9), ScoreOptions(context=context), progress=Watched())
            assert not scored.reused
    assert len(shown) >= 4
    assert set(shown) == {"scoring x"}


@pytest.mark.parametrize(("steps", "seconds", "quiet"), [(9, 1, False), (50, 1, True), (0, 0, False)])
def test_a_log_has_nothing_of_a_short_pass_or_a_quiet_one(capsys, clock, steps, seconds, quiet):
    with show_progress("scoring x", quiet=quiet) as advance:
        for done in range(steps + 1):
            if advance is not None:
                advance(done, steps)
            clock[0] += seconds * (done < steps)
    assert capsys.readouterr().err == ""


def test_a_pass_that_fails_says_no_end(capsys, clock):
    def half() -> None:
        with show_progress("scoring x", quiet=False) as advance:
            advance(0, 10)
            clock[0] += 20
            advance(5, 10)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        half()
    assert capsys.readouterr().err == ""
