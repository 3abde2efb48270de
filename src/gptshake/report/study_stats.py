"""Statistics of a study: its best trial, curves along an axis and the near-optimal interval, learning curves, paired differences.

Takes study.json; rows may be missing while the study runs. Pruned trials never win: they were not trained to the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from gptshake.errors import RecordError
from gptshake.estimate.formatting import counted
from gptshake.estimate.lr_fit import CLIFF, NearOptimal, near_optimal_interval, on_a_cliff, seed_freedom, seed_sd
from gptshake.estimate.significance import FEWEST, holm, one_sample
from gptshake.record.index import is_number
from gptshake.record.metrics import COLUMNS, read_columns

Json = Mapping[str, Any]  # study.json, or one of its trials or runs
Curve = tuple[str, list[tuple[float, float, Json]]]  # its label, and (value on the axis, objective, trial) in order
Points = Sequence[tuple[float, float]]  # tokens and objective
DONE = ("ok", "pruned", "diverged")  # what n_trials counts
ENDED_EARLY = ("pruned", "diverged", "failed", "stopped")  # how a run ends that is not ok


@dataclass(frozen=True)
class Best:
    """The trial that won."""

    trial: Json
    value: float
    error: float | None  # standard error of the mean over seeds; None with one seed
    seeds: int
    confirmed: bool  # by runs with fresh seeds


@dataclass(frozen=True)
class Scale:
    """An axis of numbers."""

    key: str  # as it was typed
    name: str  # short, for people
    log: bool
    powers: bool  # of two only
    integer: bool
    ends: tuple[float, float]  # of the range, or the list
    declared: float | None

    def at(self, value: float) -> float:
        return math.log2(value) if self.log else value


@dataclass(frozen=True)
class Difference:
    """One change against the base, paired by seed; no numbers where a seed of either has not finished."""

    label: str
    trial: Json
    level: float | None  # mean of the base
    mean: float | None  # change minus base
    error: float | None  # standard error of the mean
    half_width: float | None  # half of the 95 % confidence interval
    speed: float | None  # tokens per second against the base's
    seeds: int  # pairs
    verdict: str

    @property
    def percent(self) -> float | None:
        return 100 * self.mean / abs(self.level) if self.mean is not None and self.level else None


def run_values(trial: Json) -> list[float]:
    return [run["value"] for run in trial.get("runs", []) if run["state"] == "ok" and is_number(run["value"])]


def state_of(row: Json) -> str:
    """A row's state as it is now: of an open trial ``running``, ``stopped`` or ``waiting``, as its runs say."""
    if row["state"] != "running":
        return str(row["state"])
    states = {run["state"] for run in row["runs"]}
    return next((state for state in ("running", "stopped") if state in states), "waiting")


def is_cut_off(study: Json) -> bool:
    """Whether its time limit has ended it: what it found counts, and the same command goes on."""
    return study["state"] == "stopped" and bool(study.get("deadline")) and study["updated"] >= study["deadline"]


def over_seeds(study: Json) -> bool:
    return not study["axes"] and (study.get("repeats") or 1) > 1


def shown_rows(study: Json) -> list[Json]:
    """The trials in order of their numbers; of one configuration a row for each seed, which is its number."""
    trials = sorted(study["trials"], key=lambda row: row["number"])
    if not over_seeds(study):
        return trials
    return [{**trial, **run, "number": run["seed"], "at": None, "runs": [run]} for trial in trials for run in trial["runs"]]


def trial_value(trial: Json) -> float:
    return float(trial["value"]) if is_number(trial.get("value")) else fmean(run_values(trial))


def speed_of(trial: Json) -> float | None:
    """Mean tokens per second of a trial's runs."""
    rates = [run["tokens_per_s"] for run in trial["runs"] if run.get("tokens_per_s")]
    return fmean(rates) if rates else None


def tokens_of(study: Json, trial: Json) -> int | None:
    """Tokens of a trial's runs, which differ between trials where the length of a run is swept; else what the study declares."""
    return max((run["tokens"] for run in trial["runs"] if run.get("tokens")), default=study.get("tokens"))


def seconds_of(trial: Json) -> float | None:
    """Seconds that a trial's runs have taken together; None if none has ended."""
    spans = [seconds for run in trial["runs"] if (seconds := run_seconds(run)) is not None]
    return sum(spans) if spans else None


def run_seconds(run: Json) -> float | None:
    """Seconds that a run took, under all controllers of its study; None if it has not ended."""
    if not (run.get("ended") and run.get("started")):
        return None
    return float(run["ended"] - run["started"] + (run.get("spent") or 0.0))


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None for fewer than two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def minimizes(study: Json) -> bool:
    return bool(study.get("direction", "minimize") == "minimize")


def cost(study: Json, value: float) -> float:
    """The objective with its sign such that lower is better."""
    return value if minimizes(study) else -value


def finished(study: Json) -> list[Json]:
    return [trial for trial in study["trials"] if trial["state"] == "ok" and is_number(trial["value"])]


def incomplete(study: Json) -> list[Json]:
    """Trials that were pruned or diverged, so that they have no final value."""
    return [trial for trial in study["trials"] if trial["state"] in ("pruned", "diverged")]


def best(study: Json) -> Best | None:
    """The winner: of the confirmation once it has finished, else of the trials that finished; None if there is none.

    Where a second seed of the best and of its better neighbour measured the noise, the mean of both seeds decides between these two.
    Only a point whose every fresh seed finished is confirmed, or the lucky seeds of an unstable point would win; one that
    diverged in its confirmation wins only if nothing else finished. A change that is compared with a base wins only if it is better
    beyond the noise; else the base stays.
    """
    is_open = confirmation_open(study)
    confirmed = [] if is_open else [row for row in confirmation_rows(study) if unconfirmed(row) is None]
    beside_a_cliff = unstable(study)
    candidates = confirmed or [trial for trial in finished(study) if trial["number"] not in beside_a_cliff] or finished(study)
    if study.get("ablate"):
        better = {row.label for row in differences(study) if row.verdict == "better"} | {study["ablate"]["labels"][0]}
        candidates = [trial for trial in candidates if trial["params"].get("ablate") in better]
    if not candidates:
        return None
    trial = min(candidates, key=lambda row: (cost(study, trial_value(row)), row["number"]))
    repeated = {} if confirmed or is_open else repeated_values(study)
    if trial["number"] not in repeated:
        values = run_values(trial)
        return Best(trial, trial_value(trial), standard_error(values), max(1, len(values)), bool(confirmed))
    trial = min((row for row in candidates if row["number"] in repeated), key=lambda row: cost(study, fmean(repeated[row["number"]])))
    values = repeated[trial["number"]]
    return Best(trial, fmean(values), standard_error(values), len(values), False)


def confirmation_rows(study: Json, *, noise: bool = False) -> list[Json]:
    """Rows of the confirmation; with ``noise`` those of the second seeds that measure the noise."""
    rows = study.get("confirm") or []
    return [row for row in rows if any(str(run.get("path")).startswith("noise/") for run in row["runs"]) is noise]


def repeated_values(study: Json) -> dict[int, list[float]]:
    """Number of a trial -> its value with each seed, where a second one measured the noise."""
    first = {trial["number"]: run_values(trial) for trial in study["trials"]}
    rows = confirmation_rows(study, noise=True)
    return {row["number"]: [*first.get(row["number"], []), *run_values(row)] for row in rows if run_values(row)}


def unstable(study: Json) -> set[int]:
    """Numbers of trials that diverged with a fresh seed, or lost more than 5 % with a second one: they are beside a cliff."""
    diverged = {row["number"] for row in study.get("confirm") or [] if any(run["state"] == "diverged" for run in row["runs"])}
    return diverged | {number for number, values in repeated_values(study).items() if on_a_cliff(values)}


def confirmation_open(study: Json) -> bool:
    return any(run["state"] in ("running", "waiting", "stopped") for row in study.get("confirm") or [] for run in row["runs"])


def unconfirmed(row: Json) -> str | None:
    """Why a point is not confirmed, as in ``1 of 3 seeds diverged``; None if every seed finished."""
    done = len(run_values(row))
    return not_ok(row) or (None if done == len(row["runs"]) else f"{done} of {counted(len(row['runs']), 'seed')} ended")


def not_ok(row: Json) -> str | None:
    """``1 of 3 seeds diverged``; None if no run of the row ended early."""
    states = [run["state"] for run in row["runs"]]
    early = [state for state in ("diverged", "failed", "stopped", "pruned") if state in states]  # the last may be what the first caused
    of = f" of {counted(len(states), 'seed')}"
    return ", ".join(f"{states.count(state)}{of if n == 0 else ''} {state}" for n, state in enumerate(early)) or None


def objective_text(value: float, like: float | None = None, sign: str = "") -> str:
    """An objective, or a difference of two ``like`` it: four decimals, as losses have them, or five digits where it is small or very large."""
    size = abs(value if like is None else like)
    if size == 0 or 0.1 <= size < 1e6:
        return f"{value:{sign}.4f}"
    text, _, power = f"{value:{sign}.5g}".partition("e")
    return f"{text}e{int(power)}" if power else text


def param_text(value: Any) -> str:
    """A parameter's value as people type it, in three digits: 2e-3, 1.83e-4, 0.1, 64, one_cycle."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.05 <= abs(value) < 1000 or not math.isfinite(value):
        return _rounded(value, 3)
    if value.is_integer() and abs(value) < 1e5:
        return f"{value:.0f}"
    mantissa, power = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def _rounded(value: float, digits: int) -> str:
    """So many digits; below 1 as many as the distance from 1 needs: a beta2 of 0.999 is not 1."""
    if 0.9 < value < 1:
        digits = max(digits, digits - 2 - math.floor(math.log10(1 - value)))
    return f"{value:.{digits}g}"


def axis_names(study: Json) -> dict[str, str]:
    """Short name of every axis: the last part of its key, unless two share it."""
    last = {axis["key"]: axis["key"].lstrip("+").rpartition(".")[2] for axis in study["axes"]}
    return {key: name if list(last.values()).count(name) == 1 else key.lstrip("+") for key, name in last.items()}


def params_text(study: Json, params: Json) -> str:
    """``lr 2e-3, batch_size 32``."""
    called = axis_names(study)
    return ", ".join(
        param_text(value) if key == "ablate" else f"{called.get(key, key)} {param_text(value)}" for key, value in params.items()
    )


def scales(study: Json) -> list[Scale]:
    """Axes of numbers, the learning rate first: it is what people look for."""
    called, found = axis_names(study), []
    for axis in study["axes"]:
        values = [*(trial["params"].get(axis["key"]) for trial in study["trials"]), *(axis.get("choices") or [])]
        numbers = [value for value in (*values, axis.get("low"), axis.get("high")) if value is not None]
        if not numbers or not all(map(is_number, numbers)):
            continue
        low, high, middle = min(numbers), max(numbers), median(set(numbers))
        geometric = low > 0 and (high > 20 * low or abs(middle - math.sqrt(low) * math.sqrt(high)) < abs(middle - (low + high) / 2))
        log = low > 0 and bool(axis.get("log") or axis.get("powers") or geometric)
        ends = (axis["low"], axis["high"]) if axis.get("low") is not None else (low, high)
        declared = axis.get("declared")
        declared = float(declared) if is_number(declared) and (declared > 0 or not log) else None
        integer = all(isinstance(value, int) for value in values if value is not None)
        found.append(Scale(axis["key"], called[axis["key"]], log, bool(axis.get("powers")), integer, ends, declared))
    return sorted(found, key=lambda scale: scale.name != "lr")


def axis_curves(study: Json, scale: Scale) -> list[Curve]:
    """Finished trials along an axis, one curve for each setting of the other axes; a single one without a label if they are too many."""
    groups: dict[tuple[Any, ...], list[tuple[float, float, Json]]] = {}
    for trial in finished(study):
        groups.setdefault(_others(trial, scale), []).append((trial["params"][scale.key], trial_value(trial), trial))
    if len(groups) > 8 or (len(groups) > 1 and len(groups) * 2 > sum(map(len, groups.values()))):
        groups = {(): [point for points in groups.values() for point in points]}
    listed = {axis["key"]: axis.get("choices") or [] for axis in study["axes"]}
    ordered = sorted(groups, key=lambda group: [listed[key].index(value) if value in listed[key] else value for key, value in group])
    return [(params_text(study, dict(group)), sorted(groups[group], key=lambda point: point[:2])) for group in ordered]


def _others(trial: Json, scale: Scale) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in trial["params"].items() if key != scale.key)


def best_curve(study: Json, scale: Scale) -> list[tuple[float, float]]:
    """Value on the axis and cost of the trials that differ from the best one in this axis alone; infinite for incomplete and unstable ones."""
    winner = best(study)
    if winner is None:
        return []
    no_value = unstable(study) - {winner.trial["number"]} | {trial["number"] for trial in incomplete(study)}
    rows = [row for row in [*finished(study), *incomplete(study)] if _others(row, scale) == _others(winner.trial, scale)]
    costs = [math.inf if row["number"] in no_value else cost(study, trial_value(row)) for row in rows]
    return sorted((float(row["params"][scale.key]), value) for row, value in zip(rows, costs, strict=True))


def cliff(study: Json, scale: Scale) -> tuple[float, float] | None:
    """Value and cost of the next larger value than the best, where it is at most twice as large and more than 5 % worse, or incomplete."""
    winner = best(study)
    if winner is None or not scale.log or scale.powers:
        return None
    value, curve = winner.trial["params"][scale.key], best_curve(study, scale)
    next_value, loss = next((point for point in curve if point[0] > value), (math.inf, 0.0))
    lowest = min(loss for _, loss in curve)
    return (next_value, loss) if next_value <= 2.02 * value and loss > lowest + CLIFF * abs(lowest) else None


def near_optimal(study: Json, scale: Scale) -> NearOptimal | None:
    """The near-optimal interval on an axis; None with one value along the best trial's curve."""
    points = best_curve(study, scale)
    if len({value for value, _ in points}) < 2:
        return None
    repeated, excluded = repeated_values(study), unstable(study)
    rows = [repeated.get(trial["number"], run_values(trial)) for trial in study["trials"] if trial["number"] not in excluded]
    rows += [run_values(row) for row in confirmation_rows(study)]
    return near_optimal_interval(
        points, log=scale.log, sd=seed_sd(rows), freedom=seed_freedom(rows), runs=max(1, study.get("repeats") or 1)
    )


def interval_ends(study: Json, scale: Scale, found: NearOptimal) -> tuple[float, float]:
    """Ends of an interval that can be typed: two digits, or whole numbers that were tried."""
    if not scale.integer:
        return float(_rounded(found.low, 2)), float(_rounded(found.high, 2))
    tried = [value for value, _ in best_curve(study, scale)]
    inside = [value for value in tried if found.low <= value <= found.high] or [min(tried, key=lambda value: abs(value - found.best))]
    return int(min(inside)), int(max(inside))


def value_limits(study: Json, values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest objective that a plot shows, such that a few runaways do not flatten the rest."""
    ordered = sorted(cost(study, value) for value in values)
    low, quarter = ordered[0], ordered[max((3 * (len(ordered) - 1)) // 4, min(2, len(ordered) - 1))]  # three or fewer are all shown
    high = min(ordered[-1], low + 3 * (quarter - low))
    return (low, high) if minimizes(study) else (-high, -low)


def learning_curves(study: Json, folder: Path) -> dict[int, list[Points]]:
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


def batch_scale(study: Json) -> Scale | None:
    return next((scale for scale in scales(study) if scale.name.startswith("batch")), None)


def best_by_batch(study: Json) -> dict[float, Json]:
    """Batch size, in order -> the best trial that has it; empty if the study does not sweep it."""
    by_cost = sorted(finished(study), key=lambda row: -cost(study, row["value"]))
    scale = batch_scale(study)
    return dict(sorted({trial["params"][scale.key]: trial for trial in by_cost}.items())) if scale else {}


def differences(study: Json) -> list[Difference]:
    """Each change against the base, paired by seed; changes that have not begun are left out.

    Better and worse are claimed by paired t-tests with Holm's correction for all changes of the study.
    """
    labels = (study.get("ablate") or {}).get("labels") or [None]
    trials = {trial["params"].get("ablate"): trial for trial in study["trials"]}
    base = trials.get(labels[0])
    if base is None:
        return []
    compared = []
    for trial in (trials[label] for label in labels[1:] if label in trials):
        done, ours = (
            {run["repeat"]: run for run in row["runs"] if run["state"] == "ok" and is_number(run["value"])} for row in (trial, base)
        )
        pairs = [(done[repeat], ours[repeat]) for repeat in sorted(done.keys() & ours.keys())]  # of runs that have the same seed
        if why := unconfirmed(base):
            why = f"the base is incomplete: {why}"
        elif not (why := unconfirmed(trial)) and len(pairs) < FEWEST:
            why = "one seed: no verdict" if len(pairs) == 1 else "no verdict: two seeds cannot decide"
        compared.append((trial, pairs, why, None if why else one_sample([run["value"] - old["value"] for run, old in pairs])))
    unread = len(labels) - 1 - len(compared)  # each counts as the comparison that it will be
    significant = holm([*(test.p if test else 1.0 for *_, test in compared), *[1.0] * unread])
    found = []
    for (trial, pairs, why, test), clear in zip(compared, significant, strict=False):
        verdict = why or ("within noise" if not (test and clear) else "better" if cost(study, test.mean) < 0 else "worse")
        timed = [(run["tokens_per_s"], old["tokens_per_s"]) for run, old in pairs if run.get("tokens_per_s") and old.get("tokens_per_s")]
        speed = sum(new for new, _ in timed) / sum(old for _, old in timed) if timed else None
        level = mean = error = None
        if pairs and not (not_ok(trial) or not_ok(base)):
            gaps = [run["value"] - old["value"] for run, old in pairs]
            level, mean, error = fmean(old["value"] for _, old in pairs), fmean(gaps), standard_error(gaps)
        half_width = test.half_width if test else None
        found.append(Difference(str(trial["params"]["ablate"]), trial, level, mean, error, half_width, speed, len(pairs), verdict))
    return found
