"""Compares the losses of families whose layers two processes share with those of transformers' whole model.

    python tests/families/divided.py [FAMILY…]

The models, the texts and the reference are those of `sweep.py`. Prints a row for each family that
`model.divided_families` names, or for those that are given; the exit code is 1 if one is not right. To try a family for
the first time, add its name there.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from contextlib import closing
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ |= {"HF_HUB_OFFLINE": "1"}

import torch
import transformers
from families import sweep, tiny

from lossprobe.checkpoint.families.prepared import prepare
from lossprobe.checkpoint.model.divided_families import TRIED
from lossprobe.checkpoint.model.division import why_whole
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec
from lossprobe.errors import LossprobeError
from lossprobe.passes.ranks.opener import RankOpener
from lossprobe.passes.ranks.session import RankSession

PROCESSES = 2


def try_family(family: str, folder: Path, session: RankSession) -> sweep.Verdict:
    """Return the outcome of a family; any exception becomes an outcome, so that the sweep goes on."""
    try:
        tiny.save(family, folder)
        model = sweep.reference_model(folder)
        prepared = prepare(folder, LoadOptions())
        with torch.device("meta"):
            why = why_whole(prepared.model_class(prepared.config), PROCESSES)
    except Exception as error:  # noqa: BLE001
        return sweep.Verdict(family, "not run", " ".join(f"{type(error).__name__}: {error}".split()))
    if why is not None:
        return sweep.Verdict(family, "checkpoint.not_divided", why)
    try:
        checkpoint = RankOpener(session).open(CheckpointSpec(folder, LoadOptions()))
        worst = sweep.difference(folder, checkpoint, model, None)
    except LossprobeError as error:
        return sweep.Verdict(family, error.id, error.message)
    except Exception as error:  # noqa: BLE001
        return sweep.Verdict(family, "INTERNAL ERROR", " ".join(f"{type(error).__name__}: {error}".split()))
    return sweep.Verdict(family, sweep.RIGHT if worst <= sweep.TOLERANCE else "WRONG", checkpoint.facts.kernels, worst)


def main(families: list[str]) -> int:
    """Print a row for each family, and how many are right; return the exit code."""
    outcomes: dict[str, int] = {}
    with closing(RankSession(PROCESSES)) as session:
        for family in families:
            with tempfile.TemporaryDirectory() as folder:
                verdict = try_family(family, Path(folder), session)
            outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
            print(f"{family:26}{verdict.outcome:28}{verdict.difference:9.1e}  {verdict.detail[:160]}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    return 1 if outcomes.keys() - {sweep.RIGHT} else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    sys.exit(main(sys.argv[1:] or sorted(TRIED)))
