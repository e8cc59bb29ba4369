"""Which font draws which character: those that come with matplotlib, and the system's for characters that these lack.

Chinese, Japanese and Korean need a font of the system. Its fonts are looked at only when a text needs them, so that all
other pictures are the same on every machine. MPL_IGNORE_SYSTEM_FONTS=1 leaves them out, as in matplotlib.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import lossprobe.report.pictures  # noqa: F401 - must be the first import of matplotlib; see there

# isort: split
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

MONOSPACE, PROPORTIONAL = "DejaVu Sans Mono", "DejaVu Sans"
# How the files of common fonts of many scripts begin, the preferred one first; all others come after them.
PREFERRED = (
    "notosanscjk", "notosanssc", "sourcehansans", "wqy-microhei", "wqy", "droidsansfallback", "msyh", "pingfang",
    "hiragino", "simhei", "malgun", "yugoth", "arialuni", "arial unicode", "unifont",
)  # fmt: skip
UNPREFERRED = re.compile("bold|italic|oblique|black|thin|light|last ?resort")
LEFT_TO_RIGHT = "\u200e"  # has no ink; a line that begins with it runs from left to right
CODE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8}))")


@cache
def own_glyphs() -> frozenset[int]:
    """Return the code points that both fonts of the pictures have."""
    fonts = [FT2Font(findfont(FontProperties(family=family))) for family in (MONOSPACE, PROPORTIONAL)]
    return frozenset.intersection(*(frozenset(font.get_charmap()) for font in fonts))


@cache
def system_family(character: str) -> str | None:
    """Return the family of a font of the system that has a character, or None where no font has it."""
    path = _files(preferred=True).get(ord(character)) or _files(preferred=False).get(ord(character))
    if path is None:
        return None
    family = FT2Font(path).family_name
    if not any(font.name == family for font in fontManager.ttflist):
        fontManager.addfont(path)
    return family


def has_glyph(character: str) -> bool:
    """Return whether a picture can show a character."""
    return ord(character) in own_glyphs() or system_family(character) is not None


def use_system_fonts(figure: Figure) -> None:
    """Let every text of a figure use those fonts of the system that its characters need, beside its own."""
    for text in figure.findobj(Text):
        lacking = [character for character in text.get_text() if ord(character) not in own_glyphs()]
        families = [system_family(character) for character in lacking if character.isprintable()]
        if LEFT_TO_RIGHT in lacking:
            families.append(PROPORTIONAL)
        if families:
            text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *filter(None, families)])))


def shown_by_code(figure: Figure) -> list[str]:
    """Return the characters that a figure shows by their codes because no font has them, each once."""
    texts = [text.get_text() for text in figure.findobj(Text)]
    codes = [int(short or long, 16) for text in texts for short, long in CODE.findall(text)]
    found = [chr(code) for code in dict.fromkeys(codes) if code <= sys.maxunicode]
    return [character for character in found if character.isprintable() and not has_glyph(character)]


@cache
def _files(*, preferred: bool) -> dict[int, str]:
    """Return code point → the file of a font of the system that has it: the preferred fonts, or all others."""
    names = {path: Path(path).name.lower() for path in findSystemFonts()}
    plain = sorted(names, key=lambda path: (bool(UNPREFERRED.search(names[path])), _rank(names[path]), path))
    files: dict[int, str] = {}
    for path in plain:
        if preferred == (_rank(names[path]) < len(PREFERRED)):
            for code in _code_points(path):
                files.setdefault(code, path)
    return files


def _rank(name: str) -> int:
    return next((place for place, begin in enumerate(PREFERRED) if name.startswith(begin)), len(PREFERRED))


def _code_points(path: str) -> list[int]:
    """Return the code points that a font has; none where its file cannot be used."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # unreadable, damaged, or of bitmaps alone
        return []
    return list(font.get_charmap()) if font.scalable else []
