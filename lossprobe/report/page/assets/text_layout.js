// Breaks the text into lines: at its own line ends, at turns and documents, and where a line is full.

const LINE = { TEXT: 0, DOCUMENT: 1, TURN: 2, GAP: 3 };

// Lines in typed arrays that grow: of each the first token, the first byte in `text`, and its kind.
class Lines {
  constructor() {
    this.count = 0;
    this.token = new Uint32Array(1 << 12);
    this.byte = new Uint32Array(1 << 12);
    this.kind = new Uint8Array(1 << 12);
  }

  push(kind, token, byte) {
    if (this.count === this.kind.length) {
      for (const name of ["token", "byte", "kind"]) {
        const larger = new this[name].constructor(2 * this.count);
        larger.set(this[name]);
        this[name] = larger;
      }
    }
    this.token[this.count] = token;
    this.byte[this.count] = byte;
    this.kind[this.count++] = kind;
  }
}

// Returns the lines of all shown tokens for so many cells in a line.
function layOut(T, columns) {
  const lines = new Lines();
  const pieces = T.piece_tokens.length;
  for (let piece = 0; piece < pieces; piece++) {
    const first = T.pieceStart[piece];
    const last = T.pieceStart[piece + 1];
    const document = T.piece_document[piece];
    const follows = piece > 0 && T.piece_document[piece - 1] === document;
    const before = follows ? T.piece_first[piece - 1] + T.piece_tokens[piece - 1] : 0;
    if (!follows) lines.push(LINE.DOCUMENT, first, T.offset[first]);
    if (T.piece_first[piece] > before) lines.push(LINE.GAP, first, T.offset[first]);
    layOutPiece(T, columns, lines, first, last);
    const ends = piece + 1 === pieces || T.piece_document[piece + 1] !== document;
    const after = T.piece_first[piece] + T.piece_tokens[piece];
    if (ends && after < T.document_tokens[document]) lines.push(LINE.GAP, last, T.offset[last]);
  }
  return lines;
}

function layOutPiece(T, columns, lines, first, last) {
  const { offset, text: bytes } = T;
  const least = offset[first];
  const limit = offset[last];
  const labelled = T.label.length > 0;
  let run = labelled ? runOf(T.labelStart, first) : 0;
  let turn = -2; // none yet
  let x = 0; // cells that are filled
  let open = false; // whether the line has begun
  let wordByte = -1; // where the line can be broken: before the last blank after a word
  let wordToken = 0;
  let wordX = 0;
  let blank = true;
  const begin = (token, byte, filled) => {
    lines.push(LINE.TEXT, token, byte);
    x = filled;
    wordByte = -1;
    open = true;
  };
  for (let i = first; i < last; i++) {
    if (labelled && (i === first || i === T.labelStart[run + 1])) {
      if (i !== first) run++;
      if (T.label_turn[run] >= 0 && T.label_turn[run] !== turn) {
        turn = T.label_turn[run];
        lines.push(LINE.TURN, i, offset[i]);
        open = false;
      }
    }
    const end = offset[i + 1];
    let at = offset[i];
    let width = 0; // of this token, as far as it stands in the line
    if (!open) begin(i, at, 0);
    if (at === end || (bytes[at] >= 0x80 && continues(bytes, at, least, limit))) {
      if (x + 1 > columns) begin(i, at, 0);
      while (at < end && (bytes[at] & 0xc0) === 0x80) at++;
      width = 1;
      x++;
    }
    while (at < end) {
      const byte = bytes[at];
      if (!open) begin(i, at, 0);
      if (byte === BLANK && !blank) {
        wordByte = at;
        wordToken = i;
        wordX = x;
      }
      blank = byte === BLANK;
      let needed = 1;
      let taken = 1;
      if (byte < BLANK || byte >= 0x7f) { // else the commonest case, for which nothing must be looked up
        readCharacter(bytes, at, limit);
        needed = cells(byte);
        taken = size;
      }
      if (x + needed > columns && x > 0) {
        if (wordByte > 0 && wordX > 0) begin(wordToken, wordByte, x - wordX);
        else if (x > width && width > 0) begin(i, offset[i], width);
        else begin(i, at, (width = 0));
        if (x + needed > columns && x > 0) begin(i, at, (width = 0));
      }
      x += needed;
      width += needed;
      at += Math.min(taken, end - at);
      if (byte === NEWLINE) {
        open = false;
        blank = true;
        width = 0;
      }
    }
  }
}

// Returns the last line that begins at or before a token (and byte): the one in which it is shown.
function lineOfToken(T, lines, token) {
  const byte = T.offset[token];
  let low = 0;
  let high = lines.count;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const before = lines.token[middle] < token || (lines.token[middle] === token && lines.byte[middle] <= byte);
    if (before) low = middle;
    else high = middle;
  }
  return low;
}
