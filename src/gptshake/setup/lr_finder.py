"""The measurements of ``task=find_lr``: range tests in a child process, and short real runs as a study of the sweep's own.

Range tests train networks that no training ever sees: a quick ramp over all rates first, then a slow one over the part that moves for each
repeat. So a crash ends the child alone, and a training afterwards is bit for bit what it would have been. The short runs measure the loss at
their end; the line search of ``-m optimizer.lr=range`` places them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
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
from gptshake.processes import ASKED_BY, raised, run_command
from gptshake.setup.costs import in_child
from gptshake.setup.instantiate import data_module, device_of, load_initial_weights, network, set_torch, training_step
from gptshake.setup.schedule import planned_schedule
from gptshake.signals import SIGNALS

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT = 16_384  # tokens at most on which the loss is taken after every step
PROGRESS_S = 10.0  # between lines of progress where the output is no terminal
PEAK_POINTS = 256  # of a schedule that are looked at for its peak
REACH = 64.0  # the study looks as far as this factor from the start


def run_range_tests(cfg: DictConfig, store: TokenStore, budget: Budget) -> dict[str, Any]:
    """Held-out losses after each step of the ramps, in nats per token, from a child.

    Returns:
        ``quick_rates`` and ``quick``, the losses of the first ramp; ``rates`` and ``losses``, a list for each repeat. A ramp that
        diverged has fewer losses than rates, and its last loss is the divergence.
    Raises:
        TrainingError: the loss is not finite from the start, or there is not enough memory.
        Stop: a signal came.
    """
    outcome = in_child(_range_tests, (cfg, store, budget), cfg.trainer.threads, quiet=False)
    if outcome.status == "killed":
        raise TrainingError(f"The range test was {outcome.reason}: try a smaller data.micro_batch_size, model or model.block_size.")
    if outcome.status != "ok":
        raise raised(outcome)
    ramps: dict[str, Any] = outcome.value
    return ramps


def _range_tests(plan: tuple[DictConfig, TokenStore, Budget]) -> dict[str, Any]:
    """The quick ramp, then the repeats where its loss moved; in the child."""
    cfg, task = plan[0], plan[0].task
    set_torch(cfg)
    quick_rates = geometric(task.low, task.high, task.steps // 2)
    progress = _Progress(len(quick_rates) + task.repeats * task.steps)
    try:
        quick = _ramp(plan, 0, quick_rates, progress)
        if len(quick) == 1:
            raise TrainingError(
                f"The loss is not finite after one step at a learning rate of {task.low:g}, so the rate is not the cause: "
                "check init_from, or try trainer.precision=32-true."
            )
        low, high = moves(quick_rates, smooth(quick)) or (task.low, task.high)
        rates = geometric(low, high, task.steps)
        losses = [_ramp(plan, repeat, rates, progress) for repeat in range(task.repeats)]
    finally:
        progress.console.clear()
    return {"quick_rates": quick_rates, "quick": quick, "rates": rates, "losses": losses}


def _ramp(plan: tuple[DictConfig, TokenStore, Budget], repeat: int, rates: list[float], progress: _Progress) -> list[float]:
    """One ramp on a new network; repeat 0 has the seed of the run."""
    from gptshake.training.lr_range import ramp, range_test

    cfg, store, budget = plan
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.seed += repeat
    model = network(cfg, store)
    if cfg.init_from:
        load_initial_weights(cfg, model, store)
    data = data_module(cfg, store, budget)
    alone = replace(budget, accumulation=budget.batch_size // budget.micro_batch_size)  # one device does the work of all
    schedule, total = planned_schedule(cfg, budget), budget.total_tokens
    factors = [schedule(max(1, total * part // PEAK_POINTS), total) for part in range(1, PEAK_POINTS + 1)]
    beta1 = max(factors, key=lambda factor: factor.lr).beta1  # the momentum at the peak, if the schedule changes it
    losses = range_test(
        training_step(
            cfg,
            model.to(device_of(cfg)),
            alone,
            ramp(rates, alone.tokens_per_step, lr=OmegaConf.select(cfg, "optimizer.lr"), beta1=beta1),
            compile=False,
        ),
        data.train_dataloader(),
        _held_out(data, alone),
        len(rates),
        lambda step, loss: progress(repeat, step, len(rates), rates[step - 1], loss),
    )
    progress.left -= len(rates) - len(losses)
    return losses


def _held_out(data: Any, budget: Budget) -> list[Tensor]:
    """Batches spread over the validation split: as many tokens as a step trains on, ``HELD_OUT`` at most."""
    batches = data.val_dataloader()
    number = max(1, min(budget.accumulation, HELD_OUT // (budget.micro_batch_size * budget.block_size), len(batches)))
    stride = len(batches) // number
    return list(islice(batches, 0, number * stride, stride))


class _Progress:
    """A line that is rewritten on a terminal; elsewhere one every ``PROGRESS_S`` seconds."""

    def __init__(self, steps: int) -> None:
        self.left, self._done = steps, 0
        self.console = Console()
        self._every = 0.2 if self.console.renews else PROGRESS_S
        self._started = self._shown = 0.0

    def __call__(self, repeat: int, step: int, of: int, rate: float, loss: float) -> None:
        now = time.monotonic()
        if not self._started:  # torch has been imported by now
            self._started = self._shown = now
        self._done, self.left = self._done + 1, self.left - 1
        if now - self._shown < self._every:
            return
        self._shown = now
        left = duration(self.left * (now - self._started) / (self._done - 1))  # the clock starts at the end of the first step
        figures = (f"step {step} of {of}", f"lr {rate:.2e}", f"loss {loss:.4f}", f"{left} left at most")
        self.console.show((f"range test, seed {repeat + 1}", *figures), spare=(0, 4, 2))


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
