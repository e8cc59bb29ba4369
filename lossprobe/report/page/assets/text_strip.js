// The overview: the whole text from top to bottom, the mean of each stretch in its colour, the worst places as marks.

const WORST = 100;
const MARK_SHARE = 0.4; // of the strip's width

class Strip {
  constructor(T, rows, canvas, jump) {
    Object.assign(this, { T, rows, canvas, jump });
    const point = (event) => this.click(event.offsetY / canvas.clientHeight);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      point(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) rows.scrollToRow((event.offsetY / canvas.clientHeight) * rows.count - rows.visible / 2);
    });
  }

  // Computes what the strip shows: a mean for each pixel, and the rows of the worst tokens.
  update(order) {
    const { T, rows } = this;
    const { measure, match } = rows;
    const height = Math.max(1, Math.round(this.canvas.clientHeight * devicePixelRatio));
    const sums = new Float64Array(height);
    const counts = new Uint32Array(height);
    for (let row = 0; row < rows.count; row++) {
      const line = rows.lineAt(row);
      if (rows.lines.kind[line] !== LINE.TEXT) continue;
      const at = Math.min(height - 1, Math.floor((row * height) / rows.count));
      for (let i = rows.lines.token[line], last = rows.lastToken(line); i < last; i++) {
        const value = measure.value[measure.codes[i]];
        if (Number.isNaN(value) || (match && !match[i])) continue;
        sums[at] += value;
        counts[at]++;
      }
    }
    const below = Math.max(1, Math.ceil(height / Math.max(1, rows.count)));
    this.means = sums.map((sum, at) => {
      for (let near = at; near > at - below && near >= 0; near--) if (counts[near]) return sums[near] / counts[near];
      return NaN;
    });
    this.worst = Array.from(order.subarray(0, WORST), (token) => ({
      token,
      share: (rows.rowOf(lineOfToken(T, rows.lines, token)) + 0.5) / Math.max(1, rows.count),
    }));
    this.draw();
  }

  draw() {
    if (!this.means) return;
    const { canvas, rows, means } = this;
    const styles = getComputedStyle(canvas);
    const width = (canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio)));
    const height = (canvas.height = means.length);
    const paper = canvas.getContext("2d");
    const left = Math.round(width * (1 - MARK_SHARE));
    const colours = new Map();
    const colourOf = (level) => {
      const name = `--${rows.measure.prefix}${level}`;
      if (!colours.has(name)) colours.set(name, styles.getPropertyValue(name).trim() || "transparent");
      return colours.get(name);
    };
    means.forEach((mean, at) => {
      if (Number.isNaN(mean)) return;
      paper.fillStyle = colourOf(levelAmong(rows.measure.edges, mean));
      paper.fillRect(0, at, left, 1);
    });
    paper.fillStyle = styles.getPropertyValue("--lp-mark").trim();
    const thick = Math.max(2, Math.round(2 * devicePixelRatio));
    for (const { share } of this.worst) paper.fillRect(left, share * height - thick / 2, width - left, thick);
    paper.strokeStyle = styles.getPropertyValue("--lp-ink").trim();
    paper.lineWidth = thick;
    const top = (rows.top / Math.max(1, rows.count)) * height;
    const seen = Math.max(4 * devicePixelRatio, (Math.min(rows.visible, rows.count) / Math.max(1, rows.count)) * height);
    paper.strokeRect(thick / 2, Math.min(top, height - seen) + thick / 2, width - thick, seen - thick);
  }

  // Jumps to the mark under the pointer, or else to the place.
  click(share) {
    const near = 4 / this.canvas.clientHeight;
    const marks = this.worst.filter((mark) => Math.abs(mark.share - share) < near);
    marks.sort((a, b) => Math.abs(a.share - share) - Math.abs(b.share - share));
    if (marks.length) this.jump(marks[0].token);
    else this.rows.scrollToRow(share * this.rows.count - this.rows.visible / 2);
  }
}
