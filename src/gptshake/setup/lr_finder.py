"""The measurements of ``task=find_lr``: range tests in a child process, and short real runs around a rate as a study of the sweep's own.

Range tests train networks that no training ever sees: a quick ramp over all rates first, then a slow one over the part that moves for each
repeat. So a crash ends the child alone, and a training afterwards is bit for bit what it would have been. The short runs measure the loss at
their end; the line search of ``-m optimizer.lr=range`` places them.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from gptshake.console import Console
from gptshake.data.store import TokenStore
from gptshake.errors import GptshakeError, Stop, TrainingError
from gptshake.estimate.budget import Budget
from gptshake.estimate.formatting import duration
from gptshake.estimate.lr_range import geometric, moves, smooth
from gptshake.processes import ASKED_BY, ChildRunner, Spec, raised, run_command
from gptshake.setup.forecast import device_of, set_torch, step_of
from gptshake.setup.instantiate import give_initial_weights, make
from gptshake.setup.resolve import planned_schedule
from gptshake.setup.run import data_module
from gptshake.signals import SIGNALS

if TYPE_CHECKING:
    from torch import Tensor


HELD_OUT = 16_384  # tokens at most on which the loss is taken after every step
TICK_S = 0.25  # between looks at signals
EVERY_S = 10.0  # between lines of progress where the output is no terminal
PEAK = 256  # places of a schedule that are looked at for its peak


@dataclass(frozen=True)
class Ramps:
    """What the range tests measured: held-out losses in nats per token, each after a step at its rate, as far as the ramp went."""

    quick_rates: list[float]
    quick: list[float]
    rates: list[float]  # of the repeats
    losses: list[list[float]]  # one list per repeat; the last value of a short one is a divergence


def run_range_tests(cfg: DictConfig, store: TokenStore, budget: Budget) -> Ramps:
    """Do them in a child.

    Raises:
        TrainingError: the loss is not finite from the start, or there is not enough memory.
        Stop: a signal came.
    """
    with tempfile.TemporaryDirectory(prefix="gptshake-find_lr-") as folder, SIGNALS.deferred():  # a signal during a fork would be lost
        runner = ChildRunner(_range_tests)
        try:
            child = runner.start(Spec((cfg, store, budget), Path(folder), threads=cfg.trainer.threads, quiet=False))
            while child.outcome is None and SIGNALS.received is None:
                runner.wait([child], TICK_S)
        finally:
            runner.close()
    if SIGNALS.received is not None or child.outcome is None:
        raise Stop(SIGNALS.received or signal.SIGTERM)
    if child.outcome.status == "killed":
        raise TrainingError(f"The range test was {child.outcome.reason}: try a smaller data.micro_batch_size, model or model.block_size.")
    if child.outcome.status != "ok":
        raise raised(child.outcome)
    return Ramps(**child.outcome.value)


def _range_tests(plan: tuple[DictConfig, TokenStore, Budget]) -> dict[str, Any]:
    """The quick ramp, then the repeats where it moved, as the fields of ``Ramps``; in the child."""
    cfg, store, budget = plan
    set_torch(cfg)
    task = cfg.task
    quick_rates = geometric(task.low, task.high, task.steps // 2)
    with closing(_Progress(len(quick_rates) + task.repeats * task.steps)) as progress:
        quick = _ramp(cfg, store, budget, 0, quick_rates, progress)
        if len(quick) == 1:
            raise TrainingError(
                f"The loss is not finite after one step at a learning rate of {task.low:g}, so the rate is not the cause: "
                "check init_from, or try trainer.precision=32-true."
            )
        low, high = moves(quick_rates, smooth(quick)) or (task.low, task.high)
        rates = geometric(low, high, task.steps)
        losses = [_ramp(cfg, store, budget, repeat, rates, progress) for repeat in range(task.repeats)]
    return asdict(Ramps(quick_rates, quick, rates, losses))


def _ramp(cfg: DictConfig, store: TokenStore, budget: Budget, repeat: int, rates: list[float], progress: _Progress) -> list[float]:
    """One ramp on a new network; repeat 0 has the seed of the run."""
    import torch

    from gptshake.training.lr_range import ramp, range_test

    own = cfg.copy()
    with open_dict(own):
        own.seed = cfg.seed + repeat
    torch.manual_seed(own.seed)
    model = make(cfg.model, vocab_size=store.tokenizer.vocab_size)
    if cfg.init_from:
        give_initial_weights(cfg, model, store)
    data = data_module(own, store, budget)
    alone = replace(budget, accumulation=budget.batch_size // budget.micro_batch_size)  # one device does the work of all
    lr = OmegaConf.select(cfg, "optimizer.lr")
    schedule = ramp(rates, alone.tokens_per_step, lr=lr, beta1=_beta1_at_peak(cfg, budget))
    losses = range_test(
        step_of(own, model.to(device_of(cfg)), alone, schedule, compile=False),
        data.train_dataloader(),
        _held_out(data, alone),
        len(rates),
        lambda step, loss: progress(repeat, step, len(rates), rates[step - 1], loss),
    )
    progress.skip(len(rates) - len(losses))
    return losses


def _held_out(data: Any, budget: Budget) -> list[Tensor]:
    """Batches spread over the validation split: as many tokens as a step trains on, ``HELD_OUT`` at most."""
    batches = data.val_dataloader()
    each = budget.micro_batch_size * budget.block_size
    number = max(1, min(budget.accumulation, HELD_OUT // each, len(batches)))
    stride = len(batches) // number
    return list(islice(batches, 0, number * stride, stride))


def _beta1_at_peak(cfg: DictConfig, budget: Budget) -> float | None:
    """The momentum that the schedule has at its peak, if it changes it."""
    schedule, total = planned_schedule(cfg, budget), budget.total_tokens
    factors = [schedule(max(1, total * part // PEAK), total) for part in range(1, PEAK + 1)]
    beta1: float | None = max(factors, key=lambda factor: factor.lr).beta1
    return beta1


class _Progress:
    """A line that renews itself on a terminal, elsewhere one now and then."""

    def __init__(self, steps: int) -> None:
        self._left, self._done = steps, 0
        self._console = Console()
        self._every = 0.2 if self._console.renews else EVERY_S
        self._began = self._shown = 0.0

    def __call__(self, repeat: int, step: int, of: int, rate: float, loss: float) -> None:
        now = time.monotonic()
        if not self._began:  # torch has been imported by now
            self._began = self._shown = now
        self._done, self._left = self._done + 1, self._left - 1
        if now - self._shown < self._every:
            return
        self._shown = now
        left = duration(self._left * (now - self._began) / self._done)
        figures = (f"step {step} of {of}", f"lr {rate:.2e}", f"loss {loss:.4f}", f"{left} left at most")
        self._console.show((f"range test, seed {repeat + 1}", *figures), spare=(0, 4, 2))

    def skip(self, steps: int) -> None:
        """A ramp ended early."""
        self._left -= steps

    def close(self) -> None:
        """Leave a clean line."""
        self._console.clear()


REACH = 64.0  # the study looks as far as this factor from the start


def confirm(overrides: Sequence[str], study: Path, *, start: float, highest: float, n: int | None) -> dict[str, Any]:
    """Run the study, or go on with it.

    Args:
        overrides: of its runs, length included.
        study: its folder.
        start: the rate to begin with.
        highest: no rate above is tried.
        n: runs; None: until the search is over.
    Returns:
        What its study.json holds.
    Raises:
        GptshakeError: no run came to an end.
        Stop: a signal came; what ran is saved, and the study goes on with the same name.
    """
    low, high = start / REACH, max(min(start * REACH, highest), start)
    words = [
        *overrides,
        *(f"paths.multirun={study.parent}", f"study={study.name}"),
        *(f"optimizer.lr={start:.3g}", f"optimizer.lr=tag(log,interval({low:.3g},{high:.3g}))"),
        *([f"hydra.sweeper.n_trials={n}"] if n else []),
        *("hydra.sweeper.keep=1", "hydra.sweeper.noise=false"),
    ]
    code: int = run_command([sys.executable, "-m", "gptshake", "-m", *words], {"HYDRA_FULL_ERROR": None, ASKED_BY: "find_lr"})[0].value
    rows: dict[str, Any] = json.loads((study / "study.json").read_text(encoding="utf-8")) if (study / "study.json").exists() else {}
    if SIGNALS.received is not None or code > 128:
        raise Stop(SIGNALS.received or code - 128)
    if not any(trial["state"] == "ok" for trial in rows.get("trials", ())):
        raise GptshakeError(f"Not one of the runs that should decide on the learning rate came to an end: see above, and {study}.")
    return rows
