"""``report.html`` of a run: what came out, its curves, what it wrote, its config, and what it was made with, on one page."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.files import write_atomic
from gptshake.record.index import SECONDS, Entry
from gptshake.report.changes import value_text
from gptshake.report.html import document, escape, figure, row, table
from gptshake.report.runs_table import changes_of
from gptshake.report.small_plots import loss_svg


def run_page(entry: Entry) -> str:
    """The whole page; what the record lacks, it leaves out."""
    title, took = entry.source or entry.id, entry.figures.get(SECONDS)
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.started))
    below = [f"run {entry.id}", entry.status, began, *([duration(took)] if took is not None else []), entry.name]
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="below">{escape(" · ".join(below))}</p>']
    parts += [f"<p>{escape(text)}</p>" for text in (entry.note, entry.reason) if text]
    if svg := loss_svg(entry.info, entry.columns):
        parts += ["<h2>Curves</h2>", figure(svg, "curves", "Loss and learning rate over training tokens; dashed: what needs no model.")]
    parts += _pairs("Results", {name: f"{value:.6g}" for name, value in sorted(entry.figures.items())})
    parts += ["<h2>Samples</h2>"] if entry.samples else []
    for sample in entry.samples:
        head = f"{escape(sample.title)}, after {short_count(sample.tokens)} tokens"
        parts.append(f"<h3>{head}</h3><pre>{escape(sample.text)}</pre>")
    parts += _pairs("Asked for", changes_of(entry)) + _pairs("Provenance", _provenance(entry))
    return document(title, parts + _pairs("Config", {key: value_text(value) for key, value in entry.config.items()}))


def write_run_page(entry: Entry) -> Path:
    """Write ``report.html`` into the run directory; gives its path."""
    file = entry.path / "report.html"
    write_atomic(file, run_page(entry).encode("utf-8", "replace"))
    return file


def _pairs(heading: str, values: Mapping[str, Any]) -> list[str]:
    rows = [row([name, str(value)]) for name, value in values.items() if value not in (None, "")]
    return [f"<h2>{escape(heading)}</h2>", table(["", ""], rows)] if rows else []


def _provenance(entry: Entry) -> dict[str, Any]:
    info, git, data, machine, environment = entry.info, *map(entry.part, ("git", "data", "hardware", "environment"))
    packages, sessions = environment.get("packages"), info.get("sittings") or []
    known = packages.items() if isinstance(packages, dict) else ()
    first = f", the first at commit {sessions[0].get('commit') or 'unknown'}" if sessions else ""
    return {
        "commit": f"{git.get('commit') or 'unversioned'}{' with uncommitted changes' if git.get('dirty') else ''}",
        "branch": git.get("branch"),
        "version": info.get("version"),
        "command": " ".join(["gptshake", *(info.get("overrides") or [])]),
        "data": " · ".join(str(data[key]) for key in ("label", "licence", "fingerprint") if data.get(key)),
        "tokenizer": data.get("tokenizer"),
        "parameters": entry.part("model").get("parameters"),
        "seed": info.get("seed"),
        "machine": " · ".join(str(machine[key]) for key in ("cpu", "gpus", "ram_gb", "platform") if machine.get(key)),
        "python": environment.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in known),
        "sessions": f"{counted(len(sessions), 'session')}{first}" if len(sessions) > 1 else "",
        "parent": info.get("parent"),
    }
