"""The classes of tokens, and of what the model expected in their place, against a second definition over bytes."""

import re

import numpy as np
import pytest
from drawn_runs import write_drawn
from fake_runs import BOS, Doc

from lossprobe.analysis.rows.token_classes import END_OF_TEXT, FORMS, class_source

VOCABULARY = [
    b" lead", b"<|endoftext|>", b"<unk>", b"\n", b"\r\n", b" \n", b"  ", b"\t", b" 42", b"7", b".", b" (", "é".encode(),
    " naïve".encode(), b" the", b"ing", b"a\n", b"</s>", b"1st", b"",
]  # fmt: skip
SPECIAL = {1, 2}


def form_of(index: int, after_blank: bool) -> str:
    """Return the form of an entry of `VOCABULARY` after text that ends in a blank, or in none."""
    piece = VOCABULARY[index]
    if index in SPECIAL:
        return "end of text" if piece == b"<|endoftext|>" else "special"
    if re.fullmatch(rb"[\r\n]+", piece):
        return "newline"
    if re.fullmatch(rb"[ \t\n\v\f\r]+", piece):
        return "whitespace"
    if re.fullmatch(rb" ?[0-9]+", piece):
        return "digits"
    if re.fullmatch(rb" ?[!-/:-@\[-`{-~]+", piece):
        return "punctuation"
    if max(piece, default=0) >= 0x80:
        return "non-ascii"
    return "word start" if after_blank or piece[:1].isspace() else "word continuation"


def one_hot(tops, vocab: int) -> np.ndarray:
    logits = np.zeros((len(tops), vocab))
    logits[np.arange(len(tops)), tops] = 3.0
    return logits


def test_forms_of_the_token_and_of_the_first_choice(tmp_path):
    generator = np.random.default_rng(3)
    targets, tops = generator.integers(0, len(VOCABULARY), (2, 3000))
    documents = np.sort(generator.integers(0, 40, 3000))
    run = write_drawn(
        tmp_path / "run", one_hot(tops, len(VOCABULARY)), targets, documents,
        vocabulary=VOCABULARY, special=SPECIAL, rows_per_part=700,
    ).run  # fmt: skip
    frame = run.query(f"SELECT document, token, token_id, form, predicted_form FROM {class_source()} ORDER BY ALL")
    first = frame["token"] == 0
    assert frame.loc[first, "predicted_form"].isna().all()  # no prediction was made there
    assert frame.loc[first, "form"].tolist() == ["word start"] * 40
    rows = frame[~first]
    assert rows["token_id"].tolist() == targets.tolist()
    before = frame["token_id"].shift()[~first].astype(int)
    blank = [index in SPECIAL or VOCABULARY[index][-1:].isspace() for index in before]
    assert rows["form"].tolist() == [form_of(*pair) for pair in zip(targets, blank, strict=True)]
    assert rows["predicted_form"].tolist() == [form_of(*pair) for pair in zip(tops, blank, strict=True)]
    assert set(rows["form"]) == set(rows["predicted_form"]) == set(FORMS)


def test_no_row_is_lost_or_doubled_and_no_column_but_the_three_is_new(make_run):
    run = make_run([Doc([BOS, b"a", b"a"], ["special", 1, "masked"]), Doc([b"a"], ["first_token"])], vocab_size=9)
    frame = run.query(f"SELECT * FROM {class_source()} ORDER BY document, token")
    tokens = run.query("SELECT * FROM tokens ORDER BY document, token")
    assert sorted(frame.columns) == sorted([*tokens.columns, "form", "predicted_form", "occurrence"])
    assert frame[list(tokens.columns)].equals(tokens)


@pytest.mark.parametrize("name", END_OF_TEXT)
def test_an_end_of_text_is_a_special_id_with_a_known_name(tmp_path, name):
    pieces = [b" lead", name.encode(), name.encode(), b"<pad>"]
    run = write_drawn(
        tmp_path / "run", one_hot([1, 2, 3], 4), [2, 3, 1], [0, 0, 0], vocabulary=pieces, special={1, 3}
    ).run
    frame = run.query(f"SELECT form, predicted_form FROM {class_source()} WHERE token > 0 ORDER BY token")
    plain = "word continuation" if name.isascii() else "non-ascii"  # the same name as ordinary text
    assert frame["form"].tolist() == [plain, "special", "end of text"]
    assert frame["predicted_form"].tolist() == ["end of text", plain, "special"]
