// The packed arrays of the page, unpacked into one object `T`. Python's ColouredText says what each of them holds.

const PREFIX = "lossprobe-text-";
const REPEAT = 16;
const NO_BYTES = 32;
const LONG_TOKEN = 255;

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// Returns the bytes of an array of the page; none where the page does not have it.
async function unpacked(name) {
  const element = document.getElementById(PREFIX + name);
  if (!element) return new Uint8Array(0);
  const packed = new Blob([fromBase64(element.textContent.trim())]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function numbers(name, Kind) {
  const bytes = await unpacked(name);
  return Kind === Uint8Array ? bytes : new Kind(bytes.buffer);
}

// Returns where each of some runs of tokens begins, and the end of the last one.
function startsOf(lengths) {
  const starts = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) starts[i + 1] = starts[i] + lengths[i];
  return starts;
}

// Returns the run that a token lies in: the last one that begins at or before it.
function runOf(starts, token) {
  let low = 0;
  let high = starts.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= token) low = middle;
    else high = middle;
  }
  return low;
}

async function readText() {
  const T = { header: JSON.parse(new TextDecoder().decode(await unpacked("header"))) };
  const kinds = {
    text: Uint8Array, length: Uint8Array, loss: Uint8Array, entropy: Uint8Array, rank: Uint8Array, kind: Uint8Array,
    choice_0: Uint8Array, choice_1: Uint8Array, choice_2: Uint8Array, choice_3: Uint8Array, choice_loss: Uint8Array,
    entries: Uint8Array, difference: Uint8Array, piece_why: Uint8Array,
    long_length: Uint32Array, entry_length: Uint32Array, context_tokens: Uint32Array, context_first: Uint32Array,
    piece_tokens: Uint32Array, piece_document: Uint32Array, piece_first: Uint32Array, piece_byte: Float64Array,
    document_number: Uint32Array, document_source: Uint32Array, document_line: Uint32Array,
    document_offset: Float64Array, document_tokens: Uint32Array, document_scored: Uint32Array,
    document_mean: Float32Array, label_tokens: Uint32Array, label: Uint16Array, label_turn: Int32Array,
    hard_token: Uint32Array, hard_loss: Float32Array, hard_rank: Uint32Array, hard_difference: Float32Array,
  };
  const names = Object.keys(kinds);
  const arrays = await Promise.all(names.map((name) => numbers(name, kinds[name])));
  names.forEach((name, i) => { T[name] = arrays[i]; });
  T.steps = await Promise.all(T.header.steps.map((_, step) => unpacked(`step_${step}`)));
  T.count = T.header.tokens;
  T.offset = new Uint32Array(T.count + 1);
  for (let i = 0, long = 0; i < T.count; i++) {
    const length = T.length[i] === LONG_TOKEN ? T.long_length[long++] : T.length[i];
    T.offset[i + 1] = T.offset[i] + length;
  }
  T.pieceStart = startsOf(T.piece_tokens);
  T.contextStart = startsOf(T.context_tokens);
  T.labelStart = startsOf(T.label_tokens);
  T.entryStart = startsOf(T.entry_length);
  const exact = (values) => new Map(Array.from(values, (value, i) => [T.hard_token[i], value]));
  T.exactLoss = exact(T.hard_loss);
  T.exactRank = exact(T.hard_rank);
  T.exactChange = exact(T.hard_difference);
  return T;
}

// What is known of one token; the codes are read with the scales of the header.
function isScored(T, i) {
  return T.loss[i] < T.header.scales.scored_codes;
}

function lossOfCode(T, code) {
  return T.header.scales.loss_unit * Math.expm1(T.header.scales.loss_rate * code);
}

function lossOf(T, i) {
  return T.exactLoss.get(i) ?? lossOfCode(T, T.loss[i]);
}

function differenceOfCode(T, code) {
  const scales = T.header.scales;
  const steps = code - scales.zero_difference;
  return Math.sign(steps) * scales.difference_unit * Math.expm1(scales.difference_rate * Math.abs(steps));
}

function rankOfCode(T, code) {
  const { exact_ranks: exact, rank_rate: rate } = T.header.scales;
  return code < exact ? code : Math.round(exact * Math.exp(rate * (code - exact)));
}

function contextOf(T, i) {
  const run = runOf(T.contextStart, i);
  return T.context_first[run] + i - T.contextStart[run];
}

// Returns the document's place in the document arrays, the token's number in it, and its piece.
function placeOf(T, i) {
  const piece = runOf(T.pieceStart, i);
  return { piece, document: T.piece_document[piece], token: T.piece_first[piece] + i - T.pieceStart[piece] };
}

// Returns the first byte of a token in its document: names of tokens without bytes stand in `text` only.
function byteOf(T, i) {
  const piece = runOf(T.pieceStart, i);
  const start = T.pieceStart[piece];
  let bytes = T.offset[i] - T.offset[start];
  for (let k = start; k < i; k++) if (T.kind[k] & NO_BYTES) bytes -= T.offset[k + 1] - T.offset[k];
  return T.piece_byte[piece] + bytes;
}

// Returns the index of token t of document d, or −1 where it is not shown.
function findToken(T, d, t) {
  for (let piece = 0; piece < T.piece_tokens.length; piece++) {
    const inside = t - T.piece_first[piece];
    if (T.document_number[T.piece_document[piece]] === d && inside >= 0 && inside < T.piece_tokens[piece]) {
      return T.pieceStart[piece] + inside;
    }
  }
  return -1;
}

// Returns the number of the first choice: 0 is the token itself, i + 1 the i-th entry.
function choiceOf(T, i) {
  let choice = T.choice_0[i];
  if (T.choice_1.length) choice += T.choice_1[i] * 256;
  if (T.choice_2.length) choice += T.choice_2[i] * 65536;
  if (T.choice_3.length) choice += T.choice_3[i] * 16777216;
  return choice;
}
