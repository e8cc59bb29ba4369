"""Load a base once, and hand out models that share its weights, so that several adapters cost one load."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.families.huggingface import LoadedFolder, load_folder, with_tokenizer
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer


class SharedBases:
    """Keeps the base that was loaded last; nothing that is handed out changes it."""

    def __init__(self) -> None:
        self._key: tuple[Path, LoadOptions] | None = None
        self._loaded: LoadedFolder | None = None
        self._versions: dict[str, int] = {}

    def open(self, path: Path, options: LoadOptions) -> Checkpoint:
        """Return the checkpoint of a Hugging Face folder, as `load_huggingface` does."""
        tokenizer = open_tokenizer(options.tokenizer or path, options.special_strings)
        return with_tokenizer(self.load(path, options), tokenizer, options)

    def load(self, path: Path, options: LoadOptions) -> LoadedFolder:
        """Return the model of a Hugging Face folder, with modules of its own and weights that others share.

        A family whose forward pass changes weights in place (RWKV) is loaded again each time.

        Raises:
            LossprobeError: as in `families.huggingface.load_folder`.
        """
        plain = replace(options, tokenizer=None, chat_template=None, special_strings="control", base=None, merge=False)
        key = (path.resolve(), plain)
        if self._loaded is None or key != self._key or _versions(self._loaded.model) != self._versions:
            self._loaded = None  # so that its memory is free before the next one is loaded
            loaded = load_folder(path, plain)
            self._key, self._loaded, self._versions = key, loaded, _versions(loaded.model)
        return replace(self._loaded, model=sharing_weights(self._loaded.model))


def sharing_weights(model: Any) -> Any:
    """Return a copy of a model with its own modules and buffers, and the same parameters."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def _versions(model: Any) -> dict[str, int]:
    """Return how often each weight was changed in place, by name."""
    return {name: weight._version for name, weight in model.named_parameters()}
