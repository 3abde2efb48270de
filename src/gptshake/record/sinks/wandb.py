"""Weights & Biases as a mirror of the run record, under the run's own id.

It never asks for a login, and every word to wandb is spoken on a courier's thread: a start or an end waits ten seconds at most,
a row waits for nothing, and a server or a service that hangs costs the run one sentence. What W&B does not have of the run's
history (all of it offline, or after a kill) is written first, from the record. ``task=sync`` uploads later what could not be.
Importing this file imports no wandb; ``start`` does.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from gptshake.errors import ConfigError, OutOfReach
from gptshake.record.run import Run
from gptshake.record.samples import Sample
from gptshake.record.sinks.courier import Courier
from gptshake.record.sinks.mirror import Mirror
from gptshake.record.sinks.reach import short
from gptshake.record.sinks.session import Session, kill_service
from gptshake.redaction import redact

MODES = ("auto", "online", "offline")
ARTIFACTS = ("none", "best")
START_SECONDS = FINISH_SECONDS = 10.0  # a run waits no longer for its mirror, whatever happens there
MAX_BACKLOG = 20_000  # calls; a mirror so far behind does not move any more


class WandbSink:
    """Mirrors rows, samples and pictures to W&B; see ``sinks.protocol`` for the methods.

    Args:
        project: W&B project; None is that of the variable WANDB_PROJECT, else gptshake.
        entity: team or user; None is that of the variable WANDB_ENTITY, else the key's own.
        mode: ``auto`` is online with a key and offline without; the variable WANDB_MODE decides before that.
        every: a row is logged every so many steps, and whenever it holds a validation.
        artifacts: ``best`` uploads tokenizer, description of the data and best weights with their lineage; never a trial's.
    Raises:
        ConfigError: for a word or an interval out of sense.
    """

    def __init__(
        self, project: str | None = None, entity: str | None = None, mode: str = "auto", every: int = 10, artifacts: str = "none"
    ) -> None:
        for key, value, words in (("mode", mode, MODES), ("artifacts", artifacts, ARTIFACTS)):
            if value not in words:
                raise ConfigError(f"logger.{key}={value} is not known; it is one of {', '.join(words)}.")
        if every < 1:
            raise ConfigError(f"logger.every={every} cannot be: it counts steps per logged row, from 1 up.")
        self.project = redact(project or os.environ.get("WANDB_PROJECT") or "gptshake")  # W&B keeps both in files of its own
        self.entity = redact(entity or os.environ.get("WANDB_ENTITY") or "") or None
        self.mode, self.every, self.artifacts = mode, every, artifacts
        self._courier: Courier | None = None

    def mirror(self, run: Run) -> Mirror:
        """The mirror of a run with these options, not opened yet."""
        return Mirror(run, self.project, self.entity, self.mode, self.every, artifacts=self.artifacts == "best")

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume; what W&B does not have of the run's history is written first.

        Raises:
            ConfigError: if ``mode`` is online and there is no key.
        """
        self._mirror = mirror = self.mirror(run)
        self._introduced = False
        courier = self._courier = Courier()
        rows, samples = run.history(self.every), run.samples()
        courier.do(mirror.open)
        if not courier.wait(START_SECONDS):
            run.say(f"W&B has not answered in {START_SECONDS:.0f} s; the run goes on and does not wait for it.")
        courier.do(lambda: mirror.catch_up(rows, samples))
        if isinstance(courier.error, ConfigError):
            self._courier = None
            raise courier.error
        self._look()

    def row(self, row: Mapping[str, float]) -> None:
        """Log a row, if it is due."""
        if self._mirror.due(row):
            self._do(lambda: self._mirror.log_row(row))

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """Add a row to the table of samples."""
        self._do(lambda: self._mirror.log_sample(Sample(step, tokens, title, text)))

    def image(self, name: str, path: Path) -> None:
        """Log a picture; W&B shows no SVG, so these are passed over."""
        if path.suffix != ".svg":
            self._do(lambda: self._mirror.log_image(name, path))

    def finish(self) -> None:
        """Hand over the final numbers and end; what is not uploaded in time stays on the disk, for ``task=sync``."""
        self._do(lambda: self._mirror.end())
        courier = self._courier
        if courier is None:
            return
        ended, session = courier.wait(FINISH_SECONDS), self._mirror.session
        if not ended or isinstance(courier.error, TimeoutError | OutOfReach):
            reason = short(courier.error) if isinstance(courier.error, OutOfReach) else f"in {FINISH_SECONDS:.0f} s"
            self._leave_out(f"W&B did not take everything ({reason}); upload it later with: {self._later()}")
            return
        self._look()
        if self._courier is not None and session is not None and session.mode != "disabled":
            self._mirror.run.update(wandb={"whole": True, "uploaded": session.mode == "online"})
        courier.dismiss()
        self._courier = None

    def _do(self, call: Callable[[], None]) -> None:
        """Hand a call to the courier, if there is still a mirror."""
        self._look()
        if self._courier is not None:
            self._courier.do(call)

    def _look(self) -> None:
        """Tell what became of the courier's calls, once: where the mirror is, what it lacks, or that there is none any more."""
        courier = self._courier
        if courier is None:
            return
        mirror = self._mirror
        if mirror.session is not None and not self._introduced:
            self._introduced = True
            self._introduce(mirror.session)
        while mirror.complaints:
            mirror.run.say(mirror.complaints.pop(0))
        reason = short(courier.error) if courier.error else "it does not keep up" if courier.backlog > MAX_BACKLOG else ""
        if reason:
            self._leave_out(f"W&B failed and is left out from here on; the run goes on, its own record has everything ({reason}).")

    def _introduce(self, session: Session) -> None:
        run, facts = self._mirror.run, session.facts()
        run.update(wandb={**facts, "whole": False, "uploaded": False})
        if session.mode == "online":
            run.say(f"W&B: {facts['url']}")
        elif session.mode == "offline":
            run.say(f"W&B: offline{f', {session.problem}' if session.problem else ''}; upload later with: {self._later()}")

    def _later(self) -> str:
        return f"gptshake task=sync task.run={self._mirror.run.id}"

    def _leave_out(self, sentence: str) -> None:
        """Go on without the mirror; its service is ended, or the end of the process would wait for it."""
        kill_service()
        if self._courier is not None:
            self._courier.dismiss()
        self._courier = None
        self._mirror.run.say(sentence)
