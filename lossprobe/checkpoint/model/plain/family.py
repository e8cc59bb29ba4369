"""What there is to know about a family of plain models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lossprobe.checkpoint.model.plain.language_model import PlainConfig, PlainLM
from lossprobe.checkpoint.model.plain.value_rules import ValueRule


@dataclass(frozen=True)
class PlainFamily:
    """A family for which there is a class here.

    Attributes:
        model_class: the class.
        needed: keys that must be stated, with their values.
        optional: further keys that may be.
        layers: the key that states the number of layers.
        configure: makes the configuration of settings that have passed; None where they do not fit together.
    """

    model_class: Callable[[Any], PlainLM]
    needed: Mapping[str, ValueRule]
    optional: Mapping[str, ValueRule]
    layers: str
    configure: Callable[[Mapping[str, Any]], PlainConfig | None]
