"""Pages that need nothing but themselves: ``report.html`` of a run and of a study, and what every page is made of; each text is escaped.

A page fetches nothing, and its own script is the only one that its browser may run, whatever a run's name or a model's text holds.
"""

import base64
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from html import escape as escape_markup
from pathlib import Path
from typing import Any

from gptshake.console import printable
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.files import write_atomic
from gptshake.record.index import SECONDS, Entry, read_entry, read_study
from gptshake.report.changes import value_text
from gptshake.report.loss_svg import loss_svg
from gptshake.report.runs_table import changes_of
from gptshake.report.study_stats import best, over_seeds
from gptshake.report.study_text import DIFFERENCE_HEAD, best_yaml, command, difference_rows, overrides_of, trial_table, verdict

CAPTIONS = {
    "basin": "The objective along the first axis; green: where the best lies.",
    "ablate": "Each change against the base, same seeds.",
    "map": "Two axes together; darker is better.",
    "curves": "Learning curves of all trials.",
    "time": "The best trial of each batch size: at equal tokens, and at equal time.",
    "timeline": "What each slot did.",
}
_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2328; background: #fff; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
p.below, figcaption { color: #6b7280; margin: .2rem 0 1.2rem }
ul { padding-left: 1.1rem } li { margin: .25rem 0 }
pre { background: #f6f8fa; padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; font-size: .86rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .28rem .8rem .28rem 0; text-align: left; border-bottom: 1px solid #e5e7eb; white-space: nowrap }
th { color: #6b7280; font-weight: 600 } tr.best td { font-weight: 700 } tr.pruned td, tr.stopped td { color: #8b929c }
tr.failed td, tr.diverged td { color: #b3470a }
td.why { white-space: normal }
figure { margin: 1.6rem 0 } figure svg { width: 100%; height: auto }
""".strip()


def escape(text: str) -> str:
    """A text as HTML that shows it as it is; characters that could command a terminal or turn the direction of writing are written out."""
    return escape_markup(printable(text))


def document(title: str, parts: Sequence[str], style: str = "", script: str = "", *, reloads: bool = False) -> str:
    """A whole page: its title, the HTML of its body, CSS beside what all pages have, and JavaScript that runs at the end.

    One that ``reloads`` is read again every 30 s: what it shows is still at work.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    refresh = '<meta http-equiv="refresh" content="30">' if reloads else ""
    head = (
        f'<meta charset="utf-8">{refresh}<meta http-equiv="Content-Security-Policy" content="{allowed}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}{style}</style>'
    )
    body = "\n".join([*parts, f"<script>{script}</script>"] if script else parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def table(head: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls by itself if it is wider than the page; its rows are from ``row``."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def row(cells: Sequence[str], kind: str = "") -> str:
    """A row of a table; its last cell may be long. ``kind`` is a word of the style, such as ``failed``."""
    *others, last = cells
    return f'<tr class="{escape(kind)}">{"".join(f"<td>{escape(cell)}</td>" for cell in others)}<td class="why">{escape(last)}</td></tr>'


def figure(svg: str, name: str, caption: str) -> str:
    """A picture with what it shows below it. ``name``, which its ids begin with and readers hear, is unique on the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # html knows them
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would speak for the whole page
    svg = re.sub(r'\bid="', f'id="{name}-', svg).replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}" stroke-linejoin="round"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def run_page(entry: Entry) -> str:
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
    parts += _pairs("Config", {key: value_text(value) for key, value in entry.config.items()})
    return document(title, parts, reloads=entry.status == "running")


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


def write_study_page(folder: Path) -> list[Path]:
    """Write the report of a study anew.

    Returns:
        The files written: plots, report.html, and best.yaml once a trial has finished.
    Raises:
        RecordError: there is no study, or its record is damaged.
    """
    from gptshake.report.plots_study import plot_study  # brings matplotlib

    study = read_study(folder)
    files = plot_study(study, folder)
    pictures = {path.stem: path.read_text(encoding="utf-8") for path in files if path.suffix == ".svg"}
    here, there = Path.cwd(), folder.resolve()
    typed = there.relative_to(here) if there.is_relative_to(here) else folder  # as a person would type it here
    title, winner, items = str(study.get("label") or study["name"]), best(study), []
    for sentence in verdict(study, typed):
        words, gap, line = sentence.partition(":  ")  # a shell command
        items.append(f"<li>{escape(words)}:<pre>{escape(line)}</pre></li>" if gap else f"<li>{escape(sentence)}</li>")
    below = f"study {study['name']} · {study['state']} · {study['objective']}, {study['direction']}"
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="below">{escape(below)}</p>', f"<ul>{''.join(items)}</ul>"]
    parts += [figure(pictures[name], name, caption) for name, caption in CAPTIONS.items() if name in pictures]
    if study.get("ablate"):
        parts += ["<h2>Paired differences</h2>", table(DIFFERENCE_HEAD, [row(cells) for cells in difference_rows(study)])]
    elif study["trials"]:
        head, rows = trial_table(study)
        parts += [
            f"<h2>{'Seeds' if over_seeds(study) else 'Trials'}</h2>",
            table(head, [row(cells[1:], f"{cells[2]}{' best' if cells[0] else ''}") for cells in rows]),
        ]
    fixed = "\n".join(study["fixed"]) or "(nothing)"
    parts += [f"<h2>The same for all {'seeds' if over_seeds(study) else 'trials'}</h2>", f"<pre>{escape(fixed)}</pre>"]
    if winner and not over_seeds(study):
        parts += ["<h2>The best trial again</h2>", f"<pre>{escape(command(study, overrides_of(study, winner)))}</pre>"]
    write_atomic(folder / "report.html", document(title, parts, reloads=study["state"] == "running"))
    if not winner or study.get("program") != "gptshake":
        return [*files, folder / "report.html"]
    first = read_entry(folder / winner.trial["runs"][0]["path"])
    write_atomic(folder / "best.yaml", best_yaml(study, winner, first.part("choices").get("scheduler")))
    return [*files, folder / "report.html", folder / "best.yaml"]
