// runs.html at work: reads the JSON beside it, builds the table once, and draws what is ticked. Every text of a run becomes a text node.

const data = JSON.parse($("data").textContent);
const STARTED = data.columns.indexOf("started"), BPB = data.columns.indexOf("val/bpb");
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const COMPARED = 8; // columns that can be read side by side

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const button = (properties, onclick) => make("button", { type: "button", onclick, ...properties });
const plural = (n, word, words = `${word}s`) => `${n} ${n === 1 ? word : words}`;
const of = (n, all, word) => `${n < all ? `${n} of ` : ""}${plural(all, word)}`;

// the table: a row for each run; the trials of a study fold into one row with the best one's figures
const studies = new Map();
for (const run of data.runs) {
  const settings = Object.entries({ ...data.shared, ...run.config, status: run.status, id: run.id, study: run.study });
  const texts = [run.words, run.name, run.below, run.cells.at(-1)[0], ...settings.map(([key, value]) => `${key}=${value}`)];
  run.words = texts.join("\n").toLowerCase();
  row(run, `${run.status}${run.study === null ? "" : " trial"}`, `Compare ${run.name} ${run.id}`, make("span", { textContent: run.name }),
    make("small", { textContent: run.below }), (on) => tick(run, on));
  if (run.study === null) continue;
  if (!studies.has(run.study)) studies.set(run.study, { trials: [], open: false });
  studies.get(run.study).trials.push(run);
}
for (const [name, study] of studies) {
  study.cells = ranked(study.trials)[0].cells.map((cell, n) => (data.numbers.includes(data.columns[n]) ? cell : ["", null]));
  study.cells[STARTED] = study.trials[0].cells[STARTED];
  study.cells[0] = [name, name];
  study.fold = button({ className: "fold", ariaExpanded: "false", textContent: name }, () => { study.open = !study.open; show(); });
  study.count = make("small");
  row(study, "study", `Compare all trials of ${name}`, study.fold, study.count,
    (on) => study.trials.filter((run) => !run.hidden).forEach((run) => tick(run, on)));
}
const items = [...studies.values(), ...data.runs.filter((run) => run.study === null)];

function ranked(runs) {
  return [...runs].sort((a, b) => (b.status === "ok") - (a.status === "ok") || (a.cells[BPB][1] ?? Infinity) - (b.cells[BPB][1] ?? Infinity) || 0);
}

// A row: a tick box, a title and a smaller line below it in the first cell, then the others.
function row(item, className, label, title, below, change) {
  item.box = make("input", { type: "checkbox", ariaLabel: label, onchange: () => { change(item.box.checked); compare(); } });
  const name = make("div", { className: "name" }, make("label", { className: "box" }, item.box), make("div", {}, title, below));
  const others = item.cells.slice(1).map(([text], n) => {
    const column = data.columns[n + 1];
    return make("td", { className: data.numbers.includes(column) ? "number" : column === "note" ? "why" : column, textContent: text });
  });
  item.row = make("tr", { className }, make("th", { scope: "row" }, name), ...others);
}

// order and filter
let order = { column: STARTED, down: true };

function arrange() {
  const before = (a, b) => {
    const x = a.cells[order.column][1], y = b.cells[order.column][1];
    if (x === null || y === null) return (x === null) - (y === null);
    return (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) * (order.down ? -1 : 1);
  };
  const rows = [...items].sort(before).flatMap((item) => [item, ...[...(item.trials ?? [])].sort(before)]).map((item) => item.row);
  $("runs").tBodies[0].append(...rows);
  const sorted = order.down ? "descending" : "ascending";
  [...$("runs").tHead.rows[0].cells].forEach((cell, n) => { cell.ariaSort = n === order.column ? sorted : "none"; });
}

function show() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const run of data.runs) {
    run.hidden = !words.every((word) => run.words.includes(word));
    run.row.hidden = run.hidden || (run.study !== null && !studies.get(run.study).open);
  }
  for (const study of studies.values()) {
    const shown = study.trials.filter((run) => !run.hidden);
    const states = Object.entries(Object.groupBy(shown, (run) => run.status)).map(([status, runs]) => `${runs.length} ${status}`);
    study.row.hidden = shown.length === 0;
    study.fold.ariaExpanded = String(study.open);
    study.count.textContent = [of(shown.length, study.trials.length, "trial"), states.join(", "), "the best one's figures"].join(" · ");
  }
  const counted = of(data.runs.filter((run) => !run.hidden).length, data.runs.length, "run");
  const when = `as of ${new Date(document.lastModified).toLocaleString("sv").slice(0, 16)}`;
  $("count").textContent = [counted, ...(studies.size ? [plural(studies.size, "study", "studies")] : []), when].join(" · ");
}

// ticking: a run keeps its colour and dash until it is unticked
const slots = [], ticked = () => slots.filter(Boolean); // each a run or null
const colour = (run) => data.colours[slots.indexOf(run) % data.colours.length];
const dash = (run) => DASHES[Math.floor(slots.indexOf(run) / data.colours.length) % DASHES.length];
const fullName = (run) => (run.study === null ? run.name : `${run.study} · ${run.name}`);

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

const swatch = (run) => draw("svg", { class: "swatch", width: 22, height: 10, "aria-hidden": "true" },
  draw("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: colour(run), "stroke-width": 3, "stroke-dasharray": dash(run) }));

function showCurves() {
  const [y, x, logx, logy] = [$("y").value, $("x").value, $("logx").checked, $("logy").checked];
  $("legend").replaceChildren(...ticked().map((run) => {
    run.reading = make("output", { textContent: "no curve" });
    const off = { textContent: "×", ariaLabel: `Untick ${run.name} ${run.id}`, title: "untick" };
    const below = make("small", { textContent: [run.below, run.id].filter(Boolean).join(" · ") });
    return make("li", {}, swatch(run), make("span", {}, fullName(run), below), run.reading, button(off, () => { tick(run, false); compare(); }));
  }));
  const lines = ticked().filter((run) => run.curves[y]).map((run) => {
    const points = run.curves[y]; // a logarithmic axis has no place for zero
    const kept = points.y.map((_, n) => n).filter((n) => (!logx || points[x][n] > 0) && (!logy || points.y[n] > 0));
    return { run, x: kept.map((n) => points[x][n]), y: kept.map((n) => points.y[n]), colour: colour(run), dash: dash(run) };
  }).filter((line) => line.x.length);
  if (lines.length) return drawCurves(lines, x, y, logx, logy);
  const { width, height } = clear("no curve");
  const why = ticked().length ? `The ticked runs have no ${y}.` : "Tick runs in the table to lay their curves over each other.";
  $("plot").append(draw("text", { x: width / 2, y: height / 2, class: "none" }, why));
}

// differences and samples
const head = (run) => [swatch(run), make("code", { textContent: run.id })];

function showDifferences() {
  const runs = ticked().slice(0, COMPARED), differs = (key) => new Set(runs.map((run) => run.config[key])).size > 1;
  const line = (name, className, cells) => make("tr", { className }, make("th", { scope: "row", textContent: name }), ...cells);
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.config)))].filter((key) => {
    const group = key.split(".")[0]; // of a key that only one of two options has, it says enough that the options differ
    const ofOne = group !== key && differs(group) && runs.some((run) => run.config[key] === undefined && data.shared[key] === undefined);
    return differs(key) && !ofOne;
  });
  const rows = data.numbers.map((name) => [name, runs.map((run) => run.cells[data.columns.indexOf(name)])]);
  const figures = rows.filter(([, cells]) => cells.some(([text]) => text)).map(([name, cells]) => {
    const best = name.startsWith("val/") && runs.length > 1 ? least(cells.map(([, value]) => value ?? Infinity)) : NaN;
    return line(name, "", cells.map(([text, value]) => make("td", { textContent: text || "–", className: value === best ? "least" : "" })));
  });
  const text = (run, key) => make("td", { className: "why", textContent: run.config[key] ?? "–" });
  const settings = keys.map((key, n) => line(key, n ? "" : "first", runs.map((run) => text(run, key))));
  const heads = runs.map((run) => make("th", { scope: "col", title: fullName(run) }, ...head(run)));
  $("differences").tHead.replaceChildren(...(runs.length ? [make("tr", {}, make("td"), ...heads)] : []));
  $("differences").tBodies[0].replaceChildren(...figures, ...settings);
  const more = ticked().length > COMPARED ? `The first ${COMPARED} of the ${ticked().length} ticked runs. ` : "";
  const how = keys.length ? "" : "Their configs, code, corpus and device are the same.";
  $("same").textContent = more + (runs.length < 2 ? "Tick two runs or more to see the keys in which they differ." : how);
}

function showSamples() {
  $("samples").replaceChildren(...ticked().slice(0, COMPARED).map((run) => {
    const [when, text] = run.samples.at(Number($("when").value)) ?? ["no sample"];
    return make("article", {}, make("h3", {}, ...head(run), make("small", { textContent: when })), ...(text === undefined ? [] : [make("pre", { textContent: text, tabIndex: 0 })]));
  }));
}

data.columns.forEach((name, n) => {
  const high = ["started", "tokens", "time", "tokens/s"].includes(name); // on top at first
  const sort = button({ textContent: name }, () => { order = { column: n, down: order.column === n ? !order.down : high }; arrange(); });
  $("runs").tHead.rows[0].append(make("th", { scope: "col", className: data.numbers.includes(name) ? "number" : "" }, sort));
});
for (const name of data.curves) $("y").append(make("option", { textContent: name }));
for (const name of ["tokens", "steps", "time"]) $("x").append(make("option", { textContent: name }));
$("y").value = data.curves.find((name) => data.runs.some((run) => run.curves[name])) ?? data.curves[0];
$("common").textContent = [data.common && `Common to all runs: ${data.common}.`, data.old].filter(Boolean).join(" ");
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
// While a run is at work the page is read again every 30 s, until somebody uses it.
const reloading = data.runs.some((run) => run.status === "running") && setInterval(() => location.reload(), 30_000);
for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => clearInterval(reloading));
