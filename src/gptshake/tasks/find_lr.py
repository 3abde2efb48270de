"""``task=find_lr``: the peak learning rate for a model and its data, before a run is spent on a wrong one.

Short real runs decide: with the warm-up of the whole run their best rate is nearly that of runs many times as long. Range tests say where
to begin, on request. Leaves a record with the answer, which ``optimizer.lr=from:<run>`` reads; training itself is never touched.
"""

import json
import math
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.validate import check_groups, check_one_device
from gptshake.context import Context
from gptshake.data.blocks import n_blocks
from gptshake.errors import ConfigError, DataError, GptshakeError, Stop, TrainingError
from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import START_SECONDS
from gptshake.estimate.formatting import duration
from gptshake.estimate.laws import CHARACTERS, NO_LAW, hold_for, law_sentence, recommended_lr
from gptshake.estimate.lr_fit import middle_of_ties
from gptshake.estimate.lr_range import has_diverged, mean_curve, rules, smooth, still_falls
from gptshake.files import expanded
from gptshake.keys import AUTO, key_of
from gptshake.processes import ASKED_BY, run_command
from gptshake.record.index import read_index
from gptshake.record.lock import RunLock
from gptshake.record.run import Run
from gptshake.report import study_stats
from gptshake.setup import lifecycle, lr_finder
from gptshake.setup.costs import model_costs
from gptshake.setup.initial import read_initial_weights
from gptshake.setup.lifecycle import trackers_of
from gptshake.setup.schedule import planned_schedule, planned_warmup_steps, schedule_text
from gptshake.signals import SIGNALS

FEWEST_STEPS = 40  # of a ramp: the rules leave out a tenth and five points
INTERVAL, STEPS = "trainer.val_check_interval", "trainer.max_steps"
SHORT = 8  # a short run is an eighth of the run,
WARM = 0.6  # or so long that its warm-up takes three fifths of it: what a high rate loses only a decay of some length gives back
WITHOUT_WARMUP = 125  # steps of a short run at least, where the schedule has no warm-up, or is the user's own
LONGEST_COOLDOWN = 0.96  # of what is left after the warm-up
VALIDATIONS = 4  # of a short run, where the user has not said otherwise: they are for giving up early, the last one counts
SEARCH_FACTOR = 64.0  # the study looks as far as this factor from the start


def run(context: Context) -> dict[str, float]:
    """Find the rate; everything ends up in the run directory, and ``resume=`` goes on with what a signal ended."""
    cfg, task = context.config, context.config.task
    check_groups(cfg)
    check_one_device(cfg, "task=find_lr")
    if not task.high >= 10 * task.low:
        raise ConfigError(f"task.low={task.low:g} and task.high={task.high:g} leave no range: it must cover at least a factor of 10.")
    if not (isinstance(task.steps, int) and task.steps >= FEWEST_STEPS):
        raise ConfigError(f"task.steps={task.steps} cannot work: a range test needs {FEWEST_STEPS} steps or more; 200 are a good choice.")
    store, budget = context.store, context.plan
    if n_blocks(store.train.n_tokens, cfg.model.block_size) == 1:
        raise DataError(
            f"The training text is one block of {cfg.model.block_size} tokens, which every step would read again; no learning rate can be "
            "judged by that. Give more text or a smaller model.block_size."
        )
    check_length(cfg, budget)
    context.trackers = trackers_of(cfg)  # what they lack is said before hours of work
    read_initial_weights(context)
    lock = RunLock(context.spec.path)
    try:
        record = lifecycle.open_run(context)
        context.initial = None  # each ramp and each run reads them itself
        with lifecycle.outcome(record):
            return _find(context, record)
    finally:
        lock.release()


def check_length(cfg: DictConfig, budget: Budget) -> None:
    """Refuse short runs that would end within their warm-up."""
    warm, steps = planned_warmup_steps(cfg, budget), cfg.task.confirm_steps
    if cfg.task.confirm != 0 and steps != AUTO and warm and steps <= warm and steps < budget.steps:
        raise ConfigError(
            f"task.confirm_steps={steps} is no longer than the warm-up of the run, {warm} steps, which each of the short runs keeps: "
            f"take {min(budget.steps, math.ceil(warm / WARM))} steps, or task.confirm_steps=auto."
        )


def _find(context: Context, record: Run) -> dict[str, float]:
    cfg, budget, task = context.config, context.plan, context.config.task
    from gptshake.report.plots_tasks import plot_find_lr
    from gptshake.report.tasks_text import find_lr_text

    found: dict[str, Any] = record.info.get("find_lr") or {}
    if not found:
        found = _estimates(context)
        if task.range_test or task.confirm == 0:
            record.say(
                f"range test: up to {task.steps // 2} + {task.repeats} x {task.steps} steps of {budget.batch_size} x {budget.block_size} tokens, "
                f"rates from {task.low:g} to {task.high:g}"
            )
            found |= _from_ramps(lr_finder.run_range_tests(cfg, context.store, budget), found)
            record.update(find_lr=found)
            plot_find_lr(record.info, record.path)  # to look at meanwhile
        record.update(find_lr=found)
    if task.confirm != 0:
        found |= _confirmed(context, record, found)
    elif found["start"] is None:
        raise TrainingError(
            "The loss did not fall at any rate of the range test; try another task.low and task.high, or task.confirm=auto."
        )
    else:
        found |= {"lr": float(f"{found['start']:.2g}"), "low": None, "high": None, "confirm": []}
    record.update(find_lr=found | {"last": _last_run(context)})
    pictures = plot_find_lr(record.info, record.path)
    summary = {"find_lr/lr": found["lr"]}
    record.finish("ok", None, summary)
    for line in find_lr_text(record.info, _training_overrides(context.spec.overrides)):
        record.say(line)
    for tracker in context.trackers:  # all at once: there is nothing to see before
        tracker.start(record)
        for picture in pictures:
            tracker.image(picture.stem, picture)
        tracker.finish()
    return summary


def _estimates(context: Context) -> dict[str, Any]:
    """What is known without a step; plain values for the record."""
    cfg, store, budget = context.config, context.store, context.plan
    size = model_costs(cfg, store.tokenizer.vocab_size).num_params(non_embedding=True)
    length, characters = (size, budget.total_tokens, budget.tokens_per_step), store.bytes_per_token < CHARACTERS
    declared, known = float(cfg.optimizer.lr), hold_for(str(cfg.optimizer._target_))
    return {
        "start": declared,
        "one_cycle": planned_schedule(cfg, budget)(budget.tokens_per_step, budget.total_tokens).beta1 is not None,
        "declared": declared,
        "preset": OmegaConf.select(cfg, "preset.lr"),
        "schedule": schedule_text(cfg, budget),
        "law": recommended_lr(*length, characters=characters).lr if known else None,
        "law_says": law_sentence(*length, characters=characters) if known else NO_LAW,
    }


def _from_ramps(ramps: dict[str, Any], estimates: dict[str, Any]) -> dict[str, Any]:
    """What the range test says. The runs start at the median of three estimates, each of which is at times far off; without laws at its own."""
    curve = smooth(mean_curve(ramps["losses"]))
    read = rules(ramps["rates"], curve, len(ramps["rates"]))
    start = None  # the ramp saw nothing
    if read:
        middle = read.one_cycle if estimates["one_cycle"] else read.middle
        start = median((middle, estimates["law"] or middle, estimates["declared"]))
    broken = [len(losses) for losses in ramps["losses"] if has_diverged(losses)]

    def rounded(values: Sequence[float]) -> list[float]:
        return [float(f"{value:.5g}") for value in values]

    return {
        "rules": vars(read) if read else {},
        "start": start,
        "still_falls": still_falls(curve),
        "diverged": ramps["rates"][min(broken) - 1] if broken else None,
        "ramps": {key: rounded(ramps[key]) for key in ("quick_rates", "quick", "rates")} | {"losses": [*map(rounded, ramps["losses"])]},
    }


def _confirmed(context: Context, record: Run, found: dict[str, Any]) -> dict[str, Any]:
    """The answer of the short runs, which are a study of their own."""
    cfg, budget, number = context.config, context.plan, context.config.task.confirm
    steps, schedule = short_run(cfg, budget)
    study = expanded(cfg.paths.multirun) / f"find_lr-{record.id}"
    words = found.get("overrides") or [*_training_overrides(context.spec.overrides), f"{STEPS}={steps}", *schedule]
    steps = next((int(text.partition("=")[2]) for text in reversed(words) if key_of(text) == STEPS), steps)  # a finder of an older version
    if not any(key_of(text) == INTERVAL for text in words):
        words.append(f"{INTERVAL}={max(1, steps // VALIDATIONS)}")
    start = found["start"] or found["law"] or found["declared"]
    record.say(
        f"{'a few' if number == AUTO else number} runs of {steps:,} steps around {start:.2g} decide; "
        f"their study is {study}, and takes about {duration(START_SECONDS)} to start"
    )
    record.update(find_lr={"overrides": words})  # a resumed finder goes on with the same study
    low, high = start / SEARCH_FACTOR, max(min(start * SEARCH_FACTOR, found.get("diverged") or math.inf), start)
    words = [*words, f"paths.multirun={study.parent}", f"study={study.name}", "hydra.sweeper.keep=1", "hydra.sweeper.noise=false"]
    words += [f"optimizer.lr={start:.3g}", f"optimizer.lr=tag(log,interval({low:.3g},{high:.3g}))"]
    words += [] if number == AUTO else [f"hydra.sweeper.n_trials={number}"]
    code: int = run_command([sys.executable, "-m", "gptshake", "-m", *words], {"HYDRA_FULL_ERROR": None, ASKED_BY: "find_lr"})[0].value
    rows: dict[str, Any] = json.loads((study / "study.json").read_text(encoding="utf-8")) if (study / "study.json").exists() else {}
    if SIGNALS.received is not None or code > 128:
        raise Stop(SIGNALS.received or code - 128)
    if not any(trial["state"] == "ok" and trial["value"] is not None for trial in rows.get("trials", ())):
        raise GptshakeError(f"Not one of the runs that should decide on the learning rate came to an end: see above, and {study}.")
    scale = study_stats.scales(rows)[0]
    interval = study_stats.near_optimal(rows, scale)
    ends = study_stats.interval_ends(rows, scale, interval) if interval else (None, None)
    winner = study_stats.best(rows)
    curves = study_stats.learning_curves(rows, study)[winner.trial["number"]] if winner else []
    runs = [{"lr": float(trial["params"][scale.key]), "value": trial["value"], "state": trial["state"]} for trial in rows["trials"]]
    return {
        "lr": float(f"{middle_of_ties(study_stats.best_curve(rows, scale)):.3g}"),
        "low": ends[0],
        "high": ends[1],
        "edge": interval.edge if interval else None,
        "assumed": interval.assumed if interval else None,
        "confirm": sorted(runs, key=lambda run: run["lr"]),
        "objective": str(rows["objective"]),
        "study": study.name,
        "steps": steps,
        "of_steps": budget.steps,
        "fell": fall(curves[0]) if curves else None,
    }


def fall(curve: study_stats.Points) -> float | None:
    """The share of its loss that a run has lost since its first quarter; None without a validation between that and its middle."""
    early = [loss for tokens, loss in curve if 0.2 * curve[-1][0] <= tokens <= 0.5 * curve[-1][0]]
    return 1 - curve[-1][1] / early[0] if early and early[0] > 0 else None


def short_run(cfg: DictConfig, budget: Budget) -> tuple[int, list[str]]:
    """Steps of a short run, and overrides that give it the warm-up of the whole run, and a decay that fits behind it.

    The warm-up decides which rates are too high.
    """
    warm = planned_warmup_steps(cfg, budget)
    least = math.ceil(warm / WARM) if warm else WITHOUT_WARMUP
    automatic = max(math.ceil(budget.steps / SHORT), least)
    steps = min(budget.steps, automatic if cfg.task.confirm_steps == AUTO else int(cfg.task.confirm_steps))
    if warm is None or warm >= steps:
        return steps, []
    if "pct_start" in cfg.scheduler:
        return steps, [f"scheduler.pct_start={warm / steps:.3g}"] if warm else []

    def share(length: float) -> float:
        return float(length) if length < 1 else float(length) / budget.total_tokens

    left, words = 1 - warm / steps, [f"scheduler.warmup={warm * budget.tokens_per_step}"]
    if (cooldown := cfg.scheduler.get("cooldown")) is not None:
        words.append(f"scheduler.cooldown={min(share(cooldown), LONGEST_COOLDOWN * left):.3g}")
    if (decay := cfg.scheduler.get("decay", AUTO)) != AUTO:  # as far behind the warm-up as in the run, of what is left
        flat = left * (1 - share(decay)) / (1 - warm / budget.steps)
        words.append(f"scheduler.decay={round((1 - flat) * steps * budget.tokens_per_step)}")
    return steps, words


def _training_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides of a training that is like this one but for the task and the rate."""
    left_out = ("task", "resume", "study", "optimizer.lr")
    return [text for text in overrides if key_of(text) not in left_out and not key_of(text).startswith("task.")]


def _last_run(context: Context) -> dict[str, Any] | None:
    for entry in read_index([expanded(context.config.paths.runs)]):
        choices = entry.info.get("choices") or {}
        same = all(choices.get(group) == context.spec.choices.get(group) for group in ("model", "data", "debug"))
        if entry.status == "ok" and entry.info.get("task") == "train" and same and "optimizer.lr" in entry.config:
            return {"id": entry.id, "lr": float(entry.config["optimizer.lr"])}
    return None
