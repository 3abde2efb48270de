"""A study in words: what it found and how sure that is, and its table. The sentences are those of the terminal and of the report."""

import math
import re
from collections import Counter
from pathlib import Path
from statistics import fmean

from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.report import study_stats as stats
from gptshake.report.batch_time import at_equal_time, batch_scale, best_of_each, learning_curves
from gptshake.report.rerun import command, overrides_of, use
from gptshake.report.study_stats import Best, Difference, Rows, Scale
from gptshake.report.tables import aligned

LONG_WARMUP = 29  # percent of the run: a warm-up that takes more was cut, and is longer in a longer run
UNMEASURED = "values that were tried; the noise between seeds was not measured: repeats=3 measures it"
DIFFERENCE_HEAD = ["change", "difference", "± error", "percent", "speed", "seeds", "verdict"]


def verdict(study: Rows, folder: Path | None = None) -> list[str]:
    """What the study found, how sure that is and how to use it: sentences to act on.

    Args:
        study: study.json.
        folder: where the study lies; by default ``multirun/<name>``.
    """
    winner = stats.best(study)
    if winner is None:
        return [*_progress(study), _no_winner(study), *_ended_early(study)]
    if study.get("ablate"):
        found = _compared(study, winner)
    else:
        found = [_winner(study, winner), *_confirmation(study, winner), *_intervals(study, winner), *_speeds(study, folder)]
    tokens, schedule = stats.tokens_of(study, winner.trial), study.get("schedule") or ""
    share = re.search(r"([\d.]+) % of the run", schedule)
    other = "a longer warm-up allows a higher rate" if share and float(share[1]) >= LONG_WARMUP else "longer runs may need another value"
    valid = [f"This is valid for {short_count(tokens)} tokens{f' ({schedule})' if schedule else ''}: {other}."] if tokens else []
    place = folder or Path("multirun") / study["name"]
    build = [f"Build on it:  {use(study, place)}"] if study.get("program") == "gptshake" else []  # another app has no experiment=
    repeat = f"Repeat it:  {command(study, overrides_of(study, winner))}"
    return [*_progress(study), *found, *valid, *_ended_early(study), repeat, *build]


def _progress(study: Rows) -> list[str]:
    if study["state"] == "done":
        return []
    ended = sum(trial["state"] in ("ok", "pruned", "diverged") for trial in study["trials"])
    how = "is running" if study["state"] == "running" else "was interrupted; the same command resumes it"
    through = f"{ended} of {study['n_trials']} trials" if study.get("n_trials") else counted(ended, "trial")
    return [f"The study {how}: {through} {'has' if through == '1 trial' else 'have'} ended."]


def _no_winner(study: Rows) -> str:
    trials, labels = study["trials"], (study.get("ablate") or {}).get("labels")
    base = next((trial for trial in trials if labels and trial["params"].get("ablate") == labels[0]), None)
    if base and (why := stats.not_ok(base)):
        return f"The base is incomplete ({why}), so there is nothing to compare with and no answer."
    states = {trial["state"] for trial in trials}
    if not trials or not states <= set(stats.ENDED_EARLY) or study["state"] != "done":
        return "No trial has finished yet, so there is no answer."
    how = "diverged" if states == {"diverged"} else "ended early"
    if len(trials) == 1:
        return f"The only trial {how}, so there is no answer: try a smaller learning rate, or another value."
    return f"All {counted(len(trials), 'trial')} {how}, so there is no answer: try smaller learning rates, or other values."


def _winner(study: Rows, winner: Best) -> str:
    text = f"The best is trial {winner.trial['number']}: {stats.params_text(study, winner.trial['params'])}"
    text += f", {study['objective']} {stats.digits(winner.value)}"
    if winner.error is not None:
        text += f" ± {stats.digits(winner.error, winner.value)} (mean of {winner.seeds} seeds, standard error)"
    tokens = stats.tokens_of(study, winner.trial)
    text += f" after {short_count(tokens)} tokens" if tokens else ""
    return text + (", confirmed with fresh seeds." if winner.confirmed else ".")


def _confirmation(study: Rows, winner: Best) -> list[str]:
    """The means over fresh seeds, which alone decide, and why a point is not confirmed; or what a second seed gave."""
    fresh, second, done = stats.confirmation_rows(study), stats.confirmation_rows(study, noise=True), study["state"] == "done"
    if not fresh and (second or study.get("noise")):
        parts = []
        for row in second:
            if row["state"] != "running":
                value = stats.digits(fmean(stats.run_values(row))) if stats.run_values(row) else row["state"]
                parts.append(f"trial {row['number']} {value}{', which is unstable' if row['number'] in stats.unstable(study) else ''}")
        if parts:
            return [f"With a second seed: {'; '.join(parts)}."]
        return ["The noise between seeds was not measured (hydra.sweeper.timeout)."] if done else []
    if not fresh:
        return ["The confirmation has not started (hydra.sweeper.timeout)."] if done and study.get("confirm_runs") else []
    parts = []
    for row in fresh:
        values, error = stats.run_values(row), stats.standard_error(stats.run_values(row))
        if why := stats.unconfirmed(row):
            parts.append(f"trial {row['number']} is not confirmed ({why})")
        else:
            mean = fmean(values)
            parts.append(f"trial {row['number']} {stats.digits(mean)}" + (f" ± {stats.digits(error, mean)}" if error is not None else ""))
    if winner.confirmed:
        return [f"The confirmation: {'; '.join(parts)}."]
    resume = " The same command resumes the confirmation." if study["state"] != "running" and stats.confirmation_open(study) else ""
    return [f"The best is not confirmed: {'; '.join(parts)}.{resume}"]


def _intervals(study: Rows, winner: Best) -> list[str]:
    """For every axis of numbers: between which values the best lies, whether a cliff is beside it, whether the range was wide enough."""
    sentences = []
    for scale in stats.scales(study):
        found = stats.near_optimal(study, scale)
        if found is not None:
            low, high = map(stats.short, scale.inside(found, [value for value, _ in stats.best_curve(study, scale)]))
            where = f"between {low} and {high}" if low != high else f"near {low} only"
            how = f"seeds move {study['objective']} by ± {found.sd:.2g}, measured" if not found.assumed else UNMEASURED
            others = {key: value for key, value in winner.trial["params"].items() if key != scale.key}
            partners = f" at {stats.params_text(study, others)}" if others else ""
            sentences.append(f"The best {scale.key.lstrip('+')}{partners} lies {where} ({how}).")
        sentences += _beside_a_cliff(study, winner, scale)
        if found is None:
            sentences += _outermost(study, winner, scale)
        elif found.edge:
            sentences.append(_at_the_edge(scale, found.best, upper=found.edge == "high"))
    return sentences


def _beside_a_cliff(study: Rows, winner: Best, scale: Scale) -> list[str]:
    """That the next larger value is far worse, and the command that searches again with a longer warm-up."""
    found = stats.cliff(study, scale)
    if found is None:
        return []
    value, loss = found
    level = stats.cost(study, winner.value)
    how = f"{study['objective']} is {100 * (loss - level) / abs(level):.0f} % worse" if math.isfinite(loss) else "training is not stable"
    text = f"Warning: the best lies beside a cliff: at {stats.short(value)} {how}"
    batch = batch_scale(study)  # a larger batch than the declared one has a larger share of warm-up than the one that was doubled
    larger = batch is not None and batch.declared is not None and winner.trial["params"].get(batch.key, 0) > batch.declared
    if scale.name != "lr" or not study.get("warmer") or larger:
        return [f"{text}."]
    known = {scale.key: scale for scale in stats.scales(study)}
    swept = [
        _range(known[axis["key"]], *known[axis["key"]].ends)
        if axis["key"] == scale.key or (axis.get("low") is not None and axis["key"] in known)
        else f"{axis['key']}={','.join(map(stats.short, axis['choices']))}"
        for axis in study["axes"]
    ]
    again = command(study, ["-m", *study["fixed"], *swept, *study.get("options", []), study["warmer"]])
    return [f"{text}. A longer warm-up moves it away and often gains:  {again}"]


def _outermost(study: Rows, winner: Best, scale: Scale) -> list[str]:
    """Whether the best value of a range is the outermost one, where too few trials share its other values for an interval."""
    ranges = [axis["key"] for axis in study["axes"] if axis.get("low") is not None]
    if scale.key not in ranges or scale.key not in winner.trial["params"]:
        return []
    value = winner.trial["params"][scale.key]
    tried = [trial["params"][scale.key] for trial in study["trials"] if trial["state"] in ("ok", "pruned", "diverged")]
    if min(tried) == max(tried) or min(tried) < value < max(tried):
        return []
    return [_at_the_edge(scale, value, upper=value == max(tried))]


def _at_the_edge(scale: Scale, value: float, *, upper: bool) -> str:
    low, high = scale.ends
    key = scale.key.lstrip("+")
    if (upper and value < high) or (not upper and value > low):
        return f"Warning: no {'larger' if upper else 'smaller'} {key} than the best, {stats.short(value)}, has been tried to the end."
    if scale.integer and scale.log and not upper and low <= 1:
        return f"The best {key} is 1, the smallest there is."
    factor = (4 if scale.powers else 10) if scale.log else 2
    low, high = (low, high * factor) if upper else (low / factor, high)
    return f"Warning: the best {key} lies at the {'upper' if upper else 'lower'} end of its range: widen it, e.g. '{_range(scale, low, high)}'."


def _range(scale: Scale, low: float, high: float) -> str:
    """The override that sweeps an axis from one end to the other."""
    if scale.integer:
        least = 1 if scale.log else -math.inf
        interval = f"int(interval({','.join(str(max(least, round(end))) for end in (low, high))}))"
    else:
        interval = f"interval({stats.short(float(low))},{stats.short(float(high))})"
    tags = "log,powers_of_two," if scale.powers else "log,"
    return f"{scale.key}={f'tag({tags}{interval})' if scale.log else interval}"


def _speeds(study: Rows, folder: Path | None) -> list[str]:
    """For batch sizes the speed beside the loss: the better of two equal losses is the faster one, and which one is at equal time."""
    scale = batch_scale(study)
    found = best_of_each(study, scale) if scale else {}
    if scale is None or len(found) < 2:
        return []
    parts = []
    for value, trial in found.items():
        speed = stats.speed_of(trial)
        parts.append(f"{stats.short(value)}: {stats.digits(trial['value'])}{f' at {short_count(speed)} tokens/s' if speed else ''}")
    sentence = f"{study['objective']} by {scale.key.lstrip('+')}, each with its best partner: {'; '.join(parts)}."
    return [sentence, *(at_equal_time(study, learning_curves(study, folder)) if folder else [])]


def _ended_early(study: Rows) -> list[str]:
    """How many trials ended early, how, and why those failed that did."""
    counts = Counter(trial["state"] for trial in study["trials"] if trial["state"] in stats.ENDED_EARLY)
    if not counts:
        return []
    parts = [f"{counts[state]} {state}" for state in stats.ENDED_EARLY if counts[state]]
    why = [f"trial {trial['number']}: {trial['reason']}" for trial in study["trials"] if trial["state"] == "failed" and trial.get("reason")]
    more = f"; {len(why) - 3} more" if len(why) > 3 else ""
    reasons = f" ({'; '.join(why[:3])}{more})" if why else ""
    return [f"{counts.total()} of {len(study['trials'])} trials ended early: {', '.join(parts)}{reasons}."]


def _compared(study: Rows, winner: Best) -> list[str]:
    found = stats.differences(study)
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
    return [*sentences, f"{rule}. The best is {kept}, {study['objective']} {stats.digits(winner.value)}."]


def difference_text(study: Rows, row: Difference) -> str:
    """``-0.0210 ± 0.0040 val/bpb (-0.90 %, 3 seeds), 1.80x the speed``; nothing where seeds are missing."""
    if row.mean is None:
        return ""
    error = f" ± {stats.digits(row.error, row.level)}" if row.error is not None else ""
    speed = f", {row.speed:.2f}x the speed" if row.speed else ""
    share = f"{row.percent:+.2f} %, " if row.percent is not None else ""
    return f"{stats.digits(row.mean, row.level, '+')}{error} {study['objective']} ({share}{counted(row.seeds, 'seed')}){speed}"


def table_text(study: Rows) -> str:
    """The trials in order of their numbers, the best marked; for a comparison with a base its paired differences."""
    if study.get("ablate"):
        return aligned([DIFFERENCE_HEAD, *difference_rows(study)], left=(0,))
    head, rows = trial_table(study)
    return aligned([["", *head], *rows], left=(0, 2, len(head))) if rows else ""


def difference_rows(study: Rows) -> list[list[str]]:
    """The cells of the table of paired differences, the base first."""
    base = study["ablate"]["labels"][0]
    values = [trial["value"] for trial in stats.finished(study) if trial["params"].get("ablate") == base]
    rows = [[base, stats.digits(values[0]) if values else "", "", "", "1.00x", "", study["objective"]]]
    for row in stats.differences(study):
        mean = stats.digits(row.mean, row.level, "+") if row.mean is not None else "-"
        error = stats.digits(row.error, row.level) if row.error is not None else "-"
        share = f"{row.percent:+.2f} %" if row.percent is not None else "-"
        speed = f"{row.speed:.2f}x" if row.speed else "-"
        rows.append([row.label, mean, error, share, speed, str(row.seeds), row.verdict])
    return rows


def trial_table(study: Rows) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of trials; a row begins with ``*`` if it is the best."""
    winner, called = stats.best(study), stats.names(study)
    keys = [axis["key"] for axis in study["axes"]]
    rows = []
    for trial in sorted(study["trials"], key=lambda row: row["number"]):
        mark = "*" if winner and trial["number"] == winner.trial["number"] else ""
        value, speed, seconds = trial["value"], stats.speed_of(trial), stats.seconds_of(trial)
        reason, at = trial.get("reason") or "", trial.get("at")
        place = f"at {short_count(at)} tokens" if at is not None and trial["state"] != "ok" and f"{at:,}" not in reason else ""
        rows.append(
            [
                mark,
                str(trial["number"]),
                trial["state"],
                *(stats.short(trial["params"].get(key, "")) for key in keys),
                stats.digits(value) if value is not None else "",
                short_count(speed) if speed else "",
                duration(seconds) if seconds is not None else "",
                " ".join(", ".join(filter(None, [reason, place])).split())[:80],
            ]
        )
    return ["trial", "state", *(called[key] for key in keys), study["objective"], "tokens/s", "took", "why"], rows
