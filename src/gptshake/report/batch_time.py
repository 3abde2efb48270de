"""Batch sizes at equal tokens and at equal time: a small batch learns more of as many tokens, and takes longer for them.

Takes a study and the learning curves of its runs. What a shorter run would have reached is not known without running it: it is
judged by the slope of the trial's own curve in the middle of its run, where the learning rate has risen and mostly not yet fallen.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from gptshake.errors import RecordError
from gptshake.estimate.formatting import duration
from gptshake.record.metrics import COLUMNS, read_columns
from gptshake.report.study_stats import Rows, Scale, cost, digits, finished, minimizes, scales, seconds_of_run, short

Points = Sequence[tuple[float, float]]  # tokens and objective
MIDDLE = (0.2, 0.6)  # shares of a run between which a learning curve's slope is taken
SAME_TIME = 1.03  # factor in time below which two batches took equally long


def learning_curves(study: Rows, folder: Path) -> dict[int, list[Points]]:
    """Number of a trial -> tokens and objective of each of its runs that has a metrics.csv."""
    name = study["objective"] if study["objective"] in COLUMNS else "val/bpb"

    def curve(path: str) -> list[tuple[float, float]]:
        try:
            columns = read_columns(folder / path / "metrics.csv", ("train/tokens", name))
        except (RecordError, OSError):  # another app's file of this name, or one that is being replaced
            return []
        points = zip(columns["train/tokens"], columns[name], strict=True)
        return [(tokens, value) for tokens, value in points if math.isfinite(tokens) and math.isfinite(value)]

    return {trial["number"]: [points for run in trial["runs"] if (points := curve(run["path"]))] for trial in study["trials"]}


def batch_scale(study: Rows) -> Scale | None:
    """The axis of batch sizes, if there is one."""
    return next((scale for scale in scales(study) if scale.name.startswith("batch")), None)


def best_of_each(study: Rows, scale: Scale) -> dict[float, Rows]:
    """Value on the axis, in order -> the best trial that has it."""
    by_cost = sorted(finished(study, scale), key=lambda row: -cost(study, row["value"]))
    return dict(sorted({trial["params"][scale.key]: trial for trial in by_cost}.items()))


def at_equal_time(study: Rows, curves: Mapping[int, Sequence[Points]]) -> list[str]:
    """A sentence if another batch than the best at equal tokens is the better one at equal time; else nothing."""
    scale = batch_scale(study)
    if scale is None or not minimizes(study):
        return []
    found = best_of_each(study, scale)
    times = {batch: seconds_of_run(trial) for batch, trial in found.items()}
    budget = min((seconds for seconds in times.values() if seconds), default=0.0)
    reached = {}
    for batch, trial in found.items():
        seconds = times[batch]
        if seconds and (value := _after(trial, budget / seconds, curves.get(trial["number"], ()))) is not None:
            reached[batch] = value
    if len(reached) < 2:
        return []
    winner, other = min(found, key=lambda batch: found[batch]["value"]), min(reached, key=lambda batch: reached[batch])
    if winner not in reached or other == winner:
        return []
    took = (times[winner] or 0.0) / (times[other] or 1.0)
    key, objective = scale.key.lstrip("+"), study["objective"]
    return [
        f"At equal time {key}={short(other)} is the better one: {short(winner)} takes {took:.2g} x its time. After {duration(budget)} "
        f"{scale.name} {short(other)} would be at about {objective} {digits(reached[other])}, "
        f"{short(winner)} at {digits(reached[winner])}, judged by the slopes of their curves."
    ]


def _after(trial: Rows, share: float, curves: Sequence[Points]) -> float | None:
    """The objective that a trial would have reached in a share of its time, by the slope of log objective over log tokens in mid-run.

    None where its curve is too short to say.
    """
    value = float(trial["value"])
    if share > 1 / SAME_TIME:
        return value
    if not curves or value <= 0:
        return None
    low, high = (end * curves[0][-1][0] for end in MIDDLE)
    middle = [(math.log(tokens), math.log(loss)) for tokens, loss in curves[0] if low <= tokens <= high and loss > 0]
    if len(middle) < 2 or middle[-1][0] <= middle[0][0]:
        return None
    slope = (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0])
    return float(value * share ** min(0.0, slope))
