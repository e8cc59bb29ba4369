"""Lists what `defects` finds in real pages of HTML after their text was taken out, and counts what is no repeat.

    apt-get download anarchism && dpkg-deb -x anarchism_*.deb book
    python tests/simulations/defects_clean.py book/usr/share/doc/anarchism/html

One document a page, with the tokens of the bundled tokenizer and drawn losses as in `defects_truth`. Repeats are
checked here in another way, by a table of all runs of five words; every other place is printed, to be judged by eye.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from defects_planted import Planted
from defects_truth import found_in, tokens_of

BLOCKS = {"p", "br", "div", "li", "h1", "h2", "h3", "h4", "tr", "blockquote", "ul", "ol", "hr"}
UNSEEN = {"script", "style", "head", "nav"}
WORD = re.compile(rb"[a-z0-9\x80-\xff]+")
SIGNS = re.compile(rb"\xc2[\xa0-\xbf]|\xe2[\x80\x81][\x80-\xbf]")  # quotes, dashes and blanks beyond ASCII: no words
RUN, FEWEST_WORDS, FEWEST_CHARACTERS = 5, 20, 500


def words_in(text: bytes) -> list[bytes]:
    return WORD.findall(SIGNS.sub(b" ", text.lower()))


class Paragraphs(HTMLParser):
    """Collects the text of a page, a blank line between its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.unseen = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.unseen += tag in UNSEEN
        self.text += ["\n"] if tag in BLOCKS else []

    def handle_endtag(self, tag: str) -> None:
        self.unseen -= tag in UNSEEN
        self.text += ["\n"] if tag in BLOCKS else []

    def handle_data(self, data: str) -> None:
        if self.unseen <= 0:
            self.text.append(re.sub(r"\s+", " ", data))


def text_of(page: str) -> bytes:
    parser = Paragraphs()
    parser.feed(page)
    return re.sub(r"\n\s*\n+", "\n\n", "".join(parser.text)).strip().encode()


def runs(text: bytes) -> list[tuple[bytes, ...]]:
    words = words_in(text)
    return list(zip(*(words[start:] for start in range(RUN)), strict=False))


def main() -> None:
    """Print the number of tokens, of repeats that were found and hold, and every other place."""
    made = [text_of(file.read_text("utf-8", "replace")) for file in sorted(Path(sys.argv[1]).glob("*.html"))]
    texts = [text for text in made if len(text) > FEWEST_CHARACTERS]
    print(f"{len(texts)} documents, {sum(len(tokens_of(text)[0]) for text in texts)} tokens")
    count = Counter(run for text in texts for run in runs(text))
    lines = Counter(tuple(words_in(line)) for text in texts for line in set(text.split(b"\n")))
    holding = 0
    for number, place in found_in(Planted(list(texts)), 0):
        part = texts[number][place.start : place.stop]
        if "lines" in place.detail:
            words = [tuple(words_in(line)) for line in part.split(b"\n")]
            holds = all(lines[line] > 1 for line in words if len(line) >= RUN)
        else:
            shared = [count[run] > 1 for run in runs(part)]
            near = "copy of a document" in place.detail
            holds = len(shared) + RUN > FEWEST_WORDS and (sum(shared) > len(shared) / 2 if near else all(shared))
        if place.cause in ("duplicate", "boilerplate") and holds:
            holding += 1
        else:
            print(place.cause, place.detail, texts[number][max(0, place.start - 30) : place.stop + 20][:200])
    print(f"{holding} repeats hold")


if __name__ == "__main__":
    main()
