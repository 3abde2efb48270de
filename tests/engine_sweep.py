"""The sweep that the tests on Slurm and on Ray disturb: its command, and what it must come to."""

import json
from pathlib import Path
from typing import Any

WORDS = ("trainer.max_steps=160", "trainer.val_check_interval=20", "optimizer.lr=1e-3,3e-3,1e-2", "study=s")
BRISK = "from gptshake.sweep.executor import jobs\njobs.POLL_S = jobs.HURRY_S = jobs.LATE_S = 0.5\n"  # before the command


def values(folder: Path) -> dict[str, Any]:
    """Each point -> its state and its value."""
    study = json.loads((folder / "multirun/s/study.json").read_text(encoding="utf-8"))
    return {json.dumps(trial["params"]): (trial["state"], trial["value"]) for trial in study["trials"]}
