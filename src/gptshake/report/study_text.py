"""A study in words and letters, for people behind ssh: what it found and how sure that is, its table, its basin.

Everything is text made from study.json; the sentences are the report's, too.
"""

import math
import re
from collections import Counter
from pathlib import Path
from statistics import fmean

from gptshake.estimate.words import counted, duration, short_count
from gptshake.report.batch_time import at_equal_time, batch_scale, best_of_each, learning_curves
from gptshake.report.letters import basin_text as basin_text
from gptshake.report.rerun import command, overrides_of, use
from gptshake.report.study_stats import (
    ENDED_EARLY,
    Best,
    Difference,
    Rows,
    Scale,
    again,
    basin_of,
    best,
    best_curve,
    cliff,
    confirmation_open,
    cost,
    differences,
    digits,
    finished,
    fresh,
    names,
    not_ok,
    params_text,
    run_values,
    scales,
    seconds_of,
    short,
    speed_of,
    standard_error,
    tokens_of,
    unconfirmed,
    unstable,
)
from gptshake.report.tables import aligned

CUT = 29  # percent of the run: a warm-up that takes more was cut, and is longer in a longer run
UNMEASURED = "values that were tried; the noise between seeds was not measured: repeats=3 measures it"


def verdict(study: Rows, folder: Path | None = None) -> list[str]:
    """What the study found, how sure that is and how to use it: sentences to act on.

    Args:
        study: study.json.
        folder: where the study lies; by default ``multirun/<name>``.
    """
    winner = best(study)
    if winner is None:
        return [*_progress(study), _no_answer(study), *_losses(study)]
    found = (
        _compared(study, winner)
        if study.get("ablate")
        else [_winner(study, winner), *_confirmation(study, winner), *_sureness(study), *_speeds(study, folder)]
    )
    return [*_progress(study), *found, *_validity(study, winner), *_losses(study), *_next(study, winner, folder)]


def _progress(study: Rows) -> list[str]:
    if study["state"] == "done":
        return []
    ended = sum(trial["state"] in ("ok", "pruned", "diverged") for trial in study["trials"])
    how = "is running" if study["state"] == "running" else "was interrupted; the same command resumes it"
    through = f"{ended} of {study['n_trials']} trials" if study.get("n_trials") else counted(ended, "trial")
    return [f"The study {how}: {through} {'has' if through == '1 trial' else 'have'} ended."]


def _no_answer(study: Rows) -> str:
    base = next(
        (trial for trial in study["trials"] if study.get("ablate") and trial["params"].get("ablate") == study["ablate"]["labels"][0]), None
    )
    if base and (why := not_ok(base)):
        return f"The base is incomplete ({why}), so there is nothing to compare with and no answer."
    if (total := len(study["trials"])) and all(trial["state"] in ENDED_EARLY for trial in study["trials"]) and study["state"] == "done":
        how = "diverged" if all(trial["state"] == "diverged" for trial in study["trials"]) else "ended early"
        return (
            f"All {counted(total, 'trial')} {how}, so there is no answer: try smaller learning rates, or other values."
            if total > 1
            else (f"The only trial {how}, so there is no answer: try a smaller learning rate, or another value.")
        )
    return "No trial has finished yet, so there is no answer."


def _winner(study: Rows, winner: Best) -> str:
    text = f"The best is trial {winner.trial['number']}: {params_text(study, winner.trial['params'])}, {study['objective']} {digits(winner.value)}"
    if winner.error is not None:
        text += f" ± {digits(winner.error, winner.value)} (mean of {winner.seeds} seeds, standard error)"
    tokens = tokens_of(study, winner.trial)
    text += f" after {short_count(tokens)} tokens" if tokens else ""
    return text + (", confirmed with fresh seeds." if winner.confirmed else ".")


def _confirmation(study: Rows, winner: Best) -> list[str]:
    """The means over fresh seeds, which alone decide, and why a point is not confirmed; or what a second seed gave."""
    if not fresh(study) and (again(study) or study.get("noise")):
        return _second_seeds(study)
    parts = []
    for row in fresh(study):
        values, error = run_values(row), standard_error(run_values(row))
        if why := unconfirmed(row):
            parts.append(f"trial {row['number']} is not confirmed ({why})")
        else:
            parts.append(
                f"trial {row['number']} {digits(fmean(values))}" + (f" ± {digits(error, fmean(values))}" if error is not None else "")
            )
    if not parts:
        late = study["state"] == "done" and study.get("confirm_runs")
        return ["The confirmation has not begun (hydra.sweeper.timeout)."] if late else []
    if winner.confirmed:
        return [f"The confirmation: {'; '.join(parts)}."]
    return [f"The best is not confirmed: {'; '.join(parts)}.{_how_to_confirm(study)}"]


def _second_seeds(study: Rows) -> list[str]:
    rows = [f"trial {row['number']} {_again(study, row)}" for row in again(study) if row["state"] != "running"]
    if rows:
        return [f"With a second seed: {'; '.join(rows)}."]
    return ["The noise between seeds was not measured (hydra.sweeper.timeout)."] if study["state"] == "done" and best(study) else []


def _again(study: Rows, row: Rows) -> str:
    value = digits(fmean(run_values(row))) if run_values(row) else row["state"]
    return f"{value}, which is unstable" if row["number"] in unstable(study) else value


def _how_to_confirm(study: Rows) -> str:
    return " The same command resumes the confirmation." if study["state"] != "running" and confirmation_open(study) else ""


def _sureness(study: Rows) -> list[str]:
    """For every axis of numbers: between which values the best lies, whether a cliff is beside it, whether the range was wide enough."""
    sentences = []
    for scale in scales(study):
        found = basin_of(study, scale)
        if found is not None:
            low, high = map(short, scale.inside(found, [value for value, _ in best_curve(study, scale)]))
            where = f"between {low} and {high}" if low != high else f"near {low} only"
            how = f"seeds move {study['objective']} by ± {found.sd:.2g}, measured" if not found.assumed else UNMEASURED
            sentences.append(f"The best {scale.key.lstrip('+')}{_partners(study, scale)} lies {where} ({how}).")
        sentences += _beside_a_cliff(study, scale)
        if found is None:
            sentences += _outermost(study, scale)
        elif found.edge:
            sentences.append(_at_the_edge(scale, found.best, upper=found.edge == "high"))
    return sentences


def _outermost(study: Rows, scale: Scale) -> list[str]:
    """Where too few trials share the best one's other values for a basin: whether the best value of a range is the outermost one."""
    winner = best(study)
    ranges = [axis["key"] for axis in study["axes"] if axis.get("low") is not None]
    if winner is None or scale.key not in ranges or scale.key not in winner.trial["params"]:
        return []
    value = winner.trial["params"][scale.key]
    tried = [trial["params"][scale.key] for trial in study["trials"] if trial["state"] in ("ok", "pruned", "diverged")]
    if min(tried) == max(tried) or min(tried) < value < max(tried):
        return []
    return [_at_the_edge(scale, value, upper=value == max(tried))]


def _beside_a_cliff(study: Rows, scale: Scale) -> list[str]:
    """That the next larger value is far worse, and the command that looks again with a longer warm-up."""
    found, winner = cliff(study, scale), best(study)
    if found is None or winner is None:
        return []
    place, loss = found
    level = cost(study, winner.value)
    how = f"{study['objective']} is {100 * (loss - level) / abs(level):.0f} % worse" if math.isfinite(loss) else "training is not stable"
    text = f"Warning: the best lies beside a cliff: at {short(place)} {how}"
    if scale.name != "lr" or not study.get("warmer") or _has_a_larger_batch(study, winner):
        return [f"{text}."]
    swept = [_range(scale, *scale.ends) if axis["key"] == scale.key else _swept(study, axis) for axis in study["axes"]]
    again = [*study["fixed"], *swept, study["warmer"]]
    return [f"{text}. A longer warm-up moves it away and often gains:  {command(study, ['-m', *again])}"]


def _has_a_larger_batch(study: Rows, winner: Best) -> bool:
    """Whether the best batch is larger than the declared one: its warm-up is a larger share of its run than the one that was doubled."""
    scale = batch_scale(study)
    return scale is not None and scale.declared is not None and winner.trial["params"].get(scale.key, 0) > scale.declared


def _swept(study: Rows, axis: Rows) -> str:
    """The override that sweeps an axis once more."""
    scale = next((scale for scale in scales(study) if scale.key == axis["key"]), None)
    if axis.get("low") is None or scale is None:
        return f"{axis['key']}={','.join(map(short, axis['choices']))}"
    return _range(scale, *scale.ends)


def _range(scale: Scale, low: float, high: float) -> str:
    """The override that sweeps an axis from one end to the other."""
    interval = f"interval({_typed(scale, low)},{_typed(scale, high)})"
    interval = f"int({interval})" if scale.integer else interval
    tags = "log,powers_of_two," if scale.powers else "log,"
    return f"{scale.key}={f'tag({tags}{interval})' if scale.log else interval}"


def _partners(study: Rows, scale: Scale) -> str:
    """The best trial's values of the other axes, for which the interval holds."""
    winner = best(study)
    others = {key: value for key, value in winner.trial["params"].items() if key != scale.key} if winner else {}
    return f" at {params_text(study, others)}" if others else ""


def _at_the_edge(scale: Scale, value: float, *, upper: bool) -> str:
    low, high = scale.ends
    key = scale.key.lstrip("+")
    if (upper and value < high) or (not upper and value > low):
        return f"Warning: no {'larger' if upper else 'smaller'} {key} than the best, {short(value)}, has been tried to the end."
    if scale.integer and scale.log and not upper and low <= 1:
        return f"The best {key} is 1, the smallest there is."
    factor = (4 if scale.powers else 10) if scale.log else 2
    low, high = (low, high * factor) if upper else (low / factor, high)
    return f"Warning: the best {key} lies at the {'upper' if upper else 'lower'} end of its range: widen it, e.g. '{_range(scale, low, high)}'."


def _typed(scale: Scale, value: float) -> str:
    return str(max(1, round(value)) if scale.log else round(value)) if scale.integer else short(float(value))


def _speeds(study: Rows, folder: Path | None) -> list[str]:
    """For batch sizes the speed beside the loss: the better of two equal losses is the faster one, and which one is at equal time."""
    scale = batch_scale(study)
    found = best_of_each(study, scale) if scale else {}
    if scale is None or len(found) < 2:
        return []
    parts = [f"{short(value)}: {digits(trial['value'])}{_at_speed(trial)}" for value, trial in found.items()]
    sentence = f"{study['objective']} by {scale.key.lstrip('+')}, each with its best partner: {'; '.join(parts)}."
    return [sentence, *(at_equal_time(study, learning_curves(study, folder)) if folder else [])]


def _at_speed(trial: Rows) -> str:
    speed = speed_of(trial)
    return f" at {short_count(speed)} tokens/s" if speed else ""


def _validity(study: Rows, winner: Best) -> list[str]:
    tokens = tokens_of(study, winner.trial)
    words = study.get("schedule") or ""
    share = re.search(r"([\d.]+) % of the run", words)
    other = "a longer warm-up takes a higher rate" if share and float(share[1]) >= CUT else "longer runs may want another value"
    return [f"This is valid for {short_count(tokens)} tokens{f' ({words})' if words else ''}: {other}."] if tokens else []


def _losses(study: Rows) -> list[str]:
    """Which trials did not come to the end, and why those failed that did."""
    counts = Counter(trial["state"] for trial in study["trials"] if trial["state"] in ENDED_EARLY)
    if not counts:
        return []
    parts = [f"{counts[state]} {state}" for state in ENDED_EARLY if counts[state]]
    why = [f"trial {trial['number']}: {trial['reason']}" for trial in study["trials"] if trial["state"] == "failed" and trial.get("reason")]
    more = f"; {len(why) - 3} more" if len(why) > 3 else ""
    total = len(study["trials"])
    end = f" ({'; '.join(why[:3])}{more})" if why else ""
    return [f"{sum(counts.values())} of {total} trials ended early: {', '.join(parts)}{end}."]


def _next(study: Rows, winner: Best, folder: Path | None) -> list[str]:
    place = folder or Path("multirun") / study["name"]
    build = [f"Build on it:  {use(study, place)}"] if study.get("program") == "gptshake" else []  # another app has no experiment=
    return [f"Repeat it:  {command(study, overrides_of(study, winner))}", *build]


def _compared(study: Rows, winner: Best) -> list[str]:
    found = differences(study)
    labels = study["ablate"]["labels"]
    kept = winner.trial["params"].get("ablate")
    if not found:
        return [f"{_winner(study, winner)} No change has a finished pair with {labels[0]} yet."]
    sentences = [f"{row.label}: {', '.join(filter(None, [row.verdict, difference_text(study, row)]))}." for row in found]
    many = f" with Holm's correction for {counted(len(labels) - 1, 'change')}" if len(labels) > 2 else ""
    rule = f"Better and worse are claimed where a paired t-test finds a difference at 5 %{many}"
    if kept == labels[0]:
        change = "is better" if any(row.verdict == "worse" for row in found) else "is"
        return [*sentences, f"{rule}; no change {change}, so {labels[0]} stays."]
    return [*sentences, f"{rule}. The best is {kept}, {study['objective']} {digits(winner.value)}."]


def difference_text(study: Rows, row: Difference) -> str:
    """``-0.0210 ± 0.0040 val/bpb (-0.90 %, 3 seeds), 1.80x the speed``; nothing where seeds are missing."""
    if row.mean is None:
        return ""
    error = f" ± {digits(row.error, row.level)}" if row.error is not None else ""
    speed = f", {row.speed:.2f}x the speed" if row.speed else ""
    share = f"{row.percent:+.2f} %, " if row.percent is not None else ""
    return f"{digits(row.mean, row.level, '+')}{error} {study['objective']} ({share}{counted(row.seeds, 'seed')}){speed}"


def table_text(study: Rows) -> str:
    """The trials in order of their numbers, the best marked; for a comparison with a base its paired differences."""
    if study.get("ablate"):
        return aligned([DIFFERENCE_HEAD, *difference_rows(study)], left=(0,))
    head, rows = table(study)
    return aligned([["", *head], *rows], left=(0, 2, len(head))) if rows else ""


DIFFERENCE_HEAD = ["change", "difference", "± error", "percent", "speed", "seeds", "verdict"]


def difference_rows(study: Rows) -> list[list[str]]:
    """The cells of the table of paired differences, the base first."""
    base = study["ablate"]["labels"][0]
    values = [trial["value"] for trial in finished(study) if trial["params"].get("ablate") == base]
    rows = [[base, digits(values[0]) if values else "", "", "", "1.00x", "", study["objective"]]]
    for row in differences(study):
        mean = digits(row.mean, row.level, "+") if row.mean is not None else "-"
        error = digits(row.error, row.level) if row.error is not None else "-"
        share = f"{row.percent:+.2f} %" if row.percent is not None else "-"
        speed = f"{row.speed:.2f}x" if row.speed else "-"
        rows.append([row.label, mean, error, share, speed, str(row.seeds), row.verdict])
    return rows


def table(study: Rows) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of trials; a row begins with ``*`` if it is the best."""
    winner = best(study)
    called = names(study)
    keys = [axis["key"] for axis in study["axes"]]
    head = ["trial", "state", *(called[key] for key in keys), study["objective"], "tokens/s", "took", "why"]
    rows = []
    for trial in sorted(study["trials"], key=lambda row: row["number"]):
        mark = "*" if winner and trial["number"] == winner.trial["number"] else ""
        cells = [short(trial["params"].get(key, "")) for key in keys]
        rows.append([mark, str(trial["number"]), trial["state"], *cells, *_results(trial)])
    return head, rows


def _results(trial: Rows) -> list[str]:
    value, speed, seconds = trial["value"], speed_of(trial), seconds_of(trial)
    reason, at = trial.get("reason") or "", trial.get("at")
    place = f"at {short_count(at)} tokens" if at is not None and trial["state"] != "ok" and f"{at:,}" not in reason else ""
    why = ", ".join(filter(None, [reason, place]))
    return [
        digits(value) if value is not None else "",
        short_count(speed) if speed else "",
        duration(seconds) if seconds is not None else "",
        " ".join(why.split())[:80],
    ]
