"""``runs.html``: all runs on one page that needs nothing but itself: sort and filter them, tick some, and compare these.

The page holds what it shows as JSON, and the scripts beside this file that show it. A text of a run is never taken for HTML: the JSON
holds no ``<``, and the script makes text nodes of it. Thinned curves make a hundred runs about a megabyte.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from gptshake.estimate.formatting import short_count
from gptshake.record.index import Entry
from gptshake.report.changes import counting, machine_facts, value_text
from gptshake.report.pages import document
from gptshake.report.runs_table import FIGURES, changes_of, changes_text, figure_texts, old_rule, shared
from gptshake.report.series import SERIES, extremes, smooth

NUMBERS = {name: FIGURES[name][0] for name in ("val/bpb", "val/loss", "tokens", "time", "tokens/s")}  # column -> figure
COLUMNS = ("run", "id", "status", "started", *NUMBERS, "note")
CURVES = ("val/bpb", "val/loss", "train/loss")  # the training loss smoothed
INTERVALS = 200  # a curve is drawn with the lowest and the highest point of each
MOST_CHARACTERS = 1500  # of a sample, a note or a reason; the rest is in the run's directory

_BODY = """
<h1>Runs</h1>
<p class="below" id="count">The runs are shown by a script, which this browser does not run.</p>
<div class="bar"><input type="search" id="filter" aria-label="Filter" aria-describedby="how" autocomplete="off" spellcheck="false"
 placeholder="Filter: words of names and notes, model=tiny, status=ok"><button type="button" id="clear">Untick all</button></div>
<p class="hint" id="how">Shows the runs that have all words in their names, notes, ids, studies, statuses or settings, which are written
 <code>model=tiny</code>, <code>optimizer.lr=2e-3</code>. <span id="common"></span></p>
<div id="frame" tabindex="0" role="region" aria-label="Table of runs"><table id="runs"><thead><tr></tr></thead><tbody></tbody></table></div>
<section id="compare" aria-label="Ticked runs">
<h2>Curves</h2>
<div class="bar"><label>show <select id="y"></select></label><label>over <select id="x"></select></label>
<label><input type="checkbox" id="logx"> log x</label><label><input type="checkbox" id="logy"> log y</label></div>
<div id="curves"><figure><svg id="plot" role="img"></svg></figure><ul id="legend"></ul></div>
<h2>What differs</h2>
<p class="hint" id="same"></p>
<div class="wide" tabindex="0" role="region" aria-label="Table of differences"><table id="differences"><thead></thead><tbody></tbody></table></div>
<h2>Samples</h2>
<div class="bar"><label>written <select id="when">
<option value="-1">last</option><option value="1">midway</option><option value="0">first</option></select></label></div>
<div id="samples"></div>
</section>
""".strip()


def runs_page(entries: Sequence[Entry]) -> str:
    """The whole page; ``entries`` are in the order in which they are shown first."""
    common = shared(entries)
    runs = [_run(entry, common) for entry in entries]
    configs = [set(run["config"].items()) for run in runs if run["config"]]
    same = set.intersection(*configs) if configs else set()
    for run in runs:
        run["config"] = {key: text for key, text in run["config"].items() if (key, text) not in same}
    data = {"columns": COLUMNS, "numbers": [*NUMBERS], "curves": CURVES, "colours": SERIES, "runs": runs, "shared": dict(sorted(same))}
    data |= {"common": changes_text(common), "old": old_rule(entries)}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")  # so nothing in it ends the script
    files = ("runs_page.css", "runs_curves.js", "runs_page.js")
    style, curves, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in files)
    return document("Runs", [_BODY, f'<script type="application/json" id="data">{text}</script>'], style, curves + script)


def _run(entry: Entry, common: Mapping[str, str]) -> dict[str, Any]:
    """A run as the script takes it; a cell is what is shown, and what it is sorted by: a number, a text, or None, which comes last."""
    trial, texts, name = entry.part("trial"), figure_texts(entry), entry.source or entry.id
    if entry.study:
        name = f"trial {trial.get('number')}" + (f".{trial['repeat']}" if trial.get("repeat") else "")
    started = datetime.fromtimestamp(entry.started).strftime("%Y-%m-%d %H:%M")
    notes = _cut(" · ".join(filter(None, ["" if entry.problem else entry.reason, entry.note])))
    cells: list[tuple[str, Any]] = [(name, name), (entry.id, entry.id), (entry.status, entry.status), (started, entry.started)]
    return {
        "name": name,
        "below": entry.problem or changes_text({key: value for key, value in changes_of(entry).items() if key not in common}),
        "words": " ".join([entry.name, str(entry.path), entry.source]),
        "id": entry.id,
        "status": entry.status,
        "study": entry.study,
        "cells": [*cells, *((texts[column], entry.figures.get(figure)) for column, figure in NUMBERS.items()), (notes, notes or None)],
        "config": _config(entry),
        "curves": _curves(entry),
        "samples": _samples(entry),
    }


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"


def _config(entry: Entry) -> dict[str, str]:
    """What can make two runs differ, as text: the options chosen, their keys, the code, the corpus and the device."""
    choices, git, data, machine = entry.part("choices"), entry.part("git"), entry.part("data"), machine_facts(entry.info)
    settings = counting({**choices, **entry.config})
    about = {
        "code": [str(entry.info.get("version") or ""), entry.commit[:8], "dirty" if git.get("dirty") else ""],
        "corpus": [str(data[key])[:12] for key in ("label", "fingerprint") if data.get(key)],
        "device": [machine.get("GPU") or machine.get("processor", "")],
    }
    config = {key: value_text(new) for key, new in settings.items() if key.removesuffix("._target_") not in choices or key in choices}
    return config | {key: text for key, texts in about.items() if (text := " ".join(filter(None, texts)))}


def _curves(entry: Entry) -> dict[str, dict[str, list[float]]]:
    """Curves over steps, tokens and seconds of training, which are those of the steps alone, without validations and pauses."""
    step, tokens, milliseconds, *losses = (np.asarray(entry.columns[name]) for name in ("step", "train/tokens", "perf/step_ms", *CURVES))
    seconds, found = np.cumsum(np.nan_to_num(milliseconds)) / 1e3, {}
    for name, loss in zip(CURVES, losses, strict=True):
        known = np.flatnonzero(np.isfinite(loss) & np.isfinite(tokens) & np.isfinite(step))
        if len(known):
            y = smooth(loss[known]) if name.startswith("train/") else loss[known]
            at = known[kept := extremes(y, INTERVALS)]
            steps, when = step[at].astype(int).tolist(), [round(value, 2) for value in seconds[at].tolist()]
            rounded = [float(f"{value:.5g}") for value in y[kept].tolist()]
            found[name] = {"steps": steps, "tokens": tokens[at].astype(int).tolist(), "time": when, "y": rounded}
    return found


def _samples(entry: Entry) -> list[tuple[str, str]]:
    """When and what the model wrote: first, midway and last; several prompts of one step together."""
    written: dict[str, list[str]] = {}
    for sample in entry.samples:
        if sample.title != "first training block":
            written.setdefault(f"step {sample.step:,} · {short_count(sample.tokens)} tokens", []).append(sample.text)
    found = [(when, _cut("\n---\n".join(texts))) for when, texts in written.items()]
    return [found[n] for n in (0, len(found) // 2, len(found) - 1)] if found else []
