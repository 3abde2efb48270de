"""Batch sizes at equal tokens and at equal time: a small batch learns more of as many tokens, and takes longer for them.

Takes a study and the learning curves of its runs. What a shorter run would have reached is not known without running it: it is
judged by the slope of the trial's own curve in the middle of its run, where the learning rate has risen and mostly not yet fallen.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from gptshake.errors import RecordError
from gptshake.estimate.words import duration
from gptshake.record.metrics import COLUMNS, read_columns
from gptshake.report.study_stats import Rows, Scale, along, cost, digits, minimizes, scales, seconds_of, short

Points = Sequence[tuple[float, float]]  # tokens and objective
MIDDLE = (0.2, 0.6)  # shares of a run between which the slope is taken
APART = 1.03  # factor in time below which two batches took equally long


def learning_curves(study: Rows, folder: Path) -> dict[int, list[Points]]:
    """Number of a trial -> tokens and objective of each of its runs that has a metrics.csv."""
    column = study["objective"] if study["objective"] in COLUMNS else "val/bpb"
    return {
        trial["number"]: [points for run in trial["runs"] if (points := _curve(folder / run["path"], column))] for trial in study["trials"]
    }


def _curve(run_dir: Path, column: str) -> list[tuple[float, float]]:
    try:
        columns = read_columns(run_dir / "metrics.csv", ("train/tokens", column))
    except (RecordError, OSError):  # another app's file of this name, or one that is being replaced: the study is not less for it
        return []
    points = zip(columns["train/tokens"], columns[column], strict=True)
    return [(tokens, value) for tokens, value in points if math.isfinite(tokens) and math.isfinite(value)]


def batch_scale(study: Rows) -> Scale | None:
    """The axis of batch sizes, if there is one."""
    return next((scale for scale in scales(study) if scale.name.startswith("batch")), None)


def best_of_each(study: Rows, scale: Scale) -> dict[float, Rows]:
    """Value on the axis, in order -> the best trial that has it."""
    found: dict[float, Rows] = {}
    for trial in sorted(along(study, scale), key=lambda row: -cost(study, row["value"])):
        found[trial["params"][scale.key]] = trial  # the best one comes last
    return dict(sorted(found.items()))


def seconds_of_run(trial: Rows) -> float | None:
    """Mean time of a trial's runs."""
    total = seconds_of(trial)
    return total / len(trial["runs"]) if total else None


def at_equal_time(study: Rows, curves: Mapping[int, Sequence[Points]]) -> list[str]:
    """A sentence if another batch than the best at equal tokens is the better one at equal time; else nothing."""
    scale = batch_scale(study)
    if scale is None or not minimizes(study):
        return []
    found = best_of_each(study, scale)
    times = {batch: seconds_of_run(trial) for batch, trial in found.items()}
    budget = min((seconds for seconds in times.values() if seconds), default=0.0)
    reached = {
        batch: value
        for batch, trial in found.items()
        if (seconds := times[batch]) and (value := _after(trial, budget / seconds, curves.get(trial["number"], ()))) is not None
    }
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
    """What a trial would have reached in a share of its time; None where its curve is too short to say."""
    value = float(trial["value"])
    if share > 1 / APART:
        return value
    slope = _slope(curves[0]) if curves else None
    return None if slope is None or value <= 0 else value * share**slope


def _slope(points: Points) -> float | None:
    """Of the logarithm of the objective over that of the tokens, in the middle of the run; at most 0."""
    end = points[-1][0]
    middle = [(math.log(tokens), math.log(value)) for tokens, value in points if MIDDLE[0] * end <= tokens <= MIDDLE[1] * end and value > 0]
    if len(middle) < 2 or middle[-1][0] <= middle[0][0]:
        return None
    return min(0.0, (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0]))
