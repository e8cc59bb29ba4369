"""Tokenizers of other files that make the same of a text: before scoring, in a divergence, and against a baseline."""

import hashlib
import json
import math
import shutil
import struct

import numpy as np
import pytest
import torch
from bundled import CHECKPOINT
from fakes import BOS, VOCAB, ByteTokenizer, SmallModel, checkpoint

from lossprobe.analysis.rows.same_tokens import refuse_different, refuse_other_vocabulary, same_tokens
from lossprobe.audit.gate.texts import refuse_other_baseline
from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.errors import NotComparableError
from lossprobe.passes import planning
from lossprobe.passes.divergence import measure_divergence
from lossprobe.passes.score import planned_run, score
from lossprobe.plan import rows as plan
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.baseline import BASELINE_FILE, open_baseline, write_baseline
from lossprobe.run.files import sealed
from lossprobe.text.documents import StringSource

TEXTS = ["abcabc cab", "", "café ☃ bac", "a"]


class OtherFiles(ByteTokenizer):
    """The bytes again, of files with another hash; `moved` swaps two ids, `renamed` the bytes of ids."""

    def __init__(self, *, moved=(), renamed=None, **choices):
        super().__init__(**choices)
        self.sha256 = hashlib.sha256(f"other {moved} {renamed} {choices}".encode()).hexdigest()
        self._moved, self._renamed = moved, renamed or {}

    def encode(self, text):
        tokens = super().encode(text)
        swap = dict(zip(self._moved, reversed(self._moved), strict=True))
        tokens.ids[:] = [swap.get(index, index) for index in tokens.ids.tolist()]
        return tokens

    def token_bytes(self, token_id):
        return self._renamed.get(token_id) or (super().token_bytes(token_id) if token_id < VOCAB else b"")


def of_other_files(seed=1, **choices):
    return checkpoint(SmallModel(seed), sha256="", tokenizer=OtherFiles(**choices))


def planned(model, texts=TEXTS, **options):
    return planned_run(model, StringSource(texts), ScoreOptions(**options))


@pytest.mark.parametrize("bos", ["auto", "never"])
def test_the_hash_is_that_of_documents_ids_and_spans(monkeypatch, tmp_path, bos):
    monkeypatch.setattr(planning, "cut_parts", lambda documents: plan.cut_parts(documents, 7))
    places = [(n, byte, at, at + 1) for n, text in enumerate(TEXTS) for at, byte in enumerate(text.encode())]
    expected = hashlib.sha256(b"".join(struct.pack("<4q", *place) for place in places)).hexdigest()
    options = ScoreOptions(bos=bos, context=5)
    run = score(checkpoint(SmallModel()), StringSource(TEXTS), options, output=tmp_path / "run").run
    assert run.tokens_sha256 == expected
    assert planned(checkpoint(SmallModel()), bos=bos, context=5).tokens_sha256 == expected
    write_baseline(run, tmp_path / "baseline")
    assert open_baseline(tmp_path / "baseline").tokens_sha256 == expected


def test_folders_whose_tokenizers_differ_in_their_spelling_are_comparable(tmp_path):
    shutil.copytree(CHECKPOINT, tmp_path / "b", ignore=shutil.ignore_patterns("*.safetensors"))
    content = json.loads((tmp_path / "b" / "tokenizer.json").read_text("utf-8"))
    kinds = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    content["added_tokens"].append({"id": len(content["model"]["vocab"]) + 5, "content": "<extra>", "special": True,
                                    "normalized": False, **kinds})  # fmt: skip
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(content, indent=4), "utf-8")
    models = [
        CallableCheckpoint(SmallModel(), open_tokenizer(folder), vocab_size=4096, context_length=32, sha256=name)
        for name, folder in (("a", CHECKPOINT), ("b", tmp_path / "b"))
    ]
    runs = [planned(model) for model in models]
    assert runs[0].manifest["settings"]["tokenizer"] != runs[1].manifest["settings"]["tokenizer"]
    refuse_different(runs)
    refuse_other_vocabulary(*runs)
    assert not same_tokens([planned(model, ["a <extra>"]) for model in models])


def test_ids_that_a_text_does_not_use_must_mean_the_same_for_a_divergence():
    first = planned(checkpoint(SmallModel()))
    refuse_other_vocabulary(first, planned(of_other_files()))
    refuse_other_vocabulary(first, planned(of_other_files(renamed={BOS: b"<s>"})))  # a special id's name
    with pytest.raises(NotComparableError, match=r"1 id stands for other text, such as id 122 for z and Z: ") as caught:
        refuse_other_vocabulary(first, planned(of_other_files(renamed={ord("z"): b"Z"})))
    assert (caught.value.id, caught.value.exit_code) == ("runs.different_vocabulary", 12)
    with pytest.raises(NotComparableError, match=r"differ in tokenizer \([0-9a-f]{11}… and [0-9a-f]{11}…\): a"):
        refuse_other_vocabulary(first, planned(of_other_files(moved=(97, 98))))
    refuse_different([first, planned(of_other_files(renamed={ord("z"): b"Z"}))])  # losses are comparable


@pytest.mark.parametrize("padded_first", [False, True])
def test_padding_is_left_out_of_a_divergence_and_told(monkeypatch, tmp_path, padded_first):
    monkeypatch.chdir(tmp_path)
    width = VOCAB + 7

    def padded(ids):
        return torch.cat([SmallModel(1)(ids), torch.full((*ids.shape, 7), -1.0)], -1)

    wide = CallableCheckpoint(padded, OtherFiles(), vocab_size=width, context_length=32, sha256="")
    models = [wide, checkpoint(SmallModel(0), sha256="")][:: 1 if padded_first else -1]
    result = measure_divergence(*models, StringSource(TEXTS), top=3)
    kl, outside = [], []
    for text in TEXTS:
        ids = torch.tensor([[BOS, *text.encode()]])[:, :-1]
        if ids.numel():
            logs = [torch.log_softmax(SmallModel(seed)(ids)[0].double(), -1) for seed in (0, 1)]
            a, b = logs[::-1] if padded_first else logs
            kl += (a.exp() * (a - b)).sum(-1).tolist()
            outside += torch.softmax(padded(ids)[0].double(), -1)[:, VOCAB:].sum(-1).tolist()
    assert result.mean_kl_nats == pytest.approx(math.fsum(kl) / len(kl), rel=2e-6)
    (note,) = [note for note in result.notes if "logits" in note]
    counts = "264 and 257" if padded_first else "257 and 264"
    assert note.startswith(f"{counts} logits: distributions are over the 257 ids that both have; callable gives")
    told = [float(word.rstrip("%,")) for word in note.split() if "%" in word]
    np.testing.assert_allclose(told, [100 * np.mean(outside), 100 * np.max(outside)], atol=2e-4)


def test_a_baseline_of_other_files_with_the_same_tokens_is_compared(tmp_path):
    run = score(checkpoint(SmallModel()), StringSource(TEXTS), output=tmp_path / "run").run
    write_baseline(run, tmp_path / "baseline")
    refuse_other_baseline(open_baseline(tmp_path / "baseline"), planned(of_other_files()), [])
    with pytest.raises(NotComparableError, match=r"baseline: differs in tokenizer \(") as caught:
        refuse_other_baseline(open_baseline(tmp_path / "baseline"), planned(of_other_files(moved=(97, 98))), [])
    assert caught.value.id == "baseline.different"
    content = json.loads((tmp_path / "baseline" / BASELINE_FILE).read_text())
    del content["tokens_sha256"], content["sha256"]  # as an earlier lossprobe wrote it, with ids alone
    (tmp_path / "baseline" / BASELINE_FILE).write_text(json.dumps(sealed(content)))
    refuse_other_baseline(open_baseline(tmp_path / "baseline"), planned(checkpoint(SmallModel(1))), [])
    with pytest.raises(NotComparableError, match="differs in tokenizer"):
        refuse_other_baseline(open_baseline(tmp_path / "baseline"), planned(of_other_files()), [])
