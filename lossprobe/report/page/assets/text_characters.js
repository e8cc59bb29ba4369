// Turns bytes into what is shown of them: nothing that a text holds is invisible, or moves what stands beside it.

const NEWLINE = 10;
const BLANK = 32;
const MARKS = new Map([[9, "→"], [10, "↵"], [13, "←"]]);
const CONTINUED = "▹"; // a token that begins inside a character
const EMPTY = "∅"; // a token that stands for no byte
// Control and format characters (bidirectional marks, zero-width ones), private and unknown ones, odd blanks.
const INVISIBLE = /^(?:\p{C}|\p{Z})$/u;
const COMBINING = /^\p{M}$/u;
const WIDE = [
  [0x1100, 0x115f], [0x2e80, 0x303e], [0x3041, 0xa4cf], [0xa960, 0xa97f], [0xac00, 0xd7a3], [0xf900, 0xfaff],
  [0xfe30, 0xfe6f], [0xff00, 0xff60], [0xffe0, 0xffe6], [0x1f300, 0x1f64f], [0x1f680, 0x1f6ff], [0x1f900, 0x1f9ff],
  [0x20000, 0x3fffd],
];
const shapes = new Uint8Array(0x110000); // 1 + width in cells of each code point, and 128 if it is escaped; 0: not known

// The character at a place, as the last call of `readCharacter` found it: a code point, or −1 for a byte that is none.
let code = 0;
let size = 0;

function readCharacter(bytes, at, limit) {
  const lead = bytes[at];
  code = lead;
  size = 1;
  if (lead < 0x80) return;
  code = -1;
  const more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
  if (lead < 0xc2 || lead > 0xf4 || at + more >= limit) return;
  let value = lead & (0x3f >> more);
  for (let k = 1; k <= more; k++) {
    const byte = bytes[at + k];
    if ((byte & 0xc0) !== 0x80) return;
    value = (value << 6) | (byte & 0x3f);
  }
  const least = more === 3 ? 0x10000 : more === 2 ? 0x800 : 0x80;
  if (value < least || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return;
  code = value;
  size = more + 1;
}

function hexadecimal(value, digits) {
  return value.toString(16).padStart(digits, "0");
}

function escaped(value) {
  if (value < 0x100) return `\\x${hexadecimal(value, 2)}`;
  return value < 0x10000 ? `\\u${hexadecimal(value, 4)}` : `\\U${hexadecimal(value, 8)}`;
}

function shapeOf(value) {
  const character = String.fromCodePoint(value);
  if (MARKS.has(value)) return 1 + 1;
  if (value !== BLANK && INVISIBLE.test(character)) return 128 + 1 + escaped(value).length;
  if (COMBINING.test(character)) return 1;
  return WIDE.some(([low, high]) => value >= low && value <= high) ? 1 + 2 : 1 + 1;
}

function known(value) {
  if (!shapes[value]) shapes[value] = shapeOf(value);
  return shapes[value];
}

// Returns the cells that the character takes which was read last.
function cells(byte) {
  return code < 0 ? escaped(byte).length : (known(code) & 127) - 1;
}

// Returns whether a byte continues a character that begins before it, at or after the place `least`.
function continues(bytes, at, least, limit) {
  if ((bytes[at] & 0xc0) !== 0x80) return false;
  for (let back = 1; back <= 3 && at - back >= least; back++) {
    if ((bytes[at - back] & 0xc0) !== 0x80) {
      readCharacter(bytes, at - back, limit);
      return code >= 0 && size > back;
    }
  }
  return false;
}

// Returns what is shown of the bytes from `from` to `to`. A character belongs to the token with its first byte.
function shownText(bytes, from, to, least, limit, everyBlank) {
  if (from >= to) return EMPTY;
  let text = "";
  let at = from;
  if (continues(bytes, at, least, limit)) {
    text = CONTINUED;
    while (at < to && (bytes[at] & 0xc0) === 0x80) at++;
  }
  while (at < to) {
    const byte = bytes[at];
    readCharacter(bytes, at, limit);
    at += size;
    if (code < 0) text += escaped(byte);
    else if (MARKS.has(code)) text += MARKS.get(code);
    else text += known(code) & 128 ? escaped(code) : String.fromCodePoint(code);
  }
  if (everyBlank || /^ +$/.test(text)) return text.replaceAll(" ", "·");
  return text.replace(/ {2,}/g, (blanks) => "·".repeat(blanks.length));
}

// Returns bytes as the tables of Python show them: what is not UTF-8 by its number.
function shownBytes(bytes, from, to) {
  let text = "";
  for (let at = from; at < to; at += size) {
    readCharacter(bytes, at, to);
    if (code === NEWLINE) text += "\\n";
    else if (code === 13) text += "\\r";
    else if (code === 9) text += "\\t";
    else if (code < 0) text += escaped(bytes[at]);
    else text += known(code) & 128 ? escaped(code) : String.fromCodePoint(code);
  }
  return text;
}
