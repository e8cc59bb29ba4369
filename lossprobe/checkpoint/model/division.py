"""Divide the layers of a transformers model among processes, by the plan for tensor parallelism that its class has.

Each process holds a slice of most matrices, computes its share of every layer, and adds its partial sums to those of
the others, so that all end a layer with the same hidden states. Embedding and head stay whole in each process: the
class's own plan would gather the logits of all positions in every process, and here each process runs the head on its
own rows instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch

from lossprobe.checkpoint.model.divided_families import TRIED
from lossprobe.checkpoint.model.model_config import building
from lossprobe.errors import CheckpointError

REPLICATED: Final = "replicate"  # transformers' name of the style that leaves a module whole
HINT: Final = "without `tensor_parallel_size`, `stream_weights` always reads a large model layer by layer"


@dataclass(frozen=True)
class Division:
    """Which of several processes this is that hold a model together, its rank; they are in torch's default group."""

    rank: int
    size: int


class DividedClass:
    """Loads a model whose layers are divided; stands in for its transformers class.

    Args:
        model_class: the transformers class.
        config: the configuration to build it from.
        division: which process this is.
        shown: name of the checkpoint, for messages.

    Raises:
        CheckpointError: `checkpoint.not_divided`: the model cannot be divided among so many processes.
    """

    def __init__(self, model_class: Any, config: Any, division: Division, shown: str) -> None:
        self._class, self._size = model_class, division.size
        with building(shown), torch.device("meta"):
            model = model_class(config)
        why = why_whole(model, division.size)
        if why is not None:
            refuse_divided(shown, why)
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
        self._whole = dict.fromkeys(names, REPLICATED)

    def from_pretrained(self, *args: Any, **choices: Any) -> Any:
        """Return what the method of the class returns, with this process's slices."""
        from transformers.distributed.configuration_utils import DistributedConfig

        divided = DistributedConfig(tp_size=self._size, tp_plan=self._whole)
        return self._class.from_pretrained(*args, distributed_config=divided, **choices)


def refuse_divided(shown: str, why: str) -> NoReturn:
    """Refuse to divide a checkpoint.

    Args:
        shown: name of the checkpoint.
        why: why it cannot be divided.

    Raises:
        CheckpointError: `checkpoint.not_divided`, always.
    """
    raise CheckpointError("checkpoint.not_divided", f"{shown}: cannot be divided among processes: {why}", hint=HINT)


def why_whole(model: Any, size: int) -> str | None:
    """Return why a model cannot be divided among `size` processes; None where it can.

    Args:
        model: the model, which needs no values.
        size: number of processes.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    whole = {name for name, module in model.named_modules() if any(module is end for end in ends)}
    plan: dict[str, str] = {name: style for name, style in (model.tp_plan or {}).items() if name not in whole}
    if not plan:
        return f"transformers has no plan for tensor parallelism of {type(model).__name__}"
    if model.config.model_type not in TRIED:
        return f"the plan that transformers has for {type(model).__name__} was not found to give right losses"
    if not any(style == "colwise" and ("attn" in name or "attention" in name) for name, style in plan.items()):
        return None  # each process computes the attention of all heads
    text = model.config.get_text_config()
    for name, what in (("num_attention_heads", "attention heads"), ("num_key_value_heads", "heads of keys and values")):
        count = getattr(text, name, None) or text.num_attention_heads
        if not isinstance(count, int) or count % size:
            return f"its {count} {what} cannot be shared out evenly to {size}, but to a number that divides {count}"
    return None


def own_values(model: Any) -> dict[str, torch.Tensor]:
    """Return the parameters of a model by name: of one whose layers are divided, what this process holds of each."""
    every: dict[str, Any] = dict(model.named_parameters())
    # Only a divided tensor has the method; to import its class takes a third of a second.
    return {name: each.to_local() if hasattr(each, "to_local") else each for name, each in every.items()}
