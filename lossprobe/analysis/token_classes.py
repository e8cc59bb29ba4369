"""What kind of token a row is, decided in SQL from the vocabulary and the row before."""

from __future__ import annotations

FORMS = ("special", "whitespace", "digits", "punctuation", "non-ascii", "word start", "word continuation")


def class_source() -> str:
    r"""Return a SQL relation: `tokens` with two more columns, each a partition of the rows.

    `occurrence`: "repeat" when the same id was already among the tokens the model saw, else "first".
    `form`, the first that applies: "special"; "whitespace" (nothing else in it); "digits", "punctuation" (ASCII, after
    an optional leading blank); "non-ascii" (a byte ≥ 0x80, also a part of a character); "word start" (letters after
    white space or at the start of the document) or "word continuation".
    """
    # unicode() of a stored byte string is not available, so bytes are compared in hexadecimal, two digits a byte.
    body = "regexp_replace(hex(v.bytes), '^20', '')"
    return f"""(
        SELECT *, CASE
            WHEN is_special THEN 'special'
            WHEN regexp_full_match(shown, '(09|0A|0B|0C|0D|20)+') THEN 'whitespace'
            WHEN regexp_full_match(body, '(3[0-9])+') THEN 'digits'
            WHEN regexp_full_match(body, '(2[1-9A-F]|3[A-F]|40|5[B-F]|60|7[B-E])+') THEN 'punctuation'
            WHEN regexp_matches(shown, '^(..)*[89A-F]') THEN 'non-ascii'
            WHEN regexp_matches(shown, '^(09|0A|0B|0C|0D|20)') OR previous IS NULL
                 OR regexp_matches(previous, '(09|0A|0B|0C|0D|20)$') THEN 'word start'
            ELSE 'word continuation' END AS form
        FROM (
            SELECT tokens.*, hex(v.bytes) AS shown, {body} AS body, v.special AS is_special,
                   lag(CASE WHEN v.special THEN '20' ELSE hex(v.bytes) END)
                       OVER (PARTITION BY document ORDER BY token) AS previous,
                   CASE WHEN coalesce(lag(token) OVER (PARTITION BY document, token_id ORDER BY token), -1)
                             >= token - context THEN 'repeat' ELSE 'first' END AS occurrence
            FROM tokens JOIN vocabulary v USING (token_id)))"""
