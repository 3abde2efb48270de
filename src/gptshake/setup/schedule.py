"""The schedule of a config: its warm-up in tokens, and what is reported about its length and its rate."""

from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import Any

from omegaconf import DictConfig, ListConfig

from gptshake.errors import ConfigError, first_line
from gptshake.estimate.budget import Budget
from gptshake.estimate.formatting import counted, short_count
from gptshake.estimate.lr_fit import TRANSFERS
from gptshake.optim.schedule import LONGEST_WARMUP, Factors, Schedule, TokenCount, before_decay, planned_warmup, warmup_steps, warmup_tokens
from gptshake.record.run import Run
from gptshake.setup.instantiate import check_attributes, check_call, make, to_be_called

SAME_LENGTH = 0.02  # lengths that differ by no more count as one
CUT = 0.29  # of the run: a warm-up that takes more was cut to 30 %
LENGTHS = {"warmup": "nothing is warmed up", "cooldown": "the rate falls in the last step alone", "decay": "every step has the lowest rate"}


def warmup_of(cfg: DictConfig, total: int, tokens_per_step: int) -> TokenCount | None:
    """Tokens of warm-up that the config asks for; None without such an option."""
    return planned_warmup(make(cfg.scheduler), total, tokens_per_step, _beta2(cfg.optimizer))


def schedule_of(cfg: DictConfig, warmup: float | None) -> Schedule:
    schedule: Any = make(cfg.scheduler)
    return schedule if warmup is None else partial(schedule, warmup=TokenCount(warmup))


def recorded_schedule(cfg: DictConfig, run: Run) -> Schedule:
    """The schedule with as many tokens of warm-up as the run had when it began, so that a longer limit does not change it."""
    budget = run.info["budget"]
    if "warmup_tokens" in budget:
        return schedule_of(cfg, budget["warmup_tokens"])
    return schedule_of(cfg, warmup_tokens(make(cfg.scheduler), int(budget["tokens"])))  # of an earlier version, whose auto knew no steps


def check_schedule(cfg: DictConfig) -> None:
    """Refuse a target that is no schedule; lengths in tokens are held against the real length later."""
    if cfg.scheduler.get("_partial_"):
        check_call(cfg.scheduler, first=("tokens", "total"))
    what, total = f"scheduler._target_: {cfg.scheduler._target_}", 10**15
    to_be_called(cfg.scheduler, "at every step, with the tokens so far")
    schedule = schedule_of(cfg, warmup_of(cfg, total, 1))
    try:
        factors = schedule(1, total)
    except TypeError as error:
        raise ConfigError(f"{what} cannot stand here: it is called with tokens, total ({first_line(error)}).") from error
    check_attributes(what, factors, Factors._fields)


def planned_schedule(cfg: DictConfig, budget: Budget) -> Schedule:
    """The schedule that a run of this plan begins with."""
    return schedule_of(cfg, warmup_of(cfg, budget.total_tokens, budget.tokens_per_step))


def planned_warmup_steps(cfg: DictConfig, budget: Budget) -> int | None:
    """Steps until the peak of a run of this plan; None for a schedule of the user's own."""
    return warmup_steps(planned_schedule(cfg, budget), budget.total_tokens, budget.tokens_per_step)


def schedule_text(cfg: DictConfig, budget: Budget, schedule: Schedule | None = None) -> str:
    """``cosine, warm-up 40 steps, 8 % of the run``; of the config, unless a schedule with another warm-up is given."""
    steps = warmup_steps(schedule or planned_schedule(cfg, budget), budget.total_tokens, budget.tokens_per_step)
    share = f", {float(f'{100 * steps / budget.steps:.2g}'):g} % of the run" if steps else ""
    warmup = "" if steps is None else f", warm-up {counted(steps, 'step')}{share}" if steps else ", no warm-up"
    return str(cfg.scheduler._target_).rpartition(".")[2] + warmup


def longer_warmup(cfg: DictConfig, budget: Budget) -> str:
    """An override that doubles the warm-up, to 10 % of the run at least; nothing where it is as long.

    It is 30 % at most (50 % of one cycle), and half of what comes before the decay.
    """
    schedule = planned_schedule(cfg, budget)
    steps = warmup_steps(schedule, budget.total_tokens, budget.tokens_per_step)
    key, most = ("pct_start", 0.5) if "pct_start" in cfg.scheduler else ("warmup", LONGEST_WARMUP)
    if steps is None or key not in cfg.scheduler:
        return ""
    most = min(most, before_decay(schedule, budget.total_tokens) / 2 / budget.total_tokens)
    longer = min(max(2 * steps / budget.steps, 0.1), most)
    return f"scheduler.{key}={longer:.2g}" if longer > 1.2 * steps / budget.steps else ""


def lr_transfer_note(origin: Mapping[str, Any] | None, budget: Budget) -> str:
    """A sentence about a rate that was found for another length (docs/benchmarks.md#how-far-an-answer-carries); nothing for the same."""
    tokens, warmup = (origin or {}).get("tokens"), (origin or {}).get("warmup_tokens")
    if not origin or not tokens or abs(budget.total_tokens / tokens - 1) < SAME_LENGTH:
        return ""
    longer = budget.total_tokens / tokens
    found = f"optimizer.lr was found by {origin['run']} for {short_count(tokens)} tokens, this run has {short_count(budget.total_tokens)}"
    if warmup and warmup > CUT * tokens and longer > 1:
        return f"{found}: its warm-up is longer than that one's, which was cut to 30 % of the run, and takes a higher rate"
    if 1 / TRANSFERS <= longer <= TRANSFERS:
        return f"{found}: with AdamW it was seen to carry within a factor of {TRANSFERS} in length"
    return f"{found}: that it carries was measured with AdamW, and to a factor of {TRANSFERS} in length"


def warmup_notes(cfg: DictConfig, budget: Budget) -> list[str]:
    """Sentences about lengths that are shorter than a step, a warm-up that is shorter than AdamW's memory, and about an only step with a rate of 0."""
    schedule, warmup, notes = planned_schedule(cfg, budget), cfg.scheduler.get("warmup"), list[str]()
    for key, effect in LENGTHS.items():
        length = cfg.scheduler.get(key)
        if isinstance(length, int | float) and 1 <= length < budget.tokens_per_step:
            notes.append(
                f"scheduler.{key}={length:g} is {counted(int(length), 'token')} (below 1 it is a fraction of the run), less than a step of "
                f"{budget.tokens_per_step:,}: {effect}"
            )
    if isinstance(warmup, int | float) and warmup > 0:
        steps = warmup_steps(schedule, budget.total_tokens, budget.tokens_per_step) or 0
        beta2 = _beta2(cfg.optimizer)
        memory = 0 if beta2 is None else ceil(round(2 / (1 - beta2), 6))
        if not 1 <= warmup < budget.tokens_per_step and steps < min(memory, LONGEST_WARMUP * budget.steps):
            notes.append(
                f"scheduler.warmup={warmup:g} is {counted(steps, 'step')}, and optimizer.beta2={beta2:g} averages over {memory} (2 / (1 - beta2)): "
                "a high rate may diverge; scheduler.warmup=auto is longer"
            )
    if budget.steps == 1 and schedule(budget.total_tokens, budget.total_tokens).lr == 0:
        notes.append(
            "the schedule ends at a rate of 0, which the only step of this run has: nothing is trained; scheduler=constant has no such end"
        )
    return notes


def _beta2(optimizer: DictConfig) -> float | None:
    """The decay of the second moment, as our optimizers or torch's own write it; None without one."""
    beta2 = optimizer.get("beta2")
    if beta2 is None and isinstance(betas := optimizer.get("betas"), ListConfig) and len(betas) > 1:
        beta2 = betas[1]
    return float(beta2) if isinstance(beta2, int | float) and 0 <= beta2 < 1 else None
