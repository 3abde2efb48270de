"""Going back to a step's end: the record cut to its newest whole checkpoint, and Lightning's loop counters of that step.

A checkpoint is written while Lightning is inside a batch, or after a step was broken off; its own counters would then repeat or
skip batches. The key names are Lightning 2.6's; a test pins them.
"""

from pathlib import Path
from typing import Any

from gptshake.record.run import Run
from gptshake.training import checkpoint as checkpoints


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


def rewind(run: Run) -> Path | None:
    """Cut the record back to the newest whole checkpoint; a run that was killed before its first one starts over.

    A run that is extended after its decay began goes back to the last checkpoint before that.
    """
    most = run.info.get("redecay")
    if not checkpoints.steps_saved(run.path):
        checkpoints.drop_after(run.path, 0)
        run.cut_rows(0)
        (run.path / "samples.md").unlink(missing_ok=True)  # what the untrained model wrote comes again
        run.sits_from(0)
        run.say("no checkpoint yet: starting over from step 0")
        return None
    folder, complaints = checkpoints.newest(run.path, most)
    for complaint in complaints:
        run.say(complaint)
    state = checkpoints.our_state(folder)
    step = state["steps"]
    checkpoints.drop_after(run.path, step)
    run.cut_rows(min(step, run.n_rows) if state.get("validation_due") else step)
    if state.get("validation_due") and "val/loss" not in run.last_row():  # the row is in the checkpoint, and is completed first
        run.cut_rows(step - 1)
    run.sits_from(step)
    if most is not None:
        run.update(redecay=None)
        run.say(f"going back to step {step:,}, the last checkpoint before the decay (trainer.extend=redecay)")
    run.say(f"resuming after step {step:,}")
    return folder
