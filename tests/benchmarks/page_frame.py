"""A page that holds nothing but the text view, under the strict policy of the real page; and a browser to open it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lossprobe.report.page.text_view import TextView

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
HAS_PLAYWRIGHT = importlib.util.find_spec("playwright") is not None
NEEDED = "LOSSPROBE_NEEDS_BROWSER"  # set where a missing browser is a fault
in_browser = pytest.mark.skipif(
    not (CHROMIUM and HAS_PLAYWRIGHT) and NEEDED not in os.environ,
    reason="needs playwright" if CHROMIUM else "needs Chromium, of the system or named in CHROMIUM",
)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SHOWN = "performance.getEntriesByName('lossprobe-text-shown')"


def framed(view: TextView) -> str:
    """Return a page that runs no script and no style but those of the view."""
    policy = (
        f"default-src 'none'; script-src '{_hash(view.script)}'; style-src '{_hash(view.style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    data = "\n".join(
        f'<script type="application/octet-stream" id="{name}">{base64.b64encode(packed).decode()}</script>'
        for name, packed in view.data.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>text</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{view.style}</style></head><body>\n{view.html}{data}\n<script>{view.script}</script></body></html>"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def open_page(browser: Browser, file: Path, fragment: str = "", **context: Any) -> Any:
    """Open a page and wait until its text is there; `page.faults` lists what its scripts and its policy complain of."""
    page = browser.new_context(**context).new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.faults = faults
    page.goto(f"{file.as_uri()}{fragment}")
    wait_for_text(page)
    return page


def wait_for_text(page: Any) -> None:
    """Wait until the text is shown; the policy of the page allows no waiting for a condition in JavaScript."""
    page.wait_for_selector(".lp-live:not([hidden])", timeout=60_000)
    page.wait_for_selector(".lp-row")
