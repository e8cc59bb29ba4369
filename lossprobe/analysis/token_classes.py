"""What kind of token a row is, decided in SQL from the vocabulary and the row before."""

from __future__ import annotations

FORMS = ("special", "whitespace", "digits", "punctuation", "non-ascii", "word start", "word continuation")

# DuckDB matches text, not bytes, so bytes are compared in hexadecimal, two digits each.
BLANK = "(09|0A|0B|0C|0D|20)"
ENTRIES = f"""
    SELECT token_id, CASE
        WHEN special THEN 'special'
        WHEN regexp_full_match(hex(bytes), '{BLANK}+') THEN 'whitespace'
        WHEN regexp_full_match(hex(bytes), '(20)?(3[0-9])+') THEN 'digits'
        WHEN regexp_full_match(hex(bytes), '(20)?(2[1-9A-F]|3[A-F]|40|5[B-F]|60|7[B-E])+') THEN 'punctuation'
        WHEN regexp_matches(hex(bytes), '^(..)*[89A-F]') THEN 'non-ascii'
        END AS entry_form,
        regexp_matches(hex(bytes), '^{BLANK}') AS starts_blank,
        special OR regexp_matches(hex(bytes), '{BLANK}$') AS ends_blank
    FROM vocabulary"""


def class_source() -> str:
    r"""Return a SQL relation: `tokens` with two more columns, each a partition of the rows.

    `occurrence`: "repeat" when the same id was already among the tokens the model saw, else "first".
    `form`, the first that applies: "special"; "whitespace" (nothing else in it); "digits", "punctuation" (ASCII, after
    an optional leading blank); "non-ascii" (a byte ≥ 0x80, also a part of a character); "word start" (anything else
    after white space, with a leading one of its own, or at the start of the document) or "word continuation".
    """
    return f"""(
        SELECT tokens.*,
               CASE WHEN entry_form IS NOT NULL THEN entry_form
                    WHEN starts_blank OR coalesce(lag(ends_blank) OVER (PARTITION BY document ORDER BY token), TRUE)
                    THEN 'word start' ELSE 'word continuation' END AS form,
               CASE WHEN coalesce(lag(token) OVER (PARTITION BY document, token_id ORDER BY token), -1)
                         >= token - context THEN 'repeat' ELSE 'first' END AS occurrence
        FROM tokens JOIN ({ENTRIES}) USING (token_id))"""
