"""Short real runs around a learning rate, each with its whole schedule: a study of the sweep's own, started as one would type it.

A range test measures speed from the initial weights; these measure the loss at the end. The line search of ``-m optimizer.lr=range``
places them: around the start, outwards while the best lies at an edge, then where a parabola says. Takes overrides, gives points.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptshake.errors import GptshakeError, Stop
from gptshake.processes import ASKED_BY
from gptshake.signals import SIGNALS

REACH = 64.0  # the study looks as far as this factor from the start


def confirm(overrides: Sequence[str], study: Path, *, start: float, highest: float, n: int | None) -> dict[str, Any]:
    """Run the study, or go on with it.

    Args:
        overrides: of its runs, length included.
        study: its folder.
        start: the rate to begin with.
        highest: no rate above is tried.
        n: runs; None: until the search is over.
    Returns:
        What its study.json holds.
    Raises:
        GptshakeError: no run came to an end.
        Stop: a signal came; what ran is saved, and the study goes on with the same name.
    """
    low, high = start / REACH, max(min(start * REACH, highest), start)
    words = [
        *overrides,
        *(f"paths.multirun={study.parent}", f"study={study.name}"),
        *(f"optimizer.lr={start:.3g}", f"optimizer.lr=tag(log,interval({low:.3g},{high:.3g}))"),
        *([f"hydra.sweeper.n_trials={n}"] if n else []),
        *("hydra.sweeper.keep=1", "hydra.sweeper.noise=false"),
    ]
    code = _gptshake(["-m", *words])
    rows: dict[str, Any] = json.loads((study / "study.json").read_text(encoding="utf-8")) if (study / "study.json").exists() else {}
    if SIGNALS.received is not None or code > 128:
        raise Stop(SIGNALS.received or code - 128)
    if not any(trial["state"] == "ok" for trial in rows.get("trials", ())):
        raise GptshakeError(f"Not one of the runs that should decide on the learning rate came to an end: see above, and {study}.")
    return rows


def _gptshake(words: list[str]) -> int:
    """Run a command of ours in a process of its own, its output shown but for the study's own conclusion; returns its exit code."""
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"} | {
        ASKED_BY: "find_lr"
    }  # ours, not the user's
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, "-m", "gptshake", *words], env=environment)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
