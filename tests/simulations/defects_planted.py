"""Plants defects of known places into clean documents; nothing here knows the rules of `lossprobe.analysis.defects`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

PHRASES = (
    "café",
    "naïve",
    "Zürich",
    "piñata",
    "it’s",
    "“yes”",
    "here — now",
    "10 €",
    "Ωmega",
    "Привет",
    "日本語",
    "łódź",
    "£5",
    "½",
)
READ_AS = ("cp1252", "cp1252", "cp1252", "latin-1", "mac_roman", "cp1251", "cp437", "cp850", "cp1250")
TAGS = (
    "<br />", "<br>", "<p>{}</p>", "&nbsp;", "&amp;", "&quot;{}&quot;", '<a href="http://example.org/{}">{}</a>',
    '<div class="text">{}</div>', "<!-- {} -->", "&#8217;", "<b>{}</b>", "</td></tr>", "<li>{}", "&lt;{}&gt;",
    '<img src="a.png" alt="{}"/>', "<span style='color:red'>{}</span>", "<h2>{}</h2>",
)  # fmt: skip
HIDDEN = (
    "\x00",
    "\x0c",
    "\x08",
    "\ufeff",
    "\u200b",
    "\u00ad",
    "\x1b[31m",
    "\x1b[0m",
    "\x85",
    "\x7f",
    "\x02",
    "\u2028",
    "\u202e",
)
STRINGS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "[INST]", "[/INST]", "<<SYS>>", "</s>", "<s>", "<pad>", "[UNK]",
    "[MASK]", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "\n### Response:\n", "\n### Instruction:\n",
    "{{ prompt }}", "{% if messages %}", "<unk>", "<|assistant|>", "<｜end▁of▁sentence｜>", "<extra_id_0>",
)  # fmt: skip
SYLLABLES = (
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui", "ro", "su", "ta", "ve", "wi", "xo",
    "zy",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
Random = np.random.Generator


@dataclass
class Planted:
    """Documents with defects.

    Attributes:
        texts: the documents.
        places: of each planted place the document, its first byte and the end.
        nats_per_byte: what planted bytes cost where that is known: document → spans with it.
    """

    texts: list[bytes]
    places: list[tuple[int, int, int]] = field(default_factory=list)
    nats_per_byte: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict)


Plant = Callable[[Planted, int, Random], None]


def between_words(text: bytes, random: Random) -> int:
    """Return a random place in a text that follows a blank; the middle one where there is none."""
    blanks = [place + 1 for place, byte in enumerate(text) if byte == 0x20]
    return int(random.choice(blanks)) if blanks else len(text)


def insert(planted: Planted, document: int, random: Random, piece: str, nats: float | None = None) -> None:
    """Put a piece between two words of a document, with blanks around it."""
    text, data = planted.texts[document], piece.encode()
    at = between_words(text, random)
    planted.texts[document] = text[:at] + data + b" " + text[at:]
    shift = len(data) + 1
    for place, (number, start, stop) in enumerate(planted.places):
        if number == document:
            planted.places[place] = (number, start + shift * (start >= at), stop + shift * (stop > at))
    planted.places.append((document, at, at + len(data)))
    if nats is not None:
        spans = planted.nats_per_byte.setdefault(document, [])
        spans[:] = [(a + shift * (a >= at), b + shift * (a >= at), each) for a, b, each in spans]
        spans.append((at, at + len(data), nats))


def word(random: Random) -> str:
    return "".join(random.choice(SYLLABLES, int(random.integers(2, 4))))


def letters(random: Random, count: int, of: str = LETTERS) -> str:
    return "".join(random.choice(list(of), count))


def mojibake(planted: Planted, document: int, random: Random) -> None:
    while True:
        wrong = str(random.choice(PHRASES)).encode().decode(str(random.choice(READ_AS)), "ignore")
        if not wrong.isascii() and len(wrong) > 2:
            break
    insert(planted, document, random, wrong)


def markup(planted: Planted, document: int, random: Random) -> None:
    insert(planted, document, random, str(random.choice(TAGS)).replace("{}", word(random)))


def encoded_data(planted: Planted, document: int, random: Random) -> None:
    data = random.bytes(int(random.integers(32, 200)))
    kind = random.integers(4)
    if kind == 0:
        piece, nats = base64.b64encode(data).decode(), np.log(64)
    elif kind == 1:
        piece, nats = data[:64].hex(), np.log(16)
    elif kind == 2:
        piece, nats = data[:64].hex(" "), np.log(16) * 2 / 3
    else:
        piece, nats = (
            "".join(f"%{byte:02X}" for byte in data[:60]),
            np.log(16) * 2 / 3,
        )
    insert(planted, document, random, piece, float(nats * random.uniform(0.85, 1.3)))


def secret(planted: Planted, document: int, random: Random) -> None:
    make = (
        lambda: "AKIA" + letters(random, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        lambda: "ghp_" + letters(random, 36),
        lambda: "sk-" + letters(random, 48),
        lambda: "sk-proj-" + letters(random, 60),
        lambda: "hf_" + letters(random, 34),
        lambda: "AIza" + letters(random, 35),
        lambda: "xoxb-" + letters(random, 11, "0123456789") + "-" + letters(random, 24),
        lambda: "sk_live_" + letters(random, 24),
        lambda: f"eyJ{letters(random, 30)}.eyJ{letters(random, 60)}.{letters(random, 43)}",
        lambda: f"postgres://{word(random)}:{letters(random, 12)}@db.example.org/main",
        lambda: f'api_key = "{letters(random, 32)}"',
        lambda: (
            "-----BEGIN RSA PRIVATE KEY-----\n"
            + "\n".join(letters(random, 64) for _ in range(6))
            + "\n-----END RSA PRIVATE KEY-----"
        ),
        lambda: "glpat-" + letters(random, 20),
        lambda: "npm_" + letters(random, 36),
    )
    insert(planted, document, random, make[int(random.integers(len(make)))]())


def control_characters(planted: Planted, document: int, random: Random) -> None:
    insert(planted, document, random, HIDDEN[int(random.integers(len(HIDDEN)))])


def template_string(planted: Planted, document: int, random: Random) -> None:
    insert(planted, document, random, str(random.choice(STRINGS)))


def line_ends(planted: Planted, document: int, random: Random) -> None:
    """End every sentence or every line of a document as another system does."""
    end = [b"\r\n", b"\r\n", b"\r"][int(random.integers(3))]
    text = planted.texts[document]
    text = text.replace(b"\n", end) if b"\n" in text else text.replace(b". ", b"." + end) + end
    planted.texts[document] = text
    planted.places.append((document, 0, len(text)))


def copied(planted: Planted, document: int, random: Random) -> None:
    """Replace a document by a copy of an earlier one, one with few changes, or put a passage of it in."""
    earlier = [number for number in range(document) if len(planted.texts[number].split()) >= 45]
    if not earlier:
        return
    source = planted.texts[int(random.choice(earlier))]
    kind = random.integers(3)
    if kind == 2:
        words = source.split(b" ")
        first = int(random.integers(0, max(1, len(words) - 40)))
        insert(planted, document, random, b" ".join(words[first : first + 40]).decode())
        return
    words = source.split(b" ")
    if kind == 1:
        for at in random.integers(0, len(words), max(1, len(words) // 30)):
            words[at] = word(random).encode()
    planted.texts[document] = b" ".join(words)
    planted.places.append((document, 0, len(planted.texts[document])))


def truncated(planted: Planted, document: int, random: Random) -> None:
    """Cut a document inside a word."""
    text = planted.texts[document]
    least = len(b" ".join(text.split(b" ")[:25]))
    inside = [at for at in range(least + 1, len(text)) if text[at - 1 : at + 1].isalpha()]
    if inside:
        at = int(random.choice(inside))
        planted.texts[document] = text[:at]
        planted.places.append((document, text.rfind(b" ", 0, at) + 1, at))


def tiny_document(planted: Planted, document: int, random: Random) -> None:
    piece = [b"", b" ", b"\n\n", b"n/a", b"ok", b"None", b"see above"][int(random.integers(7))]
    planted.texts[document] = piece
    planted.places.append((document, 0, max(1, len(piece))))


def known_by_heart(planted: Planted, document: int, random: Random) -> None:
    """Let a stretch of a document cost next to nothing."""
    text = planted.texts[document]
    if len(text) < 400:
        return
    size = int(random.integers(200, min(800, len(text) - 100)))
    start = int(random.integers(0, len(text) - size))
    planted.places.append((document, start, start + size))
    planted.nats_per_byte.setdefault(document, []).append((start, start + size, float(random.uniform(0.002, 0.015))))


def boilerplate(planted: Planted, documents: list[int], random: Random) -> None:
    """Put one line, made up, at the end of several documents."""
    line = f"{word(random).title()} " + " ".join(word(random) for _ in range(int(random.integers(6, 16)))) + "."
    for document in documents:
        text = planted.texts[document]
        planted.texts[document] = text + b"\n\n" + line.encode()
        planted.places.append((document, len(text) + 2, len(text) + 2 + len(line)))


IN_ONE: dict[str, Plant] = {
    "mojibake": mojibake, "secret": secret, "encoded-data": encoded_data, "template-string": template_string,
    "markup": markup, "control-characters": control_characters, "line-ends": line_ends,
    "known-by-heart": known_by_heart,
    "duplicate": copied, "truncated": truncated, "tiny-document": tiny_document,
}  # fmt: skip
WHOLE = ("line-ends", "duplicate", "truncated", "tiny-document", "known-by-heart")  # at most one in a document
