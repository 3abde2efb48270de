"""A tracker that works in a process of its own, this file as a program, which follows the files of the record.

It replies with lines of JSON: a start or an end waits ten seconds at most, a row for nothing, and a service that hangs or fails costs one
sentence. A tracker derives from ``ProcessTracker``, and its module has ``track(run, options, ended, reply)``, which runs in that process.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import connection
from operator import itemgetter
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryFile
from typing import Any, ClassVar

from gptshake.errors import ConfigError, first_line
from gptshake.processes import Command, Environment, import_path
from gptshake.record.metrics import CHUNK_BYTES, COLUMNS, Row, Tail, history, other_columns
from gptshake.record.run import Run
from gptshake.record.texts import Sample
from gptshake.record.trackers.protocol import Tracker

START_SECONDS = FINISH_SECONDS = 9.0  # a run waits no longer for its mirror, whatever happens there; ten seconds are promised


class ProcessTracker(Tracker):
    """A mirror whose module's ``track`` runs in a process of its own.

    Raises:
        ConfigError: the package is not installed.
    """

    service: ClassVar[str]  # in sentences
    package: ClassVar[str]  # that it needs, by the name of the import and of our extra
    later = "; the record of the run is complete"  # what follows where not everything arrived; {id} is the run's

    def __post_init__(self) -> None:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise ConfigError(f"logger={self.package} needs its package: pip install 'gptshake[{self.package}]'.")
        self._child: Command | None = None  # while there is a mirror

    def begin(self, run: Run, options: Mapping[str, Any], env: Environment) -> None:
        """Start the process, whose ``track`` is given the options; ``env`` holds variables that differ from those of this process."""
        self._run = run
        command = [sys.executable, "-m", __name__, type(self).__module__, str(run.path), json.dumps(options)]
        self._printed = TemporaryFile("a+b")  # noqa: SIM115 -- by its libraries; appended to, so both processes can read it meanwhile
        pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": self._printed, "bufsize": 0}
        # In a process group of its own: an interrupt at the terminal is the run's alone.
        self._child = Command(command, {**env, **import_path()}, process_group=0, **pipes)

    def wait_for_start(self) -> None:
        """Wait until the mirror says where it is, but not long."""
        if not self.wait(START_SECONDS, "record"):
            self._run.say(f"{self.service} has not answered in {START_SECONDS:.0f} s; the run continues without waiting for it.")

    def row(self, row: Mapping[str, float]) -> None:
        """Print what became of the mirror, if there is news; the row itself is read from metrics.csv."""
        self.wait(0.0, "end")

    def finish(self) -> None:
        """End with the final numbers of the record; what does not arrive in time is reported."""
        if self._child and self._child.process.stdin:
            with contextlib.suppress(OSError):
                self._child.process.stdin.write(b"finish\n")
        if not self.wait(FINISH_SECONDS, "end"):
            self._end()
            self._run.say(f"{self.service} did not take everything (in {FINISH_SECONDS:.0f} s){self.later.format(id=self._run.id)}")

    def wait(self, seconds: float, kind: str) -> bool:
        """Note and print replies until one of a kind comes, or there is no mirror any more; False if neither is so in time."""
        until, found = time.monotonic() + seconds, False
        while self._child and (replies := self._child.process.stdout) and not found:
            if not connection.wait([replies.fileno()], None if self.waits else max(0.0, until - time.monotonic())):
                return False
            line = replies.readline()
            reply: dict[str, Any] = json.loads(line or "{}")
            if not line:
                self._printed.seek(0)
                self.problem = self._printed.read().decode(errors="replace").strip().rpartition("\n")[2][:300] or "its process ended"
                failed = f"{self.service} failed and is left out from here on; the record of the run is complete ({self.problem})."
                reply = {"say": failed, "end": True}
            found = kind in reply
            if "record" in reply:
                self._run.update(**reply["record"])
            if "end" in reply:
                self._end()
            if reply.get("say"):
                self._run.say(reply["say"])
            if "refused" in reply:
                raise ConfigError(reply["refused"])
        return True

    def _end(self) -> None:
        """End the process and those that its libraries started, frozen or not."""
        child, self._child = self._child, None
        if child is None:
            return
        for file in Path(f"/proc/{child.process.pid}/task").glob("*/children"):  # Linux; elsewhere the service sees that its parent is gone
            with contextlib.suppress(OSError):  # a thread that ends meanwhile, as all do when the process has done its work
                for service in file.read_text().split():
                    os.kill(int(service), signal.SIGKILL)
        child.kill()


def follow(run: Run, every: int, ended: threading.Event) -> Iterator[list[tuple[int, Row | Sample | Path]]]:
    """What is new in the record, in the order of its steps, until the record has ended: rows of every so many steps and those with a
    validation, samples, and behind them the paths of pictures.
    """
    reached, n_samples, drawn, tail = -1, 0, dict[Path, float](), Tail(run.path / "metrics.csv")
    while True:
        last, new = ended.is_set(), tail.new(CHUNK_BYTES)
        rows = [row for row in new if row["step"] > reached and (row["step"] % every == 0 or "val/loss" in row)]
        reached = max([reached, *(int(row["step"]) for row in new)])
        last = last and not tail.more
        samples = [sample for sample in run.samples()[n_samples:] if sample.step <= reached or last]  # others wait for their row
        n_samples += len(samples)
        found: list[tuple[int, Row | Sample | Path]] = [*((int(row["step"]), row) for row in rows), *((one.step, one) for one in samples)]
        found.sort(key=itemgetter(0))
        for picture in sorted((run.path / "plots").glob("*.png")) if not tail.more else ():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if (changed := picture.stat().st_mtime) != drawn.get(picture):
                    drawn[picture] = changed
                    found.append((reached, picture))
        yield found
        if last:
            return
        if not tail.more:
            ended.wait(1.0)


def describe(run: Run) -> dict[str, Any]:
    """What describes a run, from its record alone, which holds no secret: name, group, job_type, tags, notes, config."""
    info, config = run.info, run.config()
    trial, choices, git = info.get("trial"), info.get("choices") or {}, info.get("git") or {}
    named = [f"{group}:{choices[group]}" for group in ("data", "tokenizer", "model", "debug") if choices.get(group)]
    tags = [(info.get("data") or {}).get("label"), *named, "dirty" if git.get("dirty") else None]
    derived = {key: info[key] for key in ("budget", "model", "data", "hardware") if info.get(key)}
    derived |= {"version": info.get("version"), "commit": git.get("commit")}
    return {
        "name": run.name,
        "group": trial["study"] if trial else choices.get("experiment"),
        "job_type": info.get("task"),
        "tags": list(dict.fromkeys(tag[:64] for tag in tags if tag)),  # W&B refuses longer ones
        "notes": info.get("note") or config.get("note") or None,
        "config": config | {"derived": derived} | ({"trial": trial} if trial else {}),
    }


def files_to_repeat(run: Run) -> Iterable[Path]:
    """What repeats the run besides its config."""
    return filter(Path.is_file, (run.path / "overrides", run.path / "diff.patch", *run.path.glob("untracked/**/*")))


def later_figures(run: Run) -> dict[str, float]:
    """Figures of the summary that no row has: of the best step, of the test, of the whole run."""
    in_rows = {*COLUMNS, *other_columns(run.path / "metrics.csv")}
    return {key: value for key, value in (run.info.get("summary") or {}).items() if key not in in_rows and value is not None}


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # the run gets them too, and says what follows
        signal.signal(number, signal.SIG_IGN)
    replies, ended = os.fdopen(os.dup(1), "w"), threading.Event()
    os.dup2(2, 1)  # libraries print there, too

    def listen() -> None:
        for _ in sys.stdin:
            ended.set()
        os._exit(1)  # the run was killed

    threading.Thread(target=listen, daemon=True).start()
    try:
        run, options = Run.open(Path(sys.argv[2])), json.loads(sys.argv[3])
        for _ in history(run.path / "metrics.csv", options["every"]):
            pass  # a damaged row is an error, with its line; the tail would pass over it
        track = importlib.import_module(sys.argv[1]).track
        track(run, options, ended, lambda **parts: print(json.dumps(parts), file=replies, flush=True))
        print(json.dumps({"end": True}), file=replies, flush=True)
    except ConfigError as error:
        print(json.dumps({"refused": str(error), "end": True}), file=replies, flush=True)
    except (Exception, SystemExit) as error:
        print(first_line(error), file=sys.stderr)
    os._exit(0)  # the end of a library would wait for its service


if __name__ == "__main__":
    _main()
