"""All places of a run: what each cause finds in the texts, and which of them the losses confirm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lossprobe.analysis.defects import controls, encoded, mojibake, repeats, secrets
from lossprobe.analysis.defects.by_heart import find_by_heart
from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.controls import find_controls
from lossprobe.analysis.defects.encoded import find_encoded, is_foreseen
from lossprobe.analysis.defects.endings import Endings
from lossprobe.analysis.defects.line_ends import find_line_ends
from lossprobe.analysis.defects.markup import find_markup
from lossprobe.analysis.defects.mojibake import find_mojibake
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.places import TokenSums
from lossprobe.analysis.defects.repeats import Repeats
from lossprobe.analysis.defects.secrets import find_secrets
from lossprobe.analysis.defects.spans import TextSpans
from lossprobe.analysis.defects.templates import find_template_strings
from lossprobe.analysis.defects.token_blocks import Pages

IN_A_DOCUMENT = (
    find_mojibake, find_secrets, find_encoded, find_template_strings, find_markup, find_controls, find_line_ends,
)  # fmt: skip
# What is told as the second where it touches the first: the data of a key, the control characters of mojibake.
COPIED = (repeats.COPY, repeats.SHARED)
INSTEAD = {encoded.NAME: secrets.NAME, controls.NAME: mojibake.NAME}


@dataclass(frozen=True)
class Judged:
    """The places of one document with a text, and what is needed to describe them.

    Attributes:
        page: the document.
        sums: of its tokens.
        places: in the order of the text.
    """

    page: TextPage
    sums: TokenSums = field(repr=False)
    places: list[Found]


@dataclass
class Search:
    """Finds the places of a run.

    Attributes:
        pages: the texts.
        repeats: what is there more than once.
        endings: how documents end.
    """

    pages: Pages
    repeats: Repeats = field(default_factory=Repeats)
    endings: Endings = field(default_factory=Endings)
    _places: dict[int, list[Found]] = field(default_factory=dict, repr=False)

    def read(self) -> None:
        """Read all texts, and collect what the bytes alone say."""
        for page in self.pages.alone():
            self.repeats.add(page)
            self.endings.add(page)
            if places := without_shadows([place for find in IN_A_DOCUMENT for place in find(page)]):
                self._places[page.number] = places
        for number, places in self.repeats.found().items():
            self._places.setdefault(number, []).extend(places)
        for number, place in self.endings.found():
            self._places.setdefault(number, []).append(place)

    @property
    def origins(self) -> dict[int, set[tuple[int, int]]]:
        """The byte spans of what places are copies of, by document."""
        spans: dict[int, set[tuple[int, int]]] = {}
        for places in self._places.values():
            for place in places:
                if place.origin is not None:
                    spans.setdefault(place.origin[0], set()).add(place.origin[1:])
        return spans

    def judged(self) -> Iterator[Judged]:
        """Yield all documents with a text again, with the places that the losses confirm."""
        for page, tokens in self.pages.with_tokens():
            if page is None:
                continue
            sums = TokenSums.of(tokens)
            places = [place for place in self._places.get(page.number, []) if not _is_foreseen(place, sums)]
            copies = TextSpans((place.start, place.stop) for place in places if place.cause in COPIED)
            places += [
                place
                for place in find_by_heart(page, tokens)
                if 2 * copies.covered(place.start, place.stop) < place.stop - place.start
            ]
            yield Judged(page, sums, sorted(places, key=lambda place: (place.start, place.stop, place.cause)))


def without_shadows(places: Sequence[Found]) -> list[Found]:
    """Return places without those that are only the outside of another cause's."""
    first = {name: TextSpans((place.start, place.stop) for place in places if place.cause == name)
             for name in set(INSTEAD.values())}  # fmt: skip
    return [
        place for place in places
        if place.cause not in INSTEAD or not first[INSTEAD[place.cause]].touches(place.start, place.stop)
    ]  # fmt: skip


def _is_foreseen(place: Found, sums: TokenSums) -> bool:
    if place.cause != encoded.NAME:
        return False
    _, nats, size = sums.of_spans(place.counted)
    return is_foreseen(place.detail, nats, size)
