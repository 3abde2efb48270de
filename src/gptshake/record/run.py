"""The run directory: everything that explains or repeats a run, and the only place where it is written.

config.yaml  overrides     what was asked for: resolved, and as typed; no secret is in any of these (``redaction``)
run.json                   id, name, provenance, fingerprints, frozen ``auto`` values, status, summary; replaced atomically
metrics.csv  samples.md    one row per step; what the model wrote
log                        what was said, without colours
run.lock  lease.json       who is at work (``lock.py``; take the lock first)
checkpoints/  plots/  tokenizer/    filled by others
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gptshake.energy import Meter
from gptshake.errors import RecordError, closest
from gptshake.files import expanded, fsync, read_text, sha256, write_atomic, yaml_text
from gptshake.record.lock import is_alive
from gptshake.record.metrics import MetricsWriter, Row, last_row, read_history, read_rows
from gptshake.record.names import new_id as new_id
from gptshake.record.names import run_name as run_name
from gptshake.record.seal import SEAL, is_made_here, seal
from gptshake.record.sessions import Clock, end_session, start_session, totals
from gptshake.record.shape import STATUSES as STATUSES
from gptshake.record.shape import malformed
from gptshake.record.texts import TITLE, Sample, append_sample, cut_samples, read_samples
from gptshake.redaction import redact, redacted

LARGEST_RECORD = 64 << 20  # bytes of a run.json
MOST_MIRRORED = 10_000  # rows of a history that is mirrored at once, besides validations: what mirrors show has far fewer points
LATEST = "latest"  # a name for the run that was begun last; one with debug= only where there is no other
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class Run:
    """One run's record, open for writing. Hold the directory's ``RunLock`` while you use it.

    Attributes:
        path: the run directory.
        id: eight characters, the same in W&B.
        name: readable, holds the id.
        meter: of the energy of this session, if somebody measures it.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.id: str = info["id"]
        self.name: str = info["name"]
        self._info = info
        self._made_here = is_made_here(info)
        self.meter: Meter | None = None
        self.now = Clock().now  # for whatever is subtracted: a system clock that is set must not change wall time and price
        self._writer: MetricsWriter | None = None

    @classmethod
    def create(
        cls, path: Path, *, id: str, name: str, task: str, config_yaml: str, overrides: Sequence[str], provenance: Mapping[str, Any]
    ) -> "Run":
        """Begin a record; run.json is written last, so a directory that has one is complete. ``config_yaml`` holds no secret any more.

        Raises:
            RecordError: if a run is there already.
        """
        path = path.absolute()
        if (path / "run.json").exists():
            raise RecordError(f"{path} holds a run already; choose another paths.run_dir, or continue it with resume={path.name}.")
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(path / "config.yaml", config_yaml)
        write_atomic(path / "overrides", "".join(f"{redact(override)}\n" for override in overrides))
        run = cls(path, {"id": id, "name": name})
        run._made_here = True
        run.update(task=task, status="running", started=run.now(), overrides=list(overrides), **provenance)
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open a record to go on with it; nothing is changed yet.

        Raises:
            RecordError: if there is none, or it cannot be read.
        """
        return cls(path.absolute(), read_run(path))

    @property
    def info(self) -> dict[str, Any]:
        """What run.json holds; change it through ``update``."""
        return self._info

    def config(self) -> dict[str, Any]:
        """config.yaml as plain values.

        Raises:
            OSError, ValueError, yaml.YAMLError: it cannot be read.
        """
        return yaml.safe_load(yaml_text(self.path / "config.yaml")) or {}

    @property
    def n_rows(self) -> int:
        """Rows of metrics.csv so far; a checkpoint keeps this number for ``cut_rows``."""
        return self._metrics.n_rows

    def update(self, **fields: Any) -> None:
        """Merge into run.json, atomically; a mapping is merged key by key, a number that is not finite becomes null.

        Raises:
            ValueError: for a status that is none of ``STATUSES``.
        """
        if fields.get("status", "ok") not in STATUSES:
            raise ValueError(f"{fields['status']!r} is not a status of a run: {', '.join(STATUSES)}")
        self._info = _merged(self._info, redacted(_plain(fields)))
        if self._made_here:  # somebody else's record stays somebody else's
            self._info[SEAL] = seal(self._info)
        write_atomic(self.path / "run.json", json.dumps(self._info, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def start_session(self, git: Mapping[str, Any], price_per_hour: float | None = None) -> None:
        """Note the start of a session, the first or one after a resume."""
        row, before = self.last_row(), self._info.get("sittings", [])
        own = before and row.get("step", 0) > (before[-1].get("from_step") or 0)  # rows of an earlier session say nothing of the last
        last_seen = row.get("time") if own else None
        self.update(sittings=start_session(before, now=self.now(), last_seen=last_seen, git=git, price_per_hour=price_per_hour))

    def session_starts_from(self, step: int) -> None:
        """Note after which step this session goes on."""
        if known := self._info.get("sittings"):
            self.update(sittings=[*known[:-1], known[-1] | {"from_step": step}])

    def say(self, text: str) -> None:
        """Print a line and keep it in ``log``; a terminal that is gone or knows fewer letters does not stop a run."""
        text = redact(text)
        with contextlib.suppress(OSError, ValueError):  # a closed pipe; ValueError includes letters it cannot encode
            try:
                print(text, flush=True)
            except UnicodeEncodeError:
                print(text.encode("ascii", "backslashreplace").decode(), flush=True)
        self.log(text)

    def log(self, text: str) -> None:
        """Keep a line in ``log`` that was printed already, or need not be."""
        with (self.path / "log").open("a", encoding="utf-8", errors="replace") as file:
            file.write(_ANSI.sub("", redact(text)) + "\n")

    def append_row(self, row: Mapping[str, float]) -> None:
        """Add one step's row to metrics.csv; see ``metrics.COLUMNS`` for names and units."""
        self._metrics.append(row)

    def flush(self) -> None:
        """Return once every row is on the disk; call it before a checkpoint that counts them."""
        self._metrics.flush()

    def cut_rows(self, n_rows: int) -> None:
        """Go back to a checkpoint: keep the first ``n_rows`` rows, and the samples up to the last one's step.

        Raises:
            RecordError: if there are fewer rows.
        """
        self._metrics.cut(n_rows)
        cut_samples(self.path / "samples.md", int(self.last_row().get("step", 0)))

    def rows(self) -> list[Row]:
        """All rows so far, exactly as they were appended."""
        return read_rows(self.path / "metrics.csv")

    def history(self, every: int) -> list[Row]:
        """The rows of every so many steps, and those with a validation, as a mirror that begins in mid-run gets them."""
        return read_history(self.path / "metrics.csv", every, MOST_MIRRORED)

    def last_row(self) -> Row:
        """The last row so far; empty if there is none."""
        return last_row(self.path / "metrics.csv")

    def sample(self, step: int, tokens: int, text: str, title: str = TITLE) -> None:
        """Add a text to samples.md; ``title`` says what it is, such as its prompt, in one line."""
        append_sample(self.path / "samples.md", Sample(step, tokens, redact(" ".join(title.split())), redact(text)))

    def samples(self) -> list[Sample]:
        """All texts so far."""
        return read_samples(self.path / "samples.md")

    def finish(self, status: str, reason: str | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """End the record: rows and samples to the disk first, then the status, what it took, and the checkpoints' hashes.

        Args:
            status: ok, failed, interrupted or pruned.
            reason: one sentence, for people.
            summary: final numbers, such as ``val/loss``.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for name in ("samples.md", "log"):
            if (self.path / name).exists():
                fsync(self.path / name)
        now = self.now()
        energy = self.meter.close() if self.meter else None
        done = end_session(self._info.get("sittings", []), now=now, energy_kwh=energy)
        took = {key: value for key, value in totals(done).items() if value is not None or key in self._info} if done else {}
        self._info.pop("checkpoints", None)  # it would be merged, and earlier ones are gone
        kept = {"sittings": done, "checkpoints": self._checkpoints(), **took}
        self.update(status=status, reason=reason, finished=now, summary=dict(summary or {}), **kept)

    def _checkpoints(self) -> dict[str, str]:
        """The hash of each checkpoint's sums, which are the hashes of its files: nothing large is read again."""
        return {file.parent.name: sha256(file) for file in sorted(self.path.glob("checkpoints/step-*/checksums.json"))}

    @property
    def _metrics(self) -> MetricsWriter:
        """Opened with the first row, so that a record which is only read is never mended."""
        if self._writer is None:
            self._writer = MetricsWriter(self.path / "metrics.csv")
        return self._writer


class NullRun(Run):
    """Takes what a run takes while it trains, and writes nothing: what ranks have that train along and leave all writing to rank 0.

    Args:
        path: the run directory, which rank 0 writes; checkpoints are read from it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, {"id": "", "name": ""})

    def update(self, **fields: Any) -> None:
        pass

    def log(self, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def append_row(self, row: Mapping[str, float]) -> None:
        pass

    def flush(self) -> None:
        pass

    def sample(self, step: int, tokens: int, text: str, title: str = TITLE) -> None:
        pass

    def rows(self) -> list[Row]:
        return []


def read_run(path: Path) -> dict[str, Any]:
    """What a run's run.json holds.

    Raises:
        RecordError: if it is missing or damaged.
    """
    info = parse_run(path)
    if why := malformed(info):
        raise RecordError(f"{path / 'run.json'} is damaged: {why}.")
    return info


def parse_run(path: Path) -> dict[str, Any]:
    """The same, whatever its fields hold: only id, name and status are there for sure.

    Raises:
        RecordError: if it is missing or no such file.
    """
    try:
        info = json.loads(read_text(path / "run.json", LARGEST_RECORD))
    except OSError as error:
        raise RecordError(f"{path} is not a run directory: it has no readable run.json.") from error
    except ValueError as error:
        raise RecordError(f"{path / 'run.json'} is damaged: {error}.") from error
    except RecursionError as error:
        raise RecordError(f"{path / 'run.json'} is damaged: it is nested too deep.") from error
    if not isinstance(info, dict) or not {"id", "name", "status"} <= info.keys():
        raise RecordError(f"{path / 'run.json'} is not the record of a run: it lacks id, name or status.")
    return info


def status_of(path: Path, info: Mapping[str, Any] | None = None) -> str:
    """A run's status; ``killed`` if it says ``running`` but nobody is at work in it.

    Args:
        path: the run directory.
        info: its run.json, if it was read already.
    Raises:
        RecordError: if there is no run.
    """
    status = str((info or read_run(path))["status"])
    return "killed" if status == "running" and not is_alive(path) else status


def debugs(info: Mapping[str, Any]) -> str | None:
    """The option of ``debug=`` that a run was started with, such as ``smoke``; None for a run that is meant."""
    option = (info.get("choices") or {}).get("debug")
    return None if option is None else str(option)


def run_roots(paths: Mapping[str, str]) -> list[Path]:
    """The folders of runs and of sweeps that ``paths`` of a config names."""
    return [expanded(paths[key]) for key in ("runs", "multirun")]


def find_run(text: str | Path, roots: Sequence[Path]) -> Path:
    """The directory of a run.

    Args:
        text: its path, its path below a root (``study/3``), its folder's name, its name, its id, or ``latest``: the one begun last,
            one with debug= only where there is no other.
        roots: folders of runs, and of sweeps of runs.
    Raises:
        RecordError: if there is none, with the nearest names; or several, with their paths.
    """
    wanted = str(text).strip().rstrip("/")
    below = [root / wanted for root in roots if ".." not in Path(wanted).parts]  # an id leads nowhere else; a path may
    for direct in [expanded(wanted), *below]:
        if wanted and (direct / "run.json").exists():
            return direct
    if wanted == LATEST and (begun := list(filter(None, map(_begun, run_dirs(roots))))):
        return max(begun)[-1]
    names = [(name, path) for path in run_dirs(roots) for name in _names(path)]
    found = sorted({path for name, path in names if name == wanted})
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordError(f"{wanted!r} names several runs; give the path of one: {', '.join(map(str, found))}.")
    near, where = closest(wanted, [name for name, _ in names], 3), " or ".join(map(str, roots))
    known = f"; did you mean {near}?" if near else f" in {where}{'.' if names else '; no run is there at all.'}"
    raise RecordError(f"There is no run {wanted!r}{known}")


def run_dirs(roots: Sequence[Path]) -> Iterator[Path]:
    """Directories below the roots that hold a run.json, whole or not, as deep as a sweep's repeats lie: study/number/repeat."""
    for root in roots:
        for pattern in ("*/run.json", "*/*/run.json", "*/*/*/run.json"):
            yield from (file.parent for file in root.glob(pattern))


def _begun(path: Path) -> tuple[bool, float, Path] | None:
    """Whether a run is no debugging, when it began, and where it is; None for a record that is broken."""
    with contextlib.suppress(RecordError, KeyError, TypeError):
        info = read_run(path)
        return debugs(info) is None, float(info["started"]), path
    return None


def _names(path: Path) -> set[str]:
    with contextlib.suppress(RecordError):
        info = read_run(path)
        return {path.name, str(info["name"]), str(info["id"])}
    return {path.name}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    nested = [key for key in old.keys() & new.keys() if isinstance(old[key], dict) and isinstance(new[key], dict)]
    return {**old, **new, **{key: _merged(old[key], new[key]) for key in nested}}


def _plain(value: Any) -> Any:
    """The value as JSON has it: paths as text, numpy scalars as numbers, tuples as lists; JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
