"""``runs.html``: all runs on one page that needs nothing but itself: sort and filter them, tick some, and compare these.

Takes the catalogue's entries, broken ones too, and gives the page: what it shows as JSON, and the script beside this file that
shows it. A text of a run is never taken for HTML: the JSON holds no ``<``, and the script makes text nodes of it. Curves are
thinned to 400 points a run, the lowest among them, so a hundred runs are about a megabyte.
"""

import contextlib
import json
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from gptshake.errors import RecordError
from gptshake.estimate.words import duration, short_count
from gptshake.record.index import SECONDS, SPEED, TOKENS, Entry
from gptshake.record.metrics import Columns, read_columns
from gptshake.report.changes import changed_keys, value_text
from gptshake.report.html import document
from gptshake.report.runs_table import OLD, changes_of, changes_text, old_rule, shared
from gptshake.report.series import SERIES, Floats, extremes, smooth

COLUMNS = ("run", "id", "status", "started", "val/bpb", "val/loss", "tokens", "time", "tokens/s", "note")
CURVES = ("val/bpb", "val/loss", "train/loss")  # the training loss smoothed
INTERVALS = 200  # a curve is drawn with the lowest and the highest point of each
LETTERS = 1500  # of a sample; the rest is in samples.md
Cell = tuple[str, float | str | None]  # what is shown, and what it is sorted by; None comes last

_HERE = Path(__file__).parent
_BODY = """
<h1>Runs</h1>
<p class="below" id="count">The runs are shown by a script, which this browser does not run.</p>
<div class="bar"><input type="search" id="filter" aria-label="Filter" aria-describedby="how" autocomplete="off" spellcheck="false"
 placeholder="Filter: words, or model=tiny status=ok optimizer.lr&gt;1e-3"><button type="button" id="clear">Untick all</button></div>
<p class="hint" id="how">As <code>task.filter</code>: a word is looked for in names, notes, ids, studies and statuses; <code>key=value</code> asks options,
 config and figures, also with <code>!= &lt; &gt; &lt;= &gt;=</code> and <code>*</code>. <span id="common"></span></p>
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
    """The whole page.

    Args:
        entries: of ``record.index``, in the order in which they are shown first.
    """
    common = shared(entries)
    runs = [_run(entry, common) for entry in entries]
    data = {
        "columns": COLUMNS,
        "curves": CURVES,
        "colours": SERIES,
        "common": changes_text(common),
        "old": old_rule(entries),
        "shared": _take_shared([run["config"] for run in runs if run["config"]]),
        "runs": runs,
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")  # so nothing in it ends the script
    parts = [_BODY, f'<script type="application/json" id="data">{text}</script>']
    style, curves, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("runs_page.css", "runs_curves.js", "runs_page.js"))
    return document("Runs", parts, style, curves + script)


def _run(entry: Entry, common: Mapping[str, str]) -> dict[str, Any]:
    """A run as the script takes it."""
    metrics = _metrics(entry)
    name = _trial(entry) if entry.study else entry.source or entry.id
    changes = changes_text({key: value for key, value in changes_of(entry).items() if key not in common})
    return {
        "name": name,
        "below": entry.problem or changes,
        "words": " ".join([entry.name, str(entry.path), entry.source]),
        "id": entry.id,
        "status": entry.status,
        "study": entry.study,
        "cells": _cells(entry, name),
        "figures": entry.figures,
        "config": _config(entry),
        "curves": {y: points for y in CURVES if (points := _points(metrics, y))},
        "samples": _samples(entry),
    }


def _trial(entry: Entry) -> str:
    trial = entry.info["trial"]
    return f"trial {trial.get('number')}" + (f".{trial['repeat']}" if trial.get("repeat") else "")


def _cells(entry: Entry, name: str) -> list[Cell]:
    bpb, loss, tokens, time, speed = (entry.figures.get(key) for key in ("val/bpb", "val/loss", TOKENS, SECONDS, SPEED))
    said = " · ".join(filter(None, ["" if entry.problem else entry.reason, entry.note]))
    return [
        (name, name),
        (entry.id, entry.id),
        (entry.status, entry.status),
        (datetime.fromtimestamp(entry.started).strftime("%Y-%m-%d %H:%M"), entry.started),
        (f"{bpb:.4f}{OLD if entry.old_rule else ''}" if bpb is not None else "", bpb),
        (f"{loss:.4f}" if loss is not None else "", loss),
        (short_count(tokens) if tokens is not None else "", tokens),
        (duration(time) if time is not None else "", time),
        (short_count(speed) if speed is not None else "", speed),
        (said, said or None),
    ]


def _metrics(entry: Entry) -> dict[str, Floats]:
    """Columns of metrics.csv as arrays, and ``seconds`` of training: the steps alone, without validations and pauses."""
    names = ("step", "train/tokens", "perf/step_ms", *CURVES)
    columns: Columns = {name: array("d") for name in names}
    with contextlib.suppress(OSError, RecordError):
        columns = read_columns(entry.path / "metrics.csv", names)
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    return arrays | {"seconds": np.cumsum(np.nan_to_num(arrays["perf/step_ms"])) / 1e3}


def _config(entry: Entry) -> dict[str, str]:
    """What can make two runs differ, as text: the options chosen, their keys, the code, the corpus and the device."""
    choices = _mapping(entry, "choices")
    asked = {**choices, **entry.config}
    keys = changed_keys(dict.fromkeys(asked, ...), asked)  # differs in all of them, so gives those that count
    config = {key: value_text(new) for key, (_, new) in keys.items() if key.removesuffix("._target_") not in choices or key in choices}
    return config | {key: text for key, text in (("code", _code(entry)), ("corpus", _corpus(entry)), ("device", _device(entry))) if text}


def _code(entry: Entry) -> str:
    git = _mapping(entry, "git")
    return " ".join(
        filter(None, [str(entry.info.get("version", "")), str(git.get("commit") or "")[:8], "dirty" if git.get("dirty") else ""])
    )


def _corpus(entry: Entry) -> str:
    data = _mapping(entry, "data")
    return " ".join(str(data[key])[:12] for key in ("label", "fingerprint") if data.get(key))


def _device(entry: Entry) -> str:
    hardware = _mapping(entry, "hardware")
    gpus = hardware.get("gpus")
    named = [str(gpu["name"]) for gpu in gpus if isinstance(gpu, dict) and gpu.get("name")] if isinstance(gpus, list) else []
    return ", ".join(named) or str(hardware.get("cpu", ""))


def _mapping(entry: Entry, key: str) -> Mapping[str, Any]:
    """A part of run.json; empty if it is not there, or something else."""
    found = entry.info.get(key)
    return found if isinstance(found, dict) else {}


def _take_shared(configs: Sequence[dict[str, str]]) -> dict[str, str]:
    """Take out of the configs what is the same in all of them."""
    same = set.intersection(*(set(config.items()) for config in configs)) if configs else set()
    for config in configs:
        for key, _ in same:
            del config[key]
    return dict(sorted(same))


def _points(metrics: Mapping[str, Floats], name: str) -> dict[str, list[float]]:
    """A curve over steps, tokens and seconds; empty without a point."""
    known = np.isfinite(metrics[name]) & np.isfinite(metrics["train/tokens"]) & np.isfinite(metrics["step"])
    if not known.any():
        return {}
    y = metrics[name][known]
    y = smooth(y) if name.startswith("train/") else y
    kept = extremes(y, INTERVALS)
    axes = {"steps": "step", "tokens": "train/tokens", "time": "seconds"}
    points = {axis: metrics[column][known][kept] for axis, column in axes.items()}
    return {
        **{axis: [int(value) for value in points[axis]] for axis in ("steps", "tokens")},
        "time": [round(value, 2) for value in points["time"].tolist()],
        "y": [float(f"{value:.5g}") for value in y[kept].tolist()],
    }


def _samples(entry: Entry) -> list[tuple[str, str]]:
    """When and what the model wrote: first, midway and last; several prompts of one step together."""
    written: dict[str, list[str]] = {}
    for sample in entry.samples:
        if sample.title != "first training block":
            written.setdefault(f"step {sample.step:,} · {short_count(sample.tokens)} tokens", []).append(sample.text)
    found = [(when, "\n---\n".join(texts)) for when, texts in written.items()]
    kept = [found[n] for n in (0, len(found) // 2, len(found) - 1)] if found else []
    return [(when, text if len(text) <= LETTERS else f"{text[:LETTERS]} …") for when, text in kept]
