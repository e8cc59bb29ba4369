"""The kinds of cases: which files are damaged in which way, and which commands run on them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz import file_mutations, mutations
from fuzz.file_mutations import MOVED
from fuzz.mutations import Mutation

Command = tuple[str, ...]
PERPLEXITY = ("perplexity", "run", "--json")
VIEWS = (
    ("positions", "run", "--json"),
    ("hardest", "run", "--json"),
    ("calibration", "run", "--json"),
    ("tokens", "run"),
    ("objectives", "run", "--json"),
)
AUDIT = ("audit", "--json", "--quiet")
SCORED = "out"


def scored(checkpoint: str, text: str = "text.jsonl") -> tuple[Command, ...]:
    """Return the commands that score a text with a checkpoint and show the result."""
    return ("score", checkpoint, text, "-o", SCORED, "--quiet"), ("perplexity", SCORED, "--json")


@dataclass(frozen=True)
class Kind:
    """A kind of case.

    Attributes:
        files: files of which one is damaged.
        mutate: function that damages it.
        commands: commands that run in this order.
        some: other commands, of which one runs too.
        written: existing files that the commands may change.
        weight: relative number of cases.
        identified: whether numbers may differ if the hashes of checkpoint and tokenizer in the output differ too; for
            files without a checksum, which with other content are another model.
        numbers: whether numbers are compared; False for files that say what is measured.
        replaced: the command that must repair everything after a refusal; None without one.
    """

    files: Sequence[str]
    mutate: Mutation
    commands: Sequence[Command]
    some: Sequence[Command] = ()
    written: Sequence[str] = ()
    weight: int = 5
    identified: bool = False
    numbers: bool = True
    replaced: Command | None = None

    def drawn(self, draw: random.Random) -> tuple[Command, ...]:
        """Return the commands of a case, with a random one of `some`."""
        return (*self.commands, *((draw.choice(list(self.some)),) if self.some else ()))


PARTS = ("run/tokens/part-00000.parquet", "run/documents.parquet", "run/vocabulary.parquet",
         "run/histogram/part-00000.parquet", "run/ladder/part-00000.parquet")  # fmt: skip
PLANS = ("unfinished/plan/part-00003.parquet", "unfinished/tokens/part-00000.parquet", "unfinished/documents.parquet",
         "unfinished/vocabulary.parquet", "unfinished/histogram/part-00001.parquet")  # fmt: skip
RESUMED = (("score", "hf", "text.jsonl", "-o", "unfinished", "--quiet"), ("perplexity", "unfinished", "--json"),
           ("verify", "unfinished"))  # fmt: skip
REPLACED = ("score", "hf", "text.jsonl", "-o", "unfinished", "--quiet", "--overwrite")
# A run that is planned again has parts of another size, so its sums may differ in the last digits from a resumed run's.
ANEW = ((*REPLACED, "--context", "32"), REPLACED, *RESUMED[1:])
HF = (
    "hf/config.json",
    "hf/tokenizer.json",
    "hf/tokenizer_config.json",
    "hf/model.safetensors",
    "hf/generation_config.json",
)
INSPECT = (("inspect", "hf", "--json"),)
PLAN, TOML, UNFINISHED = "unfinished/plan.json", "lossprobe.toml", {"written": ("unfinished",)}
BASELINE = ("baseline/text/baseline.json", "baseline/text/tokens.parquet")
BASELINES = (("baseline", "show"), ("baseline", "check"))
AUDITED = ".lossprobe/*/tokens/part-00000.parquet"

HF_RUN, SHARDED_RUN, NANO_RUN = scored("hf"), scored("sharded"), scored("nano", "letters.txt")
CHECKPOINTS = {
    "safetensors header": Kind(
        ("hf/model.safetensors",), mutations.head_of_safetensors, HF_RUN, INSPECT, weight=9, identified=True
    ),
    "safetensors data": Kind(
        ("hf/model.safetensors",), mutations.data_of_safetensors, HF_RUN, weight=3, identified=True
    ),
    "index": Kind(("sharded/model.safetensors.index.json",), mutations.json_file, SHARDED_RUN, identified=True),
    "config": Kind(("hf/config.json",), mutations.json_file, HF_RUN, weight=9, identified=True),
    "tokenizer": Kind(("hf/tokenizer.json",), mutations.json_file, HF_RUN, weight=9, identified=True),
    "tokenizer config": Kind(("hf/tokenizer_config.json",), mutations.json_file, HF_RUN, identified=True),
    "checkpoint files": Kind(HF, file_mutations.placed, HF_RUN, identified=True),
    "torch": Kind(("nano/ckpt.pt",), mutations.bytes_of, NANO_RUN, weight=6),
    "torch record": Kind(("nano/ckpt.pt",), mutations.record_of_zip, NANO_RUN, weight=6, identified=True),
    "meta.pkl": Kind(("nano/meta.pkl",), mutations.bytes_of, NANO_RUN, weight=4, identified=True),
    "nanoGPT files": Kind(
        ("nano/meta.pkl", "nano/ckpt.pt"), file_mutations.placed, NANO_RUN, weight=2, identified=True
    ),
}  # fmt: skip
RUNS = {
    "run.json": Kind(("run/run.json",), mutations.json_file, (PERPLEXITY, ("verify", "run")), VIEWS, weight=9),
    "part bytes": Kind(PARTS, mutations.bytes_of, (PERPLEXITY,), VIEWS, weight=9),
    "part content": Kind(PARTS, file_mutations.parquet_content, (PERPLEXITY,), VIEWS, weight=9),
    "run files": Kind((*PARTS, "run/run.json"), file_mutations.placed, (PERPLEXITY,), VIEWS, weight=4),
    "run folder": Kind(("run",), file_mutations.folder_of_run, (PERPLEXITY,), VIEWS),
    "run name": Kind(("run",), file_mutations.renamed, (PERPLEXITY, VIEWS[0]), VIEWS[1:], weight=4),
    "plan.json": Kind((PLAN,), mutations.json_file, RESUMED, weight=6, **UNFINISHED, replaced=REPLACED),
    "plan bytes": Kind(PLANS, mutations.bytes_of, RESUMED, weight=4, **UNFINISHED, replaced=REPLACED),
    "plan content": Kind(PLANS, file_mutations.parquet_content, RESUMED, **UNFINISHED, replaced=REPLACED),
    "plan files": Kind((*PLANS, PLAN), file_mutations.placed, RESUMED, weight=3, **UNFINISHED),
    "plan folder": Kind(("unfinished",), file_mutations.folder_of_run, RESUMED, weight=3, **UNFINISHED),
}
AUDITS = {
    "baseline.json": Kind((BASELINE[0],), mutations.json_file, (AUDIT,), BASELINES, weight=6),
    "baseline bytes": Kind((BASELINE[1],), mutations.bytes_of, (AUDIT,), weight=3),
    "baseline content": Kind((BASELINE[1],), file_mutations.parquet_content, (AUDIT,), weight=3),
    "baseline files": Kind(BASELINE, file_mutations.placed, (AUDIT,), weight=2),
    "audited run": Kind((AUDITED,), mutations.bytes_of, (AUDIT,), weight=3),
    "audit file": Kind((TOML,), mutations.toml_file, (AUDIT, ("audit", "--print-config")), weight=9, numbers=False),
    "audit file placed": Kind((TOML,), file_mutations.placed, (AUDIT,), weight=1, numbers=False),
}
KINDS = CHECKPOINTS | RUNS | AUDITS


def back(command: Command, kind: Kind) -> Command:
    """Return the command on the original run for a command on the moved run."""
    return tuple(kind.files[0] if word.startswith(f"{MOVED}/") else word for word in command)


@dataclass(frozen=True)
class Case:
    """A case, given by its kind and a seed."""

    kind: str
    seed: int

    @property
    def draw(self) -> random.Random:
        return random.Random(f"{self.kind} {self.seed}")

    def broken(self) -> tuple[str, tuple[Command, ...]]:
        """Damage a file in the working folder; return a description of the damage, and the commands to run there."""
        kind, draw = KINDS[self.kind], self.draw
        pattern = draw.choice(list(kind.files))
        (path,) = sorted(Path().glob(pattern)) if "*" in pattern else (Path(pattern),)
        said, commands = kind.mutate(draw, path), kind.drawn(draw)
        moved = next(Path().glob(f"{MOVED}/*"), None)
        if moved is not None:
            commands = tuple(tuple(str(moved) if word == str(path) else word for word in each) for each in commands)
        return said, commands


def chosen(count: int, first: int = 0, kinds: Sequence[str] = ()) -> list[Case]:
    """Return `count` cases of all kinds (or of `kinds`) by weight, in an order in which kinds take turns."""
    wanted = {name: kind.weight for name, kind in KINDS.items() if not kinds or name in kinds}
    total = sum(wanted.values())
    ranked = [
        ((number + 0.5) * total / weight, Case(name, first + number))
        for name, weight in wanted.items()
        for number in range(-(-count * weight // total) + 1)
    ]
    return [case for _, case in sorted(ranked, key=lambda pair: (pair[0], pair[1].kind))[:count]]
