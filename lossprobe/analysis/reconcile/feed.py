"""What a trainer saw of a text: how it was tokenized, cut and masked, with the sums of each row as it was then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from lossprobe.analysis.logged.recipe import Integers, RowSums
from lossprobe.analysis.logged.routing import RoutingRows
from lossprobe.units import format_count


class Bos(StrEnum):
    """What stands before each row.

    Attributes:
        OWN: what the tokenizer adds, or the chat template writes.
        LEFT_OUT: nothing, although the tokenizer would add a BOS.
        ADDED: a BOS that the tokenizer does not add by itself, or that the chat template writes too.
    """

    OWN = "own"
    LEFT_OUT = "left_out"
    ADDED = "added"


class Packing(StrEnum):
    """How rows were joined before they were batched.

    Attributes:
        NONE: not at all.
        STREAM: one stream cut into equal blocks, a last block that is not full dropped (group_texts of run_clm.py).
        WRAPPED: the same with the last block kept (TRL's packing strategy "wrapped").
        BEST_FIT: whole rows fitted together, none seeing another (TRL's packing strategy "bfd").
    """

    NONE = "none"
    STREAM = "stream"
    WRAPPED = "wrapped"
    BEST_FIT = "bfd"


class Kind(StrEnum):
    """What the records of a text are, as far as it matters for what a trainer scores.

    Attributes:
        PLAIN: plain text.
        CHAT: conversations.
        COMPLETION: prompts with completions.
    """

    PLAIN = "plain"
    CHAT = "chat"
    COMPLETION = "completion"


@dataclass(frozen=True)
class Balancing:
    """The load-balancing loss of a mixture of experts, which may be in the number.

    Attributes:
        rows: the sums of the routers of each row.
        coefficient: its weight (router_aux_loss_coef).
        in_loss: whether the configuration adds it by itself (output_router_logits).
    """

    rows: RoutingRows
    coefficient: float
    in_loss: bool

    def take(self, order: Integers) -> Balancing:
        """Return that of the rows with these numbers, in this order."""
        return replace(self, rows=self.rows.take(order))


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A text as a trainer may have fed it to the model.

    Attributes:
        rows: the sums of each row of the trainer.
        kind: what the records are.
        bos: what stands before each row.
        eos: whether an EOS was put after each text; None where the tokenizer or the template leaves no choice.
        eos_masked: whether every EOS is left out of the loss, as where the collator takes it for padding.
        scored: which tokens have a loss: "all", "assistant", "last-turn" or "completion".
        cut: most tokens of a row; None where no row is cut.
        longest: tokens of the longest row before it was cut.
        packing: how rows were joined.
        block: tokens of a packed row.
        usual_block: whether a trainer would pack into blocks of this size by itself.
        dtype: of the forward pass.
        own_windows: whether the rows lie in lossprobe's own windows, which see the whole of a long document.
        lengths: int64 [R], tokens of each row as it was fed; None where that is not known.
        balancing: the load-balancing loss of its rows; None without one, or where it is not known.
    """

    rows: RowSums
    kind: Kind = Kind.PLAIN
    bos: Bos = Bos.OWN
    eos: bool | None = None
    eos_masked: bool = False
    scored: str = "all"
    cut: int | None = None
    longest: int = 0
    packing: Packing = Packing.NONE
    block: int = 0
    usual_block: bool = False
    dtype: str = "float32"
    own_windows: bool = False
    lengths: Integers | None = None
    balancing: Balancing | None = None

    def take(self, order: Integers | None) -> Feed:
        """Return it with its rows in another order; None for the same."""
        if order is None:
            return self
        return replace(
            self, rows=self.rows.take(order), lengths=None if self.lengths is None else self.lengths[order],
            balancing=None if self.balancing is None else self.balancing.take(order),
        )  # fmt: skip

    def phrases(self) -> list[str]:
        """Return what is particular about it, in words."""
        what = {Bos.OWN: "", Bos.LEFT_OUT: "no BOS", Bos.ADDED: "a BOS more than the tokenizer or template adds"}
        packed = {
            Packing.NONE: "",
            Packing.STREAM: f"one stream in blocks of {format_count(self.block)}, tail dropped",
            Packing.WRAPPED: f"packed into blocks of {format_count(self.block)} (wrapped)",
            Packing.BEST_FIT: f"packed into rows of {format_count(self.block)} (bfd)",
        }
        told = [
            "" if self.kind is Kind.PLAIN else SCORED[self.scored],
            what[self.bos],
            "an EOS after each text" if self.eos else "",
            "no EOS scored (it pads, so its labels are masked)" if self.eos_masked else "",
            f"rows cut at {format_count(self.cut)} tokens" if self.cut else "",
            packed[self.packing],
            "" if self.dtype == "float32" else self.dtype,
            "lossprobe's own windows" if self.own_windows else "",
        ]
        return [each for each in told if each]


SCORED = {
    "all": "all tokens of conversations scored",
    "assistant": "only the assistant's tokens scored",
    "last-turn": "only the last answer scored",
    "completion": "only the completion scored",
}
