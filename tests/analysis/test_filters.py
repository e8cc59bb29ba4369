"""`where`: comparisons become SQL that can hold nothing else."""

import pytest
from fake_runs import words
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.errors import UsageError
from lossprobe.run.filters import FIELDS, where_sql


@pytest.mark.parametrize(
    ("conditions", "sql"),
    [
        ([], "TRUE"),
        (["loss > 5"], '"loss_nats" > 5.0'),
        ([" loss_nats>=1e-3 AND rank==0 "], '"loss_nats" >= 0.001 AND "rank" = 0.0'),
        (["context != -2", "entropy<.5"], '"context" != -2.0 AND "entropy_nats" < 0.5'),
        (["margin = +1.", "uniform_loss <= 1E2"], '"margin_nats" = 1.0 AND "uniform_loss_nats" <= 100.0'),
    ],
)
def test_conditions_become_sql(conditions, sql):
    assert where_sql(conditions) == sql


@pytest.mark.parametrize(
    "text",
    [
        "", "loss", "loss >", "> 5", "loss > five", "loss > 5 and", "and", "loss > 5 or rank = 0", "loss > 5; rank = 0",
        "loss > 5 --", "loss > (5)", '"loss" > 5', "loss_nats) OR (1 = 1", "loss > 5) OR (TRUE", "1 = 1", "loss = loss",
        "loss > nan", "loss > inf", "loss > 1e999", "loss > 0x10", "loss > 1.2.3", "loss > .", "loss <> 5", "loss => 5",
        "unscored = 1", "text = 1", "loss > 5 UNION SELECT 1", "loss\x00 > 5", "loss > \u0665",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text):
    with pytest.raises(UsageError) as caught:
        where_sql(["rank = 0", text])
    assert (caught.value.id, caught.value.exit_code) == ("where.syntax", 2)
    assert "\x00" not in caught.value.message
    assert "loss_nats" in caught.value.hint


@given(st.text(alphabet="loss>=<! 0123.e+-and()'\";_ranktok*/\n", max_size=30))
def test_no_text_becomes_anything_but_comparisons(text):
    try:
        sql = where_sql([text])
    except UsageError:
        return
    for part in sql.split(" AND "):
        name, sign, number = part.split(" ")
        assert name.strip('"') in FIELDS.values()
        assert sign in ("<", "<=", "=", "!=", ">=", ">")
        float(number)


@pytest.mark.parametrize(
    ("condition", "tokens"),
    [
        ("loss > 1", [2, 3]),  # 2 and 3 bits are 1.39 and 2.08 nats; the first token has no loss
        ("loss < 100", [1, 2, 3]),
        ("context < 2", [0, 1]),
        ("token = 2 and loss > 0", [2]),
        ("token > 1e300", []),
    ],
)
def test_rows_without_a_loss_meet_no_condition_on_it(make_run, condition, tokens):
    run = make_run([words("first_token", 1, 2, 3)])
    rows = run.query(f"SELECT token FROM tokens WHERE {where_sql([condition])}")
    assert rows["token"].tolist() == tokens
