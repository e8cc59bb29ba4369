"""Facts about what only some checkpoints have: the routers of a mixture of experts, an adapter."""

from __future__ import annotations

from dataclasses import dataclass

DIVIDED = "tensor parallel"  # in `CheckpointFacts.kernels`, before the number of processes that share each layer


@dataclass(frozen=True)
class RouterFacts:
    """The routers of a mixture of experts that has a load-balancing loss in transformers.

    Attributes:
        layers: number of routers.
        experts: E, number of experts that each router chooses from.
        experts_per_token: number of experts that it chooses for a token, its slots.
        coefficient: weight of the load-balancing loss beside the token loss (router_aux_loss_coef); None without one.
        in_loss: whether the configuration asks for it by itself (output_router_logits).
        measured: whether runs hold the sums of the routers; not where these would give another loss than the model
            itself. `layers`, `experts` and `experts_per_token` are then 0.
    """

    layers: int
    experts: int
    experts_per_token: int
    coefficient: float | None
    in_loss: bool
    measured: bool = True


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter and the base that it is used on.

    Attributes:
        words: all of it in a few words, for headings.
        kind: "LoRA", "rsLoRA", "DoRA" or "rsLoRA and DoRA".
        rank: rank of its matrices, such as "8" or "4 to 16".
        scaling: what the product of its matrices is multiplied by, such as "2" or "0.5 to 2".
        targets: the modules that it changes.
        replaced: the modules that it replaces as a whole, and how many token embeddings; "" without any.
        parameters: number of its own weights.
        base: name of the base that is used.
        recorded_base: the base that its configuration names; "" where it names none.
        merged: whether it is merged into the weights of the base.
    """

    words: str
    kind: str
    rank: str
    scaling: str
    targets: str
    replaced: str
    parameters: int
    base: str
    recorded_base: str
    merged: bool
