"""Statistics of a study: its best trial, curves along an axis and the near-optimal interval, paired differences.

Takes study.json as it was read (rows may be missing while the study runs) and gives small values for text, plots and pages. Pruned
trials never win: they were not trained to the end.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from gptshake.estimate.formatting import counted
from gptshake.estimate.lr_fit import CLIFF, NearOptimal, freedom_of, near_optimal_interval, noise, on_a_cliff
from gptshake.estimate.significance import FEWEST, Comparison, holm, paired
from gptshake.record.index import is_number

Rows = Mapping[str, Any]  # of study.json, or one of its trials or runs
MOST_CURVES = 8  # values of the other axes that get a curve of their own
WIDE = 20  # values that span a larger factor are drawn on a log scale
ENDED_EARLY = ("pruned", "diverged", "failed", "stopped")  # how a run ends that is not ok


@dataclass(frozen=True)
class Best:
    """The trial that won."""

    trial: Rows
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
        """Position of a value on the scale."""
        return math.log2(value) if self.log else value

    def inside(self, found: NearOptimal, tried: Sequence[float]) -> tuple[float, float]:
        """Ends of an interval that can be typed: two digits, or whole numbers that were tried."""
        if self.integer:
            nearest = min(tried, key=lambda value: abs(value - found.best))
            whole = [value for value in tried if found.low <= value <= found.high] or [nearest]
            return int(min(whole)), int(max(whole))
        return float(f"{found.low:.2g}"), float(f"{found.high:.2g}")


@dataclass(frozen=True)
class Curve:
    """Values of finished trials along one axis, all other axes held."""

    label: str
    points: list[tuple[float, float, Rows]]  # value on the axis, objective, trial; in order


@dataclass(frozen=True)
class Difference:
    """One change against the base, paired by seed; no numbers where a seed of either has not finished."""

    label: str
    trial: Rows
    level: float | None  # mean of the base
    mean: float | None  # change minus base
    error: float | None  # standard error of the mean
    reach: float | None  # half of the 95 % confidence interval
    speed: float | None  # tokens per second against the base's
    seeds: int  # pairs
    verdict: str

    @property
    def percent(self) -> float | None:
        """The mean as a share of the base."""
        return 100 * self.mean / abs(self.level) if self.mean is not None and self.level else None


def minimizes(study: Rows) -> bool:
    return bool(study.get("direction", "minimize") == "minimize")


def cost(study: Rows, value: float) -> float:
    """The objective with its sign such that lower is better."""
    return value if minimizes(study) else -value


def run_values(trial: Rows) -> list[float]:
    """Values of a trial's finished runs."""
    return [run["value"] for run in trial.get("runs", []) if run["state"] == "ok" and is_number(run["value"])]


def trial_value(trial: Rows) -> float:
    return float(trial["value"]) if is_number(trial.get("value")) else fmean(run_values(trial))


def finished(study: Rows, *scales: Scale) -> list[Rows]:
    """Trials that finished and have an objective, and a value on each of the scales."""
    done = [trial for trial in study["trials"] if trial["state"] == "ok" and is_number(trial["value"])]
    return [trial for trial in done if all(scale.key in trial["params"] for scale in scales)]


def incomplete(study: Rows, scale: Scale) -> list[Rows]:
    """Trials on the scale that were pruned or diverged, so that they have no final value."""
    return [trial for trial in study["trials"] if trial["state"] in ("pruned", "diverged") and scale.key in trial["params"]]


def speed_of(trial: Rows) -> float | None:
    """Mean tokens per second of a trial's runs."""
    rates = [run["tokens_per_s"] for run in trial["runs"] if run.get("tokens_per_s")]
    return fmean(rates) if rates else None


def tokens_of(study: Rows, trial: Rows) -> int | None:
    """Tokens of a trial's runs, which differ between trials where the length of a run is swept; else what the study declares."""
    return max((run["tokens"] for run in trial["runs"] if run.get("tokens")), default=study.get("tokens"))


def seconds_of(trial: Rows) -> float | None:
    """Total time of a trial's ended runs."""
    spans = [run["ended"] - run["started"] for run in trial["runs"] if run.get("ended") and run.get("started")]
    return sum(spans) if spans else None


def seconds_of_run(trial: Rows) -> float | None:
    """Mean time of a trial's runs."""
    total = seconds_of(trial)
    return total / len(trial["runs"]) if total else None


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None for fewer than two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


# The best trial, its confirmation with fresh seeds, and the noise between seeds.


def best(study: Rows) -> Best | None:
    """The winner: of the confirmation once it has finished, else of the trials that finished; None if there is none.

    Where a second seed of the best and of its better neighbour measured the noise, the mean of both seeds decides between these two.
    Only a point whose every fresh seed finished is confirmed, or the lucky seeds of an unstable point would win; one that
    diverged in its confirmation wins only if nothing else finished. A change that is compared with a base wins only if it is better
    beyond the noise; else the base stays.
    """
    is_open = confirmation_open(study)
    confirmed = [] if is_open else [row for row in confirmation_rows(study) if unconfirmed(row) is None]
    stable = [trial for trial in finished(study) if trial["number"] not in unstable(study)]
    candidates = confirmed or stable or finished(study)
    if study.get("ablate"):
        better = {row.label for row in differences(study) if row.verdict == "better"} | {study["ablate"]["labels"][0]}
        candidates = [trial for trial in candidates if trial["params"].get("ablate") in better]
    if not candidates:
        return None
    trial = min(candidates, key=lambda row: (cost(study, trial_value(row)), row["number"]))
    values = run_values(trial)
    repeated = {} if confirmed or is_open else repeated_values(study)
    if trial["number"] in repeated:
        trial = min((row for row in candidates if row["number"] in repeated), key=lambda row: cost(study, fmean(repeated[row["number"]])))
        values = repeated[trial["number"]]
        return Best(trial, fmean(values), standard_error(values), len(values), False)
    return Best(trial, trial_value(trial), standard_error(values), max(1, len(values)), bool(confirmed))


def confirmation_rows(study: Rows, *, noise: bool = False) -> list[Rows]:
    """Rows of the confirmation; with ``noise`` those of the second seeds that measure the noise."""
    rows = study.get("confirm") or []
    return [row for row in rows if any(str(run.get("path")).startswith("noise/") for run in row["runs"]) is noise]


def repeated_values(study: Rows) -> dict[int, list[float]]:
    """Number of a trial -> its value with each seed, where a second one measured the noise."""
    first = {trial["number"]: run_values(trial) for trial in study["trials"]}
    rows = confirmation_rows(study, noise=True)
    return {row["number"]: [*first.get(row["number"], []), *run_values(row)] for row in rows if run_values(row)}


def unstable(study: Rows) -> set[int]:
    """Numbers of trials that diverged with a fresh seed, or lost more than 5 % with a second one: they are beside a cliff."""
    diverged = {row["number"] for row in study.get("confirm") or [] if any(run["state"] == "diverged" for run in row["runs"])}
    return diverged | {number for number, values in repeated_values(study).items() if on_a_cliff(values)}


def confirmation_open(study: Rows) -> bool:
    """Whether runs of the confirmation are still to come."""
    return any(run["state"] in ("running", "waiting", "stopped") for row in study.get("confirm") or [] for run in row["runs"])


def unconfirmed(row: Rows) -> str | None:
    """Why a point is not confirmed, as in ``1 of 3 seeds diverged``; None if every seed finished."""
    done = len(run_values(row))
    return not_ok(row) or (None if done == len(row["runs"]) else f"{done} of {counted(len(row['runs']), 'seed')} ended")


def not_ok(row: Rows) -> str | None:
    """``1 of 3 seeds diverged``; None if no run of the row ended early."""
    states = [run["state"] for run in row["runs"]]
    early = [state for state in ("diverged", "failed", "stopped", "pruned") if state in states]  # the last may be what the first caused
    of = f" of {counted(len(states), 'seed')}"
    return ", ".join(f"{states.count(state)}{of if n == 0 else ''} {state}" for n, state in enumerate(early)) or None


# Texts of values and parameters.


def digits(value: float, like: float | None = None, sign: str = "") -> str:
    """An objective for people: four decimals, as losses have them, or five digits where it is small or very large.

    Args:
        value: the objective, or a difference of two.
        like: the size of the objective, if the value is a difference.
        sign: ``+`` shows the sign of positive values, too.
    """
    size = abs(value if like is None else like)
    if size == 0 or 0.1 <= size < 1e6:
        return f"{value:{sign}.4f}"
    text, _, power = f"{value:{sign}.5g}".partition("e")
    return f"{text}e{int(power)}" if power else text


def short(value: Any) -> str:
    """A parameter's value as people type it, in three digits: 2e-3, 1.83e-4, 0.1, 64, one_cycle."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.05 <= abs(value) < 1000 or not math.isfinite(value):
        return f"{value:.3g}"
    mantissa, power = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def names(study: Rows) -> dict[str, str]:
    """Short name of every axis: the last part of its key, unless two share it."""
    last = {axis["key"]: axis["key"].lstrip("+").rpartition(".")[2] for axis in study["axes"]}
    return {key: name if list(last.values()).count(name) == 1 else key.lstrip("+") for key, name in last.items()}


def params_text(study: Rows, params: Rows) -> str:
    """``lr 2e-3, batch_size 32``."""
    called = names(study)
    return ", ".join(short(value) if key == "ablate" else f"{called.get(key, key)} {short(value)}" for key, value in params.items())


# Axes of numbers, the curves along them, and the interval in which the best value lies.


def scales(study: Rows) -> list[Scale]:
    """Axes of numbers, the learning rate first: it is what people look for."""
    found = [scale for axis in study["axes"] if (scale := _scale(study, axis))]
    return sorted(found, key=lambda scale: scale.name != "lr")


def _scale(study: Rows, axis: Rows) -> Scale | None:
    values = [trial["params"].get(axis["key"]) for trial in study["trials"]] + list(axis.get("choices") or [])
    numbers = [value for value in [*values, axis.get("low"), axis.get("high")] if value is not None]
    if not numbers or not all(is_number(value) for value in numbers):
        return None
    log = min(numbers) > 0 and bool(axis.get("log") or axis.get("powers") or _geometric(sorted(set(numbers))))
    ends = (axis["low"], axis["high"]) if axis.get("low") is not None else (min(numbers), max(numbers))
    declared = axis.get("declared")
    declared = float(declared) if declared is not None and is_number(declared) and (declared > 0 or not log) else None
    whole = all(isinstance(value, int) for value in values if value is not None)
    return Scale(axis["key"], names(study)[axis["key"]], log, bool(axis.get("powers")), whole, ends, declared)


def _geometric(values: Sequence[float]) -> bool:
    """Whether values above 0 want a log scale: they span a large factor, or their ratios are more even than their distances."""
    if len(values) < 3 or values[-1] > WIDE * values[0]:
        return values[-1] > WIDE * values[0]
    ratios = [math.log(upper / lower) for lower, upper in itertools.pairwise(values)]
    gaps = [upper - lower for lower, upper in itertools.pairwise(values)]
    return max(ratios) / min(ratios) < max(gaps) / min(gaps)


def curves(study: Rows, scale: Scale) -> list[Curve]:
    """Finished trials along an axis, one curve for each setting of the other axes; a single one without a label if they are too many."""
    groups: dict[tuple[Any, ...], list[tuple[float, float, Rows]]] = {}
    for trial in finished(study, scale):
        groups.setdefault(_others(trial, scale), []).append((trial["params"][scale.key], trial_value(trial), trial))
    if len(groups) > MOST_CURVES or (len(groups) > 1 and len(groups) * 2 > sum(map(len, groups.values()))):
        groups = {(): [point for points in groups.values() for point in points]}
    listed = {axis["key"]: list(axis.get("choices") or []) for axis in study["axes"]}

    def order(group: tuple[tuple[str, Any], ...]) -> list[float]:
        return [listed[key].index(value) if isinstance(value, str) and value in listed[key] else value for key, value in group]

    ordered = sorted(groups.items(), key=lambda item: order(item[0]))
    return [Curve(params_text(study, dict(key)), sorted(points, key=lambda point: point[:2])) for key, points in ordered]


def _others(trial: Rows, scale: Scale) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in trial["params"].items() if key != scale.key)


def best_curve(study: Rows, scale: Scale) -> list[tuple[float, float]]:
    """Value on the axis and cost of the trials that differ from the best one in this axis alone; infinite for incomplete and unstable ones."""
    winner = best(study)
    if winner is None:
        return []
    others, no_value = _others(winner.trial, scale), unstable(study) - {winner.trial["number"]}
    rows = [trial for trial in [*finished(study, scale), *incomplete(study, scale)] if _others(trial, scale) == others]
    costs = [cost(study, trial_value(trial)) if trial["state"] == "ok" and trial["number"] not in no_value else math.inf for trial in rows]
    return sorted((float(trial["params"][scale.key]), value) for trial, value in zip(rows, costs, strict=True))


def cliff(study: Rows, scale: Scale) -> tuple[float, float] | None:
    """Value and cost of the next larger value than the best, where it is at most twice as large and more than 5 % worse, or incomplete."""
    winner = best(study)
    if winner is None or not scale.log or scale.powers:
        return None
    value, curve = winner.trial["params"][scale.key], best_curve(study, scale)
    next_value, loss = next((point for point in curve if point[0] > value), (math.inf, 0.0))
    lowest = min(loss for _, loss in curve)
    return (next_value, loss) if next_value <= 2.02 * value and loss > lowest + CLIFF * abs(lowest) else None


def near_optimal(study: Rows, scale: Scale) -> NearOptimal | None:
    """The near-optimal interval on an axis; None with fewer than three values along the best trial's curve."""
    points = best_curve(study, scale)
    if len({value for value, loss in points if math.isfinite(loss)}) < 3:
        return None
    repeated, excluded = repeated_values(study), unstable(study)
    rows = [repeated.get(trial["number"], run_values(trial)) for trial in study["trials"] if trial["number"] not in excluded]
    rows += [run_values(row) for row in confirmation_rows(study)]
    return near_optimal_interval(points, log=scale.log, sd=noise(rows), freedom=freedom_of(rows), runs=max(1, study.get("repeats") or 1))


# Limits and ticks that plots share.


def value_limits(study: Rows, values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest objective that a plot shows, such that a few runaways do not flatten the rest."""
    ordered = sorted(cost(study, value) for value in values)
    quarter = ordered[max((3 * (len(ordered) - 1)) // 4, min(2, len(ordered) - 1))]  # three or fewer are all shown
    ends = (ordered[0], min(ordered[-1], max(quarter, ordered[0] + 3 * (quarter - ordered[0]))))
    return ends if minimizes(study) else (-ends[1], -ends[0])


def round_values(values: Sequence[float]) -> list[float]:
    """Ticks of a log scale: 1, 2, 5 of each decade, or the values themselves if they are few, or powers of two."""
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high / low < 300 else (1, 3) if high / low < 3e4 else (1,)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    decades = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
    powers = len(set(values)) <= 10 and all(value >= 1 and math.log2(value).is_integer() for value in values)
    few = len(set(values)) <= 6 or sum(low <= tick <= high for tick in decades) < 3
    return sorted(set(values)) if powers or few else decades


# Changes against a base.


def differences(study: Rows) -> list[Difference]:
    """Each change against the base, paired by seed; changes that have not begun are left out.

    Better and worse are claimed by paired t-tests with Holm's correction for all changes of the study.
    """
    labels = (study.get("ablate") or {}).get("labels") or []
    trials = {trial["params"].get("ablate"): trial for trial in study["trials"]}
    base = trials.get(labels[0]) if labels else None
    if base is None:
        return []
    changes = [trials[label] for label in labels[1:] if label in trials]
    pairs = [_pairs(trial, base) for trial in changes]
    undecided = [_undecided(trial, base, len(those)) for trial, those in zip(changes, pairs, strict=True)]
    tests = [None if why else paired([a["value"] - b["value"] for a, b in those]) for those, why in zip(pairs, undecided, strict=True)]
    unread = len(labels) - 1 - len(changes)  # each counts as the comparison that it will be
    significant = holm([*(test.p if test else 1.0 for test in tests), *[1.0] * unread])
    found = []
    for trial, those, test, why, clear in zip(changes, pairs, tests, undecided, significant, strict=False):
        verdict = why or "within noise"
        if test and clear and not why:
            verdict = "better" if cost(study, test.mean) < 0 else "worse"
        found.append(_difference(trial, those, test, verdict, complete=bool(those) and not (not_ok(trial) or not_ok(base))))
    return found


def _difference(trial: Rows, pairs: Sequence[tuple[Rows, Rows]], test: Comparison | None, verdict: str, *, complete: bool) -> Difference:
    gaps = [run["value"] - base["value"] for run, base in pairs]
    timed = [(run, base) for run, base in pairs if run.get("tokens_per_s") and base.get("tokens_per_s")]
    speed = sum(run["tokens_per_s"] for run, _ in timed) / sum(base["tokens_per_s"] for _, base in timed) if timed else None
    level = fmean(base["value"] for _, base in pairs) if complete else None
    mean, error = (fmean(gaps), standard_error(gaps)) if complete else (None, None)
    return Difference(str(trial["params"]["ablate"]), trial, level, mean, error, test.reach if test else None, speed, len(gaps), verdict)


def _undecided(trial: Rows, base: Rows, pairs: int) -> str | None:
    """Why a change and the base cannot be compared; None if they can."""
    if why := not_ok(base):
        return f"the base is incomplete: {why}"
    if why := not_ok(trial):
        return why
    if pairs < len(trial["runs"]):
        return f"{pairs} of {counted(len(trial['runs']), 'seed')} ended"
    if pairs < FEWEST:
        return "one seed: no verdict" if pairs == 1 else "no verdict: two seeds cannot decide"
    return None


def _pairs(trial: Rows, base: Rows) -> list[tuple[Rows, Rows]]:
    """Finished runs of a change and of the base that have the same seed."""
    ours, theirs = (
        {run["repeat"]: run for run in row["runs"] if run["state"] == "ok" and is_number(run["value"])} for row in (trial, base)
    )
    return [(ours[repeat], theirs[repeat]) for repeat in sorted(ours.keys() & theirs.keys())]
