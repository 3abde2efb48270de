"""The figures of a run, whatever state its record is in.

Takes run.json and the run directory; gives the numbers of the summary and, for what that lacks, the last ones of
metrics.csv, without reading all of it. A run at work has the figures so far.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptshake.record.metrics import last_values
from gptshake.record.sittings import ended, totals

TOKENS, SPEED, SECONDS = "train/tokens", "perf/tokens_per_s", "time"
_LAST = (TOKENS, "train/loss", "val/loss", "val/bpb", SPEED, "perf/mfu")


def figures(path: Path, info: Mapping[str, Any], status: str) -> dict[str, float]:
    """Every finite number of the summary; the last tokens, losses, bits per byte and speed; ``time``, the wall time in seconds.

    Without a summary the speed is that of the last step.

    Args:
        path: the run directory.
        info: its run.json; empty if it cannot be read.
        status: as the reader sees it, so killed as well.
    """
    summary = info.get("summary")
    told = {key: float(value) for key, value in summary.items() if is_number(value)} if isinstance(summary, dict) else {}
    unfinished = status in ("running", "killed")  # what an earlier sitting told is old
    lacking = [name for name in _LAST if unfinished or name not in told]
    seen = last_values(path / "metrics.csv", [*lacking, SECONDS]) if lacking else {}
    last = {key: float(value) for key, value in seen.items() if key != SECONDS and math.isfinite(value)}
    seconds = _seconds(info, status, seen.get(SECONDS))
    return told | last | ({} if seconds is None else {SECONDS: seconds})


def _seconds(info: Mapping[str, Any], status: str, last: float | None) -> float | None:
    """Of all sittings together, up to the last step of a run that has not ended; of an older record from the start to the end.

    Rows and sittings are timed by one clock, which nobody sets; what the system's clock says now is not of it.
    """
    wall, started, finished = info.get("wall_s"), info.get("started"), info.get("finished")
    if status in ("running", "killed") and info.get("sittings"):
        return totals(ended(info["sittings"], now=last or 0.0))["wall_s"]
    if status != "running" and is_number(wall):
        return float(wall or 0)
    end = time.time() if status == "running" else finished if is_number(finished) and status != "killed" else last
    return max(0.0, float(end) - float(started)) if is_number(end) and is_number(started) and end and started else None


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
