"""``task=noise_scale``: is the batch larger or smaller than it need be? From a short run, from a run that has measured, or at checkpoints.

Without ``task.run`` it trains a short run of its own, recorded like any other; a run that is named is only read.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from math import inf
from pathlib import Path

from omegaconf import DictConfig

from gptshake.config.overrides import recomposed
from gptshake.context import Context
from gptshake.errors import CheckpointError, RecordError
from gptshake.estimate.formatting import counted
from gptshake.estimate.noise_scale import LEAST, Measurement, noise_scale_text, running_estimates
from gptshake.files import expanded, refuse_links
from gptshake.record.metrics import NOISE_SCALE, NoiseScaleWriter, read_measurements
from gptshake.record.names import title_of
from gptshake.record.run import find_run, read_run, run_roots, steps_saved
from gptshake.setup.instantiate import data_module, device_of, network, set_torch, training_step
from gptshake.setup.resolve import resolve, token_store
from gptshake.setup.run import train

ROWS = 4  # most sequences of a pass: many small gradients tell more than a few large ones


def run(context: Context) -> None:
    """Print the sentence about the run's batch, and draw the picture."""
    task, spec = context.config.task, context.spec
    if task.run is None:
        train(context)
        _print_pictures([spec.path / "plots" / "noise_scale.png"])
        return
    run_dir = find_run(task.run, run_roots(context.config.paths))
    from gptshake.report.plots_run import batch_of, draw_noise_scale, plot_noise_scale

    info = read_run(run_dir)
    batch = batch_of(info)
    if (run_dir / NOISE_SCALE).exists():
        refuse_links(run_dir)
        print(noise_scale_text(running_estimates(read_measurements(run_dir)), *batch))
        _print_pictures(plot_noise_scale(run_dir))
        return
    found = _measure_checkpoints(recomposed(run_dir, spec.overrides), run_dir, task.passes)
    folder = expanded(task.folder) / run_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    writer = NoiseScaleWriter(folder)
    for measurements in found:
        for measurement in measurements:
            writer.add(measurement)
    writer.flush()
    estimates = [running_estimates(measurements, memory=inf)[-1] for measurements in found]
    print(noise_scale_text(estimates, *batch))
    if estimates[-1].scale is None:
        print(f"More passes make it surer: task.passes={4 * task.passes}.")
    _print_pictures(draw_noise_scale(estimates, batch, title_of(info), folder))


def _measure_checkpoints(cfg: DictConfig, run_dir: Path, passes: int) -> list[list[Measurement]]:
    """Measurements of so many passes at every checkpoint of a run that is whole, oldest first; ``cfg`` is the run's own config."""
    from gptshake.training.checkpoint import folder_of, load_weights, our_state, verify

    steps = steps_saved(run_dir)
    if not steps:
        raise RecordError(f"{run_dir.name} has no checkpoint to measure at.")
    store = token_store(cfg, [], run_dir / "tokenizer")
    budget = resolve(cfg, store)
    import torch

    from gptshake.training.callbacks.noise_scale import measure

    set_torch(cfg)
    model, device = network(cfg, store), device_of(cfg)
    precision = "32-true" if cfg.trainer.precision == "16-mixed" else cfg.trainer.precision  # small gradients would need its loss scale
    step_of_run = training_step(cfg, model.to(device), budget, precision=precision, compile=False)
    rows = min(budget.micro_batch_size, ROWS)
    data = data_module(cfg, store, replace(budget, batch_size=rows, micro_batch_size=rows))
    found = []
    for number, step in enumerate(steps, 1):
        folder = folder_of(run_dir, step)
        try:
            verify(folder)
        except CheckpointError as error:
            print(f"{error} It is left out.")
            continue
        print(f"checkpoint {number} of {len(steps)}, step {step:,}: {passes} passes of {counted(rows, 'sequence')}")
        model.load_state_dict(load_weights(folder))
        torch.manual_seed(cfg.seed)  # dropout
        source, tokens = islice(data.train_dataloader(), passes), our_state(folder)["tokens"]
        found.append(list(measure(step_of_run, source, LEAST, passes // LEAST, steps=step, tokens=tokens)))
    if not found:
        raise RecordError(f"No checkpoint of {run_dir.name} is whole.")
    return found


def _print_pictures(files: Iterable[Path]) -> None:
    for file in files:
        if file.exists() and file.suffix == ".png":
            print(f"  noise:   {os.path.relpath(file)}")
