"""Writes an audit as GitHub-flavoured Markdown, for step summaries and comments."""

from __future__ import annotations

from collections.abc import Sequence

from lossprobe.audit.checks.verdicts import AuditResult, TextResult
from lossprobe.report.audit.rows import REASON_LENGTH, Row, headers, name, reasons, row, severity
from lossprobe.report.formats.markdown import escaped
from lossprobe.units import format_count, plural, visible

# GitHub drops a step summary above 1,024 KiB. These limits keep the whole near 800 KiB.
TABLE_BYTES = 400 * 1024
REASON_BYTES = 300 * 1024
LIST_BYTES = 100 * 1024
RIGHT = {"measured", "tokens"}


def audit_to_markdown(result: AuditResult) -> str:
    """Return the verdict in one line, the table of checks, the reasons, the texts and the notes, under 1,024 KiB.

    Text from files is escaped. If there are too many checks, the worst are kept and a line says how many are left out.
    """
    finding = escaped(visible(result.finding, REASON_LENGTH))
    parts = [f"**lossprobe audit – {finding}**", f"model {_safe(result.model)}, audit file {_safe(result.file)}"]
    if result.checks:
        parts += _checks(result)
    lines = [_text_line(text) for text in result.texts]
    lines += [f"note: {escaped(visible(note, REASON_LENGTH))}" for note in result.notes]
    parts += _list("*", lines, "line", [0] * len(lines), LIST_BYTES)
    return "\n\n".join(parts) + "\n"


def _checks(result: AuditResult) -> list[str]:
    """Return the table of checks and the list of reasons."""
    ranks = [severity(check) for check in result.checks]
    lines = [_line(row(check)) for check in result.checks]
    kept = _fitting(lines, ranks, TABLE_BYTES)
    ruler = f"|{'|'.join('---:' if field in RIGHT else '---' for field in Row._fields)}|"
    parts = ["\n".join([_line(headers(result)), ruler, *(lines[index] for index in kept)])]
    parts += _left(len(lines) - len(kept), "check")
    explained = [severity(check) for check in result.checks if check.verdict != "pass"]
    shown = [
        f"**{escaped(verdict)}** {escaped(check)}: {escaped(reason)}" for verdict, check, reason in reasons(result)
    ]
    return parts + _list("-", shown, "reason", explained, REASON_BYTES)


def _text_line(text: TextResult) -> str:
    share = f" ({text.scored_share:.1%} of it was needed)" if text.scored_share < 1 else ""
    baseline = f"; baseline {_safe(text.baseline)}" if text.baseline is not None else ""
    reference = f"; reference {_safe(text.reference)}" if text.reference is not None else ""
    return (
        f"text {_safe(text.name)}: {_safe(text.text)}, {format_count(text.scored_tokens)} scored of "
        f"{plural(text.tokens, 'token')} in {plural(text.documents, 'document')}{share}{baseline}{reference}"
    )


def _line(cells: Row) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


def _safe(text: str) -> str:
    return escaped(name(text))


def _list(mark: str, lines: list[str], noun: str, ranks: Sequence[int], limit: int) -> list[str]:
    """Return lines as one Markdown list with a line that says how many were left out, or nothing without lines.

    Args:
        mark: bullet of the list; neighbouring lists need different ones, or Markdown joins them.
        lines: the lines.
        noun: name of a line, for the number of those left out.
        ranks: rank of each line; those of lowest rank are kept where not all fit.
        limit: most bytes of the list.
    """
    kept = _fitting(lines, ranks, limit)
    listed = ["\n".join(f"{mark} {lines[index]}" for index in kept)] if kept else []
    return listed + _left(len(lines) - len(kept), noun)


def _left(count: int, noun: str) -> list[str]:
    return [f"{plural(count, f'more {noun}')} left out here; the JSON report has all."] if count else []


def _fitting(lines: list[str], ranks: Sequence[int], limit: int) -> list[int]:
    """Return the ascending positions of the lines of lowest rank that fit into `limit` bytes together."""
    kept: list[int] = []
    size = 0
    for index in sorted(range(len(lines)), key=lambda index: ranks[index]):
        size += len(lines[index].encode()) + 3  # the mark of a list item and the end of the line
        if size > limit:
            break
        kept.append(index)
    return sorted(kept)
