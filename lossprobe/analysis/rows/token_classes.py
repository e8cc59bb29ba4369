"""What kind of token a row is, and what kind the model expected: decided in SQL from vocabulary and row before."""

from __future__ import annotations

# Names that tokenizers give to the end of a text, of a document in it, or of a turn in a conversation. An id counts
# only where the vocabulary marks it as special, so that a text about "</s>" holds none.
END_OF_TEXT = (
    "<|endoftext|>",  # GPT-2 and many after it
    "<|end_of_text|>",  # Llama 3
    "<|eot_id|>",  # Llama 3, of a turn
    "<|eom_id|>",  # Llama 3, of a message
    "<|eot|>",  # Llama 4, of a turn
    "</s>",  # SentencePiece: Llama 2, Mistral
    "<eos>",  # Gemma
    "<end_of_turn>",  # Gemma, of a turn
    "<EOS>",  # FundamentaLLM
    "[EOS]",
    "<|im_end|>",  # ChatML, of a turn
    "<|end|>",  # Phi 3, of a turn
    "<|return|>",  # gpt-oss, of a turn
    "<|END_OF_TURN_TOKEN|>",  # Command R, of a turn
    "<\uff5cend\u2581of\u2581sentence\uff5c>",  # DeepSeek, with its wide bars
)

FORMS = (
    "end of text", "special", "newline", "whitespace", "digits", "punctuation", "non-ascii", "word start",
    "word continuation",
)  # fmt: skip

# DuckDB matches text, not bytes, so bytes are compared in hexadecimal, two digits each.
BLANK = "(09|0A|0B|0C|0D|20)"
ENDS = ", ".join(f"'{name.encode().hex().upper()}'" for name in END_OF_TEXT)
ENTRIES = f"""
    SELECT token_id, CASE
        WHEN special AND hex(bytes) IN ({ENDS}) THEN 'end of text'
        WHEN special THEN 'special'
        WHEN regexp_full_match(hex(bytes), '(0A|0D)+') THEN 'newline'
        WHEN regexp_full_match(hex(bytes), '{BLANK}+') THEN 'whitespace'
        WHEN regexp_full_match(hex(bytes), '(20)?(3[0-9])+') THEN 'digits'
        WHEN regexp_full_match(hex(bytes), '(20)?(2[1-9A-F]|3[A-F]|40|5[B-F]|60|7[B-E])+') THEN 'punctuation'
        WHEN regexp_matches(hex(bytes), '^(..)*[89A-F]') THEN 'non-ascii'
        END AS entry_form,
        regexp_matches(hex(bytes), '^{BLANK}') AS starts_blank,
        special OR regexp_matches(hex(bytes), '{BLANK}$') AS ends_blank
    FROM vocabulary"""


def class_source(where: str = "TRUE") -> str:
    r"""Return a SQL relation: `tokens` with three more columns, each a partition of the scored rows.

    `occurrence`: "repeat" when the same id was already among the tokens the model saw, else "first".
    `form`, the first that applies: "end of text" (a special id named in `END_OF_TEXT`); "special"; "newline" (nothing
    but CR and LF in it); "whitespace" (nothing else in it); "digits", "punctuation" (ASCII, after an optional leading
    blank); "non-ascii" (a byte ≥ 0x80, also a part of a character); "word start" (anything else after white space, with
    a leading one of its own, or at the start of the document) or "word continuation".
    `predicted_form`: the form that the model's first choice would have had in the token's place, so after the same
    text; null without a prediction.

    Args:
        where: SQL condition on the rows of `tokens` that are read: whole documents, since a class depends on the tokens
            before.
    """
    return f"""(
        SELECT placed.* EXCLUDE (after_blank), {_form("actual")} AS form,
               CASE WHEN top_id IS NOT NULL THEN {_form("expected")} END AS predicted_form
        FROM (
            SELECT tokens.*,
                   coalesce(lag(ends_blank) OVER (PARTITION BY document ORDER BY token), TRUE) AS after_blank,
                   CASE WHEN coalesce(lag(token) OVER (PARTITION BY document, token_id ORDER BY token), -1)
                             >= token - context THEN 'repeat' ELSE 'first' END AS occurrence
            FROM tokens JOIN (SELECT token_id, ends_blank FROM ({ENTRIES})) USING (token_id) WHERE {where}) AS placed
        JOIN ({ENTRIES}) AS actual ON placed.token_id = actual.token_id
        LEFT JOIN ({ENTRIES}) AS expected ON placed.top_id = expected.token_id)"""


def _form(entry: str) -> str:
    """Return SQL for the form of a joined vocabulary entry at a row's place in the text."""
    return (
        f"CASE WHEN {entry}.entry_form IS NOT NULL THEN {entry}.entry_form "
        f"WHEN {entry}.starts_blank OR after_blank THEN 'word start' ELSE 'word continuation' END"
    )
