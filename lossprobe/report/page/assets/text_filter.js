// Which tokens the reader asks for, and their order from the hardest on.

const WORD_FORM = 15; // the bits of `kind` with the number of the form

function folded(bytes) {
  return bytes.map((byte) => (byte >= 65 && byte <= 90 ? byte + 32 : byte));
}

// Marks in `found` the tokens that a text lies in; capitals of ASCII count as small letters.
function markText(T, wanted, found) {
  const needle = folded(new TextEncoder().encode(wanted));
  T.folded ??= folded(T.text);
  const hay = T.folded;
  const last = hay.length - needle.length;
  let token = 0;
  for (let at = hay.indexOf(needle[0]); at >= 0 && at <= last; at = hay.indexOf(needle[0], at + 1)) {
    let k = 1;
    while (k < needle.length && hay[at + k] === needle[k]) k++;
    if (k < needle.length) continue;
    while (T.offset[token + 1] <= at) token++;
    for (let i = token; i < T.count && T.offset[i] < at + needle.length; i++) found[i] = 1;
  }
}

// Returns 1 for each token that meets every wish, 0 for others; null where there is no wish.
function matching(T, measure, wishes) {
  const { low, high, rank, form, repeat, label, document, search } = wishes;
  if (![low, high, rank, form, repeat, label, document].some((wish) => wish !== null) && !search) return null;
  const match = new Uint8Array(T.count);
  if (search) markText(T, search, match);
  else match.fill(1);
  // A code is a number or a reason why there is none, so that a table of 256 answers is enough.
  const values = new Uint8Array(256);
  for (let k = 0; k < 256; k++) {
    const value = measure.value[k];
    const numbers = low !== null || high !== null;
    values[k] = numbers ? value >= (low ?? -Infinity) && value <= (high ?? Infinity) : 1;
  }
  const ranks = new Uint8Array(256);
  for (let k = 0; k < 256; k++) {
    const value = rankOfCode(T, k);
    ranks[k] = rank === null || (value >= rank[0] && value <= rank[1]);
  }
  const labels = new Uint8Array(T.header.labels.length);
  T.header.labels.forEach(([role, part], k) => {
    labels[k] = label === null || (label[0] === "role" ? role : part) === label[1];
  });
  for (let i = 0; i < T.count; i++) {
    if (!values[measure.codes[i]] || !ranks[T.rank[i]]) match[i] = 0;
    else if (rank !== null && !isScored(T, i)) match[i] = 0;
    else if (form !== null && (T.kind[i] & WORD_FORM) !== form) match[i] = 0;
    else if (repeat !== null && Boolean(T.kind[i] & REPEAT) !== repeat) match[i] = 0;
  }
  keepRuns(match, T.labelStart, (run) => labels[T.label[run]]);
  if (document !== null) {
    keepRuns(match, T.pieceStart, (piece) => T.document_number[T.piece_document[piece]] === document);
  }
  return match;
}

function keepRuns(match, starts, keeps) {
  for (let run = 0; run + 1 < starts.length; run++) {
    if (!keeps(run)) match.fill(0, starts[run], starts[run + 1]);
  }
}

// Returns the matching tokens that have a value, those that stand out most first, earlier ones first among equals.
function hardestFirst(T, measure, match) {
  const counts = new Uint32Array(257);
  const levels = Array.from(measure.size.keys()).filter((k) => !Number.isNaN(measure.size[k]));
  levels.sort((a, b) => measure.size[b] - measure.size[a]);
  const place = new Int16Array(256).fill(-1);
  levels.forEach((level, k) => {
    const same = k > 0 && measure.size[levels[k - 1]] === measure.size[level];
    place[level] = same ? place[levels[k - 1]] : k;
  });
  for (let i = 0; i < T.count; i++) {
    const at = place[measure.codes[i]];
    if (at >= 0 && (!match || match[i])) counts[at + 1]++;
  }
  for (let k = 0; k < 256; k++) counts[k + 1] += counts[k];
  const order = new Uint32Array(counts[256]);
  for (let i = 0; i < T.count; i++) {
    const at = place[measure.codes[i]];
    if (at >= 0 && (!match || match[i])) order[counts[at]++] = i;
  }
  return measure.changed === (T.header.other !== null) ? withExactFirst(T, order, match) : order;
}

// The exact values of the hardest tokens are known: they come first in the order that Python gives them, since codes
// cannot tell all of them apart.
function withExactFirst(T, order, match) {
  const exact = T.hard_token.filter((token) => !match || match[token]);
  const moved = new Uint8Array(T.count);
  for (const token of exact) moved[token] = 1;
  const others = order.filter((token) => !moved[token]);
  order.set(exact);
  order.set(others, exact.length);
  return order;
}
