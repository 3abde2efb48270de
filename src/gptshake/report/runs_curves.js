"use strict";
// Curves of some runs over each other, as one SVG drawn at the width it has. The page puts runs_page.js after this.
// Takes lines {run, x: numbers, y: numbers, colour, dash}; writes a run's value at the pointer into its `reading`.

const $ = (id) => document.getElementById(id);
const UNITS = { "train/loss": "nats per token, smoothed", "val/loss": "nats per token", "val/bpb": "bits per byte" };
const AXES = { steps: "optimizer steps", tokens: "training tokens", time: "training time, without validations" };
const OF_TIME = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400]; // seconds between ticks
const COUNTS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"], [0, ""]], TIMES = [[172800, " d", 86400], [7200, " h", 3600], [120, " min", 60], [0, " s"]];
const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
const nearest = (values, distance) => values.reduce((a, b) => (distance(b) < distance(a) ? b : a));
const plotWidth = () => Math.max(280, $("plot").parentNode.clientWidth);

function draw(tag, attributes, ...children) {
  const node = document.createElementNS($("plot").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// About `count` round numbers between two: 1, 2 and 5 times powers of ten, or of `steps`.
function ticks(low, high, log, count, steps = []) {
  const decade = Math.floor(Math.log10(low)), decades = log ? Math.ceil(Math.log10(high / low)) + 2 : 0;
  const powers = Array.from({ length: decades }, (_, n) => 10 ** (decade + n));
  const inside = powers.flatMap((power) => [power, 2 * power, 5 * power]).filter((value) => value >= low * 0.999 && value <= high * 1.001);
  if (inside.length >= 2) return inside.length > count + 3 ? inside.filter((value) => powers.includes(value)) : inside;
  const rough = (high - low) / count || 1, size = 10 ** Math.floor(Math.log10(rough));
  const step = steps.find((value) => value >= rough) ?? [1, 2, 5, 10].map((digit) => digit * size).find((value) => value >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(12)));
}

function scale(log, [low, high], from, to) {
  const f = log ? Math.log10 : (value) => value;
  return (value) => from + ((f(value) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
}

function clear(label) {
  const plot = $("plot"), width = plotWidth(), height = Math.round(Math.min(440, Math.max(260, width * 0.5)));
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("aria-label", label);
  plot.replaceChildren();
  plot.onpointermove = plot.onpointerleave = null;
  delete $("legend").dataset.at;
  return { left: 52, right: width - 14, top: 24, bottom: height - 40, width, height };
}

function drawCurves(lines, x, y, logx, logy) {
  const { left, right, top, bottom, width, height } = clear(`${y} over ${x} of ${lines.length} runs`), plot = $("plot");
  // The first seventh is steep in every run and would flatten the differences; over a logarithmic axis it is wanted.
  const xs = lines.flatMap((line) => line.x), late = lines.flatMap((line) => line.y.filter((_, n) => logx || line.x[n] >= line.x.at(-1) / 7));
  const [low, high] = [least(late), most(late)], pad = 0.05 * (high - low || Math.abs(high) || 1);
  const xr = [logx ? least(xs) : Math.min(0, least(xs)), most(xs)], yr = [low - pad > 0 || low <= 0 ? low - pad : low / 1.05, high + pad];
  const px = scale(logx, xr, left, right), py = scale(logy, yr, bottom, top);
  const text = (value) => { // 12.8k, 3 h: in the largest of its units
    const [from, unit, size = from || 1] = (x === "time" ? TIMES : COUNTS).find(([from]) => Math.abs(value) >= from);
    return `${Number((value / size).toPrecision(3))}${unit}`;
  };
  for (const value of ticks(...yr, logy, 7)) {
    plot.append(draw("line", { class: "grid", x1: left, x2: right, y1: py(value), y2: py(value) }));
    plot.append(draw("text", { class: "ytick", x: left - 8, y: py(value) }, String(Number(value.toPrecision(4)))));
  }
  for (const value of ticks(...xr, logx, width < 500 ? 3 : 6, x === "time" ? OF_TIME : [])) {
    plot.append(draw("line", { class: "grid", x1: px(value), x2: px(value), y1: top, y2: bottom }));
    plot.append(draw("text", { class: "xtick", x: px(value), y: bottom + 17 }, text(value)));
  }
  plot.append(draw("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` }));
  plot.append(draw("text", { x: left, y: 12 }, `${y}, ${UNITS[y]}`));
  plot.append(draw("text", { x: right, y: height - 4, "text-anchor": "end" }, AXES[x]));
  const inside = draw("g", { "clip-path": "url(#inside)" }), cursor = draw("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  for (const line of lines) {
    const points = line.x.map((value, n) => [px(value).toFixed(1), py(line.y[n]).toFixed(1)]);
    inside.append(draw("polyline", { class: "curve", points: points.join(" "), stroke: line.colour, "stroke-dasharray": line.dash }));
    if (points.length > 40 || lines.length > 4) continue;
    for (const [cx, cy] of points) inside.append(draw("circle", { class: "dot", cx, cy, r: 3, fill: line.colour }));
  }
  plot.append(draw("clipPath", { id: "inside" }, draw("rect", { x: left, y: top - 3, width: right - left + 6, height: bottom - top + 6 })), inside, cursor);
  plot.onpointermove = (event) => { // each run's point that is nearest to the pointer
    const box = plot.getBoundingClientRect(), at = ((event.clientX - box.left) * width) / box.width;
    const value = nearest(xs, (other) => Math.abs(px(other) - at));
    for (const [name, place] of [["visibility", "visible"], ["x1", px(value)], ["x2", px(value)]]) cursor.setAttribute(name, place);
    for (const { run, x, y } of lines) {
      run.reading.textContent = value > x.at(-1) ? "ended" : y[x.indexOf(nearest(x, (other) => Math.abs(other - value)))].toFixed(4);
    }
    $("legend").dataset.at = `at ${text(value)}`;
  };
  plot.onpointerleave = () => { // the last ones
    cursor.setAttribute("visibility", "hidden");
    for (const { run, y } of lines) run.reading.textContent = y.at(-1).toFixed(4);
    $("legend").dataset.at = "at the end";
  };
  plot.onpointerleave();
}
