"""trackio as a mirror of the run record: a SQLite file on this machine, for ``trackio show``.

A resumed run is written anew from its record, so the store always holds one whole history.
"""

import contextlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from gptshake.record.index import flat
from gptshake.record.run import Run
from gptshake.record.texts import Sample
from gptshake.record.trackers.config import TrackioConfig
from gptshake.record.trackers.process import ProcessTracker, describe, follow, later_figures
from gptshake.redaction import redact


@dataclass(eq=False)
class TrackioTracker(TrackioConfig, ProcessTracker):
    """Mirrors rows, samples and pictures to trackio."""

    service, package = "trackio", "trackio"

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume: the run's history is written first."""
        elsewhere = dict.fromkeys(("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"))  # a run there cannot be replaced
        self.begin(run, {"project": redact(self.project), "every": self.every}, elsewhere)


def track(run: Run, options: dict[str, Any], ended: threading.Event, reply: Callable[..., None]) -> None:
    """Track a run until ``ended`` is set."""
    import trackio

    about, project, reached = describe(run), options["project"], 0
    name = about["name"] if run.id in about["name"] else f"{about['name']}-{run.id}"  # what is replaced is this run's own
    with contextlib.suppress(ValueError):  # the project is new
        for former in trackio.Api().runs(project):
            if former.name == name:
                former.delete()
    reply(record={"trackio": {"project": project}}, say=f"trackio: show it with: trackio show --project {project}")
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as problems:  # it raises nothing
        config = flat(about["config"]) | {"tags": about["tags"]}
        off = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        tracker = trackio.init(project, name, group=about["group"], config=config, **off)
        for step, one in (entry for new in follow(run, options["every"], ended) for entry in new):
            reached = max(reached, step)
            if isinstance(one, Path):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    tracker.log({f"plots/{one.stem}": trackio.Image(str(one))}, step=reached)
            elif isinstance(one, Sample):  # as code, so nothing in it is taken for Markdown
                text = indent(one.text, "    ", lambda line: True)
                tracker.log({"samples": trackio.Markdown(f"{one.title}, after {one.tokens:,} tokens\n\n{text}")}, step=step)
            else:
                tracker.log({name: value for name, value in one.items() if name not in ("step", "time")}, step=step)
        tracker.log(later_figures(Run.open(run.path)), step=reached)
        tracker.finish()
    if problems:
        reply(say=f"trackio did not take everything; the record of the run is complete ({str(problems[0].message)[:300]})")
