"""Learning-rate schedules as pure functions of tokens: (tokens seen, tokens of the run) to factors of the peak. No torch, no state.

A step of the optimizer takes the factor at the tokens seen *after* it: the first step is not lost to a rate of zero, the last
one gets the schedule's end, and each row of metrics.csv lies on the function. A run continued anywhere needs nothing restored.
To add one: a function here or in a file of one's own, and its yaml.
"""

import inspect
from collections.abc import Callable
from functools import partial
from math import ceil, cos, inf, nan, pi, sqrt
from typing import Any, NamedTuple

from gptshake.errors import ConfigError

PAPER_WARMUP = 375_000_000  # tokens of linear warm-up (Brown et al. 2020, appendix B)
PAPER_DECAY = 260 / 300  # the cosine ends at 260e9 of the paper's 300e9 tokens
LONGEST_WARMUP = 0.3  # of the run, for ``auto``; one_cycle's share
STEPS_TIMES = 4  # times 2 / (1 - beta2) steps: docs/decisions/warm-up.md has the measurements
USUAL_BETA2 = 0.95  # stands in for an optimizer that has none, such as SGD


class Factors(NamedTuple):
    """What a schedule asks of the optimizer for one step."""

    lr: float  # multiple of each group's peak learning rate
    beta1: float | None = None  # a value, not a factor; None leaves it alone


class TokenCount(float):
    """A length that is decided: tokens, however few."""


Schedule = Callable[[int, int], Factors]  # of the tokens seen after a step, and the tokens of the run
Length = float | str  # below 1 a fraction of the run, from 1 on tokens; or ``auto``


def auto_warmup(total: int, tokens_per_step: int, beta2: float | None, *, before: float = inf) -> TokenCount:
    """Length of ``warmup: auto`` in whole steps: four times the 2 / (1 - beta2) that Adam's second moment needs, at most 30 % of the run.

    Sources: Ma and Yarats 2021, section 5, whose 2 / (1 - beta2) steps are the least; Kalra and Barkeshli 2024: a longer warm-up makes higher
    rates usable, which is what four times as many steps gained here; Brown et al. 2020, appendix B, for the 375e6 tokens, which count where
    they are more and fit. A run of three steps or fewer has none.

    Args:
        total, tokens_per_step: tokens of the run, and of a step of its own batch.
        beta2: of the optimizer; None if it has none: as many steps as with 0.95.
        before: tokens within which it must end (``before_decay``), of which it takes half at most.
    """
    longest = int(min(LONGEST_WARMUP * total, before / 2) / tokens_per_step + 1e-9)
    steps = min(STEPS_TIMES * ceil(round(2 / (1 - (USUAL_BETA2 if beta2 is None else beta2)), 6)), longest)
    return TokenCount(max(steps * tokens_per_step, PAPER_WARMUP if longest * tokens_per_step >= PAPER_WARMUP else 0))


def warmup_tokens(schedule: Schedule, total: int) -> TokenCount | None:
    """Warm-up of a run of ``total`` tokens; None for a schedule without one, and for a user's own, where ``warmup`` may mean anything."""
    option = _options(schedule).get("warmup")
    return None if option is None else TokenCount(_warmup(option, total))


def planned_warmup(schedule: Schedule, total: int, tokens_per_step: int, beta2: float | None) -> TokenCount | None:
    """``warmup_tokens`` of a run that is about to begin: ``auto`` is ``auto_warmup``, whose steps the schedule alone does not know."""
    if _options(schedule).get("warmup") != "auto":
        return warmup_tokens(schedule, total)
    return auto_warmup(total, tokens_per_step, beta2, before=before_decay(schedule, total))


def before_decay(schedule: Schedule, total: int) -> float:
    """Tokens within which a warm-up must end: those up to wsd's cooldown, or up to where gpt3 reaches its floor; else the whole run."""
    options = _options(schedule)
    if "cooldown" in options:
        return total - _length("cooldown", options["cooldown"], total)
    decay = options.get("decay", total)
    return PAPER_DECAY * total if decay == "auto" else _length("decay", decay, total)


def warmup_steps(schedule: Schedule, total: int, tokens_per_step: int) -> int | None:
    """Steps until the peak; 0 if the first step has it, None for a schedule of the user's own."""
    tokens: float | None = warmup_tokens(schedule, total)
    if tokens is None and (share := _options(schedule).get("pct_start")) is not None:
        tokens = share * total
    return None if tokens is None else 0 if tokens <= tokens_per_step else ceil(tokens / tokens_per_step)


def unwrapped(schedule: Schedule) -> Schedule:
    """The function itself with its options: Hydra's partials go through its target policy at every call, half a millisecond a step."""
    return partial(unwrapped(schedule.func), *schedule.args, **schedule.keywords) if isinstance(schedule, partial) else schedule


def _options(schedule: Schedule) -> dict[str, Any]:
    """Options of a schedule of this file, with their values; none of any other."""
    function = unwrapped(schedule)
    if getattr(function.func if isinstance(function, partial) else function, "__module__", None) != __name__:
        return {}
    return {name: option.default for name, option in inspect.signature(schedule).parameters.items()}


def gpt3(tokens: int, total: int, *, warmup: Length = "auto", decay: Length = "auto", floor: float = 0.1) -> Factors:
    """Linear warm-up, cosine to ``floor`` at ``decay``, then flat, after so many ``tokens`` (> 0) of a run of ``total``.

    Source: Brown et al. 2020, appendix B (375e6 tokens of warm-up, cosine to 10 % at 260e9 of 300e9). In shorter runs it keeps its shape.

    A length below 1 is a fraction of the run, from 1 on tokens; ``auto`` is 260/300 of the run for the decay, and the paper's 375e6 for the
    warm-up, at most 1 % of the run (a run decides it by ``planned_warmup`` instead, which knows the steps).

    Raises:
        ConfigError: a value out of its range, or a warm-up that does not end before the decay does.
    """
    rise = _warmup(warmup, total)
    end = PAPER_DECAY * total if decay == "auto" else _length("decay", decay, total)
    _check_ends("the end of the decay", rise, end, total, floor)
    return Factors(_rise(tokens, rise) if tokens < rise else _half_cosine(1.0, floor, _progress(tokens, rise, end)))


def cosine(tokens: int, total: int, *, warmup: Length = "auto", floor: float = 0.1) -> Factors:
    """Linear warm-up, then a cosine to ``floor`` at the end of the run (Loshchilov and Hutter 2017, one period); as ``gpt3``."""
    return gpt3(tokens, total, warmup=warmup, decay=TokenCount(total), floor=floor)


def constant(tokens: int, total: int, *, warmup: Length = "auto") -> Factors:
    """Linear warm-up, then the peak, which a longer run merely continues; arguments as in ``gpt3``."""
    return Factors(_rise(tokens, _warmup(warmup, total)))


def linear(tokens: int, total: int, *, warmup: Length = "auto", floor: float = 0.0) -> Factors:
    """As ``cosine``, with a straight line to ``floor``; to zero it beats a minimum of 10 % (Bergsma et al. 2025)."""
    rise = _warmup(warmup, total)
    _check_ends("the end of the run", rise, total, total, floor)
    return Factors(_rise(tokens, rise) if tokens < rise else floor + (1 - floor) * (1 - _progress(tokens, rise, total)))


def wsd(tokens: int, total: int, *, warmup: Length = "auto", cooldown: float = 0.4, shape: str = "sqrt", floor: float = 0.0) -> Factors:
    """Warm-up, stable, decay: the peak for most of the run, then down; a longer run goes on from before the cooldown.

    Sources: Hu et al. 2024 (MiniCPM, section 4); Hägele et al. 2024, equation 1 and the 1-sqrt shape of section 4. Arguments as in ``gpt3``;
    ``cooldown`` is the length of the decay at the end, ``shape`` linear, or sqrt: 1 - sqrt(share of the cooldown that is over).
    """
    if shape not in ("linear", "sqrt"):
        raise ConfigError(f"scheduler.shape={shape} is not known: write linear or sqrt.")
    rise, begin = _warmup(warmup, total), total - _length("cooldown", cooldown, total)
    _check_ends("the beginning of the cooldown", rise, begin, total, floor)
    if tokens <= begin:
        return Factors(_rise(tokens, rise))
    over = _progress(tokens, begin, total)
    return Factors(floor + (1 - floor) * (1 - (sqrt(over) if shape == "sqrt" else over)))


def one_cycle(
    tokens: int,
    total: int,
    *,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    beta1_max: float = 0.95,
    beta1_min: float = 0.85,
) -> Factors:
    """Half a cosine up to the peak and half a cosine down, beta1 the other way round (Smith 2018; torch's OneCycleLR).

    The peak is reached at the fraction ``pct_start`` of the run. The rate starts at peak / div_factor and ends at that *initial* rate /
    final_div_factor, as torch has it; beta1 is ``beta1_max`` at the start and the end.
    """
    if not 0 < pct_start < 1:
        raise ConfigError(f"scheduler.pct_start={pct_start} is not inside the run: write a fraction between 0 and 1, such as 0.3.")
    if not (1 <= div_factor < inf and 1 <= final_div_factor < inf):
        raise ConfigError(
            f"scheduler.div_factor={div_factor} and final_div_factor={final_div_factor} divide the peak: write numbers from 1 up."
        )
    if not 0 <= beta1_min <= beta1_max < 1:
        raise ConfigError(f"scheduler.beta1_min={beta1_min} and beta1_max={beta1_max} must be in this order, from 0 and below 1.")
    initial, progress = 1 / div_factor, min(tokens / total, 1.0)
    if progress <= pct_start:
        part = progress / pct_start
        return Factors(_half_cosine(initial, 1.0, part), _half_cosine(beta1_max, beta1_min, part))
    part = (progress - pct_start) / (1 - pct_start)
    return Factors(_half_cosine(1.0, initial / final_div_factor, part), _half_cosine(beta1_min, beta1_max, part))


def _check_ends(what: str, rise: float, end: float, total: int, floor: float) -> None:
    if not 0 <= floor <= 1:
        raise ConfigError(f"scheduler.floor={floor} is not a fraction of the peak: write one from 0 to 1.")
    if rise >= end:
        raise ConfigError(
            f"scheduler.warmup takes {100 * rise / total:.3g} % of the run, so it does not end before {what}, at {100 * end / total:.3g} %: "
            "write a smaller fraction, such as 0.02, or fewer tokens."
        )


def _progress(tokens: int, start: float, end: float) -> float:
    """Share of the way from ``start`` to ``end``, at most 1."""
    return min((tokens - start) / (end - start), 1.0)


def _rise(tokens: int, length: float) -> float:
    """Linear from 0 to 1 over ``length`` tokens; 1 at once where there is no warm-up."""
    return min(tokens / length, 1.0) if length > 0 else 1.0


def _half_cosine(start: float, end: float, progress: float) -> float:
    """``start`` at progress 0, ``end`` at 1, flat at both."""
    return end + (start - end) / 2 * (1 + cos(pi * progress))


def _warmup(amount: Length, total: int) -> float:
    return min(PAPER_WARMUP, 0.01 * total) if amount == "auto" else _length("warmup", amount, total)


def _length(key: str, amount: Length, total: int) -> float:
    """Tokens that an option means: below 1 a fraction of the run, from 1 on tokens, never longer than the run."""
    if isinstance(amount, TokenCount):
        return amount
    try:
        value = nan if isinstance(amount, bool) else float(amount)
    except (TypeError, ValueError):
        value = nan
    if not 0 <= value < inf:
        raise ConfigError(f"scheduler.{key}={amount} is not a length: use a fraction of the run (0.02), or tokens (1e6).")
    if value > total:
        raise ConfigError(f"scheduler.{key}={amount} does not fit a run of {total:,} tokens: write a fraction (below 1) or fewer tokens.")
    return value * total if value < 1 else value
