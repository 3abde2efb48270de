"""What mirrors a run elsewhere (W&B, TensorBoard, MLflow, trackio): one base class, called in this order by whoever trains.

What a tracker is given is on the disk already; when it fails it says so once and the run goes on. Only ``start`` and ``finish`` may take seconds.
Any ``Logger`` of Lightning's (MLFlow, Comet, Neptune, CSV or one's own), named by ``logger._target_``, is one, too; Lightning is not imported.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.record.run import Run


class Tracker:
    """A mirror of the run record; what a method is about that a tracker does not override, it does not show."""

    waits = False  # however long it takes, as in task=sync
    problem = ""  # why it was left out

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume: ``run`` is already cut back to the checkpoint; its rows and samples are history.

        Raises:
            ConfigError: if what was asked for explicitly cannot be had.
        """

    def row(self, row: Mapping[str, float]) -> None:
        """One step's row, as in metrics.csv."""

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """A text, as in samples.md."""

    def image(self, name: str, path: Path) -> None:
        """A picture from ``plots/``; formats that the tracker cannot show are passed over."""

    def finish(self) -> None:
        """End, with the status and the final numbers of the record, which has ended before; does nothing the second time."""


def as_tracker(made: Any) -> Tracker:
    """What ``logger=`` made, as a mirror; a class of one's own need not be derived from ``Tracker`` if it has all its methods."""
    if all(callable(getattr(made, method, None)) for method in ("start", "row", "sample", "image", "finish")):
        return made  # type: ignore[no-any-return]
    if not all(hasattr(made, method) for method in ("log_hyperparams", "log_metrics", "finalize")):
        raise ConfigError(f"logger._target_ gives a {type(made).__name__}, which is neither a gptshake Tracker nor a Lightning Logger.")
    return LightningTracker(made)


class LightningTracker(Tracker):
    """Mirrors the config, every tenth row and those with a validation into a Lightning ``Logger``; after its first error it is left out."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._run: Run | None = None

    def start(self, run: Run) -> None:
        self._run = run
        self._call("log_hyperparams", run.config())
        for row in run.history(10):
            self.row(row)

    def row(self, row: Mapping[str, float]) -> None:
        if row["step"] % 10 == 0 or "val/loss" in row:
            self._call("log_metrics", {name: value for name, value in row.items() if name not in ("step", "time")}, int(row["step"]))

    def finish(self) -> None:
        if run := self._run:
            self._call("save")
            self._call("finalize", "success" if run.info["status"] == "ok" else "failed")
        self._run = None

    def _call(self, method: str, *arguments: Any) -> None:
        if run := self._run:
            try:
                getattr(self._logger, method)(*arguments)
            except Exception as error:
                self._run, self.problem = None, " ".join(str(error).split())[:200] or type(error).__name__
                run.say(f"{type(self._logger).__name__} failed and is left out; the record has everything ({self.problem}).")
