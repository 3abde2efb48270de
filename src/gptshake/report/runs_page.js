"use strict";
// runs.html at work: reads the JSON beside it, builds the table once, and draws what is ticked. Every text of a run becomes a text
// node. From top to bottom: the data, the table, its order and filter, ticking, the differences, the samples. After runs_curves.js.

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

const plural = (n, word, words = `${word}s`) => `${n} ${n === 1 ? word : words}`;

const of = (n, all, word) => `${n < all ? `${n} of ` : ""}${plural(all, word)}`;

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
  study.cells = best.cells.map((cell, n) => (NUMBERS.includes(data.columns[n]) ? cell : ["", null]));
  study.cells[STARTED] = study.trials[0].cells[STARTED];
  study.cells[0] = [name, name];
}

function ranked(runs) {
  const value = (run) => run.cells[BPB][1] ?? Infinity;
  return [...runs].sort((a, b) => (b.status === "ok") - (a.status === "ok") || value(a) - value(b) || 0);
}

// The first cell: a tick box, a title, and a smaller line below it.
function nameCell(item, label, title, below, change) {
  item.box = make("input", { type: "checkbox", ariaLabel: label });
  item.box.addEventListener("change", () => { change(item.box.checked); compare(); });
  const name = make("div", { className: "name" }, make("label", { className: "box" }, item.box), make("div", {}, title, below));
  return make("th", { scope: "row" }, name);
}

function row(item, className, first) {
  const others = item.cells.slice(1).map(([text], n) => {
    const name = data.columns[n + 1];
    return make("td", { className: NUMBERS.includes(name) ? "number" : name === "note" ? "why" : name, textContent: text });
  });
  item.row = make("tr", { className }, first, ...others);
}

function runRow(run) {
  const [title, below] = [make("span", { textContent: run.name }), make("small", { textContent: run.below })];
  const first = nameCell(run, `Compare ${run.name} ${run.id}`, title, below, (on) => tick(run, on));
  row(run, `${run.status}${run.study === null ? "" : " trial"}`, first);
}

function studyRow(study) {
  study.fold = make("button", { type: "button", className: "fold", ariaExpanded: "false", textContent: study.name });
  study.fold.addEventListener("click", () => { study.open = !study.open; show(); });
  study.count = make("small");
  const tickShown = (on) => study.trials.filter((run) => !run.hidden).forEach((run) => tick(run, on));
  row(study, "study", nameCell(study, `Compare all trials of ${study.name}`, study.fold, study.count, tickShown));
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
  const rows = [...items].sort(before).flatMap((item) => [item, ...[...(item.trials ?? [])].sort(before)]).map((item) => item.row);
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

// A day or a minute, as in task.filter: > and >= from its beginning, < before it, <= up to its end.
function inTime(text, sign, wanted) {
  const day = new Date(), back = { today: 0, yesterday: 1 }[wanted.toLowerCase()];
  day.setDate(day.getDate() - (back ?? 0));
  const from = back === undefined ? wanted.replace("T", " ") : day.toLocaleDateString("sv"), here = text.slice(0, from.length);
  return { "<": here < from, "<=": here <= from, ">": here >= from, ">=": here >= from, "!=": here !== from }[sign] ?? here === from;
}

function test(term) {
  const [, key, sign, wanted] = term.match(/^([^<>=!]+)(!=|<=|>=|==|=|<|>)(.*)$/s) ?? [];
  if (!sign) return (run) => run.words.includes(term.toLowerCase());
  if (wanted === "") return () => true; // still being typed
  if (key === "started") return (run) => factOf(run, key) !== "none" && inTime(factOf(run, key), sign, wanted);
  if (["=", "==", "!="].includes(sign)) return (run) => (sign === "!=") !== wanted.split(",").some((one) => equal(factOf(run, key), one));
  return (run) => {
    const order = number(factOf(run, key)) - number(wanted); // NaN, which no comparison holds for, where one is a text
    return { "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0 }[sign];
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
    study.count.textContent = [of(shown.length, all, "trial"), states.join(", "), "the best one's figures"].join(" · ");
  }
  const parts = [of(data.runs.filter((run) => !run.hidden).length, data.runs.length, "run")];
  if (studies.size) parts.push(plural(studies.size, "study", "studies"));
  parts.push(`as of ${new Date(document.lastModified).toLocaleString("sv").slice(0, 16)}`);
  $("count").textContent = parts.join(" · ");
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
  showCurves();
  showDifferences();
  showSamples();
}

function swatch(run) {
  const line = draw("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: colour(run), "stroke-width": 3, "stroke-dasharray": dash(run) });
  return draw("svg", { class: "swatch", width: 22, height: 10, "aria-hidden": "true" }, line);
}

const fullName = (run) => (run.study === null ? run.name : `${run.study} · ${run.name}`);

function legend() {
  $("legend").replaceChildren(...ticked().map((run) => {
    run.reading = make("output", { textContent: "no curve" });
    const off = make("button", { type: "button", textContent: "×", ariaLabel: `Untick ${run.name} ${run.id}`, title: "untick" });
    off.addEventListener("click", () => { tick(run, false); compare(); });
    const below = make("small", { textContent: [run.below, run.id].filter(Boolean).join(" · ") });
    return make("li", {}, swatch(run), make("span", {}, fullName(run), below), run.reading, off);
  }));
}

// A curve as it is drawn; a logarithmic axis has no place for zero.
function lineOf(run, x, y, logx, logy) {
  const points = run.curves[y];
  const kept = points.y.map((_, n) => n).filter((n) => (!logx || points[x][n] > 0) && (!logy || points.y[n] > 0));
  return { run, x: kept.map((n) => points[x][n]), y: kept.map((n) => points.y[n]), colour: colour(run), dash: dash(run) };
}

function showCurves() {
  const [y, x, logx, logy] = [$("y").value, $("x").value, $("logx").checked, $("logy").checked];
  const lines = ticked().filter((run) => run.curves[y]).map((run) => lineOf(run, x, y, logx, logy)).filter((line) => line.x.length);
  legend();
  if (lines.length) drawCurves(lines, x, y, logx, logy);
  else drawNothing(ticked().length ? `The ticked runs have no ${y}.` : "Tick runs in the table to lay their curves over each other.");
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
    const judged = ["val/bpb", "val/loss"].includes(data.columns[n]) && runs.length > 1;
    const best = judged ? least(runs.map((run) => run.cells[n][1] ?? Infinity)) : NaN;
    const cells = runs.map(({ cells: { [n]: [text, value] } }) => make("td", { textContent: text || "–", className: value === best ? "least" : "" }));
    return make("tr", {}, make("th", { scope: "row", textContent: data.columns[n] }), ...cells);
  });
  rows.push(...keys.map((key, n) => {
    const cells = runs.map((run) => make("td", { className: "why", textContent: run.config[key] ?? "–" }));
    return make("tr", { className: n ? "" : "first" }, make("th", { scope: "row", textContent: key }), ...cells);
  }));
  $("differences").tHead.replaceChildren(...(runs.length ? [make("tr", {}, make("td"), ...heads(runs))] : []));
  $("differences").tBodies[0].replaceChildren(...rows);
  const more = ticked().length > COMPARED ? `The first ${COMPARED} of the ${ticked().length} ticked runs. ` : "";
  const few = "Tick two runs or more to see the keys in which they differ.";
  const said = runs.length < 2 ? few : keys.length ? "" : "Their configs, code, corpus and device are the same.";
  $("same").textContent = more + said;
}

function showSamples() {
  const runs = ticked().slice(0, COMPARED), found = runs.map((run) => [run, run.samples.at(Number($("when").value))]);
  $("samples").replaceChildren(...found.map(([run, sample]) => {
    const when = make("small", { textContent: sample ? sample[0] : "no sample" });
    const head = make("h3", {}, swatch(run), make("code", { textContent: run.id }), when);
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
if (data.common) $("common").textContent = `The same in all: ${data.common}.`;
if (data.old) $("common").append(` ${data.old}`);
$("filter").addEventListener("input", show);
$("clear").addEventListener("click", () => { ticked().forEach((run) => tick(run, false)); compare(); });
for (const id of ["y", "x", "logx", "logy"]) $(id).addEventListener("change", showCurves);
$("when").addEventListener("change", showSamples);
new ResizeObserver(() => { if (plotWidth() !== $("plot").viewBox.baseVal?.width) showCurves(); }).observe($("curves"));
arrange();
show();
// To begin with: the best run and the newest.
const drawn = data.runs.filter((run) => run.curves[$("y").value]);
[...new Set([...ranked(drawn).slice(0, 1), ...drawn])].slice(0, 2).forEach((run) => tick(run, true));
compare();
