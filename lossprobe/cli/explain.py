"""The command `lossprobe explain`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from lossprobe.cli.options import json_option
from lossprobe.cli.wording import with_options
from lossprobe.errors import EXIT_CODES, UsageError
from lossprobe.units import visible

if TYPE_CHECKING:  # the terms themselves are loaded by the one command that needs them
    from lossprobe.terms.term import Term

WIDTH = 80
MARGIN = 15


@click.command(short_help="Explain a number, column, exit code, error id or finding.")
@click.argument("name", required=False)
@json_option
def explain(name: str | None, as_json: bool) -> None:
    """Explain a name: of a number, column, exit code, error id, protocol, metric, diagnosis, finding or defect.

    Without NAME, list the names of all of them.

    \b
    Examples:
      lossprobe explain
      lossprobe explain ece
      lossprobe explain 12
      lossprobe explain text.unknown
      lossprobe explain over-fitting
      lossprobe explain mojibake
    """
    from lossprobe.terms.catalogue import all_terms

    terms = [in_options(term) for term in (all_terms() if name is None else known_terms(name))]
    if as_json:
        click.echo(
            json.dumps({"schema": 1, "command": "explain", "terms": [as_object(term) for term in terms]}, indent=1)
        )
    elif name is None:
        click.echo(listing(terms))
    else:
        click.echo("\n\n".join(map(explanation, terms)))


def known_terms(name: str) -> list[Term]:
    """Return the terms with a name or alias.

    Raises:
        UsageError: no term has this name.
    """
    from lossprobe.terms.catalogue import find_terms, nearest_names

    found = find_terms(name)
    if not found:
        near = nearest_names(name)
        raise UsageError(
            "explain.unknown",
            f"{visible(name, 80)}: no number, column, exit code, error id, protocol, metric, diagnosis, finding "
            "or defect has this name",
            hint=f"did you mean {' or '.join(near)}?" if near else "lossprobe explain lists all names",
        )
    return found


def in_options(term: Term) -> Term:
    """Return a term with the options of the command line: what a tool does names the arguments that it leaves open."""
    return replace(term, what=with_options(term.what)) if term.kind == "protocol" else term


def as_object(term: Term) -> dict[str, object]:
    """Return a term for JSON, without its empty fields."""
    return {key: value for key, value in asdict(term).items() if value not in ("", None, ())}


def listing(terms: Sequence[Term]) -> str:
    """Return the names of the terms as text, one paragraph for each kind."""
    from lossprobe.terms.term import KINDS

    paragraphs = []
    for kind, title in KINDS.items():
        names = dict.fromkeys(term.name for term in terms if term.kind == kind)
        text = textwrap.fill(
            ", ".join(names), WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        paragraphs.append(f"{title}\n{text}")
    return "\n\n".join(paragraphs)


def explanation(term: Term) -> str:
    """Return a term as text: name and kind, then one paragraph for each field."""
    code = "" if term.exit_code is None else f"{term.exit_code}: {EXIT_CODES[term.exit_code]}"
    fields = {
        "also": ", ".join(term.aliases),
        "told when" if term.kind in ("diagnosis", "finding", "defect") else "formula": term.formula,
        "unit": term.unit,
        "type": term.type,
        "stored in": term.stored_in,
        "how to read": term.how_to_read,
        "what to do": term.remedy,
        "exit code": code,
        "source": term.source,
        "shown by": term.command,
    }
    lines = [f"{term.name} ({term.kind})", *_wrapped("", term.what)]
    for label, text in fields.items():
        lines += _wrapped(label, text)
    return "\n".join(lines)


def _wrapped(label: str, text: str) -> list[str]:
    if not label:
        return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")
    first = f"  {label:<{MARGIN - 2}}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * MARGIN, break_on_hyphens=False)
