"""Open an adapter on its base, by peft, so strictly that no tensor of it can be missing, surplus or left out unseen.

The base's weights may be shared with other models. peft writes to those of them only that the adapter replaces (whole
embeddings, biases) or is merged into; these are copied first.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lossprobe.checkpoint.adapters.config import CONFIG, AdapterConfig, check_keys, read_adapter_config
from lossprobe.checkpoint.adapters.folder import doubts, find_base, template_place, tokenizer_place, weights_of
from lossprobe.checkpoint.adapters.patterns import doubtful_patterns, matched_patterns
from lossprobe.checkpoint.adapters.sharing import SharedBases
from lossprobe.checkpoint.adapters.tensors import Tensors, check_held, check_names, read_adapter
from lossprobe.checkpoint.adapters.vocabulary import fit_vocabulary, refuse_unfilled
from lossprobe.checkpoint.adapters.words import adapter_facts
from lossprobe.checkpoint.chat import with_template
from lossprobe.checkpoint.facts import AdapterFacts
from lossprobe.checkpoint.families.huggingface import LoadedFolder, with_tokenizer
from lossprobe.checkpoint.files.hashes import combined_sha256, file_sha256
from lossprobe.checkpoint.files.plain_files import absolute, followed_links
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts
from lossprobe.checkpoint.model.measured import tied_head
from lossprobe.checkpoint.model.model_config import building
from lossprobe.checkpoint.model.random_numbers import random_numbers_kept
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.errors import UsageError
from lossprobe.units import visible

NAME = "default"  # what peft calls the adapter in the model


def load_adapter(folder: Path, options: LoadOptions, bases: SharedBases) -> Checkpoint:
    """Return an adapter on its base, run beside the base's weights, or with `options.merge` merged into them.

    Args:
        folder: the adapter's folder.
        options: as in `open_checkpoint`.
        bases: loads the base, or has loaded it.

    Raises:
        CheckpointError: the adapter or the base is damaged, unsupported, or they do not belong together.
        UsageError: the base is not here, or peft is not installed.
    """
    config = read_adapter_config(folder, options.ignore_config)
    base = find_base(folder, config.recorded_base, options.base)
    peft = import_peft()  # what the user has to give comes first, then what is wrong with the adapter
    check_keys(folder, config)
    file = weights_of(folder)
    stored = read_adapter(file)
    place = options.tokenizer or tokenizer_place(folder, base)
    tokenizer = open_tokenizer(place, options.special_strings)
    loaded = bases.load(base, options)
    noticed = tuple(doubts(folder, config, base, loaded.model, loaded.facts.quantization))
    with random_numbers_kept("cpu"), building(visible(str(folder), 200)), _quiet():
        matched = matched_patterns(folder, config.values, [path for path, _ in loaded.model.named_modules()])
        adapted = _adapted(peft, file, loaded.model, config, stored)
        doubtful = tuple(doubtful_patterns(matched, config.values, adapted.base_model.targeted_module_names))
        numel = sum(each.numel() for each in stored.values())
        facts = adapter_facts(adapted, NAME, config, loaded.facts, numel, merged=options.merge)
        model = adapted.get_base_model()
        if options.merge:
            model = _merged(peft, adapted, folder)
        model = model.to(options.device).eval()
    told = (*config.notices, *noticed, *doubtful, *_untied(loaded.facts, model, options))
    made = _described((folder / CONFIG, file), loaded.facts, facts, model, told)
    opened = with_tokenizer(LoadedFolder(model, made, loaded.settings, loaded.shown), tokenizer, options)
    return with_template(opened, template_place(folder, base), options)


def _described(
    read: tuple[Path, Path], base: CheckpointFacts, adapter: AdapterFacts, model: Any, told: tuple[str, ...]
) -> CheckpointFacts:
    """Return the description of an adapter on its base.

    Args:
        read: the two files of the adapter's folder.
        base: description of the base.
        adapter: description of the adapter.
        model: the model with the adapter in it.
        told: notices about them.
    """
    hashes = {file: file_sha256(file) for file in read}
    parts = {"base": base.sha256, **{file.name: digest for file, digest in hashes.items()}}
    name = read[0].parent.resolve().name
    return replace(
        base,
        name=f"{name} merged" if adapter.merged else name,
        sha256=combined_sha256({**parts, **({"merged": "yes"} if adapter.merged else {})}),
        vocab_size=int(model.config.get_text_config().vocab_size),
        parameters=sum(weight.numel() for weight in model.parameters()),
        tied=tied_head(model),
        adapter=adapter,
        notices=(*base.notices, *followed_links(read), *told),
        files=(*absolute(read), *base.files),
        hashes=(*((str(file.absolute()), digest) for file, digest in hashes.items()), *base.hashes),
    )


def import_peft() -> Any:
    """Return the module `peft`.

    Raises:
        UsageError: `adapter.peft`: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        missing = visible(str(error), 80)
        raise UsageError(
            "adapter.peft", f"an adapter needs the library peft ({missing})", hint='pip install "lossprobe[peft]"'
        ) from None
    return peft


def _adapted(peft: Any, file: Path, model: Any, config: AdapterConfig, stored: Tensors) -> Any:
    """Return the base's model with the adapter in it, as peft's model, in eval mode.

    Args:
        peft: the module.
        file: the adapter's weights, for messages.
        model: the base's model, whose modules are changed.
        config: what adapter_config.json says.
        stored: the adapter's tensors.
    """
    fit_vocabulary(file, model, config, stored)
    if config.values.get("bias", "none") != "none":
        _own_biases(model)
    made = peft.LoraConfig(**copy.deepcopy(dict(config.values)), task_type="CAUSAL_LM", inference_mode=True)
    adapted = peft.PeftModelForCausalLM(model, made, NAME)
    names = {embeddings: _tensors_of(peft, adapted, embeddings=embeddings) for embeddings in (False, True)}
    check_names(file, stored, names[False], names[False] | names[True])
    peft.set_peft_model_state_dict(adapted, stored, NAME)
    held = _tensors_of(peft, adapted, embeddings=False) | _tensors_of(peft, adapted, embeddings=True)
    check_held(file, stored, held, adapted)
    refuse_unfilled(file, adapted.get_base_model())
    return adapted.eval()


def _tensors_of(peft: Any, adapted: Any, *, embeddings: bool) -> dict[str, torch.Tensor]:
    """Return the tensors of the adapter in a model, by the names that they have in its file."""
    found: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(
        adapted, adapter_name=NAME, save_embedding_layers=embeddings
    )
    return found


def _untied(base: CheckpointFacts, model: Any, options: LoadOptions) -> Iterator[str]:
    """Yield a notice where merging leaves an embedding and a head that were one, which other programs keep as one."""
    if options.merge and base.tied and not tied_head(model):
        yield (
            "the adapter changes the embedding or the head of a base that has one matrix for both: merged here, they "
            "are two; merge_and_unload of peft adds to the one matrix, which is another model"
        )


def _own_biases(model: Any) -> None:
    """Replace every bias by a copy, since an adapter that was trained with `bias` stores its own."""
    for part in model.modules():
        for name, weight in part.named_parameters(recurse=False):
            if name == "bias":
                setattr(part, name, torch.nn.Parameter(weight.detach().clone(), requires_grad=False))


def _merged(peft: Any, adapted: Any, folder: Path) -> Any:
    """Return the base's model with the adapter merged into copies of its weights.

    Each merged layer has its own copy: an embedding and a head that share their weights would get what is added to one
    of them in both, or twice.

    Raises:
        CheckpointError: `adapter.merge`: it cannot be merged.
    """
    for layer in adapted.modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            inner = layer.get_base_layer()
            if getattr(layer, "lora_bias", {}).get(NAME) and inner.bias is None:
                what = "cannot be merged: it adds a bias where the base's layer has none (lora_bias)"
                raise refusal("adapter.merge", folder, what, hint="score it without `merge`")
            for name, weight in list(inner.named_parameters(recurse=False)):
                setattr(inner, name, torch.nn.Parameter(weight.detach().clone(), requires_grad=False))
    return adapted.merge_and_unload(safe_merge=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence peft's warnings; what they are about is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
