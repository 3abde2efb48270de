"""A study in words: what it found and how sure that is, and its table. The sentences are those of the terminal and of the report."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gptshake.console import aligned
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.estimate.lr_fit import TRANSFERS
from gptshake.estimate.significance import FEWEST, one_sample
from gptshake.keys import key_of
from gptshake.report import study_stats as stats
from gptshake.report.study_stats import Best, Json, Points, Scale

LONG_WARMUP = 29  # percent of the run: a warm-up that takes more was cut, and is longer in a longer run
MIDDLE = (0.2, 0.6)  # shares of a run between which a learning curve's slope is taken: the rate has risen and mostly not yet fallen
SAME_TIME = 1.03  # factor in time below which two batches took equally long
UNMEASURED = "values that were tried; the noise between seeds was not measured: repeats=3 measures it"
DIFFERENCE_HEAD = ["change", "difference", "± error", "percent", "speed", "seeds", "verdict"]
GROUPS = ("task", "model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "logger", "callbacks")
EXPERIMENTS = ("experiment", "debug")  # groups of whole recipes; an experiment file builds upon them
ABSOLUTE = ("data.path", "tokenizer.path", "init_from")  # what the study froze as absolute paths
WHERE = ("hydra", "paths", "dirty", "resume", "study")  # where and how it ran, not what


def verdict(study: Json, folder: Path | None = None) -> list[str]:
    """What the study in a folder (by default ``multirun/<name>``) found, how sure that is and how to use it: sentences to act on."""
    winner, found = stats.best(study), []
    if study["state"] != "done":
        ended = sum(trial["state"] in stats.DONE for trial in study["trials"])
        ended_by = "has reached its limit (hydra.sweeper.timeout)" if stats.is_cut_off(study) else "was interrupted"
        how = "is running" if study["state"] == "running" else f"{ended_by}; the same command resumes it"
        through = f"{ended} of {study['n_trials']} trials" if study.get("n_trials") else counted(ended, "trial")
        found = [f"The study {how}: {through} {'has' if through == '1 trial' else 'have'} ended."]
    if study["state"] == "running":  # which runs are at work on which machine, and what the others that were submitted wait for
        places: dict[str, list[str]] = {}
        for run in (run for row in [*study["trials"], *(study.get("confirm") or [])] for run in row["runs"]):
            if run["state"] in ("running", "waiting") and run.get("place"):
                places.setdefault(run["place"], []).append(run["path"])
        text = "; ".join(f"{', '.join(runs)} {place}" for place, runs in sorted(places.items()))
        found += [f"Runs: {text}."] if text else []
    if winner is None:
        return [*found, _no_winner(study), *([] if stats.over_seeds(study) else _ended_early(study))]
    if stats.over_seeds(study):
        return [*found, f"{mean_text(study, winner)}."]
    if study.get("ablate"):
        found += _compared(study, winner)
    else:
        found += [_winner(study, winner), *_confirmation(study, winner), *_not_safe(study, winner)]
        found += [*_axes(study, winner), *_speeds(study, folder)]
    tokens, schedule = stats.tokens_of(study, winner.trial), study.get("schedule") or ""
    found += [f"This is valid for {short_count(tokens)} tokens{f' ({schedule})' if schedule else ''}: {_beyond(study)}."] if tokens else []
    found += [*_ended_early(study), f"Repeat it:  {command(study, overrides_of(study, winner))}"]
    if study.get("program") == "gptshake":  # another app has no experiment=
        best = (folder or Path("multirun") / study["name"]) / "best.yaml"
        found.append(f"Build on it:  {command(study, [f'experiment={best}'])}")
    return found


def _beyond(study: Json) -> str:
    """What another length would change."""
    share = re.search(r"([\d.]+) % of the run", study.get("schedule") or "")
    keys = [axis["key"] for axis in study["axes"]]
    if share and "optimizer.lr" in keys and float(share[1]) >= LONG_WARMUP:
        return "a longer warm-up allows a higher rate"
    if share and keys == ["optimizer.lr"]:
        return f"within a factor of {TRANSFERS} in length the best rate of AdamW was seen to carry"
    return "longer runs may need another value"


def _no_winner(study: Json) -> str:
    trials, labels = study["trials"], (study.get("ablate") or {}).get("labels")
    base = next((trial for trial in trials if labels and trial["params"].get("ablate") == labels[0]), None)
    if base and (why := stats.not_ok(base)):
        return f"The base is incomplete ({why}), so there is nothing to compare with and no answer."
    states = {trial["state"] for trial in trials}
    if "ok" in states:
        return "No trial returned a number (hydra.sweeper.objective names one of several), so there is no best."
    if not trials or not states <= set(stats.ENDED_EARLY) or study["state"] != "done":
        return "No trial has finished yet, so there is no answer."
    how = "diverged" if states == {"diverged"} else "ended early"
    which = f"All {counted(len(trials), 'trial')}" if len(trials) > 1 else "The only trial"
    if stats.over_seeds(study) and (why := stats.not_ok(trials[0])):
        return f"{why}, so there is no mean."
    return f"{which} {how}, so there is no answer{'' if states == {'failed'} else ': try smaller learning rates, or other values'}."


def _ended_early(study: Json) -> list[str]:
    """How many trials ended early, how, and why those failed that did."""
    counts = Counter(trial["state"] for trial in study["trials"] if trial["state"] in stats.ENDED_EARLY)
    parts = [f"{counts[state]} {state}" for state in stats.ENDED_EARLY if counts[state]]
    why = [f"trial {trial['number']}: {trial['reason']}" for trial in study["trials"] if trial["state"] == "failed" and trial.get("reason")]
    reasons = f" ({'; '.join(why[:3])}{f'; {len(why) - 3} more' if len(why) > 3 else ''})" if why else ""
    return [f"{counts.total()} of {len(study['trials'])} trials ended early: {', '.join(parts)}{reasons}."] if counts else []


def mean_text(study: Json, winner: Best) -> str:
    """The mean over the seeds of one configuration, with Student's 95 % interval from three seeds on."""
    values, tokens = stats.run_values(winner.trial), stats.tokens_of(study, winner.trial)
    mean = one_sample(values)
    if mean is None or len(values) < FEWEST:
        interval = "two seeds give no interval" if mean else "one seed gives no interval"
    else:
        low, high = (stats.objective_text(mean.mean + side * mean.half_width, mean.mean) for side in (-1, 1))
        interval = f"95 % interval {low} to {high}, standard deviation {stats.objective_text(stdev(values), mean.mean)}"
    after = f" after {short_count(tokens)} tokens" if tokens else ""
    return f"{study['objective']} {stats.objective_text(winner.value)}{after}: mean of {counted(len(values), 'seed')}, {interval}"


def _winner(study: Json, winner: Best) -> str:
    params = stats.params_text(study, winner.trial["params"])
    text = f"The best is trial {winner.trial['number']}{f': {params}' if params else ''}"
    text += f", {study['objective']} {stats.objective_text(winner.value)}"
    if winner.error is not None:
        text += f" ± {stats.objective_text(winner.error, winner.value)} (mean of {winner.seeds} seeds, standard error)"
    tokens = stats.tokens_of(study, winner.trial)
    return f"{text}{f' after {short_count(tokens)} tokens' if tokens else ''}{', confirmed with fresh seeds' if winner.confirmed else ''}."


def _confirmation(study: Json, winner: Best) -> list[str]:
    """The means over fresh seeds, which alone decide, and why a point is not confirmed; or what a second seed gave."""
    fresh, second, parts = stats.confirmation_rows(study), stats.confirmation_rows(study, noise=True), []
    for row in fresh:
        values, error = stats.run_values(row), stats.standard_error(stats.run_values(row))
        if why := stats.unconfirmed(row):
            parts.append(f"trial {row['number']} is not confirmed ({why})")
        else:
            error_text = f" ± {stats.objective_text(error, fmean(values))}" if error is not None else ""
            parts.append(f"trial {row['number']} {stats.objective_text(fmean(values))}{error_text}")
    if fresh and winner.confirmed:
        return [f"The confirmation: {'; '.join(parts)}."]
    if fresh:
        resume = " The same command resumes the confirmation." if study["state"] != "running" and stats.confirmation_open(study) else ""
        return [f"The best is not confirmed: {'; '.join(parts)}.{resume}"]
    for row in second:
        if row["state"] != "running":
            value = stats.objective_text(fmean(stats.run_values(row))) if stats.run_values(row) else row["state"]
            fell = f" at {stats.params_text(study, row['params'])}, which is unstable" if row["number"] in stats.unstable(study) else ""
            parts.append(f"trial {row['number']} {value}{fell}")
    if parts:
        return [f"With a second seed: {'; '.join(parts)}."]
    missing = "noise between seeds was not measured" if second or study.get("noise") else "confirmation has not started"
    expected = second or study.get("noise") or study.get("confirm_runs")
    return [f"The {missing}."] if expected and study["state"] != "running" else []


def _not_safe(study: Json, winner: Best) -> list[str]:
    """That the best did not hold with its second seed, or that it has none because those before it did not hold."""
    shaky = _unstable_seconds(study)
    if not shaky or stats.confirmation_open(study) or winner.trial["number"] in stats.repeated_values(study).keys() - shaky.keys():
        return []
    if winner.trial["number"] in shaky:
        how, smaller = shaky[winner.trial["number"]], " Try smaller learning rates." * ("optimizer.lr" in winner.trial["params"])
        return [f"Warning: the best is not a safe answer: its second seed {how}, and no other point that finished is stable.{smaller}"]
    rows = {trial["number"]: stats.params_text(study, trial["params"]) for trial in study["trials"]}
    which = ", ".join(f"that of {rows[number]} {how}" for number, how in shaky.items())
    again = command(study, [*overrides_of(study, winner), "repeats=3"])
    return [f"Warning: the best has one seed, and no second seed so far held: {which}. Before you rely on it:  {again}"]


def _unstable_seconds(study: Json) -> dict[int, str]:
    """Number of each point that is unstable with its second seed -> what that one did."""
    values = {row["number"]: stats.run_values(row) for row in stats.confirmation_rows(study, noise=True)}
    shaky = {number: value for number, value in values.items() if number in stats.unstable(study)}
    return {number: f"ended at {stats.objective_text(value[0])}" if value else "diverged" for number, value in shaky.items()}


def _unmeasured(study: Json) -> str:
    """Why an interval ends at values that were tried."""
    number, of = len(_unstable_seconds(study)), len(stats.confirmation_rows(study, noise=True))
    if not number:
        return UNMEASURED
    return f"values that were tried; {number} of {counted(of, 'point')} with a second seed {'is' if number == 1 else 'are'} unstable, which measures no noise"


def _axes(study: Json, winner: Best) -> list[str]:
    """For every axis of numbers: between which values the best lies, whether a cliff is beside it, whether the range was wide enough."""
    sentences = []
    for scale in stats.scales(study):
        own = study.get("program") == "gptshake" and not scale.key.startswith("+")  # none of its keys takes a number below 0
        found, key = stats.near_optimal(study, scale), scale.key.lstrip("+")
        best, edge = winner.trial["params"][scale.key], None
        if found is not None:
            low, high = map(stats.param_text, stats.interval_ends(study, scale, found))
            where = f"between {low} and {high}" if low != high else f"near {low} only"
            how = _unmeasured(study) if found.assumed else f"seeds move {study['objective']} by ± {found.sd:.2g}, measured"
            others = stats.params_text(study, {key: value for key, value in winner.trial["params"].items() if key != scale.key})
            sentences.append(f"The best {key}{f' at {others}' if others else ''} lies {where} ({how}).")
            best, edge = found.best, found.edge
        elif any(axis["key"] == scale.key and axis.get("low") is not None for axis in study["axes"]):
            tried = [trial["params"][scale.key] for trial in study["trials"] if trial["state"] in stats.DONE]
            if min(tried) < max(tried):  # too few trials share the other values for an interval
                edge = "low" if best == min(tried) else "high" if best == max(tried) else None
        sentences += _beside_a_cliff(study, winner, scale)
        low_end, high_end = scale.ends
        if (edge == "high" and best < high_end) or (edge == "low" and best > low_end):
            larger = "larger" if edge == "high" else "smaller"
            sentences.append(f"Warning: no {larger} {key} than the best, {stats.param_text(best)}, has been tried to the end.")
        elif edge == "low" and ((low_end == 1 and scale.integer and scale.log) or (low_end == 0 and not scale.integer and own)):
            sentences.append(f"The best {key} is {stats.param_text(best)}, the smallest there is.")
        elif edge:
            end, wider = "upper" if edge == "high" else "lower", _wider(scale, edge)
            advice = f": widen it, e.g. '{wider}'" if wider else ""
            sentences.append(f"Warning: the best {key} lies at the {end} end of its range{advice}.")
    return sentences


def _wider(scale: Scale, edge: str) -> str:
    """The override of a range that goes on beyond an end; empty where the key may take nothing there, or where others limit it.

    What ends at 1 or before may be a fraction, which goes half of the way to 1; a smaller shape may not divide any more.
    """
    low, high = scale.ends
    factor, width = (4 if scale.powers else 10) if scale.log else 2, high - low
    if edge == "high":
        most = math.inf if high > 1 or scale.name == "lr" else (1 + high) / 2
        high = min(high * factor if high > 0 else high + width, most)
    elif not scale.integer:
        low = low / factor if low > 0 else low - width if low < 0 else low
    elif scale.name == "batch_size":
        low = max(1, low / factor)
    return _range(scale, low, high) if (low, high) != scale.ends else ""


def _beside_a_cliff(study: Json, winner: Best, scale: Scale) -> list[str]:
    """That the next larger value is far worse, and the command that searches again with a longer warm-up."""
    found = stats.cliff(study, scale)
    if found is None:
        return []
    value, loss = found
    level = stats.cost(study, winner.value)
    if not math.isfinite(loss):
        how = "training is not stable"
    elif loss - level < 10 * abs(level):
        how = f"{study['objective']} is {100 * (loss - level) / abs(level):.0f} % worse"
    else:  # of next to nothing, or nothing
        how = f"{study['objective']} is {stats.objective_text(stats.cost(study, loss))}"
    text = f"Warning: the best lies beside a cliff: at {stats.param_text(value)} {how}"
    batch = stats.batch_scale(study)  # a larger batch than the configured one has a larger share of warm-up than the one that was doubled
    larger = batch is not None and batch.declared is not None and winner.trial["params"][batch.key] > batch.declared
    if scale.name != "lr" or not study.get("warmer") or larger:
        return [f"{text}."]
    ranges = {scale.key: _range(scale, *scale.ends) for scale in stats.scales(study)}
    swept = [
        ranges[axis["key"]]
        if axis["key"] == scale.key or axis.get("low") is not None
        else f"{axis['key']}={','.join(map(stats.param_text, axis['choices']))}"
        for axis in study["axes"]
    ]
    again = command(study, ["-m", *study["fixed"], *swept, *study.get("options", []), study["warmer"]])
    return [f"{text}. A longer warm-up moves it away and often gains:  {again}"]


def _range(scale: Scale, low: float, high: float) -> str:
    """The override that sweeps an axis from one end to the other."""
    ends = ",".join(str(round(end)) if scale.integer else stats.param_text(float(end)) for end in (low, high))
    interval = f"int(interval({ends}))" if scale.integer else f"interval({ends})"
    return f"{scale.key}=tag(log,{'powers_of_two,' if scale.powers else ''}{interval})" if scale.log else f"{scale.key}={interval}"


def _speeds(study: Json, folder: Path | None) -> list[str]:
    """For batch sizes the speed beside the loss: the better of two equal losses is the faster one, and which one is at equal time."""
    scale, found = stats.batch_scale(study), stats.best_by_batch(study)
    if scale is None or len(found) < 2:
        return []
    parts = []
    for value, trial in found.items():
        speed = stats.speed_of(trial)
        parts.append(
            f"{stats.param_text(value)}: {stats.objective_text(trial['value'])}{f' at {short_count(speed)} tokens/s' if speed else ''}"
        )
    sentence = f"{study['objective']} by {scale.key.lstrip('+')}, each with its best partner: {'; '.join(parts)}."
    return [sentence, *(at_equal_time(study, stats.learning_curves(study, folder)) if folder else [])]


def at_equal_time(study: Json, curves: Mapping[int, Sequence[Points]]) -> list[str]:
    """A sentence if another batch than the best at equal tokens is the better one at equal time; else nothing.

    What a shorter run would have reached is not known without running it: it is judged by the slope of the trial's own curve.
    """
    scale, found = stats.batch_scale(study), stats.best_by_batch(study)
    if scale is None or not stats.minimizes(study):
        return []
    times = {batch: seconds / len(trial["runs"]) for batch, trial in found.items() if (seconds := stats.seconds_of(trial))}
    budget = min(times.values(), default=0.0)
    reached: dict[float, float] = {}
    for batch, seconds in times.items():
        value = _after(found[batch], budget / seconds, curves.get(found[batch]["number"], ()))
        reached |= {batch: value} if value is not None else {}
    winner = min(found, key=lambda batch: found[batch]["value"], default=0)
    other = min(reached, key=lambda batch: reached[batch], default=0)
    if winner not in reached or other == winner:
        return []
    objective, took = study["objective"], times[winner] / times[other]
    return [
        f"At equal time {scale.key.lstrip('+')}={stats.param_text(other)} is the better one: {stats.param_text(winner)} takes {took:.2g} x its time. "
        f"After {duration(budget)} {scale.name} {stats.param_text(other)} would be at about {objective} {stats.objective_text(reached[other])}, "
        f"{stats.param_text(winner)} at {stats.objective_text(reached[winner])}, judged by the slopes of their curves."
    ]


def _after(trial: Json, share: float, curves: Sequence[Points]) -> float | None:
    """The objective after a share of a trial's time, by the slope of log objective over log tokens; None where its curve is too short."""
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


def _compared(study: Json, winner: Best) -> list[str]:
    labels, kept, sentences = study["ablate"]["labels"], winner.trial["params"]["ablate"], []
    for label, mean, error, share, speed, seeds, verdict in difference_rows(study)[1:]:
        faster = f", {speed} the speed" if speed != "-" else ""
        numbers = f"{f'{share}, ' if share != '-' else ''}{counted(int(seeds), 'seed')}"
        difference = f", {mean}{f' ± {error}' if error != '-' else ''} {study['objective']} ({numbers}){faster}" if mean != "-" else ""
        sentences.append(f"{label}: {verdict}{difference}.")
    if not sentences:
        return [f"{_winner(study, winner)} No change has a finished pair with {labels[0]} yet."]
    many = f" with Holm's correction for {counted(len(labels) - 1, 'change')}" if len(labels) > 2 else ""
    rule = f"Better and worse are claimed where a paired t-test finds a difference at 5 %{many}"
    if kept == labels[0]:
        change = "is better" if any(row.verdict == "worse" for row in stats.differences(study)) else "is"
        return [*sentences, f"{rule}; no change {change}, so {labels[0]} stays."]
    return [*sentences, f"{rule}. The best is {kept}, {study['objective']} {stats.objective_text(winner.value)}."]


def table_text(study: Json) -> str:
    """The trials in order of their numbers, the best marked; for a comparison with a base its paired differences."""
    if study.get("ablate"):
        return aligned([DIFFERENCE_HEAD, *difference_rows(study)], left=(0,))
    head, rows = trial_table(study)
    return aligned([["", *head], *rows], left=(0, 2, len(head))) if rows else ""


def difference_rows(study: Json) -> list[list[str]]:
    """The cells of the table of paired differences, the base first."""
    base = study["ablate"]["labels"][0]
    values = [trial["value"] for trial in stats.finished(study) if trial["params"].get("ablate") == base]
    rows = [[base, stats.objective_text(values[0]) if values else "", "", "", "1.00x", "", study["objective"]]]
    for row in stats.differences(study):
        mean = stats.objective_text(row.mean, row.level, "+") if row.mean is not None else "-"
        error = stats.objective_text(row.error, row.level) if row.error is not None else "-"
        share = f"{row.percent:+.2f} %" if row.percent is not None else "-"
        rows.append([row.label, mean, error, share, f"{row.speed:.2f}x" if row.speed else "-", str(row.seeds), row.verdict])
    return rows


def trial_table(study: Json) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of trials; a row begins with ``*`` if it is the best."""
    winner, called, rows = stats.best(study), stats.axis_names(study), []
    seeds = stats.over_seeds(study)
    for trial in stats.shown_rows(study):
        value, speed, seconds, reason = trial["value"], stats.speed_of(trial), stats.seconds_of(trial), trial.get("reason") or ""
        at = trial.get("at") if trial["state"] != "ok" else None
        place = f"at {short_count(at)} tokens" if at is not None and f"{at:,}" not in reason else ""
        mark = "*" if winner and not seeds and trial["number"] == winner.trial["number"] else ""
        params = [stats.param_text(trial["params"].get(key, "")) for key in called]
        measured = [stats.objective_text(value) if value is not None else "", short_count(speed) if speed else ""]
        took, why = duration(seconds) if seconds is not None else "", " ".join(", ".join(filter(None, [reason, place])).split())[:80]
        rows.append([mark, str(trial["number"]), stats.state_of(trial), *params, *measured, took, why])
    return ["seed" if seeds else "trial", "state", *called.values(), study["objective"], "tokens/s", "took", "why"], rows


def overrides_of(study: Json, winner: Best) -> list[str]:
    """All overrides of the best trial; of two for one key the later one."""
    return list({key_of(text): text for text in [*study["fixed"], *winner.trial["overrides"]]}.values())


def command(study: Json, overrides: Iterable[str]) -> str:
    """The shell command of one run with these overrides."""
    program = study.get("program") or "gptshake"
    start = f"python {shlex.quote(program)}" if program.endswith(".py") or "/" in program else f"python -m {shlex.quote(program)}"
    return " ".join([start, *map(quoted, overrides)])


def quoted(override: str) -> str:
    key, equals, value = override.partition("=")
    if re.fullmatch(r"'[A-Za-z0-9_./-]+'", value):  # quoted for Hydra's grammar; the shell and we need no quotes
        value = value[1:-1]
    return f"{shlex.quote(key) if '~' in key else key}{equals}{shlex.quote(value) if value else ''}"


def best_yaml(study: Json, winner: Best, scheduler: str | None = None) -> str:
    """The best trial as an experiment file. ``scheduler`` is the option of its run, which may not be the default some day."""
    import yaml
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    chosen: dict[str, Any] = {"override /scheduler": scheduler} if scheduler else {}
    experiments, values, tokens = list[str](), dict[str, Any](), stats.tokens_of(study, winner.trial)
    head = f"Study {study['name']}, trial {winner.trial['number']}: {study['objective']} {stats.objective_text(winner.value)}"
    head += f" (mean of {winner.seeds} seeds)" if winner.seeds > 1 else ""
    lines = ["# @package _global_", f"# {head}{f', {short_count(tokens)} tokens' if tokens else ''}."]
    absolute = {key_of(text): text for text in study.get("frozen", []) if key_of(text) in ABSOLUTE}

    for text in (absolute.get(key_of(text), text) for text in overrides_of(study, winner)):
        key = key_of(text)
        if re.split(r"[./]", key)[0] in WHERE or key.startswith("callbacks.notify"):
            continue
        try:
            value = OverridesParser.create().parse_override(text).value()
        except HydraException:  # not Hydra's grammar: another program wrote the record
            key, value = f"/{key}", None
        if text.startswith("~") or "@" in text.partition("=")[0] or "/" in key:
            lines.append(f"# Cannot be said in a file, so add it to the command line: {text}")
        elif key in EXPERIMENTS:
            experiments += [f"/{key}/{value}"] if value is not None else []
        elif key in GROUPS:
            chosen[f"override /{key}"] = value
        else:
            *parents, leaf = key.split(".")
            node = values
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
    defaults = [*experiments, *({key: value} for key, value in chosen.items())]
    body = ({"defaults": defaults} if defaults else {}) | values
    return "\n".join([*lines, yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=1_000_000) if body else ""])
