"""Open a Hugging Face directory in one of several processes that hold its model together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from lossprobe.checkpoint.families.huggingface import load_prepared, with_tokenizer
from lossprobe.checkpoint.families.prepared import prepare
from lossprobe.checkpoint.files.plain_files import is_huggingface
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.model.autocast import AUTOCAST
from lossprobe.checkpoint.model.divided_lm import DividedLM
from lossprobe.checkpoint.model.division import DividedClass, Division, refuse_divided
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.quantized.weights import QuantizedWeights
from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer
from lossprobe.units import visible


def load_divided(path: Path, options: LoadOptions, division: Division) -> Checkpoint:
    """Return the model of a Hugging Face directory, of which this process holds slices.

    Args:
        path: the directory.
        options: as in `open_checkpoint`.
        division: which of the processes this is; all of them must call this.

    Raises:
        CheckpointError: `checkpoint.not_divided`: it cannot be divided; otherwise as `load_huggingface`.
        UsageError, ResourceError: as `load_huggingface`.
    """
    shown = visible(str(path), 200)
    if not is_huggingface(path):
        refuse_divided(shown, "it is no Hugging Face folder of a whole model")
    if options.dtype == AUTOCAST:
        refuse_divided(shown, "`dtype` autocast needs it whole")
    prepared = prepare(path, options)
    if isinstance(prepared.weights, QuantizedWeights):
        refuse_divided(shown, "its quantised weights become plain ones in one process")
    tokenizer = open_tokenizer(options.tokenizer or path, options.special_strings)
    divided = DividedClass(prepared.model_class, prepared.config, division, shown)
    loaded = load_prepared(replace(prepared, model_class=divided), options)
    return with_tokenizer(loaded, tokenizer, options, partial(DividedLM, division=division))
