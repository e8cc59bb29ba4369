"""Puts the generated parts into the pages of the reference, between two marks each; the other text is kept.

A part begins with `<!-- generated: NAME -->` and ends with `<!-- end -->`; NAME is a key of `parts`.
"""

from __future__ import annotations

import re

from lossprobe.cli.reference.audit_keys import audit_keys
from lossprobe.cli.reference.json_keys import json_keys
from lossprobe.cli.reference.options import command_options
from lossprobe.cli.reference.terms import (
    audit_metrics,
    column_parts,
    defects,
    diagnoses,
    error_ids,
    exit_codes,
    findings,
    index_of_names,
    number_parts,
    protocols,
)

PART = re.compile(r"<!-- generated: (.+?) -->\n.*?<!-- end -->\n", re.DOTALL)


def parts() -> dict[str, str]:
    """Return every generated part by its name, made from the declarations."""
    return {
        **number_parts(),
        **column_parts(),
        "exit codes": exit_codes(),
        "error ids": error_ids(),
        "protocols": protocols(),
        "audit metrics": audit_metrics(),
        "diagnoses": diagnoses(),
        "findings": findings(),
        "defects": defects(),
        "keys of an audit file": audit_keys(),
        "JSON keys": json_keys(),
        "options": command_options(),
        "names": index_of_names(),
    }


def filled(page: str, made: dict[str, str]) -> str:
    """Return a page with its generated parts replaced.

    Args:
        page: the page as it is.
        made: the parts by their names.

    Raises:
        KeyError: the page has a part that nothing makes.

    >>> filled("# A\\n<!-- generated: b -->\\nold\\n<!-- end -->\\n", {"b": "new\\n"})
    '# A\\n<!-- generated: b -->\\n\\nnew\\n\\n<!-- end -->\\n'
    """
    return PART.sub(lambda part: f"<!-- generated: {part[1]} -->\n\n{made[part[1]]}\n<!-- end -->\n", page)
