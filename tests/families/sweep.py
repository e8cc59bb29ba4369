"""Compares the losses of every causal family of the installed transformers with those of transformers itself.

    python tests/families/sweep.py [FAMILY…]

For each family a tiny random model scores documents of different lengths in automatic batches, at its context length
and, if that is not a hard limit, beyond it. Every loss is compared with an unbatched float64 forward pass (float32
where float64 does not run). Prints a row for each family; the exit code is 1 if an outcome differs from `table.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ |= {"HF_HUB_OFFLINE": "1"}

import torch
import transformers
from families import tiny
from families.table import NOT_RUN, REFUSED
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.interface import CheckpointFacts
from lossprobe.errors import LossprobeError
from lossprobe.passes.score import score_into
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import StringSource

TEXT = (
    "The kettle sang while Ada counted spoons. 'Seven,' she said, and one that bends.\n"
    "Café prices rose 12% in 2031; nobody at the pier complained.\n\tx = y[3] + 1  # tab\n"
)
DOCUMENTS = [TEXT[:7], TEXT, TEXT[20:60], TEXT[90:], "ab", TEXT[5:45], TEXT[10:50]]
TOLERANCE = 2e-4  # nats between float32 and float64, in models whose weights are five times as large as usual
BEYOND = 24  # tokens beyond the context length that are tried
MOST_TRIED = 2048  # longest context length that is tried
RIGHT = "right"


@dataclass(frozen=True)
class Verdict:
    """The outcome of one family.

    Attributes:
        family: its model_type.
        outcome: "right", "WRONG", "not run" (by transformers), or the id of lossprobe's error.
        detail: context, head and dtype of the reference model; or the error message.
        difference: largest difference of a token's loss, in nats.
    """

    family: str
    outcome: str
    detail: str
    difference: float = 0.0

    @property
    def as_expected(self) -> bool:
        if self.outcome == "not run":
            return NOT_RUN.get(self.family, "\n") in self.detail
        return self.outcome == REFUSED.get(self.family, RIGHT) and self.family not in NOT_RUN


def try_family(family: str, folder: Path) -> Verdict:
    """Return the outcome of a family; any exception becomes an outcome, so that the sweep goes on."""
    try:
        tiny.save(family, folder)
        model = reference_model(folder)
    except Exception as error:  # noqa: BLE001
        return Verdict(family, "not run", _line(error))
    try:
        return _compare(family, folder, model)
    except LossprobeError as error:
        return Verdict(family, error.id, error.message)
    except Exception as error:  # noqa: BLE001
        return Verdict(family, "INTERNAL ERROR", _line(error))


def reference_model(folder: Path) -> Any:
    """Return the model that transformers loads from a folder, in float64 if it runs so."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    try:
        logits(model.double(), range(5, 12))
    except RuntimeError:
        logits(model.float(), range(5, 12))
    return model


@torch.inference_mode()
def logits(model: Any, ids: Any) -> torch.Tensor:
    """Return the logits [T, V] of one row, in float64."""
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].double()


def reference_losses(model: Any, ids: list[int], context: int) -> torch.Tensor:
    """Return the losses in nats of all tokens but the first, in windows that overlap by one token."""
    losses = []
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        log_p = logits(model, window[:-1]).log_softmax(-1)
        losses.append(-log_p.gather(1, torch.tensor(window[1:])[:, None])[:, 0])
    return torch.cat(losses)


def difference(folder: Path, checkpoint: Any, model: Any, context: int | None) -> float:
    """Return the largest difference in nats of a token's loss between a scored run and the reference."""
    run = score_into(folder / f"run-{context}", checkpoint, StringSource(DOCUMENTS), ScoreOptions(context)).run
    rows = run.query("SELECT document, token_id, loss_nats FROM tokens ORDER BY document, token")
    worst = 0.0
    for _, document in rows.groupby("document"):
        expected = reference_losses(model, document["token_id"].tolist(), run.context)
        actual = torch.tensor(document["loss_nats"].to_numpy(dtype=float, na_value=float("nan"))[1:])
        worst = max(worst, float((actual - expected).abs().nan_to_num(torch.inf).max()))
    return worst


def _compare(family: str, folder: Path, model: Any) -> Verdict:
    checkpoint = open_checkpoint(folder)
    facts = checkpoint.facts
    worst = difference(folder, checkpoint, model, None)
    if not facts.hard_limit:
        worst = max(worst, difference(folder, checkpoint, model, (facts.context_length or 64) + BEYOND))
    limit = wrong_limit(model, facts)
    detail = f"{_limit(facts)}, {facts.head} head, {str(model.dtype).removeprefix('torch.')}{limit}"
    return Verdict(family, RIGHT if worst <= TOLERANCE and not limit else "WRONG", detail, worst)


def wrong_limit(model: Any, facts: CheckpointFacts) -> str:
    """Return how the context length of a checkpoint differs from what the model takes, or ""."""
    length = facts.context_length or 64
    if length > MOST_TRIED:
        return f"; {length} tokens are more than can be tried: a size is missing in the table"
    if not runs(model, length):
        return f"; fails at {length} tokens"
    if facts.hard_limit == runs(model, length + 1):
        return f"; {'runs' if facts.hard_limit else 'fails'} at {length + 1} tokens"
    return ""


def runs(model: Any, length: int) -> bool:
    """Return whether transformers' model runs on `length` tokens."""
    try:
        logits(model, (100 + place % 200 for place in range(length)))
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


def _limit(facts: CheckpointFacts) -> str:
    if facts.context_length is None:
        return "no limit"
    return f"{facts.context_length} tokens{'' if facts.hard_limit else ' and more'}"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def main(families: list[str]) -> int:
    """Print a row for each family, and the families whose outcome differs from the table; return the exit code."""
    unexpected = []
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            verdict = try_family(family, Path(folder))
        unexpected += [] if verdict.as_expected else [family]
        flag = " " if verdict.as_expected else "!"
        print(f"{flag} {family:26}{verdict.outcome:28}{verdict.difference:9.1e}  {verdict.detail[:160]}", flush=True)
    print(f"{len(families)} families; not as expected: {', '.join(unexpected) or 'none'}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    sys.exit(main(sys.argv[1:] or list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)))
