// The overview: the whole text from top to bottom, the mean of each stretch in its colour, the worst places as marks.

const WORST = 100;
const MARK_SHARE = 0.4; // of the strip's width

class Strip {
  constructor(T, rows, canvas, { jump, order }) {
    Object.assign(this, { T, rows, canvas, jump, order });
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
  update() {
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
    this.worst = this.worstTokens().map((token) => ({
      token,
      share: (rows.rowOf(lineOfToken(T, rows.lines, token)) + 0.5) / Math.max(1, rows.count),
    }));
    this.paint();
  }

  // The hardest tokens are listed with the page; only a filter that few of them meet makes a new order necessary.
  worstTokens() {
    const { match, measure } = this.rows;
    const listed = measure.changed === (this.T.header.other !== null);
    const known = listed ? this.T.hard_token.filter((token) => !match || match[token]) : [];
    const enough = known.length >= WORST || known.length === this.T.hard_token.length;
    return Array.from((listed && enough ? known : this.order()).slice(0, WORST));
  }

  // Paints means and marks once; scrolling only moves the frame over them.
  paint() {
    const { canvas, rows, means } = this;
    const styles = getComputedStyle(canvas);
    const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    this.picture = document.createElement("canvas");
    this.picture.width = canvas.width = width;
    this.picture.height = canvas.height = means.length;
    this.ink = styles.getPropertyValue("--lp-ink").trim();
    const paper = this.picture.getContext("2d");
    const left = Math.round(width * (1 - MARK_SHARE));
    const levels = Array.from({ length: rows.measure.edges.length + 1 }, (_, level) => level);
    const colours = levels.map((level) => styles.getPropertyValue(`--${rows.measure.prefix}${level}`).trim());
    means.forEach((mean, at) => {
      if (Number.isNaN(mean)) return;
      paper.fillStyle = colours[levelAmong(rows.measure.edges, mean)];
      paper.fillRect(0, at, left, 1);
    });
    paper.fillStyle = styles.getPropertyValue("--lp-mark").trim();
    this.thick = Math.max(2, Math.round(2 * devicePixelRatio));
    for (const { share } of this.worst) {
      paper.fillRect(left, share * means.length - this.thick / 2, width - left, this.thick);
    }
    this.draw();
  }

  draw() {
    if (!this.picture) return;
    const { canvas, rows, picture, thick } = this;
    const paper = canvas.getContext("2d");
    paper.clearRect(0, 0, picture.width, picture.height);
    paper.drawImage(picture, 0, 0);
    paper.strokeStyle = this.ink;
    paper.lineWidth = thick;
    const rowShare = picture.height / Math.max(1, rows.count);
    const seen = Math.max(4 * thick, Math.min(rows.visible, rows.count) * rowShare);
    const top = Math.min(rows.top * rowShare, picture.height - seen);
    paper.strokeRect(thick / 2, top + thick / 2, picture.width - thick, seen - thick);
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
