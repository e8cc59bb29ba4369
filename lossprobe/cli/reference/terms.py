"""Makes the parts that explain numbers, columns, exit codes, error ids, protocols and audit metrics, from the terms."""

from __future__ import annotations

import re
from collections import defaultdict

from lossprobe.cli.main import cli
from lossprobe.cli.reference.markdown import anchored, code, table, text
from lossprobe.cli.wording import with_options
from lossprobe.plan.protocol import Protocol
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.terms.catalogue import STORED, all_terms
from lossprobe.terms.error_ids import ERROR_IDS
from lossprobe.terms.numbers import NUMBERS_BY_GROUP
from lossprobe.terms.term import Term

# The page of each kind of term.
PAGES = {
    "number": "numbers.md",
    "column": "columns.md",
    "exit code": "exit-codes.md",
    "error id": "error-ids.md",
    "protocol": "protocols.md",
    "audit metric": "metrics.md",
    "diagnosis": "diagnoses.md",
    "finding": "findings.md",
    "defect": "defects.md",
}
HEADED = ("number", "protocol", "diagnosis", "defect")  # kinds of terms with a heading each
SPECIAL_STRINGS = {"control": "control ids", "text": "plain text", None: ""}
IDENTIFIER = re.compile(r"\b[a-z0-9]+(?:_[A-Za-z0-9]+)+\b")


def number_parts() -> dict[str, str]:
    """Return the numbers of each group, every number under a heading of its own."""
    known = {name for numbers in NUMBERS_BY_GROUP.values() for number in numbers for name in number.names}
    return {
        f"numbers, {group}": "\n".join(_number(number, known) for number in numbers)
        for group, numbers in NUMBERS_BY_GROUP.items()
    }


def _number(number: Term, known: set[str]) -> str:
    aliases = "".join(f'<a id="{alias}"></a>' for alias in number.aliases)
    fields = {
        "Also": ", ".join(map(code, number.aliases)),
        "Formula": text(number.formula),
        "Unit": text(number.unit),
        "How to read it": _linked(text(number.how_to_read), known - set(number.names)),
        "Source": text(number.source),
        "Shown by": code(number.command),
    }
    what = _linked(text(number.what), known - set(number.names))
    return f"### `{number.name}`\n\n{aliases}{what}\n\n{_listed(fields)}"


def _listed(fields: dict[str, str]) -> str:
    """Return labelled texts as a list; empty ones are left out."""
    return "".join(f"- **{label}:** {words}\n" for label, words in fields.items() if words)


def _linked(words: str, known: set[str]) -> str:
    """Return a text in which the names of numbers are links to them, on the same page."""
    return IDENTIFIER.sub(lambda name: f"[`{name[0]}`](#{name[0]})" if name[0] in known else name[0], words)


def column_parts() -> dict[str, str]:
    """Return the stored columns, file by file, and the columns of the tables, command by command."""
    columns = [term for term in all_terms() if term.kind == "column"]
    made = {}
    for place in STORED:
        made[f"columns of {place}"] = _columns([term for term in columns if term.stored_in == place])
    printed = defaultdict(list)
    for term in columns:
        if not term.stored_in:
            printed[term.command].append(term)
    sections = (f"### {code(command)}\n\n{_columns(terms)}" for command, terms in printed.items())
    return {**made, "columns of tables": "\n".join(sections)}


def _columns(terms: list[Term]) -> str:
    rows = (
        (", ".join(anchored(name, anchor_of(term, name)) for name in term.names), term.type, text(term.what),
         text(term.unit))
        for term in terms
    )  # fmt: skip
    return table(("column", "type", "meaning", "unit"), rows)


def exit_codes() -> str:
    """Return the table of exit codes, each with the groups of error ids that have it."""
    terms = [term for term in all_terms() if term.kind == "exit code"]
    return table(
        ("code", "meaning", "more"),
        ((anchored(t.name, anchor_of(t, t.name)), text(t.what), text(t.how_to_read)) for t in terms),
    )


def error_ids() -> str:
    """Return the tables of error ids, one for each group of them, in the order of the alphabet."""
    groups = defaultdict(list)
    for term in sorted(ERROR_IDS, key=lambda term: term.name):
        group, dot, _ = term.name.partition(".")
        groups[f"`{group}`" if dot else "Anywhere"].append(term)
    return "\n".join(f"## {group}\n\n{_errors(terms)}" for group, terms in sorted(groups.items()))


def _errors(terms: list[Term]) -> str:
    rows = ((anchored(t.name, anchor_of(t, t.name)), text(t.what), text(t.remedy), _exit_code(t)) for t in terms)
    return table(("id", "what is wrong", "what to do", "exit code"), rows)


def _exit_code(term: Term) -> str:
    return f"[{term.exit_code}]({PAGES['exit code']}#exit-code-{term.exit_code})"


def protocols() -> str:
    """Return the protocols, each under a heading of its own."""
    return "\n".join(f"### `{name}`\n\n{_listed(_protocol(about))}" for name, about in PROTOCOLS.items())


def _protocol(about: Protocol) -> dict[str, str]:
    """Return the properties of a protocol as label → text."""
    stream = "all documents as one stream" + (", without its last line end" if about.strip_newline else "")
    longest = f"{about.longest:,} tokens, or `--context`" if about.longest else "the model's limit, or `--context`"
    return {
        "The tool": text(with_options(about.tool, cli)),
        "It reads": stream if about.joined else "each document on its own",
        "Windows and BOS": text(about.windows),
        "Longest window": longest,
        "Stride": f"{about.stride}, or `--stride`" if about.stride else "",
        "Names of special tokens in the text": SPECIAL_STRINGS[about.special_strings],
        "Mean": text(about.mean),
        "Headline": _numbers([about.headline]),
        "Further numbers": _numbers([number for number in about.numbers if number != about.headline]),
    }


def _numbers(names: list[str]) -> str:
    return ", ".join(f"[`{name}`](numbers.md#{name})" for name in names)


def audit_metrics() -> str:
    """Return the table of the metrics that a check of an audit can limit."""
    terms = [term for term in all_terms() if term.kind == "audit metric"]
    rows = (
        (
            anchored(term.name, term.name),
            " ".join(filter(None, (text(term.what), text(term.how_to_read)))),
            text("; ".join(filter(None, (term.formula, term.source)))),
            text(term.unit),
        )
        for term in terms
    )
    return table(("metric", "meaning", "how it is computed", "unit"), rows)


def diagnoses() -> str:
    """Return the diagnoses of a training log, each under a heading of its own."""
    return _told_when("diagnosis")


def defects() -> str:
    """Return the causes of defects of a text, each under a heading of its own."""
    return _told_when("defect")


def _told_when(kind: str) -> str:
    sections = []
    for term in (each for each in all_terms() if each.kind == kind):
        fields = {"Told when": term.formula, "How to read it": term.how_to_read, "Do": term.remedy}
        listed = _listed({label: text(words) for label, words in fields.items()})
        sections.append(f"### `{term.name}`\n\n{text(term.what)}\n\n{listed}")
    return "\n".join(sections)


def findings() -> str:
    """Return the rules that read the results of views, each under a heading of its own, command by command."""
    sections = []
    for term in (each for each in all_terms() if each.kind == "finding"):
        fields = {
            "Told when": text(term.formula), "Unit": text(term.unit), "Why there": text(term.how_to_read),
            "Do": text(term.remedy), "Shown by": f"{code(term.command)} and {code('lossprobe findings')}",
        }  # fmt: skip
        if term.command == "lossprobe findings":
            fields["Shown by"] = code(term.command)
        sections.append(f"### `{term.name}`\n\n{text(term.what)}\n\n{_listed(fields)}")
    return "\n".join(sections)


def index_of_names() -> str:
    """Return all names with links to their explanations, a paragraph for each first letter."""
    links: dict[str, dict[str, str]] = defaultdict(dict)
    for term in all_terms():
        for name in term.names:
            links[name].setdefault(term.kind, f"{PAGES[term.kind]}#{anchor_of(term, name)}")
    letters = defaultdict(list)
    for name in sorted(links, key=_in_alphabet):
        (kind, link), *others = links[name].items()
        more = ", ".join(f"[{other}]({place})" for other, place in others)
        shown = f"[`{name}`]({link}){f' ({kind}; also {more})' if more else ''}"
        letters[name[0].upper() if name[0].isalpha() else "0–9"].append(shown)
    return "\n".join(f"## {letter}\n\n" + " ·\n".join(names) + "\n" for letter, names in letters.items())


def _in_alphabet(name: str) -> tuple[int, str, str]:
    """Return the key by which names are sorted: numbers by their value, then words without regard to case."""
    return int(name) if name.isdigit() else 1000, name.casefold(), name


def anchor_of(term: Term, name: str) -> str:
    """Return the anchor of a name on the page of its kind."""
    if name == term.name and term.kind in (
        "number",
        "protocol",
        "diagnosis",
        "finding",
        "defect",
    ):  # of a heading, as Markdown makes it
        return re.sub(r"[^\w-]", "", name.lower())
    if term.kind == "column":
        return f"{term.stored_in.partition('/')[0].partition('.')[0] or 'column'}-{name}"
    return f"exit-code-{name}" if term.kind == "exit code" else f"error-{name}" if term.kind == "error id" else name
