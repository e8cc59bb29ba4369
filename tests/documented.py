"""The code blocks of the README and the pages of docs/, and the command lines in them and in their sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "pages"
DOCUMENTS = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted(PAGES.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
IN_A_SENTENCE = re.compile(r"`([^`\n]+)`")
LEFT_OUT = "…"  # a line that stands for lines which a sample leaves out


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the output that the page shows right below it, if any."""

    language: str
    text: str
    shown: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a block of shell commands, without comments."""
        return [line for line in self.text.splitlines() if line and not line.startswith("#")]


def name_of(page: Path) -> str:
    """Return the path of a page from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page; output is a block of text right below a block of commands."""
    text = page.read_text("utf-8")
    found = list(FENCE.finditer(text))
    made = []
    for number, block in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        below = after is not None and after[1] == "text" and text[block.end() : after.start()] == "\n"
        made.append(Block(block[1], block[2], after[2] if after is not None and below else None))
    return made


def sentences(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def lossprobe_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command line of lossprobe on a page, in blocks and in sentences, after "lossprobe"."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.commands]
    lines += [code.replace("\\|", "|") for code in IN_A_SENTENCE.findall(sentences(page))]
    for line in lines:
        for command in line.split("&&"):
            if re.match(r"\s*lossprobe [\w-]", command):
                yield shlex.split(command, comments=True)[1:]


def chunks(shown: str) -> list[list[str]]:
    """Return the parts of a sample between the lines that say "left out", each as its lines."""
    parts: list[list[str]] = [[]]
    for line in shown.splitlines():
        if line == LEFT_OUT:
            parts.append([])
        else:
            parts[-1].append(line)
    return [part for part in parts if part]
