"""``task=noise_scale``: is the batch larger or smaller than it need be? From a short run, from a run that has measured, or at checkpoints.

Without ``task.run`` it trains a short run of its own, recorded like any other; a run that is named is only read.
"""

import os
from math import inf
from pathlib import Path

from gptshake.config.overrides import recomposed
from gptshake.context import Context
from gptshake.estimate.noise_scale import Estimate, running, sentence
from gptshake.files import expanded, refuse_links
from gptshake.record.names import title_of
from gptshake.record.noise_scale import NAME, NoiseScaleWriter, read_measurements
from gptshake.record.run import find_run, read_run, run_roots
from gptshake.setup import noise_scale
from gptshake.setup.run import train


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
    folder = expanded(cfg.task.folder) / run_dir.name
    estimates = _at_checkpoints(run_dir, launch.overrides, cfg.task.passes, folder)
    print(sentence(estimates, *batch))
    if estimates[-1].scale is None:
        print(f"More passes make it surer: task.passes={4 * cfg.task.passes}.")
    _name(draw_noise_scale(estimates, batch, title_of(info), folder))


def _at_checkpoints(run_dir: Path, typed: list[str], passes: int, folder: Path) -> list[Estimate]:
    """Measure, keep the numbers in ``folder``, and give one estimate for each checkpoint."""
    own = recomposed(run_dir, typed)
    found = noise_scale.measure_checkpoints(own, run_dir, passes, print)
    folder.mkdir(parents=True, exist_ok=True)
    writer = NoiseScaleWriter(folder)
    for one in [one for group in found for one in group]:
        writer.append(one)
    writer.flush()
    return [running(group, memory=inf)[-1] for group in found]


def _name(files: list[Path]) -> None:
    for file in files:
        if file.exists() and file.suffix == ".png":
            print(f"  noise:   {os.path.relpath(file)}")
