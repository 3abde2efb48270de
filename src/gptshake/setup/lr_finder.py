"""The range tests of ``task=find_lr``, in a child process.

They train networks that no training ever sees: a quick ramp over all rates first, then a slow one over the part that moves for each repeat.
So a crash ends the child alone, and a training afterwards is bit for bit what it would have been.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from gptshake.console import Console
from gptshake.data.store import TokenStore
from gptshake.errors import TrainingError
from gptshake.estimate.budget import Budget
from gptshake.estimate.formatting import duration
from gptshake.estimate.lr_range import active_range, geometric_rates, smooth
from gptshake.outcome import raised
from gptshake.setup.costs import run_in_child
from gptshake.setup.initial import initial_weights
from gptshake.setup.instantiate import data_module, device_of, network, set_torch, training_step
from gptshake.setup.schedule import planned_schedule

HELD_OUT = 16_384  # tokens at most on which the loss is taken after every step
PROGRESS_S = 10.0  # between lines of progress where the output is no terminal
PEAK_POINTS = 256  # of a schedule that are looked at for its peak


def run_range_tests(cfg: DictConfig, store: TokenStore, budget: Budget) -> dict[str, Any]:
    """Held-out losses after each step of the ramps, in nats per token, from a child.

    Returns:
        ``quick_rates`` and ``quick``, the losses of the first ramp; ``rates`` and ``losses``, a list for each repeat. A ramp that
        diverged has fewer losses than rates, and its last loss is the divergence.
    """
    outcome = run_in_child(_range_tests, (cfg, store, budget), cfg.trainer.threads, quiet=False)
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
    quick_rates = geometric_rates(task.low, task.high, task.steps // 2)
    progress = _Progress(len(quick_rates) + task.repeats * task.steps)
    try:
        quick = _ramp(plan, 0, quick_rates, progress)
        if len(quick) == 1:
            raise TrainingError(
                f"The loss is not finite after one step at a learning rate of {task.low:g}, so the rate is not the cause: "
                "check init_from, or try trainer.precision=32-true."
            )
        low, high = active_range(quick_rates, smooth(quick)) or (task.low, task.high)
        rates = geometric_rates(low, high, task.steps)
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
        initial_weights(cfg, store.tokenizer, {}).load(model)
    data = data_module(cfg, store, budget)
    alone = replace(budget, accumulation=budget.batch_size // budget.micro_batch_size)  # one device does the work of all
    schedule, total = planned_schedule(cfg, budget), budget.total_tokens
    factors = [schedule(max(1, total * part // PEAK_POINTS), total) for part in range(1, PEAK_POINTS + 1)]
    beta1 = max(factors, key=lambda factor: factor.lr).beta1  # the momentum at the peak, if the schedule changes it
    # Spread over the validation split: as many tokens as a step trains on, ``HELD_OUT`` at most.
    held_out = data.val_dataloader()
    number = max(1, min(alone.accumulation, HELD_OUT // (alone.micro_batch_size * alone.block_size), len(held_out)))
    stride = len(held_out) // number
    losses = range_test(
        training_step(
            cfg,
            model.to(device_of(cfg)),
            alone,
            ramp(rates, alone.tokens_per_step, lr=OmegaConf.select(cfg, "optimizer.lr"), beta1=beta1),
            compile=False,
        ),
        data.train_dataloader(),
        list(islice(held_out, 0, number * stride, stride)),
        len(rates),
        lambda step, loss: progress(repeat, step, len(rates), rates[step - 1], loss),
    )
    progress.left -= len(rates) - len(losses)
    return losses


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
