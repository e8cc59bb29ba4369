// The visible rows: about a hundred live ones, made from the lines around the place that is scrolled to.

const AROUND = 30; // rows that stand ready above and below the visible ones
const AT_ONCE = 3; // of them, how many are made before the next picture after a jump; the others follow
const SCROLLED = 15; // and how many while the reader scrolls
const LATER = 80; // milliseconds
const MOST_HEIGHT = 8e6; // pixels; browsers cut off taller elements
const ROLES = ["system", "user", "assistant", "tool", "prompt", "completion"];

class Rows {
  constructor(T, scroller) {
    this.T = T;
    this.scroller = scroller;
    this.space = scroller.querySelector(".lp-space");
    this.holder = scroller.querySelector(".lp-rows");
    this.live = new Map(); // line → row
    this.match = null;
    this.everyBlank = false;
    this.onlyMatching = false;
    this.current = -1;
  }

  // Sets what is shown: the lines of a layout, or those of them that hold a match.
  show(lines, measure, match) {
    this.lines = lines;
    this.measure = measure;
    this.match = match;
    this.shown = match && this.onlyMatching ? this.matchingLines() : null;
    this.count = this.shown ? this.shown.length : lines.count;
    this.rowHeight = parseFloat(getComputedStyle(this.holder).lineHeight) || 24;
    this.height = this.scroller.clientHeight; // reading it later would make the browser lay out the page again
    this.space.style.height = `${Math.min(this.count * this.rowHeight, MOST_HEIGHT)}px`;
    this.scroller.setAttribute("aria-rowcount", this.count);
    this.clear();
    this.draw();
  }

  // Returns the text lines that hold a match, each document's head before its first one.
  matchingLines() {
    const { lines, match } = this;
    const found = [];
    let head = -1;
    for (let line = 0; line < lines.count; line++) {
      if (lines.kind[line] === LINE.DOCUMENT) head = line;
      if (lines.kind[line] !== LINE.TEXT) continue;
      const last = this.lastToken(line);
      let holds = false;
      for (let i = lines.token[line]; i < last && !holds; i++) holds = match[i] === 1;
      if (!holds) continue;
      if (head >= 0) found.push(head);
      head = -1;
      found.push(line);
    }
    return Uint32Array.from(found);
  }

  lineAt(row) {
    return this.shown ? this.shown[row] : row;
  }

  // Returns the row of a line: where only matching lines are shown, the last row at or before it.
  rowOf(line) {
    if (!this.shown) return line;
    let low = 0;
    for (let high = this.count; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (this.shown[middle] <= line) low = middle;
      else high = middle;
    }
    return low;
  }

  lastToken(line) {
    const { lines, T } = this;
    if (line + 1 >= lines.count) return T.count;
    const next = lines.token[line + 1];
    return lines.byte[line + 1] > T.offset[next] ? next + 1 : next;
  }

  // The first visible row, with its fraction. A text that is too tall to scroll by pixels is scrolled by its share.
  get top() {
    const all = this.count * this.rowHeight;
    if (all <= MOST_HEIGHT) return this.scroller.scrollTop / this.rowHeight;
    const way = MOST_HEIGHT - this.height;
    return (this.scroller.scrollTop / way) * (this.count - this.visible);
  }

  get visible() {
    return this.height / this.rowHeight;
  }

  scrollToRow(row) {
    const all = this.count * this.rowHeight;
    const way = MOST_HEIGHT - this.height;
    const place = all <= MOST_HEIGHT ? row * this.rowHeight : (row / (this.count - this.visible)) * way;
    this.scroller.scrollTop = Math.max(0, place);
    this.draw();
  }

  // Brings a token into view, in the middle if it was not visible; returns its element, or undefined.
  reveal(token) {
    const row = this.rowOf(lineOfToken(this.T, this.lines, token));
    if (row < this.top || row > this.top + this.visible - 1.5) this.scrollToRow(row - this.visible / 2 + 1);
    return this.elementOf(token);
  }

  elementOf(token) {
    return this.holder.querySelector(`[data-i="${token}"]`);
  }

  clear() {
    this.holder.replaceChildren();
    this.live.clear();
    this.first = Infinity;
    this.last = -1;
  }

  // Makes the rows that are about to be seen, and the others around them when there is time. While enough rows stand
  // ready, nothing is done: the browser scrolls them by itself.
  draw(near = AT_ONCE) {
    const top = this.top;
    this.place(top, near, AROUND);
    if (this.first > Math.max(0, top - AROUND / 2) || this.last < Math.min(this.count, top + this.visible + AROUND / 2)) {
      clearTimeout(this.later);
      this.later = setTimeout(() => this.place(this.top, AROUND, AROUND), LATER);
    }
  }

  // Makes rows as far as `near` rows around the visible ones, and removes those farther away than `far`.
  place(top, near, far) {
    const first = Math.max(0, Math.floor(top) - near);
    const last = Math.min(this.count, Math.ceil(top + this.visible) + near);
    const scrolled = this.count * this.rowHeight > MOST_HEIGHT;
    if (!scrolled && this.first <= first && this.last >= last) return;
    for (const [row, element] of this.live) {
      const kept = row >= first - far && row < last + far && this.first <= last && this.last >= first;
      if (kept) continue;
      if (element.contains(document.activeElement)) this.scroller.focus({ preventScroll: true });
      element.remove();
      this.live.delete(row);
    }
    const before = document.createDocumentFragment();
    const after = document.createDocumentFragment();
    const rows = [...this.live.keys()];
    this.first = Math.min(first, ...rows);
    this.last = Math.max(last, ...rows.map((row) => row + 1));
    const lowest = rows.length ? Math.min(...rows) : Infinity;
    for (let row = this.first; row < this.last; row++) {
      if (this.live.has(row)) continue;
      const element = this.makeRow(row);
      this.live.set(row, element);
      (row < lowest ? before : after).append(element);
    }
    const shift = scrolled ? this.scroller.scrollTop - (top - this.first) * this.rowHeight : this.first * this.rowHeight;
    this.holder.style.transform = `translateY(${shift}px)`;
    this.holder.prepend(before);
    this.holder.append(after);
    this.mark(this.current);
  }

  makeRow(row) {
    const line = this.lineAt(row);
    const element = document.createElement("div");
    element.setAttribute("role", "row");
    element.setAttribute("aria-rowindex", row + 1);
    element.className = "lp-row";
    const kind = this.lines.kind[line];
    if (kind === LINE.TEXT) this.fillText(element, line);
    else this.fillHead(element, line, kind);
    const role = this.roleAt(Math.min(this.lines.token[line], this.T.count - 1));
    if (role && kind !== LINE.DOCUMENT) {
      element.classList.add("lp-turn", ROLES.includes(role) ? `lp-role-${role}` : "lp-role-other");
    }
    return element;
  }

  roleAt(token) {
    if (!this.T.label.length) return null;
    return this.T.header.labels[this.T.label[runOf(this.T.labelStart, token)]][0];
  }

  fillText(element, line) {
    const { T, lines, match, measure } = this;
    const from = lines.byte[line];
    const to = line + 1 < lines.count ? lines.byte[line + 1] : T.offset[T.count];
    const piece = runOf(T.pieceStart, lines.token[line]);
    const least = T.offset[T.pieceStart[piece]];
    const limit = T.offset[T.pieceStart[piece + 1]];
    for (let i = lines.token[line], last = this.lastToken(line); i < last; i++) {
      const span = document.createElement("span");
      const start = Math.max(from, T.offset[i]);
      span.textContent = shownText(T.text, start, Math.min(to, T.offset[i + 1]), least, limit, this.everyBlank);
      let style = `lp-t ${measure.style[measure.codes[i]]}`;
      if (match && !match[i]) style += " lp-dim";
      if (T.kind[i] & NO_BYTES) style += " lp-name";
      span.className = style;
      span.setAttribute("role", "gridcell");
      span.dataset.i = i;
      element.append(span);
    }
  }

  fillHead(element, line, kind) {
    const cell = document.createElement("span");
    cell.setAttribute("role", "gridcell");
    cell.textContent = this.headText(line, kind);
    element.classList.add(kind === LINE.DOCUMENT ? "lp-document" : kind === LINE.TURN ? "lp-turn-head" : "lp-gap");
    element.append(cell);
  }

  headText(line, kind) {
    const { T, lines } = this;
    const token = lines.token[line];
    if (kind === LINE.TURN) {
      const run = runOf(T.labelStart, token);
      return `${this.roleAt(token) ?? "(no role)"} · turn ${T.label_turn[run]}`;
    }
    const piece = runOf(T.pieceStart, Math.min(token, T.count - 1));
    if (kind === LINE.GAP) {
      const ended = token === T.count || (T.pieceStart[piece] === token && this.endsBefore(piece, line));
      const at = ended && token < T.count ? piece - 1 : piece;
      const document = T.piece_document[at];
      const before = at > 0 && T.piece_document[at - 1] === document ? T.piece_first[at - 1] + T.piece_tokens[at - 1] : 0;
      const left = ended
        ? T.document_tokens[document] - T.piece_first[at] - T.piece_tokens[at]
        : T.piece_first[at] - before;
      return `… ${left.toLocaleString("en")} tokens are not on this page …`;
    }
    return documentWords(T, T.piece_document[piece]);
  }

  // Returns whether a gap stands at the end of the document before a piece: a document's head follows it.
  endsBefore(piece, line) {
    return line + 1 < this.lines.count && this.lines.kind[line + 1] === LINE.DOCUMENT;
  }

  // Marks the current token, the only one that the tab key reaches.
  mark(token) {
    this.current = token;
    const parts = token < 0 ? [] : this.holder.querySelectorAll(`[data-i="${token}"]`);
    for (const old of this.holder.querySelectorAll(".lp-current")) {
      if (Number(old.dataset.i) === token) continue;
      old.classList.remove("lp-current");
      old.tabIndex = -1; // without one it would lose the focus, and the browser lay out the page to find another
      old.removeAttribute("aria-describedby");
    }
    parts.forEach((part, k) => {
      part.classList.add("lp-current");
      if (k === 0) part.tabIndex = 0;
    });
    this.scroller.tabIndex = parts.length ? -1 : 0; // so that the keyboard always finds a way in
  }
}

function documentWords(T, index) {
  const mean = T.document_mean[index];
  const tokens = T.document_tokens[index];
  const source = T.header.sources[T.document_source[index]];
  const words = [`document ${T.document_number[index]}`, `${source}, line ${T.document_line[index]}`];
  words.push(`${tokens.toLocaleString("en")} tokens`, Number.isNaN(mean) ? "no loss" : `mean ${mean.toFixed(3)} nats`);
  return words.join(" · ");
}
