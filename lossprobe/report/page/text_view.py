"""The part of the page that shows the text of a run, coloured by loss: HTML, style, script and packed data."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources

from lossprobe.analysis.coloured_text.coloured_text import ColouredText
from lossprobe.analysis.coloured_text.hardest_rows import HardestToken
from lossprobe.units import format_count, plural, visible

PREFIX = "lossprobe-text-"
ASSETS = (
    "text_data", "text_characters", "text_layout", "text_colours", "text_filter", "text_form", "text_rows", "text_card",
    "text_strip", "text_view", "text_start",
)  # fmt: skip
ENCLOSED = '(() => {\n"use strict";\n%s})();\n'  # so that no name meets another one of the page
DEFLATE_LEVEL = 9  # of deflate: a page is made once and sent often


@dataclass(frozen=True)
class TextView:
    """A part of a page; the frame puts its pieces where they belong.

    Attributes:
        html: a fragment without scripts, styles or handlers.
        style: CSS; all of it applies inside `#lp-text` or to names that begin with `lp-`.
        script: JavaScript that needs no other.
        data: id → bytes, packed by raw deflate; the frame writes each in base64 into
            `<script type="application/octet-stream" id=…>`, before the script.
    """

    html: str = field(repr=False)
    style: str = field(repr=False)
    script: str = field(repr=False)
    data: Mapping[str, bytes] = field(repr=False)


def text_view(text: ColouredText) -> TextView:
    """Return the part of the page for a text."""
    packed = {name: values.tobytes() for name, values in text.arrays.items() if len(values)}
    packed["header"] = json.dumps(text.header, ensure_ascii=True, allow_nan=False).encode()
    return TextView(
        html=_fragment(text),
        style=_asset("text_view.css"),
        script=ENCLOSED % "".join(f"{_asset(f'{name}.js')}\n" for name in ASSETS),
        data={f"{PREFIX}{name}": _deflated(data) for name, data in packed.items()},
    )


def _asset(name: str) -> str:
    return resources.files("lossprobe.report.page").joinpath("assets", name).read_text("utf-8")


def _deflated(data: bytes) -> bytes:
    """Return bytes packed by raw deflate, which browsers unpack."""
    packer = zlib.compressobj(DEFLATE_LEVEL, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _fragment(text: ColouredText) -> str:
    """Return the HTML: heading, notes, the live part, which the script fills, and the table."""
    changed = text.header["other"] is not None
    names = escape(visible(str(text.header["name"]), 80))
    if changed:
        names += f" and {escape(visible(str(text.header['other']), 80))}"
    on = escape(visible(str(text.header["text_name"]), 80))
    notes = "".join(f'<p class="lp-note">{escape(visible(note))}.</p>\n' for note in text.notes)
    return f"""<section id="lp-text" aria-labelledby="lp-text-title">
<h2 id="lp-text-title">The text, coloured by {"change of loss" if changed else "loss"}</h2>
<p>{names} on {on}, {plural(text.header["tokens"], "token")}. {_meaning(changed)}</p>
{notes}<a class="lp-skip" href="#lp-hardest">To the table of the hardest tokens</a>
<p class="lp-status" role="status"></p>
<div class="lp-live" hidden>
{_form(text)}<ul class="lp-legend" aria-label="Colours, in nats"></ul>
<div class="lp-bar"><button type="button" class="lp-previous">p: previous</button>
<button type="button" class="lp-next">n: next {"largest change" if changed else "hardest"}</button>
<span>Arrow keys go from token to token; point at one to see its numbers. {_MARKS}</span></div>
<div class="lp-body">
<div class="lp-scroll" role="grid" aria-label="The text, token by token" aria-readonly="true" tabindex="0">
<div class="lp-space" role="presentation"></div><div class="lp-rows" role="rowgroup"></div></div>
<canvas class="lp-strip" role="img" aria-label="Overview of the whole text, with marks at the worst places"></canvas>
<aside class="lp-card" id="lp-card" aria-label="Numbers of the token"><b class="lp-card-token"></b><dl></dl>
<p><a href="#lp-text" hidden></a><button type="button" class="lp-copy" hidden>copy link</button>
<span class="lp-copied" role="status"></span></p></aside>
</div>
</div>
{_table(text.hardest, changed)}</section>
"""


_MARKS = (
    "↵ is a line end, ← a carriage return, → a tab, · a blank, ▹ the rest of a character that an earlier token begins."
)


def _meaning(changed: bool) -> str:
    if changed:
        return "The change is the second model's loss minus the first one's, in nats: above 0 the second is worse."
    percents = "0.5 nats is a probability of 61 %, 1 nat 37 %, 3 nats 5 %, 6 nats 0.25 %, 11 nats 0.0017 %."
    return percents.replace(" %", "\u00a0%")  # a number and its unit stay on one line


def _form(text: ColouredText) -> str:
    measure = _measures(text) if text.header["other"] is not None else ""
    role = ""
    if text.header["labels"]:
        role = '<label>role or part<select name="role"><option value="">any</option></select></label>\n'
    return f"""<details class="lp-filters" open><summary>Filters</summary>
<form aria-label="Filters">
{measure}<label>nats from<input type="number" name="low" step="any"></label>
<label>nats to<input type="number" name="high" step="any"></label>
<label>rank<select name="rank"><option value="">any</option><option value="first">0: the first choice</option>
<option value="wrong">1 and more</option><option value="few">1 to 9</option><option value="tens">10 to 99</option>
<option value="hundreds">100 and more</option></select></label>
<label>class<select name="class"><option value="">any</option></select></label>
{role}<label>document<input type="number" name="document" min="0" step="1"></label>
<label>text<input type="search" name="search" autocomplete="off" spellcheck="false"></label>
<label class="lp-beside"><input type="checkbox" name="only">only lines with a match</label>
<label class="lp-beside"><input type="checkbox" name="blanks">mark every blank</label>
<button type="reset">clear</button>
</form></details>
"""


def _measures(text: ColouredText) -> str:
    """Return the choice of what colours a text that two runs scored, and of a series the slider of its steps."""
    steps = len(text.header["steps"])
    step = '<option value="step">loss at a step</option>' if steps else ""
    slider = ""
    if steps:
        slider = (
            '<label class="lp-steps" hidden>at <output class="lp-step"></output>'
            f'<input type="range" name="step" min="0" max="{steps - 1}" step="1" value="{steps - 1}"></label>\n'
        )
    return (
        '<label>colour by<select name="measure"><option value="change">change of loss</option>'
        f'<option value="loss">loss of the first</option>{step}</select></label>\n{slider}'
    )


def _table(rows: tuple[HardestToken, ...], changed: bool) -> str:
    """Return the hardest tokens as a table, for print, for readers of the screen, and for browsers without scripts."""
    what = "The tokens that changed most" if changed else "The hardest tokens"
    change = '<th scope="col" class="lp-number">change (nats)</th>' if changed else ""
    body = "\n".join(_row(row, changed) for row in rows)
    return f"""<h3 id="lp-hardest">{what}</h3>
<div class="lp-table" role="region" aria-labelledby="lp-hardest" tabindex="0"><table>
<thead><tr><th scope="col">token</th><th scope="col">in the text</th>{change}
<th scope="col" class="lp-number">loss (nats)</th><th scope="col">first choice</th>
<th scope="col" class="lp-number">rank</th><th scope="col" class="lp-number">context</th></tr></thead>
<tbody>
{body}
</tbody></table></div>
"""


def _row(row: HardestToken, changed: bool) -> str:
    place = f"d{row.document}t{row.token}"
    change = "n/a" if row.difference_nats is None else f"{row.difference_nats:+.3f}"
    cells = [change] if changed else []
    losses = _numbers(*cells, f"{row.loss_nats:.3f}")
    around = f"<bdi>{escape(row.before)}</bdi><mark><bdi>{escape(row.text)}</bdi></mark><bdi>{escape(row.after)}</bdi>"
    return (
        f'<tr><th scope="row"><a href="#{place}">{place}</a></th><td class="lp-around">{around}</td>{losses}'
        f'<td class="lp-code">“<bdi>{escape(row.top_text)}</bdi>”</td>'
        f"{_numbers(format_count(row.rank), format_count(row.context))}</tr>"
    )


def _numbers(*cells: str) -> str:
    return "".join(f'<td class="lp-number">{cell}</td>' for cell in cells)
