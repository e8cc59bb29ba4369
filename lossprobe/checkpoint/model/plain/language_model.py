"""What the plain models have in common, with as much of the interface of transformers' classes as is used.

Their sums and products of hidden states overwrite what a layer has just returned, which nothing else reads: the same
numbers, in memory that the processor still has at hand.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch.overrides import TorchFunctionMode


@dataclasses.dataclass
class PlainConfig:
    """The configuration of a plain model; its fields are named as in config.json.

    Attributes:
        model_type: the family.
        attribute_map: common name → name of this family.
        vocab_size: number of ids.
        tie_word_embeddings: whether the head uses the weights of the embedding.
    """

    model_type: ClassVar[str]
    attribute_map: ClassVar[Mapping[str, str]] = {}

    vocab_size: int
    tie_word_embeddings: bool

    def get_text_config(self) -> Self:
        """Return the configuration of the text part: all of it."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name."""
        return dataclasses.asdict(self)


class BodyOutput(NamedTuple):
    """What a body returns: final hidden states [B, T, D], and the keys and values that it keeps, or None."""

    last_hidden_state: torch.Tensor
    past_key_values: Any


class LogitsOutput(NamedTuple):
    """What a whole model returns: logits [B, T, V]."""

    logits: torch.Tensor


class PlainBody(torch.nn.Module):
    """The body of a plain model: embeddings and layers."""

    embedding: ClassVar[str]  # name of the embedding of ids

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> BodyOutput:
        """Return the hidden states of int64 ids [B, T].

        Args:
            input_ids: the ids.
            attention_mask: [B, T], 0 where a token is padding; None without padding.
            position_ids: int64 [B, T]; None for the positions after what is kept.
            past_key_values: keys and values of the tokens before, in transformers' own container.
            use_cache: whether to keep keys and values.
        """
        if use_cache and past_key_values is None:
            from transformers.cache_utils import DynamicCache

            past_key_values = DynamicCache()
        length = input_ids.shape[1]
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        if position_ids is None:
            position_ids = (torch.arange(length, device=input_ids.device) + before)[None]
        visible = visible_keys(input_ids, before, attention_mask)
        return BodyOutput(self.hidden(input_ids, position_ids, visible, past_key_values), past_key_values)

    def hidden(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor | None, kept: Any
    ) -> torch.Tensor:
        """Return the final hidden states [B, T, D].

        Args:
            ids: int64 [B, T].
            positions: int64 [1 or B, T].
            visible: as of `visible_keys`.
            kept: keys and values of the tokens before, to which those of these are added; None for neither.
        """
        raise NotImplementedError


class _WithoutFirstValues(TorchFunctionMode):
    """Leaves out the random numbers that new layers begin with.

    Stored tensors take their place. Where a tensor has no values, torch would import its compiler to draw them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, unless it sets first values."""
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class PlainLM(torch.nn.Module):
    """A plain model: a body, and a head that is one matrix. Its weights have no values until it has loaded them.

    Args:
        config: its configuration.
    """

    base_model_prefix: ClassVar[str]
    _keys_to_ignore_on_load_unexpected: ClassVar[tuple[str, ...]] = ()  # patterns

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        with _WithoutFirstValues():
            self.add_module(self.base_model_prefix, self.body_of(config))
            words = self.get_input_embeddings()
            self.lm_head = torch.nn.Linear(words.embedding_dim, words.num_embeddings, bias=False)
        self._tie()

    def body_of(self, config: Any) -> PlainBody:
        """Return the body, without values."""
        raise NotImplementedError

    def _tie(self) -> None:
        """Let the head use the weights of the embedding where it has none of its own."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.get_input_embeddings().weight

    @classmethod
    def from_pretrained(
        cls, _path: None, *, config: Any, state_dict: Mapping[str, torch.Tensor], dtype: torch.dtype, **_: Any
    ) -> tuple[Self, dict[str, Any]]:
        """Return a model with weights, and what transformers would report: that all fit, as `families` has checked."""
        with torch.device("meta"):
            model = cls(config)
        names = model.names_of(state_dict)
        model.load_state_dict(
            {names[name]: tensor.to(dtype) for name, tensor in state_dict.items() if name in names},
            strict=False,
            assign=True,
        )
        model._tie()
        return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}

    def names_of(self, stored: Iterable[str]) -> dict[str, str]:
        """Return the names in this model of those stored tensors that it does not pass over.

        Args:
            stored: the names as they are stored, those of the body with or without its prefix.
        """
        own = self.state_dict()
        known = ((name, name if name in own else f"{self.base_model_prefix}.{name}") for name in stored)
        passed_over = [re.compile(pattern) for pattern in self._keys_to_ignore_on_load_unexpected]
        return {
            name: short
            for name, short in known
            if short in own or not any(pattern.search(name) for pattern in passed_over)
        }

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; of the embedding's, since other layers may have been replaced."""
        return next(self.parameters()).dtype

    def get_input_embeddings(self) -> Any:
        """Return the embedding."""
        body: Any = self._modules[self.base_model_prefix]
        return body._modules[body.embedding]

    def get_output_embeddings(self) -> Any:
        """Return the head."""
        return self.lm_head

    def forward(self, input_ids: torch.Tensor, **options: Any) -> LogitsOutput:
        """Return logits [B, T, V] of int64 ids [B, T]; further arguments as of the body."""
        body: Any = self._modules[self.base_model_prefix]
        return LogitsOutput(self.lm_head(body(input_ids=input_ids, **options).last_hidden_state))


def visible_keys(ids: torch.Tensor, before: int, attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return which keys each query sees, bool [B, 1, T, before + T]; None where these are all up to its own.

    Args:
        ids: int64 [B, T].
        before: number of keys before them.
        attention_mask: [B, before + T], 0 where a token is padding; None without padding.
    """
    batch, length = ids.shape
    real = None if attention_mask is None or attention_mask.bool().all() else attention_mask.bool()
    if real is None and (before == 0 or length == 1):
        return None
    keys = torch.arange(before + length, device=ids.device)
    seen = (keys <= keys[before:, None])[None, None]
    seen = seen if real is None else seen & real[:, None, None, :]
    return seen.expand(batch, -1, -1, -1)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Return what each query takes from the values that it sees, [B, T, H · D].

    Args:
        query: [B, H, T, D].
        key: [B, G, S, D], G a divisor of H.
        value: [B, G, S, D].
        visible: as of `visible_keys`.
        scale: factor of the scores.
    """
    shared = query.shape[1] // key.shape[1]
    if shared > 1 and visible is not None:
        key, value = (each.repeat_interleave(shared, dim=1) for each in (key, value))
    taken = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=visible,
        scale=scale,
        is_causal=visible is None and query.shape[2] > 1,
        enable_gqa=shared > 1 and visible is None,
    )
    return taken.transpose(1, 2).flatten(2).contiguous()
