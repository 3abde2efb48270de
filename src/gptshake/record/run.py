"""The run directory: everything that explains or repeats a run, and the only place where it is written.

config.yaml, overrides (resolved, and as typed), run.json (replaced atomically), metrics.csv, samples.md, log; others fill checkpoints/,
plots/, tokenizer/, and ``lock.py`` says who is at work. No secret is in any of these (``redaction``).
"""

import contextlib
import hashlib
import hmac
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gptshake.errors import ConfigError, RecordError, StorageError, closest
from gptshake.files import expanded, fsync, sha256, storing, write_atomic, yaml_text
from gptshake.record.lock import is_alive
from gptshake.record.metrics import MetricsWriter, Row, history, last_row, read_rows
from gptshake.record.shape import SCHEMA, STATUSES, malformed, read_record
from gptshake.record.texts import TITLE, Sample, append_sample, cut_samples, read_samples
from gptshake.redaction import redact, redacted

if TYPE_CHECKING:
    from gptshake.energy import Meter

MOST_TRACKED = 10_000  # rows of a history that is mirrored at once, besides validations: what mirrors show has far fewer points
LATEST = "latest"  # a name for the run that was begun last; one with debug= only where there is no other
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# started, commit, dirty, from_step; ended; energy_kwh and price_per_hour where known. run.json calls them ``sittings``.
Session = dict[str, Any]


class Run:
    """One run's record, open for writing; hold the directory's ``RunLock`` meanwhile. ``update`` changes ``info``, which run.json holds."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self.info = path, info
        self.id: str = info["id"]  # eight characters, the same in W&B
        self.name: str = info["name"]  # readable, holds the id
        self._made_here = is_made_here(info)
        self.meter: Meter | None = None  # of the energy of this session, if somebody measures it
        self.now = steady_clock()  # for whatever is subtracted: a system clock that is set must not change wall time and price
        self._writer: MetricsWriter | None = None

    @classmethod
    def create(
        cls, path: Path, *, config_yaml: str, overrides: Sequence[str], fill: Callable[[Path], None] = lambda path: None, **info: Any
    ) -> "Run":
        """Begin a record, whose run.json holds ``info``: id, name and more; it is written last, so a directory that has one is complete.

        ``config_yaml`` holds no secret any more; ``fill`` adds further files.
        """
        path = path.absolute()
        if (path / "run.json").exists():
            raise RecordError(f"{path} holds a run already; choose another paths.run_dir, or continue it with resume={path.name}.")
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(path / "config.yaml", config_yaml)
        write_atomic(path / "overrides", "".join(f"{redact(override)}\n" for override in overrides))
        fill(path)
        run = cls(path, {"id": info["id"], "name": info["name"]})
        run._made_here = True
        run.update(schema=SCHEMA, status="running", started=run.now(), overrides=list(overrides), **info)
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open a record to go on with it; nothing is changed yet."""
        return cls(path.absolute(), read_run(path))

    def config(self) -> dict[str, Any]:
        return yaml.safe_load(yaml_text(self.path / "config.yaml")) or {}

    def update(self, **fields: Any) -> None:
        """Merge into run.json, atomically; a mapping is merged key by key, a number that is not finite becomes null."""
        if fields.get("status", "ok") not in STATUSES:
            raise ValueError(f"{fields['status']!r} is not a status of a run: {', '.join(STATUSES)}")
        self.info = _merged(self.info, redacted(plain(fields)))
        if self._made_here:  # somebody else's record stays somebody else's
            self.info["seal"] = _seal(self.info)
        write_atomic(self.path / "run.json", json.dumps(self.info, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def begin_session(self, git: Mapping[str, Any], price_per_hour: float | None = None) -> None:
        """Note the start of a session, the first or one after a resume."""
        row, before = self.last_row(), self.info.get("sittings", [])
        own = before and row.get("step", 0) > (before[-1].get("from_step") or 0)  # rows of an earlier session say nothing of the last
        last_seen = row.get("time") if own else None
        sessions = start_session(before, now=self.now(), last_seen=last_seen, git=git, price_per_hour=price_per_hour)
        self.update(schema=SCHEMA, sittings=sessions)

    def session_starts_from(self, step: int) -> None:
        if known := self.info.get("sittings"):
            self.update(sittings=[*known[:-1], known[-1] | {"from_step": step}])

    def say(self, text: str) -> None:
        """Print a line and keep it in ``log``; a terminal that is gone or knows fewer characters does not stop a run."""
        text = redact(text)
        with contextlib.suppress(OSError, ValueError):  # a closed pipe; ValueError includes characters it cannot encode
            try:
                print(text, flush=True)
            except UnicodeEncodeError:
                print(text.encode("ascii", "backslashreplace").decode(), flush=True)
        self.log(text)

    def log(self, text: str) -> None:
        """Keep a line in ``log`` that was printed already, or need not be."""
        with storing(self.path / "log"), (self.path / "log").open("a", encoding="utf-8", errors="replace") as file:
            file.write(_ANSI.sub("", redact(text)) + "\n")

    @property
    def _metrics(self) -> MetricsWriter:
        """Opened with the first row, so that a record which is only read is never mended."""
        if self._writer is None:
            self._writer = MetricsWriter(self.path / "metrics.csv")
        return self._writer

    @property
    def n_rows(self) -> int:
        """Rows of metrics.csv so far; a checkpoint keeps this number for ``cut_rows``."""
        return self._metrics.n_rows

    def append_row(self, row: Mapping[str, float]) -> None:
        """Add one step's row to metrics.csv; see ``metrics.COLUMNS`` for names and units."""
        self._metrics.append(row)

    def flush(self) -> None:
        """Return once every row is on the disk; call it before a checkpoint that counts them. StorageError: the directory is gone."""
        self.require_directory()
        self._metrics.flush()

    def require_directory(self) -> None:
        if not self.path.is_dir():
            raise StorageError(
                f"{self.path} was removed or moved while the run was at work in it, so the run has ended. If it was moved, resume it from "
                "its last checkpoint there: gptshake resume=<its new path>"
            )

    def cut_rows(self, n_rows: int) -> None:
        """Go back to a checkpoint: keep the first ``n_rows`` rows, and the samples up to the last one's step."""
        self._metrics.cut(n_rows)
        cut_samples(self.path / "samples.md", int(self.last_row().get("step", 0)))

    def rows(self) -> list[Row]:
        return read_rows(self.path / "metrics.csv")

    def history(self, every: int) -> list[Row]:
        """The rows of every so many steps, and those with a validation, as a mirror that begins in mid-run gets them."""
        return list(history(self.path / "metrics.csv", every, MOST_TRACKED))

    def last_row(self) -> Row:
        """The last row so far; empty if there is none."""
        return last_row(self.path / "metrics.csv")

    def sample(self, step: int, tokens: int, text: str, title: str = TITLE) -> None:
        """Add a text to samples.md; ``title`` says what it is, such as its prompt, in one line."""
        append_sample(self.path / "samples.md", Sample(step, tokens, redact(" ".join(title.split())), redact(text)))

    def samples(self) -> list[Sample]:
        return read_samples(self.path / "samples.md")

    def finish(self, status: str, reason: str | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """End the record: rows and samples to the disk first, then the status with its reason, what it took, and the checkpoints' hashes."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for name in ("samples.md", "log"):
            if (self.path / name).exists():
                fsync(self.path / name)
        now = self.now()
        sessions = end_session(self.info.get("sittings", []), now=now, energy_kwh=self.meter.close() if self.meter else None)
        took = {key: value for key, value in totals(sessions).items() if value is not None or key in self.info} if sessions else {}
        # The hash of each checkpoint's sums, which are the hashes of its files: nothing large is read again.
        sums = {file.parent.name: sha256(file) for file in sorted(self.path.glob("checkpoints/step-*/checksums.json"))}
        self.info.pop("checkpoints", None)  # it would be merged, and earlier ones are gone
        ended = {"status": status, "reason": reason, "finished": now, "summary": dict(summary or {})}
        self.update(**ended, sittings=sessions, checkpoints=sums, **took)


class NullRun(Run):
    """Takes what a run takes while it trains, and writes nothing: what ranks have that leave all writing, also into ``path``, to rank 0."""

    def _nothing(self, *values: Any, **named: Any) -> None:
        pass

    update = say = log = append_row = flush = sample = _nothing

    def rows(self) -> list[Row]:
        return []


def read_run(path: Path) -> dict[str, Any]:
    info = parse_run(path)
    if why := malformed(info):
        raise RecordError(f"{path / 'run.json'} is damaged: {why}.")
    return info


def parse_run(path: Path) -> dict[str, Any]:
    """The same, whatever its fields hold: only id, name and status are there for sure."""
    return read_record(path / "run.json", "run directory", "id", "name", "status")


def discard(path: Path, identity: str) -> None:
    """Empty the directory, which may be the user's own, of a run that was refused before its first step and found no learning rate."""
    if not (path / "run.json").exists() or (path / "metrics.csv").exists():
        return
    info = read_run(path)
    ours = [entry for entry in path.iterdir() if not entry.name.startswith(".")]  # a .git is not
    for entry in ours if info["id"] == identity and "find_lr" not in info else ():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def status_of(path: Path, info: Mapping[str, Any] | None = None) -> str:
    """A run's status, from its run.json if that was read already; ``killed`` if it says ``running`` but nobody is at work in it."""
    status = str((info or read_run(path))["status"])
    return "killed" if status == "running" and not is_alive(path) else status


def debug_option(info: Mapping[str, Any]) -> str | None:
    """The option of ``debug=`` that a run was started with, such as ``smoke``; None for a run that is meant."""
    option = (info.get("choices") or {}).get("debug")
    return None if option is None else str(option)


def run_roots(paths: Mapping[str, str]) -> list[Path]:
    """The folders of runs and of sweeps that ``paths`` of a config names."""
    return [expanded(paths[key]) for key in ("runs", "multirun")]


def find_run(text: str | Path, roots: Sequence[Path]) -> Path:
    """The directory of a run below some folders of runs, and of sweeps of runs.

    ``text`` is its path, its path below a root (``study/3``), its folder's name, its name, its id, or ``latest``: the one begun last,
    one with debug= only where there is no other. Raises a RecordError with the nearest names, or with the paths of several.
    """
    if not (wanted := str(text).strip().rstrip("/")):
        raise RecordError(f"There is no run {str(text)!r}: give the name, id or path of one, or latest.")
    below = [root / wanted for root in roots if ".." not in Path(wanted).parts]  # an id leads nowhere else; a path may
    for direct in [expanded(wanted), *below]:
        if (direct / "run.json").exists():
            return direct
    names, begun = list[tuple[str, Path]](), list[tuple[bool, float, Path]]()
    for path in run_dirs(roots):
        info: dict[str, Any] = {}
        with contextlib.suppress(RecordError):  # a broken one has the name of its folder
            info = read_run(path)
        names += [(name, path) for name in dict.fromkeys([path.name, *(info[key] for key in ("name", "id") if key in info)])]
        begun += [(debug_option(info) is None, float(info["started"]), path)] if info.get("started") is not None else []
    if wanted == LATEST and begun:
        return max(begun)[-1]
    found = sorted({path for name, path in names if name == wanted})
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordError(f"{wanted!r} names several runs; give the path of one: {', '.join(map(str, found))}.")
    for folder, path in ((folder, path) for folder in below for _, path in names if folder in path.parents):
        one = f"one run is needed, such as {wanted}/{path.relative_to(folder)}"
        if (folder / "study.json").exists():
            raise RecordError(f"{wanted!r} is a study, and {one}; task=report takes study={wanted}.")
        raise RecordError(f"{wanted!r} holds several runs, and {one}.")
    near, where = closest(wanted, [name for name, _ in names], 3), " or ".join(map(str, roots))
    known = f"; did you mean {near}?" if near else f" in {where}{'.' if names else '; no run is there at all.'}"
    raise RecordError(f"There is no run {wanted!r}{known}")


def refuse_twice(key: str, names: Sequence[str], found: Sequence[Path | str]) -> None:
    """Refuse a list of names that found one run, or one model elsewhere, twice."""
    places = [one.resolve() if isinstance(one, Path) else one for one in found]
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        if place in places[:number]:
            raise ConfigError(f"{key} names one run twice: {name} is {os.path.relpath(found[number])}, which was named before.")


def run_dirs(roots: Sequence[Path]) -> Iterator[Path]:
    """Directories below the roots that hold a run.json, whole or not, as deep as a sweep's repeats lie: study/number/repeat."""
    for root in roots:
        for pattern in ("*/run.json", "*/*/run.json", "*/*/*/run.json"):
            yield from (file.parent for file in root.glob(pattern))


def steps_saved(run_dir: Path) -> list[int]:
    """Steps that have a checkpoint, oldest first; a copy that somebody keeps there is none."""
    names = (folder.name for folder in (run_dir / "checkpoints").glob("step-*"))
    return sorted(int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d{8,}", name, re.ASCII))


def steady_clock() -> Callable[[], float]:
    """Seconds since 1970 as the system has them now, and from here by a clock that nobody sets: its differences are true."""
    ahead = time.time() - time.monotonic()
    return lambda: ahead + time.monotonic()


def start_session(
    sessions: Sequence[Session], *, now: float, last_seen: float | None, git: Mapping[str, Any], price_per_hour: float | None
) -> list[Session]:
    """The sessions with a new one; one that was killed before ended when it was last seen, with its last row. Times as in ``steady_clock``."""
    new: Session = {"started": now, "commit": git.get("commit"), "dirty": git.get("dirty"), "from_step": None if sessions else 0}
    known = {"diff_sha256": git.get("diff_sha256") or None, "price_per_hour": price_per_hour}
    return [*end_session(sessions, now=last_seen or 0.0), new | {key: value for key, value in known.items() if value is not None}]


def end_session(sessions: Sequence[Session], *, now: float, energy_kwh: float | None = None) -> list[Session]:
    """The sessions with the last one closed, unless it is closed already."""
    if not sessions or "ended" in sessions[-1]:
        return list(sessions)
    last = sessions[-1] | {"ended": max(now, sessions[-1]["started"])}
    return [*sessions[:-1], last if energy_kwh is None else last | {"energy_kwh": energy_kwh}]


def totals(sessions: Sequence[Session]) -> dict[str, float | None]:
    """``wall_s``, ``energy_kwh`` and ``price`` of all sessions together; None if it is not known of each."""
    seconds = [one.get("ended", one["started"]) - one["started"] for one in sessions]
    energy, rates = ([one.get(key) for one in sessions] for key in ("energy_kwh", "price_per_hour"))
    return {
        "wall_s": sum(seconds),
        "energy_kwh": None if None in energy else sum(kwh or 0.0 for kwh in energy),
        "price": None if None in rates else sum((rate or 0.0) * time / 3600 for rate, time in zip(rates, seconds, strict=True)),
    }


def is_made_here(info: Mapping[str, Any]) -> bool:
    """Whether a record was made by this user on this machine, and not edited since: its seal is the hash that this user's key gives.

    The seal covers what decides which code a repetition runs. Without a key no record has one.
    """
    with contextlib.suppress(AttributeError, TypeError, ValueError, RecursionError):  # not as gptshake writes it
        expected = _seal(info)
        return expected is not None and hmac.compare_digest(str(info.get("seal")).encode(), expected.encode())
    return False


def _seal(info: Mapping[str, Any]) -> str | None:
    """The keyed hash of a record; None where no key can be kept. The key lies beside the cache, readable for its user alone."""
    about = {name: info.get(name) for name in ("id", "version", "overrides", "resolved", "git")}
    about["cwd"] = (info.get("environment") or {}).get("cwd")
    cache = Path(os.environ.get("GPTSHAKE_CACHE") or "~/.cache/gptshake").expanduser().absolute()
    file = cache.with_name(f"{cache.name}.key")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as new,
        ):
            new.write(os.urandom(32))
        if not file.is_symlink() and file.stat().st_uid == os.getuid() and len(key := file.read_bytes()) == 32:
            return hmac.new(key, json.dumps(about, sort_keys=True).encode(), hashlib.sha256).hexdigest()
    return None


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    nested = [key for key in old.keys() & new.keys() if isinstance(old[key], dict) and isinstance(new[key], dict)]
    return {**old, **new, **{key: _merged(old[key], new[key]) for key in nested}}


def plain(value: Any) -> Any:
    """The value as JSON has it: paths as text, numpy scalars as numbers, tuples as lists; JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
