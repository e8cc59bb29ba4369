"""Makes the tables of the keys of `--json`, from the fields of the results and their docstrings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from typing import Any

from lossprobe.cli.reference.markdown import code, table, text
from lossprobe.report import views

ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")
KINDS = {
    "str": "text", "int": "integer", "float": "number", "bool": "true or false", "pd.DataFrame": "rows",
    "PlainTable": "rows", "Table": "rows", "dict": "object", "list": "list", "tuple": "list", "Interval": "[low, high]",
}  # fmt: skip


def json_keys() -> str:
    """Return the keys of every view: a table for the result, and one for each object in it."""
    sections = []
    found = list(results())
    for name, result in found:
        alone = [other for other, _ in found].count(name) == 1
        about = "" if alone else f": {_about(result).splitlines()[0].rstrip('.')}"
        sections.append(f"## `{name}`{about}\n\n{_section(result, top=True)}")
        sections += [f"### {keys} of `{name}`\n\n{_section(kind)}" for keys, kind in _nested(result)]
    return "\n".join(sections)


def results() -> Iterator[tuple[str, type[Any]]]:
    """Yield the class of each view's result, with the name that `command` has in its JSON."""
    for module in pkgutil.iter_modules(views.__path__):
        view = importlib.import_module(f"{views.__name__}.{module.name}")
        for name, function in inspect.getmembers(view, inspect.isfunction):
            if name.endswith("_view") and function.__module__ == view.__name__:
                yield module.name, getattr(view, function.__annotations__["result"])


def _nested(kind: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    """Yield the objects within a result, depth first, each class once with the keys that hold one."""
    holders: dict[type[Any], list[str]] = {}
    for holder, key, held in _held(kind):
        where = code(key) if holder is kind else f"{code(key)} of {holders[holder][0].split(',')[0]}"
        holders.setdefault(held, []).append(where)
    for held, keys in holders.items():
        yield ", ".join(dict.fromkeys(keys)), held


def _held(kind: type[Any]) -> Iterator[tuple[type[Any], str, type[Any]]]:
    """Yield holder, key and class of every object within a result."""
    for field in dataclasses.fields(kind):
        for word in re.findall(r"\w+", str(field.type)):
            held = getattr(sys.modules[kind.__module__], word, None)
            if isinstance(held, type) and dataclasses.is_dataclass(held):
                yield kind, field.name, held
                yield from _held(held)


def _section(kind: type[Any], *, top: bool = False) -> str:
    rows = [
        (", ".join(code(_key(name, top=top)) for name in names), _type(kind, names[0]), _in_json(meaning))
        for names, meaning in documented(kind).items()
    ]
    return f"{_in_json(_about(kind))}\n\n{table(('key', 'type', 'meaning'), rows)}"


def _about(kind: type[Any]) -> str:
    """Return the text of a docstring before its sections."""
    return (inspect.getdoc(kind) or "").partition("\n\nAttributes:")[0].partition("\n\nRaises:")[0]


def _in_json(words: str) -> str:
    """Return the text of a docstring in terms of JSON, where missing numbers are null."""
    return re.sub(r"\b(None|NaN)\b", "null", text(words))


def _key(name: str, *, top: bool) -> str:
    return "rows" if top and name == "table" else name


def _type(kind: type[Any], name: str) -> str:
    declared = next(str(field.type) for field in dataclasses.fields(kind) if field.name == name)
    words = [word.strip() for word in re.sub(r"\[.*\]", "", declared).split("|")]
    objects = {field for _, field, _ in _held(kind)}
    plain = {} if name in objects and "list" not in words else KINDS
    return " or ".join("null" if word == "None" else plain.get(word, "object") for word in words)


def described(kind: type[Any]) -> dict[tuple[str, ...], str]:
    """Return the entries of the attributes section of a docstring: names → text."""
    entries: dict[tuple[str, ...], str] = {}
    names: tuple[str, ...] = ()
    for line in (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0].splitlines():
        found = ENTRY.match(line)
        if found:
            names = tuple(found[1].split(", "))
            entries[names] = found[2]
        else:
            entries[names] += f" {line.strip()}"
    return entries


def documented(kind: type[Any]) -> dict[tuple[str, ...], str]:
    """Return the fields of a dataclass with what its docstring says of them; those that share a text stand together.

    Raises:
        LookupError: the docstring describes some fields, and not all.
    """
    entries = described(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    if not entries:  # its summary says it all
        return {tuple(fields): ""}
    own: dict[tuple[str, ...], list[str]] = {
        names: [name for name in names if name in fields] for names in entries if set(names) & set(fields)
    }
    for name in set(fields).difference(*entries):
        own[_entry_of(kind, name, entries)].append(name)
    order = {names: sorted(have, key=fields.index) for names, have in own.items()}
    return {tuple(have): entries[names] for names, have in sorted(order.items(), key=lambda e: fields.index(e[1][0]))}


def _entry_of(kind: type[Any], name: str, entries: dict[tuple[str, ...], str]) -> tuple[str, ...]:
    """Return the entry that describes a field without an entry of its own."""
    for names, meaning in entries.items():
        if name.removesuffix("_interval") in names or re.search(rf"\b{name}\b", meaning):
            return names
    raise LookupError(f"{kind.__name__}: its docstring says nothing of {name}")
