"""``task=noise_scale``: is the batch larger or smaller than it need be? From a short run, from a run that has measured, or at checkpoints.

Without ``task.run`` it trains a short run of its own, recorded like any other; a run that is named is only read.
"""

import os
from itertools import islice
from math import inf
from pathlib import Path

from omegaconf import DictConfig

from gptshake.config.overrides import recomposed
from gptshake.context import Context
from gptshake.errors import CheckpointError, RecordError
from gptshake.estimate.formatting import counted
from gptshake.estimate.noise_scale import LEAST, Measurement, running, sentence
from gptshake.files import expanded, refuse_links
from gptshake.record.names import title_of
from gptshake.record.noise_scale import NAME, NoiseScaleWriter, read_measurements
from gptshake.record.run import find_run, read_run, run_roots
from gptshake.setup.forecast import device_of, set_torch, step_of
from gptshake.setup.instantiate import builder, make
from gptshake.setup.resolve import offset_rule, resolve, token_store
from gptshake.setup.run import train

ROWS = 4  # most sequences of a pass: many small gradients tell more than a few large ones


def run(context: Context) -> None:
    """Print the sentence about the run's batch, and draw the picture.

    Raises:
        ConfigError: no model or no data was named, or the batch has no parts.
        RecordError: there is no such run, or it has no checkpoint.
    """
    cfg, launch = context.config, context.launch
    if cfg.task.run is None:
        train(context)
        _name([launch.path / "plots" / "noise_scale.png"])
        return
    run_dir = find_run(cfg.task.run, run_roots(cfg.paths))
    from gptshake.report.plots_run import batch_of, draw_noise_scale, plot_noise_scale

    info = read_run(run_dir)
    batch = batch_of(info)
    if (run_dir / NAME).exists():
        refuse_links(run_dir)
        print(sentence(running(read_measurements(run_dir)), *batch))
        _name(plot_noise_scale(run_dir))
        return
    found = _measure_checkpoints(recomposed(run_dir, launch.overrides), run_dir, cfg.task.passes)
    folder = expanded(cfg.task.folder) / run_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    writer = NoiseScaleWriter(folder)
    for one in [one for group in found for one in group]:
        writer.append(one)
    writer.flush()
    estimates = [running(group, memory=inf)[-1] for group in found]
    print(sentence(estimates, *batch))
    if estimates[-1].scale is None:
        print(f"More passes make it surer: task.passes={4 * cfg.task.passes}.")
    _name(draw_noise_scale(estimates, batch, title_of(info), folder))


def _measure_checkpoints(cfg: DictConfig, run_dir: Path, passes: int) -> list[list[Measurement]]:
    """Measurements at every checkpoint that is whole, oldest first.

    Args:
        cfg: the run's own config, composed again.
        run_dir: of the run, which stays as it is.
        passes: forward and backward passes at each checkpoint.
    """
    from gptshake.training.checkpoint import folder_of, load_weights, our_state, steps_saved, verify

    steps = steps_saved(run_dir)
    if not steps:
        raise RecordError(f"{run_dir.name} has no checkpoint to measure at.")
    store = token_store(cfg, [], run_dir / "tokenizer")
    budget = resolve(cfg, store)
    import torch

    from gptshake.training.callbacks.noise_scale import measure

    set_torch(cfg)
    model = make(cfg.model, vocab_size=store.tokenizer.vocab_size).to(device_of(cfg))
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
            print(f"{error} It is left out.")
            continue
        print(f"checkpoint {number} of {len(steps)}, step {step:,}: {passes} passes of {counted(rows, 'sequence')}")
        model.load_state_dict(load_weights(folder / "model.safetensors", device_of(cfg)))
        torch.manual_seed(cfg.seed)  # dropout
        source, tokens = islice(data.train_dataloader(), passes), our_state(folder)["tokens"]
        found.append(list(measure(training_step, source, LEAST, passes // LEAST, steps=step, tokens=tokens)))
    if not found:
        raise RecordError(f"No checkpoint of {run_dir.name} is whole.")
    return found


def _name(files: list[Path]) -> None:
    for file in files:
        if file.exists() and file.suffix == ".png":
            print(f"  noise:   {os.path.relpath(file)}")
