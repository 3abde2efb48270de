"use strict";
// runs.html at work: reads the JSON beside it, builds the table once, and draws what is ticked. Every text of a run becomes a text
// node. From top to bottom: the data, the table, its filter and order, ticking, the curves, the differences, the samples.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const NUMBERS = ["val/bpb", "val/loss", "tokens", "time", "tokens/s"];
const STARTED = data.columns.indexOf("started"), BPB = data.columns.indexOf("val/bpb");
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const COMPARED = 8; // columns that can be read side by side

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS($("plot").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const plural = (n, word, words = `${word}s`) => `${n} ${n === 1 ? word : words}`;

// ---- the table: a row for each run; the trials of a study fold into one row ----

const studies = new Map();
for (const run of data.runs) {
  const own = { status: run.status, id: run.id, study: run.study, started: run.cells[STARTED][0], note: run.cells.at(-1)[0] };
  run.facts = new Map(Object.entries({ ...data.shared, ...run.config, ...run.figures, ...own }));
  run.words = [run.words, run.name, run.below, run.id, run.status, run.study ?? "", run.cells.at(-1)[0]].join(" ").toLowerCase();
  if (run.study !== null) {
    if (!studies.has(run.study)) studies.set(run.study, { trials: [], open: false });
    studies.get(run.study).trials.push(run);
  }
}
for (const [name, study] of studies) {
  const best = ranked(study.trials)[0];
  study.name = name;
  study.cells = best.cells.map((cell, n) => (n === STARTED ? study.trials[0].cells[n] : NUMBERS.includes(data.columns[n]) ? cell : ["", null]));
  study.cells[0] = [name, name];
}

function ranked(runs) {
  const value = (run) => run.cells[BPB][1] ?? Infinity;
  return [...runs].sort((a, b) => (b.status === "ok") - (a.status === "ok") || value(a) - value(b) || 0);
}

function tickBox(label, change) {
  const box = make("input", { type: "checkbox", ariaLabel: label });
  box.addEventListener("change", () => change(box.checked));
  return make("label", { className: "box" }, box);
}

function cellsOf(item, first) {
  return item.cells.slice(1).reduce((cells, [text], n) => {
    const name = data.columns[n + 1];
    const kind = NUMBERS.includes(name) ? "number" : name === "note" ? "why" : name;
    return [...cells, make("td", { className: kind, textContent: text })];
  }, [first]);
}

function runRow(run) {
  const label = tickBox(`Compare ${run.name} ${run.id}`, (on) => { tick(run, on); compare(); });
  run.box = label.firstChild;
  const title = make("div", {}, make("span", { textContent: run.name }), make("small", { textContent: run.below }));
  run.row = make("tr", { className: `${run.status}${run.study === null ? "" : " trial"}` }, ...cellsOf(run, make("th", { scope: "row" }, make("div", { className: "name" }, label, title))));
}

function studyRow(study) {
  const label = tickBox(`Compare all trials of ${study.name}`, (on) => { study.trials.filter((run) => !run.hidden).forEach((run) => tick(run, on)); compare(); });
  study.box = label.firstChild;
  study.fold = make("button", { type: "button", className: "fold", ariaExpanded: "false", textContent: study.name });
  study.fold.addEventListener("click", () => { study.open = !study.open; show(); });
  study.count = make("small");
  study.row = make("tr", { className: "study" }, ...cellsOf(study, make("th", { scope: "row" }, make("div", { className: "name" }, label, make("div", {}, study.fold, study.count)))));
}

// ---- order and filter ----

let order = { column: STARTED, down: true };
const items = [...studies.values(), ...data.runs.filter((run) => run.study === null)];

function before(a, b) {
  const x = a.cells[order.column][1], y = b.cells[order.column][1];
  if (x === null || y === null) return (x === null) - (y === null);
  return (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) * (order.down ? -1 : 1);
}

function arrange() {
  const rows = [...items].sort(before).flatMap((item) => [item.row, ...(item.trials ? [...item.trials].sort(before).map((run) => run.row) : [])]);
  $("runs").tBodies[0].append(...rows);
  [...$("runs").tHead.rows[0].cells].forEach((cell, n) => {
    cell.ariaSort = n === order.column ? (order.down ? "descending" : "ascending") : "none";
  });
}

function sortBy(column) {
  const low = ["val/bpb", "val/loss", "run", "id", "status", "note"].includes(data.columns[column]); // the best is on top at first
  order = { column, down: order.column === column ? !order.down : !low };
  arrange();
}

// The grammar of task.filter: a word is looked for everywhere; key=value and the like ask options, figures and config keys.
const SHORT = { tokens: "train/tokens", "tokens/s": "perf/tokens_per_s", bpb: "val/bpb", loss: "val/loss", mfu: "perf/mfu" };

function factOf(run, key) {
  const known = Object.hasOwn(SHORT, key) ? SHORT[key] : key;
  const name = run.facts.has(known) ? known : [...run.facts.keys()].find((name) => name.endsWith(`.${known}`));
  return String(run.facts.get(name) ?? "none");
}

function number(text) {
  const [, digits, unit] = text.match(/^(.*?)([kMB]?)$/s);
  return digits.trim() === "" ? NaN : Number(digits) * ({ k: 1e3, M: 1e6, B: 1e9 }[unit] ?? 1);
}

function equal(text, wanted) {
  if (number(text) === number(wanted)) return true;
  const pattern = wanted.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${pattern}$`, "is").test(text) || (wanted === "null" && text === "none");
}

function test(term) {
  const [, key, sign, wanted] = term.match(/^([^<>=!]+)(!=|<=|>=|==|=|<|>)(.*)$/s) ?? [];
  if (!sign) return (run) => run.words.includes(term.toLowerCase());
  if (wanted === "") return () => true; // still being typed
  if (sign.endsWith("=") && !/^[<>]/.test(sign)) return (run) => (sign === "!=") !== wanted.split(",").some((one) => equal(factOf(run, key), one));
  return (run) => {
    const text = factOf(run, key), [x, y] = [number(text), number(wanted)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? text.localeCompare(wanted, "en") : x - y;
    return text !== "none" && { "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0 }[sign];
  };
}

function show() {
  const tests = $("filter").value.split(/\s+/).filter(Boolean).map(test);
  for (const run of data.runs) {
    run.hidden = !tests.every((fits) => fits(run));
    run.row.hidden = run.hidden || (run.study !== null && !studies.get(run.study).open);
  }
  for (const study of studies.values()) {
    const shown = study.trials.filter((run) => !run.hidden), all = study.trials.length;
    const states = Object.entries(Object.groupBy(shown, (run) => run.status)).map(([status, runs]) => `${runs.length} ${status}`);
    study.row.hidden = shown.length === 0;
    study.fold.ariaExpanded = String(study.open);
    study.count.textContent = `${shown.length < all ? `${shown.length} of ` : ""}${plural(all, "trial")} · ${states.join(", ")} · the best one's figures`;
  }
  const shown = data.runs.filter((run) => !run.hidden).length, all = data.runs.length;
  $("common").textContent = data.common ? `The same in all: ${data.common}.` : "";
  const parts = [shown < all ? `${shown} of ${plural(all, "run")}` : plural(all, "run"), studies.size ? plural(studies.size, "study", "studies") : ""];
  $("count").textContent = [...parts.filter(Boolean), `as of ${new Date(document.lastModified).toLocaleString("sv").slice(0, 16)}`].join(" · ");
}

// ---- ticking: a run keeps its colour and dash until it is unticked ----

const slots = []; // run or null
const ticked = () => slots.filter(Boolean);
const colour = (run) => data.colours[slots.indexOf(run) % data.colours.length];
const dash = (run) => DASHES[Math.floor(slots.indexOf(run) / data.colours.length) % DASHES.length];

function tick(run, on) {
  if (on === slots.includes(run)) return;
  const slot = on ? slots.findIndex((other) => !other) : slots.indexOf(run);
  slots[slot < 0 ? slots.length : slot] = on ? run : null;
  run.box.checked = on;
  run.box.style.accentColor = on ? colour(run) : "";
}

function compare() {
  for (const study of studies.values()) {
    const n = study.trials.filter((run) => slots.includes(run)).length;
    study.box.checked = n === study.trials.length;
    study.box.indeterminate = n > 0 && n < study.trials.length;
  }
  $("clear").disabled = ticked().length === 0;
  drawCurves();
  showDifferences();
  showSamples();
}

function swatch(run) {
  const line = draw("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: colour(run), "stroke-width": 3, "stroke-dasharray": dash(run) });
  return draw("svg", { class: "swatch", width: 22, height: 10, "aria-hidden": "true" }, line);
}

const fullName = (run) => (run.study === null ? run.name : `${run.study} · ${run.name}`);

// ---- curves ----

function short(value) {
  const [size, unit] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => Math.abs(value) >= size) ?? [1, ""];
  return `${Number((value / size).toPrecision(3))}${unit}`;
}

function seconds(value) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => value >= 2 * size) ?? [1, "s"];
  return `${Number((value / size).toPrecision(3))} ${unit}`;
}

const STEPS = { time: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400] };

function ticks(low, high, log, wish, steps = []) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    const round = inside.filter((value) => /^1e/.test(value.toExponential()));
    if (inside.length >= 2) return inside.length > wish + 3 && round.length > 1 ? round : inside;
  }
  const rough = (high - low) / (log ? 2 * wish : wish) || 1, size = 10 ** Math.floor(Math.log10(rough));
  const step = steps.find((value) => value >= rough) ?? [1, 2, 5, 10].map((digit) => digit * size).find((value) => value >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

// The first seventh is steep in every run and would flatten the differences; over a logarithmic axis it is wanted.
function limits(lines, logx) {
  const late = lines.flatMap(({ x, y }) => y.filter((_, n) => logx || x[n] >= x.at(-1) / 7));
  const [low, high] = [Math.min(...late), Math.max(...late)], room = 0.05 * (high - low || Math.abs(high) || 1);
  return [low - room > 0 || low <= 0 ? low - room : low / 1.05, high + room];
}

const plotWidth = () => Math.max(280, $("plot").parentNode.clientWidth);

function drawCurves() {
  const [y, x, logx, logy] = [$("y").value, $("x").value, $("logx").checked, $("logy").checked];
  const lines = ticked().filter((run) => run.curves[y]).map((run) => {
    const points = run.curves[y], kept = points.y.map((_, n) => n).filter((n) => (!logx || points[x][n] > 0) && (!logy || points.y[n] > 0));
    return { run, x: kept.map((n) => points[x][n]), y: kept.map((n) => points.y[n]) };
  }).filter((line) => line.x.length);
  legend(lines);
  const plot = $("plot"), width = plotWidth(), height = Math.round(Math.min(440, Math.max(260, width * 0.5)));
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("aria-label", lines.length ? `${y} over ${x} of ${plural(lines.length, "run")}` : "no curve");
  plot.replaceChildren();
  if (!lines.length) {
    const why = ticked().length ? `The ticked runs have no ${y}.` : "Tick runs in the table to lay their curves over each other.";
    plot.append(draw("text", { x: width / 2, y: height / 2, class: "none" }, why));
    return;
  }
  const frame = { left: 52, right: width - 14, top: 24, bottom: height - 40 };
  const xs = lines.flatMap((line) => line.x), ys = limits(lines, logx);
  const xr = [logx ? Math.min(...xs) : Math.min(0, ...xs), Math.max(...xs)];
  const scale = (log, [low, high], from, to) => {
    const f = log ? Math.log10 : (value) => value;
    return (value) => from + ((f(value) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
  };
  const px = scale(logx, xr, frame.left, frame.right), py = scale(logy, ys, frame.bottom, frame.top);
  const tell = x === "time" ? seconds : short;
  for (const value of ticks(...ys, logy, 5)) {
    plot.append(draw("line", { class: "grid", x1: frame.left, x2: frame.right, y1: py(value), y2: py(value) }));
    plot.append(draw("text", { class: "ytick", x: frame.left - 8, y: py(value) }, String(Number(value.toPrecision(4)))));
  }
  for (const value of ticks(...xr, logx, width < 500 ? 3 : 6, STEPS[x])) {
    plot.append(draw("line", { class: "grid", x1: px(value), x2: px(value), y1: frame.top, y2: frame.bottom }));
    plot.append(draw("text", { class: "xtick", x: px(value), y: frame.bottom + 17 }, tell(value)));
  }
  const unit = { "train/loss": "train/loss, nats per token, smoothed", "val/loss": "val/loss, nats per token", "val/bpb": "val/bpb, bits per byte" }[y];
  plot.append(draw("line", { class: "axis", x1: frame.left, x2: frame.left, y1: frame.top, y2: frame.bottom }));
  plot.append(draw("line", { class: "axis", x1: frame.left, x2: frame.right, y1: frame.bottom, y2: frame.bottom }));
  plot.append(draw("text", { class: "unit", x: frame.left, y: 12 }, unit));
  plot.append(draw("text", { class: "unit", x: frame.right, y: height - 4, "text-anchor": "end" }, { steps: "optimizer steps", tokens: "training tokens", time: "training time, without validations" }[x]));
  const room = { x: frame.left, y: frame.top - 3, width: frame.right - frame.left + 6, height: frame.bottom - frame.top + 6 };
  plot.append(draw("clipPath", { id: "inside" }, draw("rect", room)));
  const inside = draw("g", { "clip-path": "url(#inside)" });
  for (const line of lines) {
    const points = line.x.map((value, n) => `${px(value).toFixed(1)},${py(line.y[n]).toFixed(1)}`).join(" ");
    inside.append(draw("polyline", { class: "curve", points, stroke: colour(line.run), "stroke-dasharray": dash(line.run) }));
    if (line.x.length <= 40 && lines.length <= 4) line.x.forEach((value, n) => inside.append(draw("circle", { class: "dot", cx: px(value), cy: py(line.y[n]), r: 3, fill: colour(line.run) })));
  }
  const cursor = draw("line", { class: "cursor", y1: frame.top, y2: frame.bottom, visibility: "hidden" });
  plot.append(inside, cursor);
  plot.onpointermove = (event) => point(lines, cursor, px, tell, ((event.clientX - plot.getBoundingClientRect().left) * width) / plot.getBoundingClientRect().width);
  plot.onpointerleave = () => { cursor.setAttribute("visibility", "hidden"); readings(lines, null); };
}

// The values at the pointer, each run's nearest point; without a pointer the last ones.
function point(lines, cursor, px, tell, at) {
  const nearest = lines.flatMap((line) => line.x).reduce((a, b) => (Math.abs(px(b) - at) < Math.abs(px(a) - at) ? b : a));
  cursor.setAttribute("visibility", "visible");
  cursor.setAttribute("x1", px(nearest));
  cursor.setAttribute("x2", px(nearest));
  readings(lines, nearest, tell);
}

function readings(lines, at, tell) {
  for (const { run, x, y } of lines) {
    const n = at === null ? x.length - 1 : x.reduce((best, value, n) => (Math.abs(value - at) < Math.abs(x[best] - at) ? n : best), 0);
    run.reading.textContent = at !== null && at > x.at(-1) ? "ended" : y[n].toFixed(4);
  }
  $("legend").dataset.at = at === null ? "at the end" : `at ${tell(at)}`;
}

function legend(lines) {
  $("legend").replaceChildren(...ticked().map((run) => {
    run.reading = make("output", { textContent: "no curve" });
    const off = make("button", { type: "button", textContent: "×", ariaLabel: `Untick ${run.name} ${run.id}`, title: "untick" });
    off.addEventListener("click", () => { tick(run, false); compare(); });
    return make("li", {}, swatch(run), make("span", {}, fullName(run), make("small", { textContent: [run.below, run.id].filter(Boolean).join(" · ") })), run.reading, off);
  }));
  if (lines.length) readings(lines, null);
  else delete $("legend").dataset.at;
}

// ---- differences and samples ----

function heads(runs) {
  return runs.map((run) => make("th", { scope: "col", title: fullName(run) }, swatch(run), make("code", { textContent: run.id })));
}

const differs = (runs, key) => new Set(runs.map((run) => run.config[key])).size > 1;

// A key that one option has and another has not: that the options differ says enough.
function belongsToOne(runs, key) {
  const group = key.split(".")[0];
  return group !== key && differs(runs, group) && runs.some((run) => run.config[key] === undefined && data.shared[key] === undefined);
}

function showDifferences() {
  const runs = ticked().slice(0, COMPARED), columns = NUMBERS.map((name) => data.columns.indexOf(name));
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].filter((key) => differs(runs, key) && !belongsToOne(runs, key));
  const rows = columns.filter((n) => runs.some((run) => run.cells[n][0])).map((n) => {
    const least = ["val/bpb", "val/loss"].includes(data.columns[n]) && runs.length > 1 ? Math.min(...runs.map((run) => run.cells[n][1] ?? Infinity)) : null;
    const cells = runs.map((run) => make("td", { textContent: run.cells[n][0] || "–", className: least !== null && run.cells[n][1] === least ? "least" : "" }));
    return make("tr", {}, make("th", { scope: "row", textContent: data.columns[n] }), ...cells);
  });
  rows.push(...keys.map((key, n) => {
    const cells = runs.map((run) => make("td", { className: "why", textContent: run.config[key] ?? "–" }));
    return make("tr", { className: n ? "" : "first" }, make("th", { scope: "row", textContent: key }), ...cells);
  }));
  $("differences").tHead.replaceChildren(...(runs.length ? [make("tr", {}, make("td"), ...heads(runs))] : []));
  $("differences").tBodies[0].replaceChildren(...rows);
  const more = ticked().length > COMPARED ? `The first ${COMPARED} of the ${ticked().length} ticked runs. ` : "";
  const said = runs.length < 2 ? "Tick two runs or more to see the keys in which they differ." : keys.length ? "" : "Their configs, code, corpus and device are the same.";
  $("same").textContent = more + said;
}

function showSamples() {
  const runs = ticked().slice(0, COMPARED), found = runs.map((run) => [run, run.samples.at(Number($("when").value))]);
  $("samples").replaceChildren(...found.map(([run, sample]) => {
    const head = make("h3", {}, swatch(run), make("code", { textContent: run.id }), make("small", { textContent: sample ? sample[0] : "no sample" }));
    return make("article", {}, head, ...(sample ? [make("pre", { textContent: sample[1], tabIndex: 0 })] : []));
  }));
}

// ---- begin ----

data.columns.forEach((name, n) => {
  const button = make("button", { type: "button", textContent: name });
  button.addEventListener("click", () => sortBy(n));
  $("runs").tHead.rows[0].append(make("th", { scope: "col", className: NUMBERS.includes(name) ? "number" : "" }, button));
});
data.runs.forEach(runRow);
[...studies.values()].forEach(studyRow);
for (const name of data.curves) $("y").append(make("option", { textContent: name }));
for (const name of ["tokens", "steps", "time"]) $("x").append(make("option", { textContent: name }));
$("y").value = data.curves.find((name) => data.runs.some((run) => run.curves[name])) ?? data.curves[0];
$("filter").addEventListener("input", show);
$("clear").addEventListener("click", () => { ticked().forEach((run) => tick(run, false)); compare(); });
for (const id of ["y", "x", "logx", "logy"]) $(id).addEventListener("change", drawCurves);
$("when").addEventListener("change", showSamples);
new ResizeObserver(() => { if (plotWidth() !== $("plot").viewBox.baseVal?.width) drawCurves(); }).observe($("curves"));
arrange();
show();
// To begin with: the best run and the newest.
const drawn = data.runs.filter((run) => run.curves[$("y").value]);
[...new Set([...ranked(drawn).slice(0, 1), ...drawn])].slice(0, 2).forEach((run) => tick(run, true));
compare();
