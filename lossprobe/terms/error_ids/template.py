"""Error ids about chat templates."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

REFUSED = {
    "template.broken": "The chat template is not valid, or reads what a message does not have. → Correct the record "
    "that the message names, or name another template with --chat-template.",
    "template.memory": "Rendering a conversation exceeded its memory limit and was stopped. → Check the template: "
    "ordinary ones stay far below the limit.",
    "template.missing": "The checkpoint has no chat template, which conversations need, or several without a default. "
    "→ Name the file of one with --chat-template.",
    "template.time": "Rendering a conversation exceeded its time limit and was stopped. → Check the template: "
    "ordinary ones stay far below the limit.",
}

RECORDS = {
    "template.not_certain": "The parts of a rendered conversation cannot be told with certainty, since the template "
    "changes, repeats or mixes the turn that the message names. → Name a template that writes every message once.",
    "template.refused": "The chat template refuses the conversation, for example because roles do not alternate. → "
    "Correct or leave out the record.",
}

ERROR_IDS = (*error_ids(3, REFUSED), *error_ids(4, RECORDS))
