"""Keys, tokens and passwords, known by their shape. No secret is ever shown whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage

NAME = "secret"
# Shapes that the issuers document; each begins and ends where no letter or digit goes on.
SHAPES = {
    "private key (PEM)": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
    rb"(?=.{0,400}?[A-Za-z0-9+/=]{16})(?:.{1,20000}?-----END [A-Z ]+-----)?",
    "AWS access key": rb"(?:AKIA|ASIA)[0-9A-Z]{16}",
    "GitHub token": rb"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    "GitLab token": rb"glpat-[A-Za-z0-9_-]{20,}",
    "Slack token": rb"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "Google key": rb"AIza[0-9A-Za-z_-]{35}",
    "Stripe key": rb"[sr]k_(?:live|test)_[0-9A-Za-z]{16,}",
    "key of a model's provider": rb"sk-(?=[A-Za-z0-9_-]*?(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16})[A-Za-z0-9_-]{20,}",
    "Hugging Face token": rb"hf_[A-Za-z0-9]{30,}",
    "SendGrid key": rb"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",
    "npm token": rb"npm_[A-Za-z0-9]{36}",
    "PyPI token": rb"pypi-[A-Za-z0-9_-]{50,}",
    "JSON Web Token": rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "password in an address": rb"[a-z][a-z0-9+.-]{1,20}://[^\s:@/\"'<>]{0,64}:"
    rb"(?!(?i:pass(?:word|wd)?|pw|pwd|secret|[x*.]+|[$%{\[][^\s@]*)@)[^\s:@/\"'<>]{3,64}@[\w-]+(?:\.[\w-]+)*",
    "assigned key": rb"(?i:(?:api[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret))"
    rb"[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?=[A-Za-z0-9_/+-]*[0-9])(?=[A-Za-z0-9_/+-]*[A-Za-z])[A-Za-z0-9_/+-]{20,}+(?![(\[])",
}  # fmt: skip
SECRET = re.compile(
    rb"(?<![A-Za-z0-9_])(?:" + b"|".join(b"(%b)" % shape for shape in SHAPES.values()) + rb")(?![A-Za-z0-9])", re.DOTALL
)
# Every alternative holds one of these, which are found much faster.
MARKS = re.compile(
    rb"-----BEGIN |AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|AIza|[sr]k_(?:live|test)_|sk-|hf_|SG\.|npm_"
    rb"|pypi-|eyJ|://|(?i:api[_-]?key|secret[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret)"
)
SHOWN = 6  # characters of a secret


def find_secrets(page: TextPage) -> Iterator[Found]:
    """Yield every key, token or password."""
    data = page.data
    if MARKS.search(data) is None:
        return
    for match in SECRET.finditer(data):
        yield Found(NAME, *match.span(), list(SHAPES)[(match.lastindex or 1) - 1])


def without_secrets(data: bytes) -> bytes:
    """Return bytes in which every secret is cut after its first characters, and its end is stars.

    >>> without_secrets(b"key AKIAABCDEFGHIJKLMNOP.")
    b'key AKIAAB***.'
    """
    if MARKS.search(data) is None:
        return data
    return SECRET.sub(lambda match: match[0][:SHOWN] + b"***", data)
