"""The child process of a tokenizer: its limits, its isolation, and when it ends."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from checkpoint.builders import definition
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.checkpoint.tokenizers import sandbox, sandbox_worker
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.frames import (
    ALLOWANCE,
    COUNTS,
    FAILED,
    OK,
    OUT_OF_MEMORY,
    Limits,
    receive_frame,
    send_frame,
)
from lossprobe.checkpoint.tokenizers.pieces import Sizes
from lossprobe.checkpoint.tokenizers.sandbox import Sandbox
from lossprobe.errors import CheckpointError, ResourceError


@pytest.fixture(scope="module", autouse=True)
def _children_are_started_anew():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "subprocess", subprocess)
        yield


SMALL = Limits(memory=512 << 20, memory_per_byte=0, seconds=60.0, seconds_per_byte=0.0)
with_limits = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of address space")


def bomb(letter):
    """Return a normalizer that turns each such letter of a text into 50 to the power of 5 of them, 312 million."""
    rule = {"type": "Replace", "pattern": {"String": letter}, "content": letter * 50}
    return {"type": "Sequence", "normalizers": [rule] * 5}


def box(limits=SMALL, **changes):
    return Sandbox([json.dumps(definition(**changes)).encode(), b""], "a/tokenizer.json", limits)


def refused(action, *arguments):
    with pytest.raises(CheckpointError) as caught:
        action(*arguments)
    assert caught.value.exit_code == 3
    assert caught.value.message.startswith("a/tokenizer.json: tokenizer ")
    return caught.value.id, caught.value.message


def process_of(opened):
    return opened._process


@with_limits
def test_a_bomb_in_a_text_ends_the_child_alone_and_the_next_text_gets_a_new_one():
    opened = box(normalizer=bomb("z"))
    opened.open()
    first = process_of(opened)
    assert refused(opened.ask, b"a z") == ("tokenizer.memory", "a/tokenizer.json: tokenizer exceeded 0.5 GiB")
    assert first.returncode is not None
    ids, widths, counts = opened.ask(b"the")
    assert (len(ids), len(widths), COUNTS.unpack(counts)) == (4, 4, (0, True))
    assert process_of(opened).pid != first.pid


@with_limits
def test_a_bomb_in_the_opening():
    opened = box(normalizer=bomb("a"))  # the letter that the opening tries
    assert refused(opened.open) == ("tokenizer.memory", "a/tokenizer.json: tokenizer exceeded 0.5 GiB")
    assert process_of(opened) is None


@pytest.mark.thorough
@with_limits
def test_the_allowance_grows_with_the_text():
    text = b"a" * 1_500_000  # one endless word takes more than 300 MB
    assert refused(box(Limits(memory=300 << 20, memory_per_byte=0)).ask, text)[0] == "tokenizer.memory"
    assert len(box(Limits(memory=300 << 20, memory_per_byte=512)).ask(text)) == 3
    assert Limits(10, 2, 1.0, 0.5).of(4) == (18, 3.0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer")
def test_a_child_that_takes_too_long_is_ended():
    opened = box(Limits(memory=4 << 30, seconds=0.3, seconds_per_byte=0.0))
    opened.ask(b"the")
    message = "a/tokenizer.json: tokenizer ran longer than 0.3 s"
    assert refused(opened.ask, b"the cat " * 1_000_000) == ("tokenizer.time", message)
    assert len(opened.ask(b"the")) == 3


def test_a_refusal_leaves_the_child_alive():
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    opened = box(pre_tokenizer=pattern)
    opened.open()
    first = process_of(opened)
    id, message = refused(opened.ask, b"a" * 50 + b"b")
    assert id == "tokenizer.failed"
    assert "retry-limit-in-match" in message
    opened.ask(b"aa")
    assert process_of(opened) is first


def test_a_refused_opening_leaves_no_child():
    opened = box(pre_tokenizer={"type": "Split"})
    assert refused(opened.open)[0] == "tokenizer.broken"
    assert process_of(opened) is None


def test_a_child_that_dies_is_reported():
    opened = box()
    opened.open()
    process_of(opened).kill()
    code = -9 if os.name == "posix" else 1
    assert refused(opened.ask, b"the")[1].endswith(f"tokenizer failed: ended with code {code}")


def test_no_process_can_be_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ResourceError, match="no process for the tokenizer: No such file"):
        box().open()


def test_an_interruption_in_the_middle_of_an_answer_starts_anew(monkeypatch):
    opened = box()
    opened.open()

    def interrupted(_stream):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "receive_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened.ask(b"the cat")
    assert process_of(opened) is None
    assert len(opened.ask(b"the")[0]) == 4  # the answer to this request, not to the one before


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_child_is_deaf_to_ctrl_c():
    opened = box()
    opened.open()
    os.kill(process_of(opened).pid, signal.SIGINT)
    time.sleep(0.05)
    assert len(opened.ask(b"the")) == 3


def test_the_child_ends_with_its_owner():
    tokenizer = BackendTokenizer(definition(), {}, "x")
    child = process_of(tokenizer._sandbox)
    assert child.poll() is None
    del tokenizer
    gc.collect()
    assert child.returncode is not None
    assert child.stdin.closed
    assert child.stdout.closed


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_child_ends_when_its_parent_is_killed():
    code = (
        "import json, os, sys\nfrom lossprobe.checkpoint.tokenizers.backend import BackendTokenizer\n"
        "tokenizer = BackendTokenizer(json.loads(sys.argv[1]), {}, 'x')\n"
        "print(tokenizer._sandbox._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, json.dumps(definition())], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (-9, "")
    child = int(run.stdout)
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if is_zombie(child):
            break
        time.sleep(0.02)
    else:
        pytest.fail(f"process {child} outlived its parent")


def is_zombie(pid):
    """Return whether a process has ended and only waits to be collected, as in a container without an init."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:  # noqa: PTH123 - /proc
            return stream.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def test_the_child_loads_only_what_it_needs(monkeypatch, tmp_path):
    (tmp_path / "tokenizers.py").write_text("raise SystemExit('code from the working folder')")
    (tmp_path / "json.py").write_text("raise SystemExit('code from the working folder')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    names = "[n for n in ('torch', 'transformers', 'pandas', 'tokenizers', 'numpy') if n in sys.modules]"
    started = sandbox.START.replace("main()", f"print({names}, file=sys.stderr)")
    monkeypatch.setattr(sandbox, "START", started)
    assert refused(box().open)[1].endswith("tokenizer failed: ['tokenizers', 'numpy']")


@given(st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=4))
def test_frames_round_trip(frames):
    stream = io.BytesIO()
    for parts in frames:
        send_frame(stream, parts)
    whole = stream.getvalue()
    stream.seek(0)
    assert [receive_frame(stream) for _ in frames] == frames
    with pytest.raises(EOFError):
        receive_frame(stream)
    cut = io.BytesIO(whole[:-1])
    with pytest.raises(EOFError):
        [receive_frame(cut) for _ in range(len(frames) + 1)]


def served(monkeypatch, *requests):
    """Return the answers of the worker, run in this process and without its limits."""
    monkeypatch.setattr(sandbox_worker, "set_limits", lambda *_: None)
    asked, answered = io.BytesIO(), io.BytesIO()
    for parts in requests:
        send_frame(asked, [ALLOWANCE.pack(0, 0.0), *parts])
    asked.seek(0)
    sandbox_worker.serve(asked, answered, Sizes())
    answered.seek(0)
    return [receive_frame(answered) for _ in requests]


def test_the_worker_answers_every_request(monkeypatch):
    opening = [json.dumps(definition("sentencepiece_bpe")).encode(), b"</s>"]
    described, encoded, failed = served(monkeypatch, opening, [b"a<s>the"], [b"\xff"])
    assert described[0] == OK
    facts = json.loads(described[1])
    expected = {"kind": "BPE with byte fallback", "unknown_id": 0, "bos_id": 2, "special_ids": [0, 1, 2]}
    added = {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert facts == expected | {"prefix": [1], "suffix": [], "added_ids": added}
    assert len(described[2]) == len(described[3]) == 8 * 286
    assert encoded[0] == OK
    assert memoryview(encoded[1]).cast("i").tolist() == [278, 262, 1, 281]
    assert memoryview(encoded[2]).cast("I").tolist() == [0, 1, 3, 3]
    assert COUNTS.unpack(encoded[3]) == (0, True)
    assert failed[0] == FAILED
    assert b"can't decode byte 0xff" in failed[1]


def test_the_worker_says_when_memory_is_full(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(sandbox_worker, "WorkerTokenizer", full)
    assert served(monkeypatch, [b"", b""]) == [[OUT_OF_MEMORY]]


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("0", None), ("many", None), ("", None), ("1000", 16)])
def test_threads_are_those_asked_for_else_the_cores(monkeypatch, asked, threads):
    monkeypatch.setenv("RAYON_NUM_THREADS", asked)
    expected = threads or min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    assert sandbox._threads() == expected


def test_a_long_document_comes_through_the_child_as_it_does_in_one_piece():
    content = definition("sentencepiece_bpe")
    text = "the cat sat on the mat, Éva. " * 20_000
    with_pieces = BackendTokenizer(content, {}, "x").encode(text)
    whole = sandbox_worker.WorkerTokenizer(json.dumps(content), "", Sizes(piece=1 << 30)).encode(text.encode())
    assert with_pieces.ids.tobytes() == bytes(whole[0])
    assert np.diff(with_pieces.byte_stop, prepend=0).tolist() == memoryview(whole[1]).cast("I").tolist()
    assert (with_pieces.normalized_bytes, with_pieces.tiles) == COUNTS.unpack(whole[2])
    assert with_pieces.byte_stop[-1] == len(text.encode())
