"""Says what to do about a model with another head than a language model's: reward models, critics, classifiers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lossprobe.checkpoint.files.foreign import saved_again
from lossprobe.checkpoint.files.weight_files import SINGLE
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

TRL_VALUES: Final = "v_head."  # beside a whole language model, in AutoModelForCausalLMWithValueHead of TRL
TRL_MODEL: Final = "pretrained_model."  # the start of all its other names, in some releases
OTHER_HEAD: Final = re.compile(
    r"(?:score|classifier|v_head|value_head|reward_head|rm_head|regression_head|regression_layer|qa_outputs)"
    r"(?:\.[a-z_]+)?\.(?:weight|bias)"
)
OTHER_CLASS: Final = re.compile(
    r".*(?:For(?:\w+Classification|QuestionAnswering|MultipleChoice|Reward\w*)|RewardModel)"
)
UNEXPECTED: Final = "checkpoint.unexpected_tensor"
MISFITS: Final = ("checkpoint.missing_tensor", UNEXPECTED)


@contextmanager
def telling_other_heads(path: Path, settings: Mapping[str, Any], tensors: Collection[str]) -> Iterator[None]:
    """Add what to do to an error about tensors that do not fit, where another head than a language model's shows.

    Args:
        path: the directory.
        settings: the content of its config.json.
        tensors: the names of its tensors.
    """
    try:
        yield
    except CheckpointError as error:
        if error.id in MISFITS and error.hint is None:
            error.hint = other_head(path, settings, tensors, whole=error.id == UNEXPECTED)
        raise


def other_head(path: Path, settings: Mapping[str, Any], tensors: Collection[str], *, whole: bool) -> str | None:
    """Return what to do about a model with another head; None where none shows.

    Args:
        path: the directory.
        settings: the content of its config.json.
        tensors: the names of its tensors.
        whole: whether every tensor of a language model is among them.

    >>> other_head(Path("RM"), {}, ["model.norm.weight", "score.weight"], whole=False)
    'a reward model, critic or classifier (score.weight) predicts no next token: take the model it came from'
    """
    held = sorted(name for name in tensors if OTHER_HEAD.fullmatch(name))
    named = settings.get("architectures")
    classes = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    other = [name for name in classes if OTHER_CLASS.fullmatch(name)]
    if not held and not other:
        return None
    whole |= any(name.startswith(TRL_MODEL) for name in tensors)  # its names are then others than the model's
    if whole and held and held[0].startswith(TRL_VALUES) and not other:
        command = _without_values(path, tensors)
        return f"its value head (v_head) is no part of a language model; to leave it out: {command}"
    shown = visible((held or other)[0], 80)
    return f"a reward model, critic or classifier ({shown}) predicts no next token: take the model it came from"


def _without_values(path: Path, tensors: Collection[str]) -> str:
    """Return a command that saves the language model beside a value head of TRL."""
    folder = json.dumps(str(path), ensure_ascii=False)
    copy = "then copy config.json and tokenizer"
    if not any(name.startswith(TRL_MODEL) for name in tensors):
        return f"{saved_again('AutoModelForCausalLM', path)}, then copy the tokenizer"
    if not (path / SINGLE).exists():
        return f"write its tensors anew without v_head, and their names without {TRL_MODEL}; {copy}"
    kept = f'{{k.removeprefix("{TRL_MODEL}"): v for k, v in w.items() if not k.startswith("{TRL_VALUES}")}}'
    code = (
        f"import os; from safetensors.torch import load_file, save_file; w = load_file({folder} + "
        f'"/{SINGLE}"); os.makedirs("OUT"); save_file({kept}, "OUT/{SINGLE}", {{"format": "pt"}})'
    )
    return f"{visible(f'python -c {shlex.quote(code)}', 600)}, {copy}"
