"""Error ids about tokenizers."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

REFUSED = {
    "tokenizer.auto_tokenizer": "transformers' AutoTokenizer, which the protocol's tool uses, cannot load these "
    "files. → Score without --protocol, or save the tokenizer again.",
    "tokenizer.bad_id": "An id of a character vocabulary is no whole number. → Write the tokenizer's file anew.",
    "tokenizer.broken": "The tokenizer cannot be built from its files. → Save it again with save_pretrained.",
    "tokenizer.failed": "The tokenizer failed on this text. → The message has its own words.",
    "tokenizer.format": "The file is no tokenizer of the kind that was expected there. → Name the right file with "
    "--tokenizer.",
    "tokenizer.id_gap": "The ids of a character vocabulary have a gap. → Write the tokenizer's file anew.",
    "tokenizer.id_out_of_range": "The tokenizer gives an id that the model does not have. → Take the tokenizer that "
    "the model was trained with.",
    "tokenizer.inconsistent": "Two parts of a tokenizer contradict each other. → Take all its files from one source.",
    "tokenizer.memory": "The tokenizer exceeded its memory limit and was stopped. → Check the tokenizer's files: "
    "ordinary ones stay far below the limit.",
    "tokenizer.missing": "The checkpoint has no tokenizer. → Save it with save_pretrained, or name one with "
    "--tokenizer.",
    "tokenizer.not_a_character": "An entry of a character vocabulary is not a single character. → Write the "
    "tokenizer's file anew.",
    "tokenizer.settings": "The settings of the tokenizer contradict each other, such as one id with two tokens. → "
    "Correct the file that the message names.",
    "tokenizer.specials": "The special tokens are not those that FundamentaLLM writes. → Take the tokenizer that was "
    "saved with the model.",
    "tokenizer.time": "The tokenizer exceeded its time limit and was stopped. → Check the tokenizer's files: ordinary "
    "ones stay far below the limit.",
    "tokenizer.too_large": "The file is too large for a meta.pkl. → Take the meta.pkl that was written with the data.",
    "tokenizer.unreadable": "The file of the tokenizer cannot be read. → Check its permissions.",
    "tokenizer.unsafe_pickle": "meta.pkl holds more than text and numbers, and was not loaded. → Do not trust it.",
    "tokenizer.vocab_size": "Tokenizer and model differ in the size of the vocabulary. → Take the tokenizer that "
    "belongs to the model.",
}

ERROR_IDS = (
    *error_ids(3, REFUSED),
    *error_ids(
        7,
        {"tokenizer.process": "No child process could be started for the tokenizer. → Raise the limit of processes."},
    ),
)
