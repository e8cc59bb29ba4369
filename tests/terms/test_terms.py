"""Every name that lossprobe prints is declared once, and nothing is declared that it does not print."""

from __future__ import annotations

import pytest
from error_ids_in_code import ids_in_code

from lossprobe.analysis.calibration.measures import MEASURES
from lossprobe.analysis.objectives.formulas import ObjectiveOptions, objectives_of
from lossprobe.audit.checks.metrics import METRICS, metric_of
from lossprobe.audit.settings import Check, Limit
from lossprobe.errors import EXIT_CODES
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.run.schema import DOCUMENT_COLUMNS, TABLES, TOKEN_COLUMNS, columns_of
from lossprobe.terms.catalogue import all_terms, find_terms, nearest_names, normalized
from lossprobe.terms.error_ids import ERROR_IDS
from lossprobe.terms.numbers import NUMBERS
from lossprobe.terms.term import KINDS


def of_kind(kind: str) -> dict[str, object]:
    return {term.name: term for term in all_terms() if term.kind == kind}


def test_every_error_id_in_the_code_is_declared_with_its_exit_code_and_no_other():
    assert {term.name: {term.exit_code} for term in ERROR_IDS} == ids_in_code()


def test_every_exit_code_protocol_metric_and_column_is_a_term():
    assert list(of_kind("exit code")) == [str(code) for code in EXIT_CODES]
    assert set(of_kind("protocol")) == set(PROTOCOLS)
    assert set(of_kind("audit metric")) == set(METRICS)
    stored = {column.name for table in TABLES for column in columns_of(table, 0)}
    assert stored <= set(of_kind("column"))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_the_unit_that_it_is_computed_in(name):
    check = Check("x", "data", name, Limit("max", 1.0), nats=10.0, quantile=0.5)
    assert of_kind("audit metric")[name].unit == metric_of(check, 1024).unit


def test_a_number_has_the_unit_that_its_view_shows():
    shown = dict(MEASURES) | {each.name: each.unit for each in objectives_of(ObjectiveOptions(), 1024)}
    for name, unit in shown.items():
        (number,) = (term for term in find_terms(name) if term.kind == "number")
        assert number.unit.removesuffix(" per token") == unit.removesuffix(" per token"), name


@pytest.mark.parametrize("column", [*TOKEN_COLUMNS, *DOCUMENT_COLUMNS], ids=lambda column: column.name)
def test_the_kind_of_a_column_is_the_name_of_its_arrow_type(column):
    assert str(column.type).replace("dictionary<values=string, indices=int8, ordered=0>", column.kind) == column.kind


def test_no_name_is_declared_twice_in_a_kind():
    for kind in set(KINDS) - {"column"}:
        names = [normalized(name) for term in all_terms() if term.kind == kind for name in term.names]
        assert len(names) == len(set(names)), kind
    columns = [(term.name, term.stored_in, term.command) for term in all_terms() if term.kind == "column"]
    assert len(columns) == len(set(columns))


def test_a_term_says_what_it_is_in_whole_sentences():
    for term in all_terms():
        named = f"{term.kind} {term.name} {term.stored_in}"
        assert term.kind in KINDS, named
        assert term.what, named
        for text in (term.what, term.how_to_read, term.remedy):
            assert not text or text.endswith("."), named
            assert "  " not in text, named
        assert "→" not in term.what + term.remedy, named


def test_numbers_name_a_command_that_there_is():
    from lossprobe.cli.main import cli

    assert all(term.command for term in NUMBERS)
    for command in {term.command for term in all_terms() if term.command}:
        assert command.split()[1] in cli.commands, command


@pytest.mark.parametrize(
    ("spelled", "found"),
    [
        ("bits-per-byte", ["number", "audit metric"]),
        ("ECE", ["number", "audit metric"]),
        ("lm_eval", ["protocol"]),
        ("error[text.unknown]", ["error id"]),
        ("12", ["exit code"]),
        ("document", ["column"] * 6),
        ("validation_accuracy_interval", ["number", "audit metric"]),
        ("mean_of_means_8", ["number"]),
        ("kl_nats_q0.999", ["number"]),
        ("log_z_t3", ["column"]),
        ("focal_nats_gamma_2", ["number"]),
        ("nothing_like_it", []),
    ],
)
def test_a_name_is_found_however_it_is_spelled(spelled, found):
    kinds = [term.kind for term in find_terms(spelled)]
    assert kinds == found


def test_nearest_names():
    assert "ece" in nearest_names("eec")
    assert "text.unknown" in nearest_names("text.unknwon")
    assert nearest_names("zzzzzzzzzz") == []
