"""Weights & Biases as a mirror of the run record, under the run's own id.

It never asks for a login, and every word to wandb is spoken on a courier's thread: a start or an end waits ten seconds at most,
a row waits for nothing, and a server or a service that hangs costs the run one sentence. What W&B does not have of the run's
history (all of it offline, or after a kill) is written first, from the record. ``task=sync`` uploads later what could not be.
Importing this file imports no wandb; ``start`` does.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptshake.errors import ConfigError
from gptshake.record.run import Run
from gptshake.record.samples import Sample
from gptshake.record.sinks.artifacts import log_inputs, log_weights
from gptshake.record.sinks.courier import Courier
from gptshake.record.sinks.session import SMALLER_IS_BETTER, Session, kill_service, open_session

if TYPE_CHECKING:
    import wandb

MODES = ("auto", "online", "offline")
ARTIFACTS = ("none", "best")
START_SECONDS = FINISH_SECONDS = 10.0  # a run waits no longer for its mirror, whatever happens there
MAX_BACKLOG = 20_000  # calls; a mirror so far behind does not move any more
_SOURCES = ("diff.patch", "untracked", "overrides")  # what repeats the run besides its config
_EXIT_CODES = {"ok": 0, "pruned": 0, "interrupted": 255}  # 255 is W&B's "killed"


class WandbSink:
    """Mirrors rows, samples and pictures to W&B; see ``sinks.protocol`` for the methods.

    Args:
        project: W&B project.
        entity: team or user; None is the key's own.
        mode: ``auto`` is online with a key and offline without; the variable WANDB_MODE decides before that.
        every: a row is logged every so many steps, and whenever it holds a validation.
        artifacts: ``best`` uploads tokenizer, description of the data and best weights with their lineage; never a trial's.
    Raises:
        ConfigError: for a word or an interval out of sense.
    """

    def __init__(
        self, project: str = "gptshake", entity: str | None = None, mode: str = "auto", every: int = 10, artifacts: str = "none"
    ) -> None:
        for key, value, words in (("mode", mode, MODES), ("artifacts", artifacts, ARTIFACTS)):
            if value not in words:
                raise ConfigError(f"logger.{key}={value} is not known; it is one of {', '.join(words)}.")
        if every < 1:
            raise ConfigError(f"logger.every={every} cannot be: it counts steps per logged row, from 1 up.")
        self.project, self.entity, self.mode, self.every, self.artifacts = project, entity, mode, every, artifacts
        self._courier: Courier | None = None
        self._session: Session | None = None
        self._table: wandb.Table | None = None

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume; what W&B does not have of the run's history is written first.

        Raises:
            ConfigError: if ``mode`` is online and there is no key.
        """
        self._run, self._session, self._table, self._told = run, None, None, False
        self._courier = courier = Courier()
        history = (run.rows(), run.samples())
        courier.do(lambda: self._catch_up(*history))
        if not courier.wait(START_SECONDS):
            run.say(f"W&B has not answered in {START_SECONDS:.0f} s; the run goes on and does not wait for it.")
        if isinstance(courier.error, ConfigError):
            self._courier = None
            raise courier.error
        self._look()

    def row(self, row: Mapping[str, float]) -> None:
        """Log a row if it is due. The W&B step is the optimizer step, so a row that comes again changes nothing."""
        if self._due(row):
            self._do(lambda: self._log_row(row))

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """Add a row to the one table of samples; only the new row is uploaded."""
        self._do(lambda: self._log_sample(Sample(step, tokens, title, text)))

    def image(self, name: str, path: Path) -> None:
        """Log a picture; W&B shows no SVG, so these are passed over."""
        if path.suffix != ".svg":
            self._do(lambda: self._log_image(name, path))

    def finish(self) -> None:
        """Hand over the final numbers and end; what is not uploaded in time stays on the disk, for ``task=sync``."""
        self._do(self._end)
        courier, self._courier = self._courier, None
        if courier is None:
            return
        ended = courier.wait(FINISH_SECONDS)
        self._courier = courier if ended else None
        self._look()
        if not ended:
            self._leave_out("no answer", f"the rest can be uploaded later: gptshake task=sync task.run={self._run.id}")
        elif self._courier is not None and self._session is not None and self._session.mode != "disabled":
            self._run.update(wandb={"whole": True, "uploaded": self._session.mode == "online"})
        courier.dismiss()
        self._courier = None

    def _do(self, call: Callable[[], None]) -> None:
        """Hand a call to the courier, if there is still a mirror."""
        self._look()
        if self._courier is not None:
            self._courier.do(call)

    def _look(self) -> None:
        """Tell what became of the courier's calls, once: where the mirror is, or that there is none any more."""
        courier = self._courier
        if courier is None:
            return
        if self._session is not None and not self._told:
            self._told = True
            self._introduce(self._session)
        if courier.error is not None:
            self._leave_out(" ".join(str(courier.error).split())[:200] or type(courier.error).__name__)
        elif courier.backlog > MAX_BACKLOG:
            self._leave_out("it does not keep up")

    def _introduce(self, session: Session) -> None:
        facts = session.facts()
        self._run.update(wandb={**facts, "whole": False, "uploaded": False})
        if session.mode == "online":
            self._run.say(f"W&B: {facts['url']}")
        elif session.mode == "offline":
            problem = f", {session.problem}" if session.problem else ""
            self._run.say(f"W&B: offline{problem}; upload later with: gptshake task=sync task.run={self._run.id}")

    def _leave_out(self, reason: str, more: str = "") -> None:
        """Go on without the mirror; its service is ended, or the end of the process would wait for it."""
        courier, self._courier = self._courier, None
        kill_service()
        if courier is not None:
            courier.dismiss()
        more = more or "the run goes on, its own record has everything"
        self._run.say(f"W&B failed and is left out from here on; {more} ({reason}).")

    # From here on: what runs on the courier's thread.

    @property
    def _opened(self) -> Session:
        if self._session is None:
            self._session = open_session(self._run, self.project, self.entity, self.mode)
        return self._session

    @property
    def _mirror(self) -> "wandb.Run":
        return self._opened.mirror

    def _catch_up(self, rows: list[Any], samples: list[Sample]) -> None:
        """What is about the whole run, and the history that W&B does not have; an online run that is resumed has most of it."""
        import wandb

        self._table = wandb.Table(columns=["step", "tokens", "title", "text"], log_mode="INCREMENTAL")
        for file in [path for name in _SOURCES for path in _files(self._run.path / name)]:
            self._mirror.save(str(file), base_path=str(self._run.path), policy="now")
        if self.artifacts == "best" and not self._run.info.get("trial"):
            log_inputs(self._opened, self._run)
        known = self._mirror.step
        history: list[tuple[float, int, Callable[[Any], None], Any]] = [
            *((row["step"], 0, self._log_row, row) for row in rows if self._due(row)),
            *((sample.step, 1, self._log_sample, sample) for sample in samples),
        ]
        for step, _, log, what in sorted(history, key=lambda entry: entry[:2]):
            if step >= known:
                log(what)

    def _due(self, row: Mapping[str, float]) -> bool:
        return row["step"] % self.every == 0 or "val/loss" in row

    def _log_row(self, row: Mapping[str, float]) -> None:
        values = {name: value for name, value in row.items() if name not in ("step", "time") and value is not None}
        self._mirror.log(values, step=int(row["step"]))

    def _log_sample(self, sample: Sample) -> None:
        assert self._table is not None
        self._table.add_data(*sample)
        self._mirror.log({"samples": self._table}, step=sample.step)

    def _log_image(self, name: str, path: Path) -> None:
        import wandb

        self._mirror.log({name: wandb.Image(str(path))})

    def _end(self) -> None:
        info = self._run.info
        if self.artifacts == "best" and not info.get("trial"):
            log_weights(self._opened, self._run)
        final = {key: value for key, value in (info.get("summary") or {}).items() if key not in SMALLER_IS_BETTER}
        self._mirror.summary.update({**final, "status": info["status"]})
        self._mirror.finish(exit_code=_EXIT_CODES.get(info["status"], 1))


def _files(path: Path) -> list[Path]:
    """The file itself, or all files below a folder."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
