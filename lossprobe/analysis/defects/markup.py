"""Remains of HTML and XML: tags, comments and entities."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage

NAME = "markup"
ELEMENTS = (
    b"html head title body meta link style script noscript base h1 h2 h3 h4 h5 h6 p br hr div span pre code blockquote "
    b"ul ol li dl dt dd table thead tbody tfoot tr td th caption colgroup col a img figure figcaption picture source "
    b"video audio track iframe embed object param canvas svg path b i u em strong small big sub sup strike del "
    b"ins mark "
    b"font center tt kbd samp var cite abbr acronym q form input button select option textarea label fieldset legend "
    b"o:p nav header footer section article aside main details summary ref gallery nowiki"
).split()
ENTITIES = (
    b"nbsp amp lt gt quot apos copy reg trade hellip mdash ndash lsquo rsquo ldquo rdquo sbquo bdquo laquo raquo bull "
    b"middot deg plusmn times divide euro pound yen cent sect para shy ensp emsp thinsp zwnj zwj larr rarr uarr darr "
    b"eacute egrave ecirc euml aacute agrave acirc auml aring atilde oacute ograve ocirc ouml otilde uacute "
    b"ugrave ucirc "
    b"uuml iacute igrave icirc iuml ntilde ccedil szlig aelig oslash Eacute Agrave Auml Ouml Uuml Aring Ccedil Ntilde "
    b"frac12 frac14 frac34 sup2 sup3 iexcl iquest ordf ordm dagger Dagger permil prime infin alpha beta gamma delta pi"
).split()
# A name and attributes, as name="value", or a lone attribute that HTML has; so "<a href=x>" but not "<a word>".
ATTRIBUTE = (
    rb"(?:\s+(?:[\w:-]+\s*=\s*(?:\\?\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+)|checked|disabled|selected|hidden|async|defer))"
)
ALL = b"|".join(sorted(ELEMENTS)[::-1])
# In Perl's documentation C<p> is no tag, but </p> is one wherever it stands.
NOT_POD = rb"(?<![^A-Za-z](?-i:[BCEFILSXZ]))"
TAG = re.compile(
    rb"(?:<!--.{0,2000}?-->|<!DOCTYPE[^<>]{0,200}>|<!\[CDATA\[|\]\]>|<\?xml[^<>]{0,200}\?>"
    rb"|" + NOT_POD + rb"<(?:" + ALL + rb")" + ATTRIBUTE + rb"*\s*/?>|<\\?/(?:" + ALL + rb")\s*>)",
    re.IGNORECASE | re.DOTALL,
)
ENTITY = re.compile(rb"&(?:amp;)?(?:" + b"|".join(ENTITIES) + rb"|#[0-9]{2,6}|#[xX][0-9A-Fa-f]{2,5});")
OPENING = re.compile(rb"<([A-Za-z][A-Za-z0-9:]*)>")
CLOSING = re.compile(rb"<\\?/([A-Za-z][A-Za-z0-9:]*)\s*>")
# Tags that say something without an end and without attributes; "<input>" and "<source>" stand for what to put there.
ALONE = frozenset(b"br hr p li tr td th dt dd tbody thead".split())
BETWEEN = re.compile(rb"\s*")
QUOTES = b"`'\"\xe2"  # before a tag that is spoken of: ASCII quotes, and the first byte of typographic ones
SPOKEN_OF = 2  # tags and entities in quotes are told too, where as many others are there


def find_markup(page: TextPage) -> Iterator[Found]:
    """Yield every stretch of tags, with nothing but white space between them, and every stretch of entities."""
    data = page.data
    tags = [match.span() for match in TAG.finditer(data)] if b"<" in data else []
    entities = [match.span() for match in ENTITY.finditer(data)] if b"&" in data else []
    ends = {closing[1].lower(): start for start, stop in tags if (closing := CLOSING.fullmatch(data, start, stop))}
    tags = [span for span in tags if not _is_a_word(data, *span, ends)]
    plain = [span for span in (*tags, *entities) if not _is_quoted(data, *span)]
    if len(plain) < SPOKEN_OF:
        tags, entities = ([span for span in spans if span in plain] for spans in (tags, entities))
    for spans, detail in ((tags, "HTML tags"), (entities, "HTML entities")):
        for start, stop in _joined(data, spans):
            yield Found(NAME, start, stop, detail)


def _is_a_word(data: bytes, start: int, stop: int, ends: dict[bytes, int]) -> bool:
    """Return whether a tag is a word between angle brackets, such as "<label>": it needs an end, which is not there.

    Args:
        data: the text.
        start: first byte of the tag.
        stop: its end.
        ends: where the last end of each element is.
    """
    opening = OPENING.fullmatch(data, start, stop)
    return opening is not None and opening[1].lower() not in ALONE and ends.get(opening[1].lower(), -1) < start


def _is_quoted(data: bytes, start: int, stop: int) -> bool:
    return start > 0 and data[start - 1] in QUOTES and stop < len(data) and data[stop] in QUOTES


def _joined(data: bytes, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield spans, with those joined that only white space lies between."""
    first = last = -1
    for start, stop in spans:
        gap = BETWEEN.match(data, last) if last >= 0 else None
        if gap is None or gap.end() < start:
            if last >= 0:
                yield first, last
            first = start
        last = stop
    if last >= 0:
        yield first, last
