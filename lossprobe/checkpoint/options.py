"""The options with which a user opens a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lossprobe.options.declare import option
from lossprobe.options.kinds import Choice, File, Flag, Text, Words

DEVICE = Text("auto|cpu|mps|cuda(:[0-9]{1,4})?", "auto, cpu, cuda, cuda:N (N up to 9999) or mps")

ALWAYS, NEVER = "always", "never"  # of `stream_weights`


@dataclass(frozen=True)
class LoadOptions:
    """Choices a user can make when opening a checkpoint.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; "cuda" without a number spreads a model that one GPU has no
            room for over all.
        dtype: dtype of the forward pass: "float32", "bfloat16", "float16", "auto" for the stored one, or
            "autocast": float32 weights under autocast to bfloat16, as trainers evaluate with bf16=True.
        tokenizer: file or directory to read the tokenizer from, when the checkpoint does not hold it.
        gelu: "erf" or "tanh", for nanoGPT files, which do not say which one they were trained with.
        ignore_config: keys of the checkpoint's configuration to leave out.
        chat_template: file of the chat template to use in place of the checkpoint's own, a Jinja file or a folder or
            tokenizer_config.json that holds one.
        special_strings: how the name of a special token in a text is tokenized: as its "control" id, which is what
            tokenizers do by default, or as "text". Character tokenizers always treat it as text.
        base: folder of the base model of an adapter, where its adapter_config.json names no folder of this machine.
        merge: whether an adapter is merged into its base's weights, which rounds otherwise, before it is scored.
        dequantize: load the weights of a GGUF file into transformers' class, where llama.cpp would run the file.
        stream_weights: read the weights of a Hugging Face folder layer by layer while it is scored, each once for
            several parts of a text: "auto" does where they exceed the memory that is free, "always", or "never".
    """

    device: str = option(
        "cpu", DEVICE, "Where the model runs; cuda: all GPUs if one has no room.", metavar="auto|cpu|cuda[:N]|mps"
    )
    dtype: str = option(
        "float32",
        Choice(("auto", "float32", "bfloat16", "float16", "autocast")),
        "Dtype of the forward pass; auto: as the weights are stored; autocast: float32 weights under autocast to "
        "bfloat16, as trainers with bf16=True. Losses are float32 always.",
    )
    tokenizer: Path | None = option(
        None, File(), "File or folder of the tokenizer (tokenizer.json, meta.pkl), when the checkpoint has none."
    )
    gelu: str = option(
        "erf",
        Choice(("erf", "tanh")),
        "GELU variant of a nanoGPT checkpoint, which does not state it; tanh before June 2023.",
    )
    ignore_config: tuple[str, ...] = option(
        (),
        Words(),
        "Leave out a key of the checkpoint's configuration that you know not to matter; may be repeated.",
        metavar="KEY",
    )
    chat_template: Path | None = option(
        None, File(), "File of the chat template to use in place of the checkpoint's own."
    )
    special_strings: str = option(
        "control",
        Choice(("control", "text")),
        "Tokenize the name of a special token (<|endoftext|>) in a text as its control id, or as text.",
    )
    base: Path | None = option(
        None, File(), "Folder of the base model of an adapter, where the adapter's own files name none that is here."
    )
    merge: bool = option(
        False, Flag(), "Merge an adapter into the weights of its base first, in place of running it beside them."
    )
    dequantize: bool = option(
        False, Flag(), "Run the weights of a GGUF file in transformers, where llama.cpp would run the file itself."
    )
    stream_weights: str = option(
        "auto",
        Choice(("auto", ALWAYS, NEVER)),
        "Read the weights layer by layer while scoring; auto: where they exceed the memory that is free.",
    )
