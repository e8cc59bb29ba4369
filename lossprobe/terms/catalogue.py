"""All terms together, from wherever each is declared, and how a name finds its terms."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import cache

from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.run.schema import (
    DIVERGENCE_COLUMNS,
    DOCUMENT_COLUMNS,
    HISTOGRAM_COLUMNS,
    LADDER_KEYS,
    ROUTING_COLUMNS,
    TOKEN_COLUMNS,
    VOCABULARY_COLUMNS,
    ladder_column,
)
from lossprobe.terms import audit_metrics, defects, diagnoses, exit_codes, findings, view_columns
from lossprobe.terms.error_ids import ERROR_IDS
from lossprobe.terms.numbers import NUMBERS
from lossprobe.terms.term import KINDS, Term

STORED = {
    "tokens/*.parquet": TOKEN_COLUMNS,
    "documents.parquet": DOCUMENT_COLUMNS,
    "vocabulary.parquet": VOCABULARY_COLUMNS,
    "histogram/*.parquet": HISTOGRAM_COLUMNS,
    "routing/*.parquet": ROUTING_COLUMNS,
    "divergence/*.parquet": DIVERGENCE_COLUMNS,
    "ladder/*.parquet": (*LADDER_KEYS, ladder_column("N", "temperature number N of the run")),
}
# What prints the columns of a table.
COMMANDS = {
    "tokens/*.parquet": "lossprobe tokens --csv",
    "divergence/*.parquet": "lossprobe compare A B TEXT --kl --csv",
}
# What a printed name may have around a declared one: `validation_accuracy_interval`, `focal_nats_gamma_2`.
DECORATION = re.compile(r"^(train|validation)_|_interval$|_(eps|gamma|delta|alpha)_[\d.]+$")
NUMBERED = re.compile(r"(?<=[_a-z])\d+(\.\d+)?$")  # `mean_of_means_8` is declared as `mean_of_means_N`


@cache
def all_terms() -> tuple[Term, ...]:
    """Return every term, kind by kind."""
    return (*NUMBERS, *_stored_columns(), *view_columns.TERMS, *_exit_codes(), *ERROR_IDS, *_protocols(),
            *audit_metrics.TERMS, *diagnoses.TERMS, *findings.TERMS, *defects.TERMS)  # fmt: skip


def _stored_columns() -> list[Term]:
    return [
        Term(
            column.name, f"{column.meaning[0].upper()}{column.meaning[1:]}.", "column", unit=column.unit,
            type=column.kind, stored_in=place, command=COMMANDS.get(place, ""),
        )
        for place, columns in STORED.items()
        for column in columns
    ]  # fmt: skip


def _exit_codes() -> list[Term]:
    """Return the exit codes, each with the groups of error ids that have it."""
    terms = []
    for term in exit_codes.TERMS:
        ids = [error.name for error in ERROR_IDS if str(error.exit_code) == term.name]
        groups = sorted({f"{id.partition('.')[0]}.*" if "." in id else id for id in ids})
        listed = f"Its error ids: {', '.join(groups)}." if groups else ""
        terms.append(replace(term, how_to_read=" ".join(filter(None, (term.how_to_read, listed)))))
    return terms


def _protocols() -> list[Term]:
    return [
        Term(
            name, f"Scores a text as this tool does: {about.tool}.", "protocol",
            how_to_read=f"{about.why[0].upper()}{about.why[1:]}. Its headline number is {about.headline}.",
            command=f"lossprobe perplexity MODEL TEXT --protocol {name}",
        )
        for name, about in PROTOCOLS.items()
    ]  # fmt: skip


def find_terms(name: str) -> list[Term]:
    """Return the terms of a name as lossprobe prints it, in the order of the kinds; none where nothing has it.

    Case does not matter, nor whether a blank, `-` or `_` stands between words; `error[ID]` finds ID.

    >>> [(term.kind, term.name) for term in find_terms("Bits-Per-Byte")]
    [('number', 'bits_per_byte'), ('audit metric', 'bits_per_byte')]
    """
    wanted, named = normalized(name), _terms_by_name()
    for spelled in (wanted, NUMBERED.sub("n", wanted), DECORATION.sub("", wanted)):
        if spelled in named:
            return list(named[spelled])
    return []


@cache
def _terms_by_name() -> dict[str, list[Term]]:
    """Return the terms of every name, as it is spelled when names are compared, in the order of the kinds."""
    named: dict[str, list[Term]] = {}
    for term in sorted(all_terms(), key=lambda term: list(KINDS).index(term.kind)):
        for spelled in dict.fromkeys(map(normalized, term.names)):
            named.setdefault(spelled, []).append(term)
    return named


def nearest_names(name: str) -> list[str]:
    """Return up to three known names that are spelled almost like one that is not."""
    spelled = {normalized(known): known for term in all_terms() for known in term.names}
    return [spelled[near] for near in difflib.get_close_matches(normalized(name), spelled)]


def normalized(name: str) -> str:
    """Return a name in the spelling in which names are compared.

    >>> normalized(" error[text.UTF16] "), normalized("lm-eval")
    ('text.utf16', 'lm_eval')
    """
    bare = re.sub(r"^error\[(.*)\]:?$", r"\1", name.strip())
    return re.sub(r"[\s-]+", "_", bare.casefold())
