"""Weights & Biases as a mirror of the run record, under the run's own id.

wandb runs in a process of its own (``wandb_process.py``), which follows the files of the record: a start or an end waits ten seconds
at most, a row waits for nothing, and a server or a service that hangs costs the run one sentence. It never asks for a login.
``task=sync`` uploads later what could not be. Importing this file imports no wandb.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from gptshake.errors import ConfigError, RecordError
from gptshake.record.run import Run
from gptshake.record.trackers.protocol import Tracker
from gptshake.redaction import redact

START_SECONDS = FINISH_SECONDS = 9.0  # a run waits no longer for its mirror, whatever happens there; ten seconds are promised
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}  # of WANDB_MODE


class WandbTracker(Tracker):
    """Mirrors rows, samples and pictures to W&B.

    Args:
        project: W&B project; None is that of the variable WANDB_PROJECT, else gptshake.
        entity: team or user; None is that of the variable WANDB_ENTITY, else the key's own.
        mode: ``auto`` is online with a key and offline without; the variable WANDB_MODE decides before that.
        every: a row is logged every so many steps, and whenever it holds a validation.
        artifacts: ``best`` uploads tokenizer, description of the data and best weights; never a trial's.
    Raises:
        ConfigError: for a word or an interval out of sense.
    """

    def __init__(
        self, project: str | None = None, entity: str | None = None, mode: str = "auto", every: int = 10, artifacts: str = "none"
    ) -> None:
        for key, value, words in (("mode", mode, ("auto", "online", "offline")), ("artifacts", artifacts, ("none", "best"))):
            if value not in words:
                raise ConfigError(f"logger.{key}={value} is not known; it is one of {', '.join(words)}.")
        if every < 1:
            raise ConfigError(f"logger.every={every} cannot be: it counts steps per logged row, from 1 up.")
        self.project = redact(project or os.environ.get("WANDB_PROJECT") or "gptshake")  # W&B keeps both in files of its own
        self.entity = redact(entity or os.environ.get("WANDB_ENTITY") or "") or None
        self.mode, self.every, self.artifacts = mode, every, artifacts
        self._worker: _Worker | None = None

    def mode_to_try(self) -> str:
        """online, offline or disabled; ``auto`` is what WANDB_MODE says, else online.

        Raises:
            ConfigError: WANDB_MODE is not known.
        """
        named = os.environ.get("WANDB_MODE") or "online"
        if self.mode == "auto" and named not in MODES:
            raise ConfigError(f"WANDB_MODE={named} is not known; it is one of {', '.join(MODES)}.")
        return self.mode if self.mode != "auto" else MODES[named]

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume; what W&B does not have of the run's history is written first.

        Raises:
            ConfigError: ``mode`` is online and there is no key, or WANDB_MODE is not known.
        """
        self._run, mode = run, self.mode_to_try()
        if mode == "disabled":
            run.update(wandb={"mode": mode, "whole": False, "uploaded": False})
            return
        self._worker = _Worker(run, self._options(run, mode))
        if not self._wait(START_SECONDS, "opened"):
            run.say(f"W&B has not answered in {START_SECONDS:.0f} s; the run continues without waiting for it.")

    def row(self, row: Mapping[str, float]) -> None:
        """Print what became of the mirror, if there is news; the row itself is read from metrics.csv."""
        self._wait(0.0, "done")

    def finish(self) -> None:
        """End with the final numbers of the record; what is not uploaded in time stays on the disk, for ``task=sync``."""
        if self._worker is not None:
            self._worker.finish()
        if not self._wait(FINISH_SECONDS, "done"):
            self._dismiss(f"W&B did not take everything (in {FINISH_SECONDS:.0f} s); upload it later with: {self._later()}")

    def write_whole(self, run: Run) -> Path:
        """Write the W&B folder of a run that has ended, offline, and wait for it however long it takes.

        Raises:
            RecordError: the record cannot be read, or wandb failed.
        """
        worker = _Worker(run, self._options(run, "offline"))
        worker.finish()
        try:
            while "done" not in (answer := worker.answer(None)):
                if "failed" in answer:
                    raise RecordError(answer["failed"])
                run.update(wandb={**answer.get("opened", {}), "whole": False, "uploaded": False})
        finally:
            worker.kill()
        run.update(wandb={"whole": True})
        return Path(run.info["wandb"]["folder"])

    def _options(self, run: Run, mode: str) -> dict[str, Any]:
        """For the process. Under ``wandb agent`` a run is the agent's, or the sweep would not see its numbers; a trial of our own sweeps is not."""
        former = run.info.get("wandb") or {}
        place = {"id": former.get("id") or run.id, "project": self.project, "entity": self.entity}
        if place["id"] != run.id:  # an agent began it
            place |= {"project": former["project"], "entity": former["entity"]}
        if os.environ.get("WANDB_SWEEP_ID") and not run.info.get("trial"):
            place = {}
        about = {"mode": mode, "required": self.mode == "online", "problem": "", "every": self.every}
        return about | {"place": place, "artifacts": self.artifacts == "best"}

    def _wait(self, seconds: float, kind: str) -> bool:
        """Take the answers of the process until one of a kind comes, or there is no mirror any more; False if neither is so in time."""
        until, found = time.monotonic() + seconds, False
        while self._worker is not None and not found:
            answer = self._worker.answer(max(0.0, until - time.monotonic()))
            if not answer:
                return False
            found = kind in answer
            self._take(answer)
        return True

    def _take(self, answer: dict[str, Any]) -> None:
        """Note and print what the process answers."""
        if facts := answer.get("opened"):
            self._run.update(wandb={**facts, "whole": False, "uploaded": False})
            problem = f", {answer['problem']}" if answer["problem"] else ""
            self._run.say(f"W&B: {facts['url'] or f'offline{problem}; upload later with: {self._later()}'}")
        elif "complaint" in answer:
            self._run.say(answer["complaint"])
        elif "done" in answer:
            refusal = answer["refusal"]
            self._run.update(wandb={"whole": True, "uploaded": self._run.info["wandb"]["mode"] == "online" and not refusal})
            self._dismiss(f"W&B did not take everything ({refusal}); upload it later with: {self._later()}" if refusal else "")
        elif "refused" in answer:
            self._dismiss()
            way_out = "set WANDB_API_KEY, run `wandb login`, or leave it at logger.mode=auto"
            raise ConfigError(f"logger.mode=online, but {answer['refused']}: {way_out}.")
        else:
            reason = answer["failed"]
            self._dismiss(f"W&B failed and is disabled for the rest of the run; the run continues, its own record is complete ({reason}).")

    def _later(self) -> str:
        return f"gptshake task=sync task.run={self._run.id}"

    def _dismiss(self, sentence: str = "") -> None:
        if self._worker is not None:
            self._worker.kill()
        self._worker = None
        if sentence:
            self._run.say(sentence)


class _Worker:
    """The process and its answers; what wandb prints goes to a file without a name."""

    def __init__(self, run: Run, options: dict[str, Any]) -> None:
        env = {"WANDB_DATA_DIR": str(run.path / "wandb"), "WANDB_ERROR_REPORTING": "false"} | os.environ  # tables lie there until upload
        if run.info.get("trial"):
            env = {key: value for key, value in env.items() if key not in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), env.get("PYTHONPATH")]))
        command = [sys.executable, "-P", "-m", "gptshake.record.trackers.wandb_process", str(run.path), json.dumps(options)]
        self._printed = TemporaryFile("a+b")  # noqa: SIM115 -- appended to, so it can be read meanwhile
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._printed}
        self._process = subprocess.Popen(command, env=env, process_group=0, **pipes)  # an interrupt at the terminal is the run's alone
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="wandb", daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            answer = json.loads(line)
            self._answers.put(answer | {"refusal": self._refusal()} if "done" in answer else answer)
        self._answers.put({"failed": (self._lines() or ["its process ended"])[-1]})

    def answer(self, seconds: float | None) -> dict[str, Any]:
        """The next answer, or nothing if none came within so many seconds; at the end of the process its last words."""
        with contextlib.suppress(queue.Empty):
            return self._answers.get(timeout=seconds)
        return {}

    def finish(self) -> None:
        """Ask the process to end the mirror."""
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), b"finish\n")  # type: ignore[union-attr]

    def kill(self) -> None:
        """End the process and wandb's service, frozen or not."""
        for file in Path(f"/proc/{self._process.pid}/task").glob("*/children"):  # Linux; elsewhere the service sees that its parent is gone
            with contextlib.suppress(OSError):  # a thread that ends meanwhile, as all do when the process has done its work
                for child in file.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def _refusal(self) -> str:
        """Why the server did not take the run, of which wandb prints a warning and returns as if nothing were; empty if it did."""
        lines = self._lines()
        if any("Fatal error while uploading" in line for line in lines):
            return next((line.removeprefix("wandb: ")[:200] for line in lines if "encountered (" in line), "the server refused it")
        return ""

    def _lines(self) -> list[str]:
        printed = os.pread(self._printed.fileno(), 1 << 20, 0).decode(errors="replace")
        return [line for line in printed.splitlines() if line.strip()]
