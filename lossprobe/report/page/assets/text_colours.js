// Which of a few levels a loss or a difference belongs to. Edges are absolute: a colour means the same in every page.

const LOSS_EDGES = [0.5, 1, 2, 3, 4, 6, 8, 11]; // nats
const DIFFERENCE_EDGES = [-3, -1, -0.3, 0.3, 1, 3]; // nats
const UNSCORED = "lp-u";

function levelAmong(edges, value) {
  let level = 0;
  while (level < edges.length && value >= edges[level]) level++;
  return level;
}

// Returns the measure that colours the text: the codes, their values, and the class of each code. A step is the place of
// a run in a series; null stands for the run itself.
function measureOf(T, changed, step = null) {
  let codes = changed ? T.difference : T.loss;
  if (step !== null) codes = T.steps[step];
  const scales = T.header.scales;
  const value = new Float64Array(256).fill(NaN);
  const style = new Array(256).fill(UNSCORED);
  const last = changed ? scales.no_difference : scales.scored_codes;
  const edges = changed ? DIFFERENCE_EDGES : LOSS_EDGES;
  for (let k = 0; k < last; k++) {
    value[k] = changed ? differenceOfCode(T, k) : lossOfCode(T, k);
    style[k] = (changed ? "lp-d" : "lp-l") + levelAmong(edges, value[k]);
  }
  const size = value.map(Math.abs); // how far a token stands out
  return { changed, step, codes, value, style, size, edges, prefix: changed ? "lp-d" : "lp-l" };
}

// Fills the legend: a swatch a level, with the numbers at the edges between them.
function drawLegend(element, measure) {
  element.replaceChildren();
  const signed = (edge) => (measure.changed && edge > 0 ? `+${edge}` : `${edge}`.replace("-", "−"));
  const edges = measure.edges.map(signed);
  const names = [`below ${edges[0]}`, ...edges.slice(1).map((edge, i) => `${edges[i]} to ${edge}`)];
  names.push(`from ${edges.at(-1)}`);
  names.forEach((name, level) => {
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = `lp-swatch ${measure.prefix}${level}`;
    swatch.textContent = "ab";
    item.append(swatch, ` ${name}`);
    element.append(item);
  });
  const none = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.className = `lp-swatch ${UNSCORED}`;
  swatch.textContent = "ab";
  none.append(swatch, " no loss");
  element.append(none);
}
