"""Error ids about texts."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

REFUSED = {
    "text.bad_example": "A prompt with its completion, or a pair, has an empty answer or is of other types than "
    "strings or lists of messages. → Correct the record that the message names, or leave it out with --skip-bad.",
    "text.bad_messages": "The messages or tools of a record cannot be read. → Correct the record that the message "
    "names, or leave it out with --skip-bad.",
    "text.bad_record": "A record is not JSON. → Correct the lines that the message lists, or leave them out with "
    "--skip-bad.",
    "text.binary": "The file looks binary, not like text. → Give a text file; an archive or model file is no text.",
    "text.changed": "The text changed while it was read. → Wait until it is written, then repeat.",
    "text.no_bytes": "No number per byte can be given for this text, since characters of it have no token. → Limit nll "
    "instead, or use a tokenizer that covers the text.",
    "text.no_field": "A record has no text in the field asked for. → Name the field with --text-field, with dots into "
    "objects, or leave out such records with --skip-bad.",
    "text.not_only_text": "A record holds images or sound. → Leave such records out with --skip-bad.",
    "text.not_rendered": "A conversation, a prompt with its completion or a pair was to be scored as plain text. → "
    "Score it with a checkpoint whose tokenizer has a chat template.",
    "text.not_text": "The file is of a kind that is no text, such as an archive or an image. → The hint says what to "
    "do.",
    "text.not_utf8": "The file is not valid UTF-8. → Convert it first, for instance with iconv, or leave it out with "
    "--skip-bad or --exclude.",
    "text.mixed_forms": "Some records of the text are messages and some are plain strings. → Split the file.",
    "text.other_kind": "A record is of another kind than the first one of the text. → Name the kind with --data-kind, "
    "put the others in a text of their own, or leave them out with --skip-bad.",
    "text.sha256": "The text is not the one that the audit file names by its sha256. → Restore the text, or write the "
    "new hash.",
    "text.surrogate": "A record holds half a surrogate pair, which is no character. → Correct the record in the line "
    "that the message names.",
    "text.too_large": "The text is larger than --max-bytes. → Raise --max-bytes.",
    "text.too_long": "A document is longer than one window, and the model's protocol does not cut it. → --context cuts "
    "longer documents.",
    "text.unknown": "More of the text than --max-unknown lies outside the vocabulary. → Check that text and tokenizer "
    "belong together, or raise --max-unknown.",
    "text.unreadable": "The file cannot be read. → Check its permissions, or whether it is damaged.",
    "text.utf16": "The file is UTF-16. → Convert it: iconv -f UTF-16 -t UTF-8.",
    "text.vanished": "More of the text than --max-unknown gets no token at all. → Check that text and tokenizer belong "
    "together, or raise --max-unknown.",
    "protocol.too_short": "The text is too short for one window of the protocol. → Use more text, or a smaller "
    "--context.",
}

USAGE = {
    "text.empty_folder": "The folder holds no file, or none that --include and --exclude leave. → Name a folder with "
    "UTF-8 files, or the file itself.",
    "text.field_and_kind": "--text-field is for plain text, and --data-kind asks for something else. → Leave one out.",
    "text.missing": "The text does not exist. → Check the path.",
    "text.no_input": "- was named, but standard input is closed. → Pipe a text into it.",
    "text.none": "No text was named. → Name a file, a folder, or - for standard input.",
    "text.separator": "--split-documents is no expression that can cut a text. → Use blank-line, line, or a regular "
    "expression that matches something.",
    "text.terminal": "- was named, but standard input is a terminal. → Pipe a text into it.",
}

NOTHING = {
    "text.nothing_to_score": "The text has no token that can be scored. → A document needs at least 2 tokens.",
    "tokens.none": "No scored token meets the condition of --where. → Loosen the condition.",
    "positions.no_answer": "No token that an assistant says has a loss. → Score again with --score assistant or all.",
    "objectives.none": "No scored token meets the condition. → Loosen --where, or leave out --full-windows.",
}

ERROR_IDS = (*error_ids(4, REFUSED), *error_ids(2, USAGE), *error_ids(5, NOTHING))
