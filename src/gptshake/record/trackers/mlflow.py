"""MLflow as a mirror of the run record: one MLflow run for a run, which a resume continues, in a SQLite file or on a server."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from gptshake.errors import first_line
from gptshake.files import lock_file, sha256_text
from gptshake.record.index import flat
from gptshake.record.metrics import Row
from gptshake.record.run import Run
from gptshake.record.texts import Sample
from gptshake.record.trackers.config import MlflowConfig
from gptshake.record.trackers.process import ProcessTracker, describe, files_to_repeat, follow, later_figures

MOST_METRICS, MOST_PARAMS = 1000, 100  # in one call


@dataclass(eq=False)
class MlflowTracker(MlflowConfig, ProcessTracker):
    """Mirrors rows as metrics, the config as parameters, samples and pictures as artifacts."""

    service, package = "MLflow", "mlflow"

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume; what MLflow does not have of the run's history is written first."""
        experiment = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gptshake"
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"  # not an option: it may hold a password
        self.begin(run, {"experiment": experiment, "every": self.every}, {"MLFLOW_TRACKING_URI": uri})


def track(run: Run, options: dict[str, Any], ended: threading.Event, reply: Callable[..., None]) -> None:
    """Track a run until ``ended`` is set."""
    import mlflow

    # Two runs that set up one new database at once would break it.
    store = sha256_text(mlflow.get_tracking_uri())[:16]
    lock = lock_file(Path(gettempdir()) / f"gptshake-{os.getuid()}-mlflow-{store}.lock", 60.0)
    client, experiment = mlflow.MlflowClient(), mlflow.set_experiment(options["experiment"]).experiment_id
    os.close(lock)
    # MLflow keeps what it has of a step, so a run that went back to train steps with another schedule becomes a new run there.
    identity = run.id if not (redecays := run.info.get("redecays")) else f"{run.id}/redecay-{redecays}"
    found = client.search_runs([experiment], f"tags.`gptshake.id` = '{identity}'")
    run_id = found[0].info.run_id if found else _create(client, run, experiment, identity)
    client.update_run(run_id, "RUNNING")
    known = reached = max((metric.step for metric in client.get_metric_history(run_id, "train/tokens")), default=-1)
    reply(record={"mlflow": {"run_id": run_id, **options}}, say=f"MLflow: run {run_id} in {mlflow.get_tracking_uri()}")
    files, takes_files = [run.path / "config.yaml", *files_to_repeat(run)], True
    for new in follow(run, options["every"], ended):
        _log(client, run_id, [one for step, one in new if isinstance(one, dict) and step > known])
        reached = max([reached, *(step for step, _ in new)])
        files += [run.path / "samples.md"] * any(isinstance(one, Sample) for _, one in new)
        files += [one for _, one in new if isinstance(one, Path)]
        try:
            for file in filter(Path.exists, files if takes_files else ()):
                client.log_artifact(run_id, str(file), file.parent.relative_to(run.path).as_posix().removeprefix(".") or None)
        except Exception as error:  # a place that needs another package, or a quota, costs the files, not the metrics
            takes_files = False
            reply(say=f"MLflow takes no files of this run: {first_line(error)}.")
        files.clear()
    run = Run.open(run.path)  # as it ended
    there = client.get_run(run_id).data.metrics if reached == known else ()
    if figures := {name: value for name, value in later_figures(run).items() if name not in there}:
        _log(client, run_id, [{**figures, "step": reached}])
    client.set_terminated(run_id, {"ok": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED"}.get(run.info["status"], "FAILED"))


def _create(client: Any, run: Run, experiment: str, identity: str) -> str:
    from mlflow.entities import Param

    about = describe(run)
    tags = {"gptshake.id": identity, "group": about["group"], "tags": " ".join(about["tags"]), "mlflow.note.content": about["notes"]}
    created = client.create_run(experiment, tags={key: value for key, value in tags.items() if value}, run_name=about["name"])
    params = [Param(key, str(value)) for key, value in flat(about["config"]).items()]
    for first in range(0, len(params), MOST_PARAMS):
        client.log_batch(created.info.run_id, params=params[first : first + MOST_PARAMS])
    return str(created.info.run_id)


def _log(client: Any, run_id: str, rows: Sequence[Row]) -> None:
    """Log rows, each whole in one call, so that MLflow has a step or has it not."""
    from mlflow.entities import Metric

    at_once = MOST_METRICS // max(map(len, rows), default=1)
    for first in range(0, len(rows), at_once):
        metrics = [
            Metric(name, value, int(1000 * row.get("time", time.time())), int(row["step"]))
            for row in rows[first : first + at_once]
            for name, value in row.items()
            if name not in ("step", "time")
        ]
        client.log_batch(run_id, metrics)
