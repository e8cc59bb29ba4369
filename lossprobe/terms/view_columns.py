"""The columns of the tables that views print, where no stored column and no number has the name."""

from __future__ import annotations

from lossprobe.terms.term import Term


def table_columns(command: str, declared: dict[str, str]) -> tuple[Term, ...]:
    """Return the terms of columns of one view's table.

    Args:
        command: a command line that prints the table.
        declared: column to what it holds; names joined by a blank are aliases.
    """
    terms = []
    for names, what in declared.items():
        name, *aliases = names.split()
        terms.append(Term(name, what, "column", command=command, aliases=tuple(aliases)))
    return tuple(terms)


TERMS = (
    *table_columns(
        "lossprobe tokens",
        {
            "top_text": "The text of the model's first choice; in the CSV a JSON string literal.",
            "text": "The text of the token: in the CSV a JSON string literal from which its bytes can be restored, "
            "elsewhere with what cannot be printed escaped.",
        },
    ),
    *table_columns(
        "lossprobe positions",
        {
            "context_last": "The last amount of context of the bin; its first is context.",
            "count": "Scored tokens in the row.",
        },
    ),
    *table_columns(
        "lossprobe positions --by document-position",
        {"position position_last": "The first (and last) index in the document of the bin's tokens, from 0."},
    ),
    *table_columns(
        "lossprobe hardest",
        {
            "before after": "The text before (and after) the token, with what cannot be printed escaped; in the "
            "CSV a JSON string literal.",
            "characters": "The characters that the token lies in; in the CSV a JSON string literal.",
            "begins": "How the document begins; in the CSV a JSON string literal.",
            "record_id record_source": "The field id (and source) of the JSONL record, where records have it; "
            "plain text in the CSV.",
            "hardest_by": "The ordering that the entry leads in: by mean or by total loss.",
            "class kind": "The class of the tokens, and its kind: the form of the token, or its occurrence, first "
            "or repeat among the tokens of its window that the model saw.",
        },
    ),
    *table_columns(
        "lossprobe defects",
        {
            "cause places": "What is wrong, as --cause takes it, and in how many places it was found.",
            "details example": "Which kinds of the cause there are, with their counts; and the place with the most "
            "loss, between marks.",
        },
    ),
    *table_columns(
        "lossprobe defects --csv",
        {
            "detail": "Which kind of the cause the place has, such as the encoding that its text was read as.",
            "copy_of": "The document that has the same text first; empty for what is no copy. first_loss_nats is the "
            "mean loss there.",
            "meant": "What the text should be, where that is known; in the CSV a JSON string literal.",
            "excerpt": "The place between marks with what stands around it, what cannot be printed escaped, no secret "
            "whole; in the CSV a JSON string literal.",
        },
    ),
    *table_columns(
        "lossprobe perplexity",
        {
            "measure value unit": "One number a row: its name, its value and its unit.",
            "documents": "Documents in the row.",
        },
    ),
    *table_columns(
        "lossprobe perplexity --by document",
        {
            "group": "What the row is about: a document, a value (empty for documents without the field), a class, a "
            "vocabulary entry. Plain text in the CSV, and a JSON string literal for an entry."
        },
    ),
    *table_columns(
        "lossprobe calibration",
        {
            "model": "The model that the row is about; plain text in the CSV.",
            "binning": "How the bins are cut: equal width, equal mass, or log10 p over all vocabulary entries.",
            "mean_probability hit_rate": "The mean probability of a bin, and how often it came true.",
            "gap gap_low gap_high": "Mean probability minus hit rate of a bin, and its interval.",
        },
    ),
    *table_columns(
        "lossprobe compare A B TEXT --by token",
        {
            "first_top_text second_top_text": "The text of the first choice of the first (and second) model; "
            "in the CSV a JSON string literal.",
            "direction": "Whether the second model is worse or better there.",
            "transition": "Whether the token was forgotten or learned.",
        },
    ),
    *table_columns(
        "lossprobe compare A B TEXT --kl --csv",
        {"first_top_id second_top_id": "The id of the first choice of the first (and second) model."},
    ),
    *table_columns(
        "lossprobe compare A B TEXT --by class",
        {"significant": "Whether the slice differs at the 5 % level after Holm's correction (p_holm)."},
    ),
    *table_columns(
        "lossprobe objectives",
        {
            "objective convention": "The loss of the row, and its formula with the parameter.",
            "mean sum": "The mean and the sum of the objective over the scored tokens.",
            "windows batches": "Windows in a micro-batch, and how many micro-batches there are.",
            "scale": "The loss scale that the gradient is multiplied by before float16.",
            "loss_low_nats loss_high_nats": "The range of the loss of the tokens in the row.",
            "share_of_objective": "The share of the objective that these tokens carry.",
        },
    ),
    *table_columns(
        "lossprobe gap MODEL TRAIN VALIDATION",
        {
            "train_tokens validation_tokens": "Scored tokens of the row in the training (and validation) text.",
            "train_loss_nats validation_loss_nats": "Mean loss of the row in the training (and validation) text.",
            "train_low train_high validation_low validation_high": "The interval of the loss before it.",
        },
    ),
    *table_columns(
        "lossprobe curve LOG",
        {
            "log": "The name of the log that the row is about.",
            "key": "What the log calls the series.",
            "split": "What it was measured on: train, validation, test, train_evaluated (the training text measured as "
            "validation is), or the log's name of another text.",
            "name": "What it is: loss, learning_rate, grad_norm, entropy, accuracy, or the log's own name.",
            "points not_finite": "Values of the series, and how many of them are NaN or infinite.",
            "first_step last_step": "The first and the last step of the series, or of what was found.",
            "first_value last_value": "The first and the last value of the series; a loss is in nats.",
            "lowest lowest_step": "The lowest value of the series, and its step.",
            "noise": "The standard deviation of the values about their curve.",
            "trend trend_low trend_high": "The change per 1,000 steps over the last half of the values, and its 95 % "
            "interval.",
            "diagnosis": "The name of what was found, as --fail-on takes it; the how-to page lists all of them.",
            "fault": "Whether something is wrong; otherwise it is only worth knowing.",
            "size size_low size_high unit": "How large the finding is, its 95 % interval where it has one, and its "
            "unit; a ratio has none.",
            "evidence": "What was seen, in one sentence with its numbers.",
            "causes remedies": "Likely causes, the likeliest first; and what to do, in the same order.",
        },
    ),
    *table_columns(
        "lossprobe curve LOG --csv",
        {
            "step": "The optimizer step of the value; the row of a log without steps.",
            "epoch": "Epochs at the step; empty where the log does not say.",
            "tokens_seen": "Training tokens up to the step; empty where the log does not say.",
            "value": "The value; a loss is in nats, also where the log has bits.",
        },
    ),
    *table_columns(
        "lossprobe preferences MODEL PAIRS",
        {
            "pair": "The number of the pair, from 0.",
            "chosen_tokens rejected_tokens": "Scored tokens of the chosen (and rejected) answer.",
            "ranking": "right, wrong or tie by the sum of log-probabilities; or why the pair is not ranked: equal "
            "sides, no tokens.",
            "right_low right_high per_token_low per_token_high reward_low reward_high": "The interval of the share "
            "before it.",
            "prompt_end chosen_begins rejected_begins": "How the prompt ends, and how the chosen (and rejected) answer "
            "begins.",
        },
    ),
    *table_columns(
        "lossprobe perplexity MODEL TEXT --protocol all",
        {
            "protocol": "The name of the protocol; lossprobe explain NAME says what it does.",
            "headline": "The number that the tool prints first.",
            "why": "In what the protocol differs from lossprobe's own way.",
        },
    ),
    *table_columns(
        "lossprobe runs",
        {
            "text_name folder": "The name of the run's text, and of the run's folder; plain text in the CSV. Text and "
            "model are named as soon as a run is planned, tokens once it is finished.",
            "latest": "Whether views take this run where none is named.",
            "state": "complete, or why the run cannot be opened: unfinished, damaged, schema.",
            "changed size": "When the run was finished (UTC), and the bytes of its files.",
        },
    ),
    *table_columns(
        "lossprobe reconcile MODEL TEXT --logged 3.768",
        {
            "recipe": "How a program may have made the logged number, in words.",
            "agrees": "Whether the recipe gives the logged number to its printed digits.",
            "same_number": "Recipes of other programs that give the same number, in words.",
        },
    ),
    *table_columns(
        "lossprobe series CHECKPOINTS TEXT",
        {
            "step": "The training step of the checkpoint; its epoch, or its number from 1 on, where no step is known.",
            "difference_low difference_high": "The interval of difference_nats, the loss minus that of the checkpoint "
            "before on the same tokens.",
            "excess_low excess_high": "The interval of nll_minus_entropy_nats.",
        },
    ),
    *table_columns(
        "lossprobe series CHECKPOINTS TEXT --state forgotten",
        {
            "learned_at_step": "The step from which on the token is below the threshold; no value where it is not at "
            "the last checkpoint.",
            "last_loss_nats": "The loss of the token, or the mean loss of the slice, at the last checkpoint; "
            "first_loss_nats is that at the first.",
            "lowest_loss_nats lowest_at_step": "The lowest loss that the token had, and the step of it.",
        },
    ),
    *table_columns(
        "lossprobe selfcheck MODEL TEXT", {"check setting": "What was changed, and what it was changed to."}
    ),
)
