"""The report of a study: plots, ``report.html`` and ``best.yaml``, made from its folder alone, at any time, of what is there.

The page needs nothing but itself: no scripts, no fonts, no files beside it.
"""

from html import escape
from pathlib import Path

from gptshake.files import write_atomic
from gptshake.record.index import read_study
from gptshake.report.frame import look, save
from gptshake.report.html import document, figure, row, table
from gptshake.report.plots_study import figures
from gptshake.report.rerun import best_yaml, command, overrides_of
from gptshake.report.study_stats import best
from gptshake.report.study_text import DIFFERENCE_HEAD, difference_rows, trial_table, verdict

CAPTIONS = {
    "basin": "The objective along the first axis; green: where the best lies.",
    "ablate": "Each change against the base, same seeds.",
    "map": "Two axes together; darker is better.",
    "curves": "Learning curves of all trials; grey: not run to the end.",
    "time": "The best trial of each batch size: at equal tokens, and at equal time.",
    "timeline": "What each slot did.",
}


def report(folder: Path) -> list[Path]:
    """Write the report of a study anew.

    Returns:
        The files written: plots, report.html, and best.yaml once a trial has finished.
    Raises:
        RecordError: there is no study, or its record is damaged.
    """
    study, files = read_study(folder), []
    with look():
        for name, picture in figures(study, folder).items():
            files += save(picture, folder / "plots", name)
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
        parts += ["<h2>Trials</h2>", table(head, [row(cells[1:], f"{cells[2]}{' best' if cells[0] else ''}") for cells in rows])]
    fixed = "\n".join(study["fixed"]) or "(nothing)"
    parts += ["<h2>The same for all trials</h2>", f"<pre>{escape(fixed)}</pre>"]
    if winner:
        parts += ["<h2>The best trial again</h2>", f"<pre>{escape(command(study, overrides_of(study, winner)))}</pre>"]
    write_atomic(folder / "report.html", document(title, parts))
    if not winner or study.get("program") != "gptshake":
        return [*files, folder / "report.html"]
    write_atomic(folder / "best.yaml", best_yaml(study, winner))
    return [*files, folder / "report.html", folder / "best.yaml"]
