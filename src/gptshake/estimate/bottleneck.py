"""What holds a training step up, from the seconds of its parts: a verdict in words, with a number and something to do about it.

What could be avoided (waiting for data, copies, bookkeeping, an update for few tokens) is blamed before the arithmetic of the
network, which is what a step is for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from gptshake.estimate.formatting import duration, percent, three_digits

PARTS = ("data", "transfer", "forward", "backward", "optimizer", "logging", "other")
ONCE_A_STEP = ("optimizer", "logging")  # the other parts come again with every micro-batch
MOST_WORKERS = 16
HAND_OVER_S = 1e-3  # what a worker needs to hand a batch over
LOW_MFU = 0.15  # below it passes are too small to fill a device: 0.3 to 0.4 is usual on a CPU, 0.3 to 0.5 on a GPU
MUCH_VALIDATION, GOOD_VALIDATION = 0.15, 0.05  # shares of the training: what is mentioned, and what is recommended


@dataclass(frozen=True)
class Situation:
    """What a verdict needs to know besides the seconds."""

    device: str  # cpu, cuda, mps
    precision: str  # Lightning's word
    compiled: bool
    workers: int  # processes that fetch batches
    cores: int  # of the machine
    accumulation: int  # micro-batches of a step
    batch_size: int  # sequences of a step
    callback: str  # the slowest of them
    mfu: float | None  # share of ``peak`` that the step makes use of
    peak: str  # what the share is of, in words
    computing: float | None = None  # share of the data's seconds in which this process computed; None: workers fetch


@dataclass(frozen=True)
class Part:
    """What one part takes of a step."""

    name: str
    median_s: float
    mean_s: float  # the share is of this one: a loader that stalls now and then stalls in the mean only
    share: float


def parts_of(measured: Sequence[Mapping[str, float]], passes: int, accumulation: int) -> list[Part]:
    """The parts of a step of ``accumulation`` micro-batches, from the seconds by part of measured steps of ``passes`` micro-batches.

    ``logging/<callback>`` is a callback's; what is none of ``PARTS`` is left out.
    """
    found = []
    for name in PARTS:
        factor = 1.0 if name in ONCE_A_STEP else accumulation / passes
        seconds = [factor * sum(value for part, value in step.items() if part.partition("/")[0] == name) for step in measured]
        found.append((name, median(seconds), fmean(seconds)))
    total = sum(mean for _, _, mean in found)
    return [Part(name, middle, mean, mean / total) for name, middle, mean in found]


def callbacks_of(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean seconds of a step by callback, the slowest first."""
    names = {part.partition("/")[2] for step in measured for part in step} - {""}
    seconds = {
        name: fmean(sum(value for part, value in step.items() if part.partition("/")[2] == name) for step in measured) for name in names
    }
    return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))


def measuring_cost(measured_s: Sequence[float], plain_s: Sequence[float]) -> float:
    """By what share measured steps take longer than those between them, by medians; below 0 it is noise."""
    return median(measured_s) / median(plain_s) - 1


def verdict(parts: Mapping[str, float], now: Situation) -> list[str]:
    """What holds up a step whose ``PARTS`` take so many seconds, the worst first; one sentence if only the network's arithmetic does."""
    total = sum(parts.values())
    shares = {name: seconds / total for name, seconds in parts.items()}
    around, blamed = shares["logging"] + shares["other"], list[tuple[float, str]]()
    if shares["data"] >= 0.2:
        blamed.append((shares["data"], _loader(shares["data"], total / now.accumulation, now)))
    if shares["transfer"] >= 0.2:
        transfer = f"transfer-bound: {percent(shares['transfer'])} of the step copies batches to the device"
        blamed.append((shares["transfer"], f"{transfer}; a larger data.micro_batch_size copies in fewer, larger pieces."))
    if around >= 0.25:
        blamed.append((around, _bookkeeping(shares, total, now)))
    if shares["optimizer"] >= 0.25:
        blamed.append((shares["optimizer"], _optimizer(shares["optimizer"], now)))
    return [sentence for _, sentence in sorted(blamed, key=lambda item: -item[0])] or [_compute(shares, now)]


def validation_hint(seconds: float, interval: int, step_seconds: float) -> str | None:
    """A sentence if validations of ``seconds`` each, ``interval`` steps of ``step_seconds`` apart, take much of the training."""
    share = seconds / (seconds + interval * step_seconds)
    if share < MUCH_VALIDATION:
        return None
    wanted = math.ceil(seconds * (1 / GOOD_VALIDATION - 1) / step_seconds)
    every = f"every {interval} steps" if interval > 1 else "after every step"
    return (
        f"validations take {percent(share)} of the training ({three_digits(seconds)} s {every}): trainer.val_check_interval={wanted} "
        f"makes that {percent(GOOD_VALIDATION)}."
    )


def start_verdict(phases: Mapping[str, float]) -> str:
    """Where the start went, in one sentence; ``phases`` are seconds by name."""
    total, longest = sum(phases.values()), max(phases, key=lambda name: phases[name])
    again = "; the next run finds it built" if longest == "token store" and phases[longest] > 1 else ""
    return f"the start took {duration(total) if total >= 60 else f'{three_digits(total)} s'}, {percent(phases[longest] / total)} of it: {longest}{again}."


def workers_needed(wait: float, rest: float, workers: int) -> int:
    """Processes that would fetch as fast as a pass consumes, from the seconds of a pass that wait for data, the ``rest`` of it, and the
    processes that fetch now (0: the training itself does, between its passes).
    """
    fetch = wait if workers == 0 else workers * (wait + rest)  # seconds of one batch
    return max(1, workers + 1 if workers else 1, math.ceil(round(fetch / max(rest, HAND_OVER_S), 3)))


def _loader(share: float, pass_s: float, now: Situation) -> str:
    wait, rest = share * pass_s, (1 - share) * pass_s
    needed, computes = workers_needed(wait, rest, now.workers), now.computing is not None and now.computing > 0.5
    most = min(now.cores, MOST_WORKERS) if computes else MOST_WORKERS
    how = "" if now.computing is None else "; fetching computes" if computes else "; fetching itself waits for a disk or a network"
    head = f"loader-bound: {percent(share)} of the step waits for data ({three_digits(1e3 * wait)} ms a micro-batch{how})"
    if now.workers == 0 and wait < HAND_OVER_S:
        return f"{head}; a larger data.micro_batch_size makes fewer, larger batches."
    if needed > most:
        more = f"set data.workers={most}, and " if now.workers < most else ""
        return f"{head}; {more}make the source faster: {needed} processes would be needed to keep up with the training."
    return f"{head}; set data.workers={needed} (at best {1 / (1 - share):.2g} times as fast)."


def _bookkeeping(shares: Mapping[str, float], total: float, now: Situation) -> str:
    head = (
        f"overhead-bound: callbacks and the record take {percent(shares['logging'])}, the loop around the passes "
        f"{percent(shares['other'])} of a step of {three_digits(1e3 * total)} ms"
    )
    if shares["logging"] > shares["other"]:
        return f"{head}; the slowest callback is {now.callback}, and callbacks=none leaves out those that can be left out."
    if now.accumulation > 1:
        return f"{head}; a larger data.micro_batch_size makes fewer, longer passes."
    return f"{head}; a larger data.batch_size makes longer steps."


def _optimizer(share: float, now: Situation) -> str:
    factor = 2
    while share / (share + factor * (1 - share)) > 0.15 and factor < 64:
        factor *= 2
    return (
        f"optimizer-bound: the update of the weights takes {percent(share)} of the step, for {now.batch_size} sequences; "
        f"with data.batch_size={factor * now.batch_size} it would be {percent(share / (share + factor * (1 - share)))} "
        "(another batch may need another optimizer.lr)."
    )


def _compute(shares: Mapping[str, float], now: Situation) -> str:
    mfu = "MFU not known" if now.mfu is None else f"MFU {now.mfu:.2g} of {now.peak}"
    head = f"compute-bound: forward and backward are {percent(shares['forward'] + shares['backward'])} of the step; {mfu}"
    if now.device == "cuda" and now.precision == "32-true":
        return f"{head}; trainer.precision=bf16-mixed (16-mixed before Ampere) multiplies faster."
    if now.mfu is not None and now.mfu < LOW_MFU:
        larger = "data.micro_batch_size" if now.accumulation > 1 else "data.batch_size"
        compiling = "" if now.compiled else ", and trainer.compile=true joins small operations"
        return f"{head}: the device is not filled; a larger {larger} makes larger passes{compiling}."
    if now.device == "cuda" and not now.compiled:
        return f"{head}; trainer.compile=true may gain a little more."
    return f"{head}; nothing around them is worth optimizing: a smaller model or a faster device is what remains."
