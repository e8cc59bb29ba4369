"""The tokens and texts of a run, document by document, some documents at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.preferences.pairs import BOTH
from lossprobe.analysis.rows.token_slices import document_ranges
from lossprobe.run.reader import Run
from lossprobe.run.texts import DocumentTexts, load_vocabulary

SYSTEM = "system"  # the role whose text conversations share by design
WRITTEN = ("header", "end_of_turn", "template")  # parts of conversations that the template wrote


@dataclass(frozen=True)
class DocumentTokens:
    """The tokens of one document, in order.

    Attributes:
        number: the document.
        ids: int32 [n].
        starts, stops: int64 [n], the bytes that they cover.
        loss_nats: float64 [n], NaN where there is no loss.
        template: byte spans that a chat template wrote.
        common: byte spans that documents have in common by design, see `TextPage`.
    """

    number: int
    ids: npt.NDArray[np.int32] = field(repr=False)
    starts: npt.NDArray[np.int64] = field(repr=False)
    stops: npt.NDArray[np.int64] = field(repr=False)
    loss_nats: npt.NDArray[np.float64] = field(repr=False)
    template: list[tuple[int, int]] = field(default_factory=list, repr=False)
    common: list[tuple[int, int]] = field(default_factory=list, repr=False)


def token_documents(run: Run) -> Iterator[DocumentTokens]:
    """Yield the tokens of every document in order, also of those without any."""
    part = ", part, role" if run.labelled else ""
    pairs = run.settings.text.sides == BOTH
    for first, last in document_ranges(run):
        frame = run.query(
            f"SELECT document, token_id, byte_start, byte_stop, loss_nats{part} FROM tokens "
            "WHERE document BETWEEN ? AND ? ORDER BY document, token", (first, last),
        )  # fmt: skip
        numbers = np.arange(first, last + 1)
        edges = np.searchsorted(frame["document"].to_numpy(), np.append(numbers, last + 1))
        ids, starts, stops = (frame[name].to_numpy() for name in ("token_id", "byte_start", "byte_stop"))
        losses = frame["loss_nats"].to_numpy(float, na_value=np.nan)
        written = frame["part"].isin(WRITTEN).to_numpy() if part else np.zeros(0, bool)
        common = written | (frame["role"] == SYSTEM).to_numpy() if part else written
        for number, begin, end in zip(numbers.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            here = slice(begin, end)
            if not part:
                yield DocumentTokens(number, ids[here], starts[here], stops[here], losses[here])
                continue
            chosen = common[here] | np.isnan(losses[here]) if pairs and number % 2 else common[here]
            spans = (_spans(starts[here], stops[here], each) for each in (written[here], chosen))
            yield DocumentTokens(number, ids[here], starts[here], stops[here], losses[here], *spans)


def _spans(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Return the bytes of tokens that are chosen, neighbours in one span."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    return [(int(starts[first]), int(stops[last - 1])) for first, last in zip(edges[::2], edges[1::2], strict=True)]


@dataclass
class Pages:
    """The texts of a run: stored ones, or those that the bytes of its tokens make.

    Attributes:
        run: the run.
        rebuilt: whether texts are made of tokens, since the run has none.
        unknown: documents whose tokens do not make up their text, counted while reading.
    """

    run: Run
    rebuilt: bool = field(init=False)
    unknown: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.rebuilt = not self.run.settings.text.kept

    def alone(self) -> Iterator[TextPage]:
        """Yield every document with a text; tokens are read only where they are needed for it."""
        if self.rebuilt or self.run.labelled:
            yield from (page for page, _ in self.with_tokens() if page is not None)
            return
        numbers = range(int(self.run.counts["documents"]))
        for number, data in zip(numbers, DocumentTexts(self.run).along(numbers), strict=True):
            assert data is not None
            yield TextPage(number, data)

    def with_tokens(self) -> Iterator[tuple[TextPage | None, DocumentTokens]]:
        """Yield every document: its text, None where that is not known, and its tokens."""
        self.unknown = 0
        entries = Entries.of(self.run) if self.rebuilt else None
        count = int(self.run.counts["documents"])
        texts = DocumentTexts(self.run).along(range(count))
        for tokens, text in zip(token_documents(self.run), texts, strict=True):
            data = text if entries is None else entries.text_of(tokens)
            self.unknown += data is None
            yield None if data is None else TextPage(tokens.number, data, tokens.template, tokens.common), tokens


@dataclass(frozen=True)
class Entries:
    """The bytes of all vocabulary entries, one after the other.

    Attributes:
        data: uint8, all bytes.
        starts, sizes: int64 [ids], where each begins in it, and its length.
    """

    data: npt.NDArray[np.uint8] = field(repr=False)
    starts: npt.NDArray[np.int64] = field(repr=False)
    sizes: npt.NDArray[np.int64] = field(repr=False)

    @staticmethod
    def of(run: Run) -> Entries:
        """Return those of a run."""
        vocabulary = load_vocabulary(run)
        held = [vocabulary.entries.get(index, b"") for index in range(max(vocabulary.entries, default=-1) + 1)]
        sizes = np.array([len(entry) for entry in held], np.int64)
        return Entries(np.frombuffer(b"".join(held), np.uint8), np.cumsum(sizes) - sizes, sizes)

    def text_of(self, tokens: DocumentTokens) -> bytes | None:
        """Return the text that tokens make, or None where an entry is not as long as what its token covers.

        A tokenizer that puts a blank before the text has one more byte in the first entry that covers some.
        """
        sizes = tokens.stops - tokens.starts
        covering = np.flatnonzero(sizes > 0)
        ids, sizes = tokens.ids[covering], sizes[covering]
        starts, held = self.starts[ids], self.sizes[ids]
        if len(ids) and held[0] == sizes[0] + 1 and self.data[starts[0]] == 0x20:
            starts, held = starts.copy(), held.copy()
            starts[0] += 1
            held[0] -= 1
        if not np.array_equal(held, sizes):
            return None
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)
        return bytes(self.data[places])
