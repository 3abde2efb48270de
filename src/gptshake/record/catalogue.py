"""All runs of some folders as plain rows, read only: for lists, comparisons and the journal.

Nothing here fails for a record that is torn, half-written or of another version: it is a row like any other, with the
status ``broken`` and a sentence that says why. Files are opened when they are asked for, so a list of a hundred runs is quick.
"""

import contextlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gptshake.errors import RecordError
from gptshake.files import yaml_text
from gptshake.record.figures import figures
from gptshake.record.metrics import DRAWN, Columns, Row, read_columns, read_rows
from gptshake.record.names import title_of
from gptshake.record.run import parse_run, run_dirs, status_of
from gptshake.record.samples import Sample, read_samples
from gptshake.record.shape import malformed

BROKEN = "broken"
KNOW_ALL = ("byte", "bpe", "hf_bpe", "sentencepiece", "gpt2")  # tokenizers without unknown tokens
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
        """The run's name; the folder's if the record is broken."""
        return str(self.info.get("name", self.path.name))

    @property
    def title(self) -> str:
        """The name for people: ``tiny · wiki_char · excerpt106 · lr3e-4``."""
        return title_of({**self.info, "name": self.name})

    @property
    def started(self) -> float:
        """Seconds since 1970; a broken record's is the age of its folder."""
        started = self.info.get("started")
        if started is not None:
            return float(started)
        with contextlib.suppress(OSError):
            return self.path.stat().st_mtime
        return 0.0

    @property
    def study(self) -> str | None:
        """Name of the study that the run is a trial of."""
        trial = self.info.get("trial")
        return str(trial["study"]) if isinstance(trial, dict) and trial.get("study") else None

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Final figures, such as ``val/bpb``; empty before the end."""
        summary = self.info.get("summary")
        return summary if isinstance(summary, dict) else {}

    @cached_property
    def old_rule(self) -> bool:
        """Whether its bits per byte may be too low: an earlier version left out what unknown tokens hide."""
        data, choices = self.info.get("data"), self.info.get("choices")
        kind = choices.get("tokenizer") if isinstance(choices, dict) else None
        return isinstance(data, dict) and "bytes_per_token" in data and "unknown" not in data and kind not in KNOW_ALL

    @cached_property
    def figures(self) -> dict[str, float]:
        """Figures of the summary, or the last ones so far; ``time`` is the wall time in seconds."""
        return figures(self.path, self.info, self.status)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml as dotted keys and plain values; empty if it cannot be read."""
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
            return flat(yaml.load(yaml_text(self.path / "config.yaml"), Loader=_LOADER))
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

    @cached_property
    def samples(self) -> list[Sample]:
        """samples.md; empty if it cannot be read."""
        with contextlib.suppress(OSError):
            return read_samples(self.path / "samples.md")
        return []


def read_entry(path: Path) -> Entry:
    """A run directory as a row; never fails."""
    try:
        info = parse_run(path)
        if why := malformed(info):
            named = {key: info[key] for key in ("id", "name") if isinstance(info[key], str)}
            return Entry(path, BROKEN, named, f"{path / 'run.json'} is damaged: {why}.")
        return Entry(path, status_of(path, info), info)
    except (RecordError, OSError) as error:
        return Entry(path, BROKEN, problem=str(error))


def catalogue(roots: Sequence[Path]) -> list[Entry]:
    """Every run below some folders, a sweep's trials too, the newest first.

    Args:
        roots: folders of runs, and of sweeps of runs; one that is not there has none.
    """
    return sorted(map(read_entry, dict.fromkeys(run_dirs(roots))), key=lambda entry: (entry.started, entry.path), reverse=True)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists are values."""
    if not isinstance(node, dict) or not node:
        return {prefix.rstrip("."): node} if prefix else {}
    return {key: value for name, child in node.items() for key, value in flat(child, f"{prefix}{name}.").items()}
