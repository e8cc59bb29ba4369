"""Error ids about commands, options and the program itself."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

USAGE = {
    "usage": "A command, option or argument is not known, missing, or out of range. → See --help of the command.",
    "argument.type": "An argument in Python is of another type than the function takes. → The message names the "
    "argument, what it takes and what it got.",
    "argument.unknown": "A keyword argument in Python, or a column, is not known. → The hint lists the known ones.",
    "compare.kl": "--kl needs both checkpoints and the text, or two runs that were compared with --kl before. → "
    "lossprobe compare A B TEXT --kl.",
    "compare.sources": "compare takes exactly two models. → lossprobe compare RUN RUN, or A B TEXT.",
    "curve.checkpoint": "--text without --checkpoint, or --checkpoint with several logs. → Name one log and its "
    "checkpoint.",
    "curve.log_as_checkpoint": "A training log stands where a checkpoint or run belongs. → lossprobe curve LOG.",
    "curve.run": "A stored run stands where a training log belongs. → Name the log that the trainer wrote.",
    "demo.missing": "This installation holds no bundled example. → Install the wheel, or run from a checkout.",
    "demo.training": "Training the small model of the demo failed. → The message has the last line of its error.",
    "doctor.versions": "An installed library is older than lossprobe needs. → Upgrade what the message names.",
    "explain.unknown": "lossprobe explain knows no such name. → lossprobe explain lists all names.",
    "fields.missing": "No document has this field, or this value in it. → The hint lists what the records have.",
    "folder.deleted": "The working folder was deleted. → Change to a folder that exists.",
    "gap.sources": "gap takes a checkpoint with a training and a validation text, or two runs. → lossprobe gap "
    "CHECKPOINT TRAIN VALIDATION, or gap RUN RUN.",
    "log.columns": "The log has no numbers under a name that --columns gives. → The hint lists what it has.",
    "log.empty": "The log has no bytes. → Name the file that the trainer writes to.",
    "log.kind": "The file is no training log: another JSON, a checkpoint, a picture, or text without losses. → Name "
    "the trainer's log, or say with --columns which of its names is the loss.",
    "log.line": "A line of the log is over 16 MiB long. → Name the trainer's log.",
    "log.no_files": "The folder holds no log of a known name, or several. → Name the file.",
    "log.no_loss": "No name in the log says that it is a loss. → --columns says which one is; the message lists them.",
    "log.number": "The loss in the log is text that is no number. → The message shows it.",
    "log.no_evaluation": "The log has no entry with this name of a loss. → --metric takes the name; the trainer must "
    "have evaluated.",
    "log.step": "The log has no such loss at the checkpoint's step, or several steps, and the checkpoint does not say "
    "its own. → Name the step with --step.",
    "log.unreadable": "The log cannot be read, or is no trainer_state.json where one is needed. → Name the one that "
    "the trainer saved beside the checkpoint.",
    "objectives.range": "A parameter of objectives is out of range. → Choose a value in the range that the message "
    "gives.",
    "options.scored_already": "The option is for scoring, and a stored run was given. → Name the checkpoint and the "
    "text.",
    "options.special_strings": "special_strings is neither control nor text. → Write control or text.",
    "path.unreachable": "A path cannot be reached: too long, no permission, or a loop of links. → Check the path and "
    "its permissions.",
    "positions.plain_text": "--by answer-position asks for answers, and the run is one of plain text. → Use context or "
    "document-position.",
    "protocol.by": "--by does not go with --protocol. → Leave out one of the two.",
    "protocol.no_prefix": "The protocol puts a token before each document that this model does not have. → Choose "
    "another protocol, or a tokenizer with this token.",
    "protocol.option": "The protocol decides this option itself. → Leave the option out.",
    "protocol.plot": "--plot goes with --protocol all only. → Leave out --plot, or use --protocol all.",
    "protocol.sources": "A stored run has its own windows, so that no protocol can be made of it. → Name the "
    "checkpoint and the text.",
    "reconcile.logged": "The logged number is no loss: not a number, infinite, 0 or less. → Type it as it is logged.",
    "reconcile.number": "No number to reconcile was given, or two. → Give --logged NUMBER or --log FILE.",
    "reconcile.option": "reconcile tries this by itself. → Leave the option out.",
    "selfcheck.output": "selfcheck stores one run under a name of its own. → Leave the option out.",
    "sources.no_checkpoint": "A text was named without a checkpoint. → Put the checkpoint before the text.",
    "sources.no_text": "Checkpoints were named without a text. → Put the text last.",
    "sources.one_run": "A run was named beside other sources. → Name exactly one run, without a text.",
    "sources.swapped": "A text stands in the place of the checkpoint, and a checkpoint in that of the text. → Put the "
    "checkpoint first.",
    "order.numbers": "The file of --order does not hold the number of every row once. → Write one row number a line, "
    "from 0.",
    "order.unreadable": "The file of --order cannot be read. → Check its path.",
    "score.plain_text": "--score asks for a role or a turn, and the text is plain text. → Leave --score out.",
    "score.special_strings": "--special-strings text would also take the template's own control tokens for text. → "
    "Leave it out for conversations.",
    "score.unknown_role": "--score asks for a role that no record of the text has. → The hint lists the roles.",
    "where.plain_text": "--where asks for a role, a turn or a part, and the run is one of plain text. → Leave it out.",
    "where.syntax": "The condition of --where cannot be read. → Write COLUMN, one of < <= = != >= >, and a NUMBER, or "
    "role or part, = or !=, and a word, joined by and: context >= 32 and role = assistant.",
    "windows.bos": "--bos always: there is no BOS token that the model knows. → Use --bos auto or never.",
    "windows.context": "--context is outside what the model or the protocol allows. → Choose a --context in the range "
    "that the message gives.",
    "windows.stride": "--stride must lie between 1 and the context. → Choose a smaller --stride.",
}

MEMORY = {
    "memory": "Memory ran out. → Lower --batch-size or --context.",
    "memory.limit": "The limit of address space (ulimit -v) is too low. → Raise it.",
}

ENDED = {
    1: {"internal": "A bug in lossprobe. → Run again with --debug, and please report it."},
    130: {"interrupted": "Ctrl-C was pressed. → Repeat the command; it goes on with what the message says is kept."},
    143: {"terminated": "SIGTERM ended it. → Repeat the command; it goes on with what the message says is kept."},
}

ERROR_IDS = (
    *error_ids(2, USAGE),
    *error_ids(7, MEMORY),
    *(term for code, declared in ENDED.items() for term in error_ids(code, declared)),
)
