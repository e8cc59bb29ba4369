// The card: what is known of the token under the pointer, or else of the current one.

// Returns nats with the decimals that are known: a code tells a loss to about 1 %, and a change to about 3 %.
function nats(value, exact = false) {
  return `${value.toFixed(exact ? 3 : value < 3 ? 2 : 1)} nats`;
}

function signed(value, exact) {
  return `${value > 0 ? "+" : value < 0 ? "−" : ""}${nats(Math.abs(value), exact)}`;
}

function percent(probability) {
  if (probability >= 0.9995) return "over 99.9 %";
  return probability < 0.001 ? `${probability.toExponential(1)}` : `${(100 * probability).toPrecision(3)} %`;
}

function tokenBytes(T, i) {
  return shownBytes(T.text, T.offset[i], T.offset[i + 1]) || "(no bytes)";
}

function choiceWords(T, i) {
  const choice = choiceOf(T, i);
  if (choice === 0) return `this token, ${percent(Math.exp(-lossOf(T, i)))}`;
  const entry = shownBytes(T.entries, T.entryStart[choice - 1], T.entryStart[choice]);
  return `“${entry}”, about ${percent(Math.exp(-lossOfCode(T, T.choice_loss[i])))}`;
}

function rankWords(T, i) {
  const exact = T.exactRank.get(i);
  const rank = exact ?? rankOfCode(T, T.rank[i]);
  if (rank === 0) return "0: the first choice";
  const about = exact !== undefined || T.rank[i] < T.header.scales.exact_ranks ? "" : "about ";
  return `${about}${rank.toLocaleString("en")} of ${T.header.vocab_size.toLocaleString("en")} entries are more likely`;
}

function classWords(T, i) {
  const words = [T.header.forms[T.kind[i] & WORD_FORM]];
  words.push(T.kind[i] & REPEAT ? "its id is in the context" : "its id is not in the context");
  return words.join(", ");
}

function whereWords(T, i) {
  const { document, token } = placeOf(T, i);
  const byte = byteOf(T, i);
  const words = [`document ${T.document_number[document]}, token ${token}`];
  words.push(`byte ${byte.toLocaleString("en")}${T.header.tiles && T.header.origin !== "entries" ? "" : " (about)"}`);
  const source = T.header.sources[T.document_source[document]];
  words.push(`${source}, line ${T.document_line[document] + (linesBefore(T, i, document) ?? 0)}`);
  const offset = T.document_offset[document];
  if (offset >= 0) words.push(`byte ${(offset + byte).toLocaleString("en")} of the file`);
  return words.join("; ");
}

// Returns the line ends of the document before a token, where the document is a part of a file, and shown up to there.
function linesBefore(T, i, document) {
  const piece = runOf(T.pieceStart, i);
  if (T.document_offset[document] < 0 || T.piece_first[piece] > 0) return null;
  let lines = 0;
  for (let at = T.offset[T.pieceStart[piece]]; at < T.offset[i]; at++) if (T.text[at] === NEWLINE) lines++;
  return lines;
}

// Returns the whole characters that a token is only a part of, or null.
function partOf(T, i) {
  const piece = runOf(T.pieceStart, i);
  const least = T.offset[T.pieceStart[piece]];
  const limit = T.offset[T.pieceStart[piece + 1]];
  let from = T.offset[i];
  let to = T.offset[i + 1];
  if (from === to) return null;
  while (continues(T.text, from, least, limit)) from--;
  while (to < limit && continues(T.text, to, least, limit)) to++;
  return from < T.offset[i] || to > T.offset[i + 1] ? shownBytes(T.text, from, to) : null;
}

// Returns names and values of what the card shows.
function cardRows(T, i) {
  const rows = [];
  const whole = partOf(T, i);
  if (whole !== null) rows.push(["part of", `“${whole}”`]);
  if (isScored(T, i)) {
    const loss = lossOf(T, i);
    const most = T.loss[i] === T.header.scales.scored_codes - 1 && !T.exactLoss.has(i) ? "at least " : "";
    rows.push(["loss", `${most}${nats(loss, T.exactLoss.has(i))}, probability ${percent(Math.exp(-loss))}`]);
    if (T.difference.length) rows.push(["change", changeWords(T, i)]);
    if (T.steps.length) rows.push(["at each step", stepWords(T, i)]);
    rows.push(["rank", rankWords(T, i)], ["first choice", choiceWords(T, i)]);
    rows.push(["entropy", `${nats(lossOfCode(T, T.entropy[i]))}: the loss that the model expected`]);
  } else {
    rows.push(["loss", `none: ${T.header.reasons[T.loss[i] - T.header.scales.scored_codes].replaceAll("_", " ")}`]);
  }
  const context = contextOf(T, i);
  const seen = `${context.toLocaleString("en")} token${context === 1 ? "" : "s"} before it`;
  rows.push(["context", seen], ["class", classWords(T, i)]);
  if (T.label.length) {
    const run = runOf(T.labelStart, i);
    const [role, part] = T.header.labels[T.label[run]];
    const turn = T.label_turn[run];
    rows.push(["role", `${role ?? "(none)"}, ${part.replaceAll("_", " ")}${turn < 0 ? "" : `, turn ${turn}`}`]);
  }
  rows.push(["place", whereWords(T, i)]);
  return rows;
}

function changeWords(T, i) {
  if (T.difference[i] === T.header.scales.no_difference) return "not scored by the other model";
  const exact = T.exactChange.get(i);
  const change = exact ?? differenceOfCode(T, T.difference[i]);
  const words = change > 0 ? "harder" : change < 0 ? "easier" : "the same";
  return `${signed(change, exact !== undefined)}: ${words} for ${T.header.other}`;
}

// Returns the losses of a token over a training, in the order of the steps.
function stepWords(T, i) {
  const known = (code) => (code < T.header.scales.scored_codes ? lossOfCode(T, code).toFixed(2) : "none");
  return `${T.steps.map((codes) => known(codes[i])).join(" → ")} nats`;
}

class Card {
  constructor(T, element) {
    this.T = T;
    this.title = element.querySelector(".lp-card-token");
    this.list = element.querySelector("dl");
    this.link = element.querySelector("a");
    this.copy = element.querySelector(".lp-copy");
    this.copied = element.querySelector(".lp-copied");
    this.copy.addEventListener("click", () => this.copyLink());
  }

  show(i) {
    if (i < 0 || i === this.token) return;
    this.token = i;
    this.title.textContent = tokenBytes(this.T, i);
    this.list.replaceChildren();
    for (const [name, value] of cardRows(this.T, i)) {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      this.list.append(term, text);
    }
    this.link.href = `#${linkOf(this.T, i)}`;
    this.link.textContent = `#${linkOf(this.T, i)}`;
    this.link.hidden = this.copy.hidden = false;
    this.copied.textContent = "";
  }

  async copyLink() {
    const address = new URL(this.link.getAttribute("href"), location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      this.copied.textContent = "copied";
    } catch {
      this.copied.textContent = address; // no permission: shown, to be copied by hand
    }
  }
}

function linkOf(T, i) {
  const { document, token } = placeOf(T, i);
  return `d${T.document_number[document]}t${token}`;
}
