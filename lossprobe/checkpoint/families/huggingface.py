"""Open Hugging Face directories: any decoder-only family that transformers has, with weights in safetensors files.

transformers builds the model, or where nothing about it is unusual a class of `checkpoint.model.plain`, which computes
the same, and `exact_load` gives it exactly the stored tensors. Code that a directory names is never run, an external
kernel is refused, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lossprobe.checkpoint.families.prepared import PreparedFolder, prepare
from lossprobe.checkpoint.families.streaming import gpus_for, not_streamed, refuse_streaming, why_streamed
from lossprobe.checkpoint.files.hashes import combined_sha256, hashing
from lossprobe.checkpoint.files.other_heads import telling_other_heads
from lossprobe.checkpoint.files.plain_files import absolute, followed_links
from lossprobe.checkpoint.files.tensors import compute_dtype
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.autocast import AUTOCAST, AUTOCAST_DTYPE, AutocastLM
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.model.context import context_limit
from lossprobe.checkpoint.model.exact_load import LoadedModel, load_exactly
from lossprobe.checkpoint.model.measured import parameters_of, stored_dtype, tied_head
from lossprobe.checkpoint.model.model_config import building
from lossprobe.checkpoint.model.spread import spread_over
from lossprobe.checkpoint.model.streamed.layer_list import NotStreamableError
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.quantized.converted import check_converted
from lossprobe.checkpoint.quantized.weights import QuantizedWeights
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.begun import BegunTokenizer
from lossprobe.checkpoint.tokenizers.tokenizer_readers import FilesTokenizer, open_tokenizer, stated_ids
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.model.streamed.streamed_weights import StreamedWeights

Kind = Callable[[Any, CheckpointFacts, Tokenizer], Checkpoint]
# How a model is refused that can be built, but not without values or layer by layer.
COULD_NOT = ("checkpoint.not_streamed", "checkpoint.bad_config")


@dataclass(frozen=True)
class LoadedFolder:
    """The model of a Hugging Face directory, before it has a tokenizer.

    Attributes:
        model: the model, in eval mode, on its device.
        facts: description of it, without what its tokenizer adds.
        settings: the content of config.json.
        shown: the path of the directory, for messages.
        streamed: reads its layers while it computes; None for a model that is in memory.
    """

    model: Any
    facts: CheckpointFacts
    settings: Mapping[str, Any]
    shown: str
    streamed: StreamedWeights | None = None


def load_huggingface(path: Path, options: LoadOptions, begun: BegunTokenizer | None = None) -> Checkpoint:
    """Return the model of a Hugging Face directory, in eval mode, split into body and head.

    Args:
        path: the directory.
        options: as in `open_checkpoint`.
        begun: its tokenizer, if its child process has been started.

    Raises:
        CheckpointError: the configuration, the weights or the tokenizer are missing, damaged, unsupported or contradict
            each other, so that losses would be wrong.
        UsageError: `options.dtype` is not one of the choices.
        ResourceError: the model does not fit into memory.
    """
    prepared = prepare(path, options, plain=options.device == "cpu" and options.dtype != AUTOCAST)
    tokenizer = open_tokenizer(options.tokenizer or path, options.special_strings, begun)
    dtype = _weights_dtype(stored_dtype(prepared.weights.unquantized), options)
    why, shown = why_streamed(prepared.weights, dtype, options), visible(str(path), 200)
    told: tuple[str, ...] = ()
    if why is not None:
        if prepared.plain:  # only transformers' classes can be built without weights
            prepared = prepare(path, options)
        try:
            return with_tokenizer(load_prepared(prepared, options, why), tokenizer, options)
        except CheckpointError as error:
            if error.id not in COULD_NOT:
                raise
            told = (not_streamed(shown, why, error, options),)
    loaded = load_prepared(prepared, options, gpus=gpus_for(prepared.weights, dtype, options))
    return with_tokenizer(replace(loaded, facts=with_notices(loaded.facts, told)), tokenizer, options)


def load_folder(path: Path, options: LoadOptions) -> LoadedFolder:
    """Return the model of a Hugging Face directory, before it has a tokenizer; errors as in `load_huggingface`."""
    refuse_streaming(visible(str(path), 200), "an adapter, and a base that several share,", options)
    return load_prepared(prepare(path, options), options)


def load_prepared(
    prepared: PreparedFolder, options: LoadOptions, why: str | None = None, gpus: Sequence[int] = ()
) -> LoadedFolder:
    """Return the model of a directory with its weights, or with what reads them layer by layer.

    Args:
        prepared: the directory.
        options: as in `open_checkpoint`.
        why: why they are read layer by layer, "" where the user asked for it; None where they are not.
        gpus: the GPUs over which its layers are spread; none for one device.
    """
    path, settings, config, weights = prepared.path, prepared.settings, prepared.config, prepared.weights
    shown = visible(str(path), 200)
    stored = stored_dtype(weights.unquantized)
    read = (path / "config.json", *weights.files, *weights.index, *weights.said_by)
    hashes_of = hashing(file for file in read if file not in weights.index)
    with hashes_of as hashed, telling_other_heads(path, settings, weights.entries):
        loaded, streamed = _weighted(prepared, _weights_dtype(stored, options), options, why)
        model = loaded.model
        if isinstance(weights, QuantizedWeights):
            check_converted(path, weights, model, loaded.names.plain)
        with building(shown):
            limit = context_limit(model, f"{shown}/config.json")
            unstated = () if prepared.plain else _unstated(model, settings, f"{shown}/config.json")
        if streamed is not None:
            streamed.place(options.device)  # the model is as its class makes it until then
        hashes = hashed()
    with building(shown):
        device = spread_over(model, gpus) if gpus else options.device
        if streamed is None and not gpus:
            model = model.to(device)
        facts = CheckpointFacts(
            name=path.resolve().name,
            family=str(settings["model_type"]),
            sha256=combined_sha256({file.name: digest for file, digest in hashes.items()}),
            vocab_size=int(config.get_text_config().vocab_size),
            context_length=limit.length,
            hard_limit=limit.hard,
            parameters=parameters_of(model) if streamed is None else streamed.parameters,
            stored_dtype=weights.dtype or stored,
            quantization=weights.quantization,
            compute_dtype=AUTOCAST_DTYPE if options.dtype == AUTOCAST else str(model.dtype).removeprefix("torch."),
            device=device,
            tied=tied_head(model) if streamed is None else streamed.tied,
            config_from=prepared.ignored.source,
            notices=(
                *weights.notices,
                *loaded.notices,
                *prepared.ignored.notices,
                *unstated,
                *followed_links(read),
                *([f"{shown}: {why}: they are read layer by layer"] if why else []),
                *([f"{shown}: one GPU has no room for it: its layers are spread over {len(gpus)}"] if gpus else []),
            ),
            files=absolute(read),
            hashes=tuple((str(file.absolute()), digest) for file, digest in hashes.items()),
        )
        return LoadedFolder(model, facts, settings, shown, streamed)


def _weighted(
    prepared: PreparedFolder, dtype: torch.dtype, options: LoadOptions, why: str | None
) -> tuple[LoadedModel, StreamedWeights | None]:
    """Return the model of a directory with its weights, or without and what reads them."""
    path, weights = prepared.path, prepared.weights
    if why is None:
        return load_exactly(path, prepared.model_class, prepared.config, weights, dtype), None
    if options.dtype == AUTOCAST:
        raise NotStreamableError("`dtype` autocast needs it whole")
    from lossprobe.checkpoint.model.streamed.streamed_weights import load_streamed

    return load_streamed(path, prepared.model_class, prepared.config, weights, dtype)


def _unstated(model: Any, settings: Mapping[str, Any], shown: str) -> tuple[str, ...]:
    """Return what `tell_unstated` does, whose module is for models of transformers and loads its classes."""
    from lossprobe.checkpoint.model.unstated import tell_unstated

    return tell_unstated(model, settings, shown)


def with_notices(facts: CheckpointFacts, notices: tuple[str, ...]) -> CheckpointFacts:
    """Return facts with notices added."""
    return replace(facts, notices=(*facts.notices, *notices))


def with_tokenizer(
    loaded: LoadedFolder, tokenizer: FilesTokenizer, options: LoadOptions, kind: Kind | None = None
) -> Checkpoint:
    """Return a loaded model with its tokenizer, split into body and head by a class of checkpoints, None for the usual.

    Raises:
        CheckpointError: the two contradict each other, or the model is no next-token predictor.
    """
    tokenizer.compare_with_auto_tokenizer()
    facts, shown = loaded.facts, loaded.shown
    words = getattr(tokenizer, "files", ())
    new = [file for file in words if options.tokenizer is None and str(file.absolute()) not in facts.files]
    with building(shown):
        differing = settle_ends(tokenizer, loaded.settings, facts.vocab_size)
        facts = replace(
            facts,
            notices=(
                *facts.notices,
                *followed_links(new),
                *getattr(tokenizer, "notices", ()),
                *(f"{shown}: {notice}" for notice in differing),
            ),
            files=tuple(dict.fromkeys((*facts.files, *absolute(words)))),
        )
        if loaded.streamed is not None:
            from lossprobe.checkpoint.model.streamed.streamed_lm import StreamedLM

            return StreamedLM(loaded.model, facts, tokenizer, loaded.streamed)
        return (kind or _kind(options))(loaded.model, facts, tokenizer)


def _weights_dtype(stored: str, options: LoadOptions) -> torch.dtype:
    """Return the dtype of the weights in memory."""
    return compute_dtype(stored, "float32" if options.dtype == AUTOCAST else options.dtype)


def _kind(options: LoadOptions) -> type[CausalLM]:
    """Return the class that runs the model."""
    return AutocastLM if options.dtype == AUTOCAST else CausalLM


def settle_ends(tokenizer: BackendTokenizer, settings: Mapping[str, Any], vocab_size: int) -> list[str]:
    """Set the tokenizer's BOS from config.json where the tokenizer's files name none.

    Args:
        tokenizer: its `bos_id` is changed in place.
        settings: the content of config.json, which may list several EOS ids.
        vocab_size: number of ids of the model; a BOS id beyond them is not used.

    Returns:
        A notice for BOS and for EOS where config.json contradicts the tokenizer's files.
    """
    notices = []
    for role, own in (("bos", tokenizer.bos_id), ("eos", tokenizer.eos_id)):
        ids = stated_ids(settings, role)
        if role == "bos" and own is None and 0 <= (ids[0] or 0) < vocab_size:
            tokenizer.name_bos(ids[0])
        elif own is not None and own not in ids and ids != [None]:
            listed = ", ".join(map(str, ids[:4]))
            notices.append(
                f"{role.upper()} is id {own} in the tokenizer's files, {listed} in config.json; {own} is used"
            )
    return notices
