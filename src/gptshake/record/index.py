"""The run index: all runs of some folders, read only, for lists, comparisons and the journal; and the sweeps that they belong to.

A record that is torn, half-written or of another version is an entry like any other, with the status ``broken`` and a sentence that
says why. Files are opened when they are asked for, so a list of a thousand runs is quick.
"""

import contextlib
import math
import re
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gptshake.console import one_line
from gptshake.errors import RecordError, closest
from gptshake.files import expanded, yaml_text
from gptshake.record.lock import is_alive, last_seen
from gptshake.record.metrics import COLUMNS, DRAWN, Columns, Row, column_chunks, last_values, other_columns, read_columns, read_rows
from gptshake.record.names import title_of
from gptshake.record.run import LATEST, debug_option, end_session, parse_run, run_dirs, status_of, totals
from gptshake.record.shape import malformed, malformed_study, read_record
from gptshake.record.texts import Sample, read_samples

if TYPE_CHECKING:
    import pandas as pd

BROKEN = "broken"
MOST_DAMAGED = 5  # that are named
STUDY_FILE = "study.json"
TOKENS, SPEED, SECONDS = "train/tokens", "perf/tokens_per_s", "time"  # figures; time is the wall time in seconds
METADATA = ("id", "name", "status", "started", "task", "study", "note", "reason", "path")  # what every run has, in this order
_LAST = (TOKENS, "train/loss", "val/loss", "val/bpb", SPEED, "perf/mfu")
_STUDY_DEFAULTS: dict[str, Any] = {"state": "stopped", "fixed": [], "started": 0.0, "updated": 0.0}  # of a study.json that lacks them
_SECTION = re.compile(r"\n(?=[A-Za-z_])")  # before a key of the first level
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Entry:
    """One run directory as it lies on the disk."""

    path: Path
    status: str  # one of ``run.STATUSES``, killed, or broken
    info: Mapping[str, Any] = field(default_factory=dict)  # run.json; at most id and name of a broken one
    problem: str = ""  # why the record is broken

    @property
    def id(self) -> str:
        """Eight characters; the folder's name if the record is broken."""
        return str(self.info.get("id", self.path.name))

    @property
    def name(self) -> str:
        return str(self.info.get("name", self.path.name))

    @property
    def title(self) -> str:
        """The name for people: ``tiny · wiki_char · excerpt106 · lr3e-4``."""
        return title_of({**self.info, "name": self.name})

    @property
    def started(self) -> float:
        """Seconds since 1970; a broken record's is the age of its folder."""
        if (started := self.info.get("started")) is not None:
            return float(started)
        with contextlib.suppress(OSError):
            return self.path.stat().st_mtime
        return 0.0

    def part(self, key: str) -> Mapping[str, Any]:
        """A mapping within run.json; empty if it is not there, or something else."""
        found = self.info.get(key)
        return found if isinstance(found, dict) else {}

    @property
    def study(self) -> str | None:
        return str(self.part("trial").get("study") or "") or None

    @property
    def commit(self) -> str:
        """Of its code; empty if it is unversioned."""
        return str(self.part("git").get("commit") or "")

    @property
    def summary(self) -> Mapping[str, Any]:
        """Final figures; empty before the end."""
        return self.part("summary")

    @cached_property
    def note(self) -> str:
        """Why the run was made, in its author's words, on one line."""
        return one_line(str(self.info.get("note") or ("" if "note" in self.info else self.config.get("note")) or ""))

    @property
    def reason(self) -> str:
        """Why it did not end well, or cannot be read, on one line; empty if it did."""
        return one_line(self.problem or str(self.info.get("reason") or ""))

    @property
    def source(self) -> str:
        """What was trained on what: ``tiny · wiki_char · excerpt106``; the task, and ``debug=smoke``, in front if it was no plain training."""
        model, data, label = self.part("choices").get("model"), str(self.part("choices").get("data") or ""), self.part("data").get("label")
        named = [model, data, "" if label and data.startswith(str(label)) else label]  # shakespeare_char says it already
        if not model or not data:
            named = ["" if self.status == BROKEN else self.title]
        task, debug = self.info.get("task", "train"), debug_option(self.info)
        parts = [f"debug={debug}" if debug else "", task if task != "train" else "", *named]
        return one_line(" · ".join(str(part) for part in parts if part))

    @property
    def old_rule(self) -> bool:
        """Whether its bits per byte may be too low: an earlier version left out what unknown tokens hide."""
        data, tokenizer = self.part("data"), self.part("choices").get("tokenizer")
        return "bytes_per_token" in data and "unknown" not in data and tokenizer not in ("byte", "bpe", "hf_bpe", "sentencepiece", "gpt2")

    @cached_property
    def figures(self) -> dict[str, float]:
        """Every finite number of the summary, and for what that lacks the last values of metrics.csv; of an unfinished run the latter."""
        unfinished = self.status in ("running", "killed")  # what an earlier session recorded is old
        found = {key: float(value) for key, value in self.summary.items() if is_number(value)}
        lacking = [name for name in _LAST if unfinished or name not in found]
        last = last_values(self.path / "metrics.csv", [*lacking, SECONDS]) if lacking else {}
        ended = last.pop(SECONDS, None)
        found |= {key: float(value) for key, value in last.items() if math.isfinite(value)}
        # Of all sessions together, up to the last step of a run that has not ended; of an older record from the start to the end. Rows and
        # sessions are timed by one clock, which nobody sets; what the system's clock says now is not of it.
        wall, started, finished = (self.info.get(key) for key in ("wall_s", "started", "finished"))
        if unfinished and self.info.get("sittings"):
            wall = totals(end_session(self.info["sittings"], now=ended or last_seen(self.path) or 0.0))["wall_s"]
        elif self.status == "running" or not is_number(wall):
            end = time.time() if self.status == "running" else finished if is_number(finished) and not unfinished else ended
            wall = max(0.0, float(end) - float(started)) if is_number(end) and is_number(started) and end and started else None
        return found if wall is None else found | {SECONDS: float(wall)}

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml as dotted keys and plain values; empty if it cannot be read."""
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
            text = yaml_text(self.path / "config.yaml")
            with contextlib.suppress(yaml.YAMLError):  # a section that does not stand alone
                return {key: value for part in _SECTION.split(text) for key, value in _loaded(part).items()}
            return _loaded(text)
        return {}

    @cached_property
    def rows(self) -> list[Row]:
        """metrics.csv; empty if it cannot be read."""
        with contextlib.suppress(OSError, RecordError):
            return read_rows(self.path / "metrics.csv")
        return []

    @cached_property
    def columns(self) -> Columns:
        """Those of metrics.csv that are drawn; empty if it cannot be read."""
        with contextlib.suppress(OSError, RecordError):
            return read_columns(self.path / "metrics.csv", DRAWN)
        return {name: array("d") for name in DRAWN}

    @property
    def damage(self) -> str:
        """What of run.json, config.yaml and metrics.csv cannot be read or is missing, in a sentence; empty if nothing."""
        if self.problem or not self.config:
            return self.problem or f"{self.path / 'config.yaml'} is missing or cannot be read."
        metrics, last = self.path / "metrics.csv", 0.0
        try:
            for part in column_chunks(metrics, (*COLUMNS, *other_columns(metrics))):
                last = part["step"][-1]
        except (OSError, RecordError) as error:
            return str(error)
        steps = self.summary.get("steps") if self.status == "ok" else None
        there = f"ends at step {last:,.0f}" if metrics.exists() else "is missing"
        return f"{metrics} {there}, and run.json counts {steps:,} steps." if isinstance(steps, int) and last < steps else ""

    @cached_property
    def samples(self) -> list[Sample]:
        """samples.md; empty if it cannot be read."""
        return read_samples(self.path / "samples.md")


@lru_cache(4096)
def _loaded(text: str) -> dict[str, Any]:
    """A section of a config; most are the same in many runs, and so a list of a thousand is read five times as fast."""
    return flat(yaml.load(text, Loader=_LOADER))


def read_entry(path: Path) -> Entry:
    """A run directory as an entry; never fails."""
    try:
        info = parse_run(path)
        if why := malformed(info):
            named = {key: info[key] for key in ("id", "name") if isinstance(info[key], str)}
            return Entry(path, BROKEN, named, f"{path / 'run.json'} is damaged: {why}.")
        return Entry(path, status_of(path, info), info)
    except (RecordError, OSError) as error:
        return Entry(path, BROKEN, problem=str(error))


def refuse_damaged(entries: Iterable[Entry]) -> None:
    """RecordError if a record is not whole; for a task that was given these, when it has shown what can be read."""
    damaged = [damage for entry in entries if (damage := entry.damage)]
    if damaged:
        raise RecordError(
            " ".join([*damaged[:MOST_DAMAGED], *([f"{len(damaged)} records in all."] if len(damaged) > MOST_DAMAGED else [])])
        )


def read_index(roots: Sequence[Path]) -> list[Entry]:
    """Every run below some folders of runs and sweeps, a sweep's trials too, the newest first."""
    return sorted(map(read_entry, dict.fromkeys(run_dirs(roots))), key=lambda entry: (entry.started, entry.path), reverse=True)


def runs_frame(entries: Sequence[Entry], *, config: bool = True) -> "pd.DataFrame":
    """The runs as a table, a row for each in their order: what every run has, then options, figures, and the config by dotted keys.

    Values are as they were recorded, None where a run has none. Where a name is twice, as an option and in the config, the first counts.
    """
    import pandas as pd  # late: a third of a second

    parts = []
    for one in entries:
        started = datetime.fromtimestamp(one.started).astimezone().isoformat("T", "seconds")
        about = (one.id, one.name, one.status, started, one.info.get("task"), one.study, one.note, one.reason, str(one.path))
        parts.append((dict(zip(METADATA, about, strict=True)), one.part("choices"), one.figures, one.config if config else {}))
    columns = dict.fromkeys([*METADATA, *(str(key) for n in range(1, 4) for row in parts for key in row[n])])
    rows = [{str(key): value for part in reversed(row) for key, value in part.items()} for row in parts]
    return pd.DataFrame([[row.get(key) for key in columns] for row in rows], columns=list(columns), dtype=object)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists are values."""
    if not isinstance(node, dict) or not node:
        return {prefix.rstrip("."): node} if prefix else {}
    return {key: value for name, child in node.items() for key, value in flat(child, f"{prefix}{name}.").items()}


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_study(folder: Path) -> dict[str, Any]:
    """What a study's study.json holds; one whose controller was killed has stopped. RecordError if it is missing or damaged."""
    file = folder / STUDY_FILE
    study = read_record(file, "study", "name", "trials", "axes", "objective")
    if why := malformed_study(study):
        raise RecordError(f"{file} is damaged: {why}.")
    if study.get("state") == "running" and not is_alive(folder):
        study["state"] = "stopped"
        for run in (run for row in [*study["trials"], *(study.get("confirm") or [])] for run in row["runs"]):
            if run["state"] == "running" and not is_alive(folder / run["path"]):
                run["state"] = "stopped"
    return _STUDY_DEFAULTS | {key: value for key, value in study.items() if value is not None or key not in _STUDY_DEFAULTS}


def find_study(text: str, multirun: Path) -> Path:
    """The folder of a study, from its path, its name below ``multirun`` or ``latest``, the one begun last.

    Raises:
        RecordError: there is none; names the nearest.
    """
    wanted = text.strip().rstrip("/")
    if found := [folder for folder in (expanded(wanted), multirun / wanted) if wanted and (folder / STUDY_FILE).is_file()]:
        return found[0]
    names, begun = sorted(file.parent.name for file in multirun.glob(f"*/{STUDY_FILE}")), list[tuple[float, str]]()
    for name in names if wanted == LATEST else ():
        with contextlib.suppress(RecordError):  # a damaged one is found by its name
            begun.append((read_study(multirun / name)["started"], name))
    if begun:
        return multirun / max(begun)[1]
    near = closest(wanted, names, 3)
    known = f"; did you mean {near}?" if near else f" in {multirun}; there is {', '.join(names) or 'none at all'}."
    raise RecordError(f"There is no study {wanted!r}{known}")


def find_sweep(text: str, multirun: Path) -> Path | None:
    """The folder of a sweep, one of Hydra's basic sweeper too, from its path or its name below ``multirun``; None if the text names none."""
    wanted = text.strip().rstrip("/")
    for folder in (expanded(wanted), multirun / wanted):
        inside = bool(wanted) and folder.resolve().parent == multirun.resolve()
        if inside and ((folder / STUDY_FILE).is_file() or any(folder.glob("*/run.json"))):
            return folder
    return None
