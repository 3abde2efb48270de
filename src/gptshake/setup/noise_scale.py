"""Gradient noise at the checkpoints of an earlier run: its config, data and weights put together again, and nothing of it changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from omegaconf import DictConfig

from gptshake.errors import CheckpointError, RecordError
from gptshake.estimate.noise_scale import LEAST, Measurement
from gptshake.estimate.words import counted
from gptshake.setup.forecast import device_of, set_torch, step_of
from gptshake.setup.instantiate import builder, make
from gptshake.setup.resolve import offset_rule, resolve, token_store

ROWS = 4  # most sequences of a pass: many small gradients tell more than a few large ones


def measure_checkpoints(cfg: DictConfig, run_dir: Path, passes: int, say: Callable[[str], None]) -> list[list[Measurement]]:
    """Measurements at every checkpoint that is whole, oldest first.

    Args:
        cfg: the run's own config, composed again.
        run_dir: of the run.
        passes: forward and backward passes at each checkpoint.
        say: told what goes on.
    Raises:
        RecordError: the run has no checkpoint, or none is whole.
    """
    from gptshake.training.checkpoint import folder_of, steps_saved

    steps = steps_saved(run_dir)
    if not steps:
        raise RecordError(f"{run_dir.name} has no checkpoint to measure at.")
    store = token_store(cfg, [], run_dir / "tokenizer")
    budget = resolve(cfg, store)
    import torch

    from gptshake.training.callbacks.noise_scale import measure
    from gptshake.training.checkpoint import load_weights, our_state, verify

    set_torch(cfg)
    device = device_of(cfg)
    model = make(cfg.model, vocab_size=store.tokenizer.vocab_size).to(device)
    precision = "32-true" if cfg.trainer.precision == "16-mixed" else cfg.trainer.precision  # small gradients would need its loss scale
    training_step = step_of(cfg, model, budget, precision=precision, compile=False)
    rows = min(budget.micro_batch_size, ROWS)
    data = builder(cfg.data)(
        store=store, block_size=cfg.model.block_size, batch_size=rows, micro_batch_size=rows, seed=cfg.seed, offset=offset_rule(cfg)
    )
    found = []
    for number, step in enumerate(steps, 1):
        folder = folder_of(run_dir, step)
        try:
            verify(folder)
        except CheckpointError as error:
            say(f"{error} It is left out.")
            continue
        say(f"checkpoint {number} of {len(steps)}, step {step:,}: {passes} passes of {counted(rows, 'sequence')}")
        model.load_state_dict(load_weights(folder / "model.safetensors", device))
        torch.manual_seed(cfg.seed)  # dropout
        source, tokens = islice(data.train_dataloader(), passes), our_state(folder)["tokens"]
        found.append(list(measure(training_step, source, LEAST, passes // LEAST, steps=step, tokens=tokens)))
    if not found:
        raise RecordError(f"No checkpoint of {run_dir.name} is whole.")
    return found
