"""Tables for other programs: runs as CSV, JSON and a page, a study's trials as CSV and LaTeX; numbers in full, where the terminal rounds them.

A target is a file, or ``-`` for the standard output, which then holds nothing else.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.files import expanded, storing, write_atomic
from gptshake.keys import RESULT, is_free
from gptshake.record.index import METADATA, Entry, runs_frame
from gptshake.record.run import plain
from gptshake.report.study_stats import Json, best, differences, seconds_of, speed_of, state_of
from gptshake.report.study_text import DIFFERENCE_HEAD, difference_rows, trial_table

STDOUT = "-"
_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\n": " "}
)


def check_targets(targets: Mapping[str, str | None]) -> bool:
    """Refuse two tables on one standard output, and a folder; gives whether the standard output is free for other text.

    Args:
        targets: key of the config -> where its table goes, if anywhere.
    """
    if len(out := [f"{key}=-" for key, target in targets.items() if target == STDOUT]) > 1:
        raise ConfigError(f"{' and '.join(out)} would both go to the standard output: give one of them a file.")
    for key, target in targets.items():
        if target and (expanded(target).is_dir() or target.endswith("/")):
            raise ConfigError(f"{key}={target} is a folder: name a file, or - for the standard output.")
    return not out


def write_table(text: str, target: str) -> Path | None:
    """Write a table to its target in UTF-8; gives the file, None for the standard output."""
    data = text.encode("utf-8", "replace")
    if target == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return None
    path = expanded(target)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a device, as /dev/stdout, takes it as it comes
            path.write_bytes(data)
        else:
            write_atomic(path.resolve(), data)  # a link stays a link, as /dev/stdout is one where it leads to a file
    return path


def write_tables(content: Any, targets: Mapping[str, str | None], makers: Sequence[Callable[[Any], str]]) -> None:
    """Write the table that each maker gives of the content to its target, if it has one; prints the files if that does not mix with a table."""
    for target, make in zip(targets.values(), makers, strict=True):
        if target and (file := write_table(make(content), target)) and STDOUT not in targets.values():
            print(f"  {file}")


def runs_json(entries: Sequence[Entry]) -> str:
    """A list with one object a run: what the record says, its options, figures, and config by dotted keys."""
    about = runs_frame(entries, config=False)[[*METADATA]].to_dict("records")
    parts = [{"choices": entry.part("choices"), "figures": entry.figures, "config": entry.config} for entry in entries]
    return as_json([own | part for own, part in zip(about, parts, strict=True)], indent=1)


def runs_csv(entries: Sequence[Entry]) -> str:
    """A line for each run: what the record says, its options, figures, and the keys that can change a result."""
    kept = set[str](METADATA)
    for entry in entries:
        kept |= entry.part("choices").keys() | entry.figures.keys()
        kept |= {key for key in entry.config if not is_free(key, RESULT, entry.config)}
    table = runs_frame(entries)
    used = [name for name in table if name in kept]
    return _csv(used, table[used].to_numpy(dtype=object))


def runs_html(entries: Sequence[Entry]) -> str:
    from gptshake.report.runs_page import runs_page  # its curves need numpy

    return runs_page(entries)


def evaluation_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    head = [name for name, value in rows[0].items() if not isinstance(value, dict)]
    return _csv(head, [[row[name] for name in head] for row in rows])


def study_csv(study: Json) -> str:
    return _csv(*study_table(study))


def study_table(study: Json) -> tuple[list[str], list[Sequence[Any]]]:
    """Names of columns and a row for each trial; for a comparison with a base its paired differences."""
    winner, objective, rows = best(study), study["objective"], list[Sequence[Any]]()
    if study.get("ablate"):
        base, values = study["ablate"]["labels"][0], {trial["params"].get("ablate"): trial["value"] for trial in study["trials"]}
        head = _with_objective(["change"], objective, ["difference", "error", "percent", "speed", "seeds", "verdict"])
        rows.append([base, values.get(base), *[None] * 6])
        for one in differences(study):
            rows.append([one.label, one.trial["value"], one.mean, one.error, one.percent, one.speed, one.seeds, one.verdict])
    else:
        keys = [axis["key"] for axis in study["axes"]]
        names = ["trial", "state", *(key.lstrip("+") for key in keys)]
        head = _with_objective(names, objective, ["tokens_per_s", "seconds", "reason", "best"])
        for trial in sorted(study["trials"], key=lambda row: row["number"]):
            is_best = bool(winner and winner.trial["number"] == trial["number"])
            params = [trial["params"].get(key) for key in keys]
            measured = [trial["value"], speed_of(trial), seconds_of(trial), trial.get("reason")]
            rows.append([trial["number"], state_of(trial), *params, *measured, is_best])
    return head, rows


def _with_objective(before: list[str], objective: str, after: list[str]) -> list[str]:
    return [*before, f"objective {objective}" if objective in (*before, *after) else objective, *after]


def study_latex(study: Json) -> str:
    """The table that the terminal shows as a ``tabular`` for the package booktabs, the best trial in bold."""
    if study.get("ablate"):
        head, rows = DIFFERENCE_HEAD, [["", *cells] for cells in difference_rows(study)]
    else:
        head, rows = trial_table(study)
    used = [n for n, name in enumerate(head) if name in DIFFERENCE_HEAD or any(row[n + 1] for row in rows)]
    lines = []
    for bold, *cells in [["", *head], *rows]:
        texts = ["".join(letter if letter.isprintable() else " " for letter in cells[n]).translate(_LATEX) for n in used]
        lines.append(" & ".join(rf"\textbf{{{text}}}" if bold and text else text for text in texts) + r" \\")
    body = "\n".join([lines[0], r"\midrule", *lines[1:]])
    return f"% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{l{'r' * (len(used) - 1)}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def as_json(rows: Sequence[Mapping[str, Any]], indent: int | None = None) -> str:
    return json.dumps(plain(rows), indent=indent, ensure_ascii=False, allow_nan=False, default=str) + "\n"  # default: a date of YAML


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *([plain(value) for value in row] for row in rows)])
    return out.getvalue()
