"""What is written into a W&B run: the history that it lacks, rows, samples, pictures, sources, artifacts, the end.

Plain calls of wandb, one after the other; each may block or fail, so a run at work makes them on a courier's thread
(``wandb.py``), and ``task=sync`` makes them all at once for a record that W&B has in part or not at all.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptshake.errors import OutOfReach
from gptshake.record.metrics import Row
from gptshake.record.run import Run
from gptshake.record.samples import Sample
from gptshake.record.sinks.artifacts import log_inputs, log_weights
from gptshake.record.sinks.reach import short
from gptshake.record.sinks.session import SMALLER_IS_BETTER, Session, forget, open_session

if TYPE_CHECKING:
    import wandb

_SOURCES = ("overrides", "diff.patch", "untracked")  # what repeats the run besides its config
_EXIT_CODES = {"ok": 0, "pruned": 0, "interrupted": 255}  # 255 is W&B's "killed"


class Mirror:
    """The W&B run of a record.

    Args:
        run: the record.
        project, entity, mode: as in ``session.open_session``.
        every: a row is logged every so many steps, and whenever it holds a validation.
        artifacts: whether to log tokenizer, token store and best weights; never done for a trial of a sweep.
    """

    def __init__(self, run: Run, project: str, entity: str | None, mode: str, every: int, *, artifacts: bool) -> None:
        self.run, self.every = run, every
        self.session: Session | None = None
        self.complaints: list[str] = []  # about what is left out; the rest is mirrored
        self._place = (project, entity, mode)
        self._artifacts = artifacts and not run.info.get("trial")
        self._table: wandb.Table | None = None

    def open(self) -> Session:
        """Open the W&B run.

        Raises:
            ConfigError: ``online`` and no key.
        """
        self.session = open_session(self.run, *self._place)
        return self.session

    def catch_up(self, rows: Sequence[Row], samples: Sequence[Sample]) -> None:
        """The sources, and the history that W&B does not have: an online run that is resumed has most of it."""
        for file in [path for name in _SOURCES for path in _files(self.run.path / name)]:
            self._wandb.save(str(file), base_path=str(self.run.path), policy="now")
        self._log_artifacts(log_inputs)
        known = self._wandb.step
        history: list[tuple[float, int, Callable[[Any], None], Any]] = [
            *((row["step"], 0, self.log_row, row) for row in rows if self.due(row)),
            *((sample.step, 1, self.log_sample, sample) for sample in samples),
        ]
        for step, _, log, what in sorted(history, key=lambda entry: entry[:2]):
            if step >= known:
                log(what)

    def due(self, row: Mapping[str, float]) -> bool:
        """Whether a row is logged."""
        return row["step"] % self.every == 0 or "val/loss" in row

    def log_row(self, row: Mapping[str, float]) -> None:
        """Log a row. The W&B step is the optimizer step, so a row that comes again changes nothing."""
        values = {name: value for name, value in row.items() if name not in ("step", "time") and value is not None}
        when = {"_timestamp": row["time"]} if "time" in row else {}  # of the step, also where it is told later
        self._wandb.log(values | when, step=int(row["step"]))

    def log_sample(self, sample: Sample) -> None:
        """Add a row to the one table of samples; only the new row is uploaded."""
        import wandb

        self._table = self._table or wandb.Table(columns=["step", "tokens", "title", "text"], log_mode="INCREMENTAL")
        self._table.add_data(*sample)
        self._wandb.log({"train/tokens": sample.tokens, "samples": self._table}, step=sample.step)

    def log_image(self, name: str, path: Path) -> None:
        """Log a picture that W&B can show."""
        import wandb

        self._wandb.log({name: wandb.Image(str(path))})

    def end(self) -> None:
        """Hand over status and final numbers of the record, and end.

        Raises:
            TimeoutError: the upload takes too long; it is given up.
            OutOfReach: the server has refused the upload.
        """
        info = self.run.info
        self._log_artifacts(log_weights)
        final = {key: value for key, value in (info.get("summary") or {}).items() if key not in SMALLER_IS_BETTER}
        self._wandb.summary.update({**final, "status": info["status"]})
        self._wandb.finish(exit_code=_EXIT_CODES.get(info["status"], 1))
        forget()  # or the log may not be on the disk yet
        if refusal := self.session.refusal() if self.session else "":
            raise OutOfReach(refusal)

    @property
    def _wandb(self) -> "wandb.Run":
        assert self.session is not None, "open comes first"
        return self.session.mirror

    def _log_artifacts(self, log: Callable[["wandb.Run", Run], None]) -> None:
        """Log some if they are wished; a quota that is used up costs the artifacts, not the mirror."""
        if self._artifacts:
            try:
                log(self._wandb, self.run)
            except Exception as error:
                self.complaints.append(f"W&B took no artifacts of this run: {short(error)}.")


def _files(path: Path) -> list[Path]:
    """The file itself, or all files below a folder."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
