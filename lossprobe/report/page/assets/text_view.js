// Puts the parts together: reads the data, and answers keys, pointer, filters, links and changes of width.

const PAGE_SHARE = 0.9; // of the visible rows
const COVERED = 64; // pixels at the upper edge of the window
const NARROW = "(max-width: 60rem)"; // as in the style: there the text comes before the filters

class TextView {
  constructor(T, root) {
    this.T = T;
    this.root = root;
    this.form = root.querySelector("form");
    this.scroller = root.querySelector(".lp-scroll");
    this.status = root.querySelector(".lp-status");
    this.rows = new Rows(T, this.scroller);
    this.card = new Card(T, root.querySelector(".lp-card"));
    this.strip = new Strip(T, this.rows, root.querySelector(".lp-strip"), {
      jump: (token) => this.go(token, { focus: true }),
      order: () => this.order,
    });
    this.match = null;
    this.columns = 0;
  }

  start() {
    fillChoices(this.T, this.form);
    if (matchMedia(NARROW).matches) this.root.querySelector(".lp-filters").open = false;
    this.measureChanged();
    this.layOutAgain();
    this.listen();
    if (!this.openLink() && this.T.count) this.select(0);
  }

  measureChanged() {
    const wanted = this.form.elements.measure?.value ?? "loss";
    this.measure = measureOf(this.T, wanted === "change", this.stepShown(wanted === "step"));
    drawLegend(this.root.querySelector(".lp-legend"), this.measure);
    this.filterChanged();
  }

  // Shows the slider of steps only where it says something; returns the step, or null.
  stepShown(wanted) {
    const { step } = this.form.elements;
    if (!step) return null;
    this.root.querySelector(".lp-steps").hidden = !wanted;
    this.root.querySelector(".lp-step").textContent = this.T.header.steps[step.valueAsNumber];
    return wanted ? step.valueAsNumber : null;
  }

  filterChanged() {
    this.match = matching(this.T, this.measure, wishesOf(this.form));
    this.knownOrder = null;
    this.rows.onlyMatching = this.form.elements.only.checked;
    this.rows.everyBlank = this.form.elements.blanks.checked;
    const all = this.T.count.toLocaleString("en");
    let found = this.T.count;
    if (this.match) found = this.match.reduce((sum, one) => sum + one, 0);
    this.say(this.match ? `${found.toLocaleString("en")} of ${all} tokens match` : `${all} tokens`);
    if (this.columns) this.showRows();
  }

  // The matching tokens, hardest first; computed when it is first asked for.
  get order() {
    this.knownOrder ??= hardestFirst(this.T, this.measure, this.match);
    return this.knownOrder;
  }

  // Breaks the lines anew if the width allows another number of cells.
  layOutAgain() {
    const columns = Math.max(16, Math.floor(this.scroller.clientWidth / cellWidth(this.rows.holder)) - 2);
    if (columns !== this.columns) {
      this.columns = columns;
      this.lines = layOut(this.T, columns);
      this.showRows();
    } else if (this.scroller.clientHeight !== this.rows.height) this.showRows();
  }

  showRows() {
    const { current } = this.rows;
    const focused = this.scroller.contains(document.activeElement);
    this.rows.show(this.lines, this.measure, this.match);
    const element = current >= 0 ? this.rows.reveal(current) : undefined;
    if (focused) (element ?? this.scroller).focus({ preventScroll: true });
    this.strip.update();
  }

  listen() {
    const { root, scroller, form, rows } = this;
    scroller.addEventListener("scroll", () => {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => {
        rows.draw(SCROLLED);
        this.strip.draw();
      });
    });
    scroller.addEventListener("pointerover", (event) => {
      const token = tokenUnder(event.target);
      if (token >= 0) this.card.show(token);
    });
    scroller.addEventListener("pointerleave", () => this.card.show(rows.current));
    scroller.addEventListener("click", (event) => {
      const token = tokenUnder(event.target);
      if (token >= 0) this.select(token, { focus: true });
    });
    scroller.addEventListener("focusin", (event) => {
      const token = tokenUnder(event.target);
      if (token >= 0 && token !== rows.current) this.select(token);
    });
    root.ownerDocument.addEventListener("keydown", (event) => this.key(event));
    form.addEventListener("input", (event) => {
      if (event.target.name === "step") return this.measureChanged();
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.filterChanged(), 150);
      return undefined;
    });
    form.addEventListener("change", (event) => {
      if (event.target.name === "measure") this.measureChanged();
    });
    form.addEventListener("reset", () => setTimeout(() => this.measureChanged()));
    form.addEventListener("submit", (event) => event.preventDefault());
    root.querySelector(".lp-next").addEventListener("click", () => this.step(1));
    root.querySelector(".lp-previous").addEventListener("click", () => this.step(-1));
    addEventListener("hashchange", (event) => this.openLink(new URL(event.newURL).hash));
    new ResizeObserver(() => this.layOutAgain()).observe(scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.strip.paint());
  }

  // Keys work in the text, and where nothing else has the focus.
  key(event) {
    const inText = this.scroller.contains(event.target);
    if (event.ctrlKey && inText && (event.key === "Home" || event.key === "End")) {
      this.go(event.key === "Home" ? 0 : this.T.count - 1, { focus: true });
      return event.preventDefault();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
    const steps = { n: 1, p: -1 };
    if (event.key in steps && (inText || event.target === document.body)) {
      this.step(steps[event.key], { focus: true });
      return event.preventDefault();
    }
    if (!inText) return undefined;
    const page = Math.max(1, Math.floor(this.rows.visible * PAGE_SHARE));
    const moves = {
      ArrowRight: () => this.along(1), ArrowLeft: () => this.along(-1), ArrowDown: () => this.across(1),
      ArrowUp: () => this.across(-1), PageDown: () => this.across(page), PageUp: () => this.across(-page),
      Home: () => this.edge(0), End: () => this.edge(-1),
    };
    if (!(event.key in moves)) return undefined;
    moves[event.key]();
    return event.preventDefault();
  }

  along(step) {
    this.go(Math.min(this.T.count - 1, Math.max(0, this.rows.current + step)), { focus: true });
  }

  // Goes so many text rows down or up, to the token nearest to the same place in the line.
  across(step) {
    const { rows } = this;
    const old = rows.reveal(rows.current);
    const left = old ? old.offsetLeft : 0;
    let row = rows.rowOf(lineOfToken(this.T, rows.lines, Math.max(0, rows.current)));
    const way = Math.sign(step);
    row = Math.min(rows.count - 1, Math.max(0, row + step));
    const isText = (at) => rows.lines.kind[rows.lineAt(at)] === LINE.TEXT;
    while (row + way >= 0 && row + way < rows.count && !isText(row)) row += way;
    if (!isText(row)) return;
    if (row < rows.top || row > rows.top + rows.visible - 1.5) {
      rows.scrollToRow(way > 0 ? row - rows.visible + 2 : row - 1);
    }
    const cells = [...(rows.live.get(row)?.children ?? [])];
    const nearest = cells.findLast((cell) => cell.offsetLeft <= left) ?? cells[0];
    const token = nearest ? tokenUnder(nearest) : -1;
    if (token >= 0) this.select(token, { focus: true, part: nearest });
  }

  edge(side) {
    const row = this.rows.elementOf(this.rows.current)?.parentElement;
    const cell = row && [...row.children].at(side);
    if (cell) this.select(tokenUnder(cell), { focus: true, part: cell });
  }

  // Goes to the next hardest token, or back to the one before it in that order.
  step(way, options = {}) {
    if (!this.order.length) return this.say("no token matches");
    const at = this.order.indexOf(this.rows.current);
    const next = this.stepped && at >= 0 ? Math.min(this.order.length - 1, Math.max(0, at + way)) : 0;
    this.stepped = true;
    this.go(this.order[next], options);
    const of = this.order.length.toLocaleString("en");
    this.say(`${(next + 1).toLocaleString("en")}${ordinal(next + 1)} ${this.measure.changed ? "largest change" : "hardest"} of ${of} tokens`);
    return undefined;
  }

  // Brings a token into view and selects it.
  go(token, options = {}) {
    this.rows.current = token;
    const element = this.rows.reveal(token);
    this.select(token, { ...options, part: element });
    const { top = 0, bottom = 0 } = element?.getBoundingClientRect() ?? {};
    // A key or a link can come from elsewhere in the page; a heading may cover its upper edge.
    if (top < COVERED || bottom > innerHeight) this.scroller.scrollIntoView({ block: "center" });
  }

  select(token, { focus = false, part = null } = {}) {
    this.rows.mark(token);
    this.card.show(token);
    const element = part ?? this.rows.elementOf(token);
    if (element) element.setAttribute("aria-describedby", "lp-card");
    if (focus) (element ?? this.scroller).focus({ preventScroll: true });
    clearTimeout(this.linking);
    if (focus) this.linking = setTimeout(() => setLink(linkOf(this.T, token)), 300);
  }

  // Opens the token that an address names; returns whether it names one that is here.
  // The address that was followed is given, since the late link of a token chosen before may have taken its place.
  openLink(fragment = location.hash) {
    const named = /^#d(\d+)t(\d+)$/.exec(fragment);
    if (!named) return false;
    clearTimeout(this.linking);
    const token = findToken(this.T, Number(named[1]), Number(named[2]));
    if (token < 0) {
      this.say(`token ${named[2]} of document ${named[1]} is not on this page`);
      return false;
    }
    this.go(token, { focus: true });
    return true;
  }

  say(words) {
    this.status.textContent = words;
  }
}

function tokenUnder(element) {
  const index = element.dataset?.i;
  return index === undefined ? -1 : Number(index);
}

function ordinal(number) {
  if (number % 100 >= 11 && number % 100 <= 13) return "th";
  return { 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th";
}

function setLink(link) {
  try {
    history.replaceState(null, "", `#${link}`); // leaves no trail of tokens behind the back button
  } catch {
    // Some browsers refuse after many changes; the link in the card is still right.
  }
}

// Returns the width of a letter in pixels, as it is drawn.
function cellWidth(element) {
  const probe = document.createElement("span");
  probe.textContent = "0".repeat(100);
  element.append(probe);
  const { width } = probe.getBoundingClientRect();
  probe.remove();
  return width / 100 || 8;
}
