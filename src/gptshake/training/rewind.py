"""Lightning's loop counters as they are after ``steps`` whole optimizer steps.

A checkpoint is written while Lightning is inside a batch, or after a step was broken off; its own counters would then repeat or
skip batches. The key names are Lightning 2.6's; a test pins them.
"""

from typing import Any


def rewrite_counters(checkpoint: dict[str, Any], steps: int, accumulation: int) -> None:
    """Make a Lightning checkpoint say: ``steps`` steps of ``accumulation`` micro-batches are done, the epoch has begun."""
    done = steps * accumulation
    fit = checkpoint["loops"]["fit_loop"]
    counts = {"ready": done, "started": done, "processed": done, "completed": done}
    fit["epoch_loop.batch_progress"]["total"].update(counts)
    fit["epoch_loop.batch_progress"]["current"].update(counts)
    fit["epoch_loop.batch_progress"]["is_last_batch"] = False
    for part in ("total", "current"):
        fit["epoch_progress"][part].update({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    fit["state_dict"]["combined_loader"] = [{"micro_batches": done}]
    checkpoint["global_step"] = steps
