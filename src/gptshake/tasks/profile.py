"""``task=profile``: where the time of a training step goes, and that of the start, before a night is spent on a slow loader.

The training is the real one, but short: its run directory is a scratch folder that goes away, nothing is sent anywhere, and of
a step of very many micro-batches a few stand for all.
"""

import contextlib
import dataclasses
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gptshake import hardware
from gptshake.config.validate import check_groups
from gptshake.context import Context
from gptshake.errors import ConfigError, DataError
from gptshake.estimate import bottleneck
from gptshake.estimate.formatting import counted
from gptshake.files import expanded, write_folder_atomic
from gptshake.setup.run import train

if TYPE_CHECKING:
    from gptshake.training.callbacks.profiler import Profiler

MOST_PASSES = 4  # micro-batches of a step that is profiled: a GPT-3-sized step would take half an hour on a CPU
SPARE_STEPS = 16  # beyond the measured ones: first, traced, and some


def run(context: Context) -> None:
    """Print table and verdict; write picture, trace and numbers into ``task.folder``."""
    cfg, spec = context.config, context.spec
    check_groups(cfg)
    if spec.resumes or cfg.trainer.devices != 1:
        what = "resume" if spec.resumes else "trainer.devices"
        raise ConfigError(f"task=profile watches a short training of its own on one device: leave {what}= out.")
    age = hardware.process_age() if "torch" not in sys.modules else None  # a process for this profile alone: its age is part of the start
    start: dict[str, float] = {} if age is None else {"interpreter and config": age}

    def timed(phase: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        start[phase] = time.perf_counter() - began

    timed("import torch", lambda: importlib.import_module("torch"))
    timed("import pytorch_lightning", lambda: importlib.import_module("gptshake.training.module"))  # Lightning comes with it
    timed("token store", lambda: context.store)
    _ = context.plan
    print(
        f"profiling {counted(cfg.task.warmup, 'step')} of warm-up and 2 x {cfg.task.steps}, at most {cfg.task.seconds:g} s of them",
        flush=True,
    )
    target = expanded(cfg.task.folder) / spec.name
    write_folder_atomic(target, lambda folder: _profile(context, start, folder))
    for name in ("profile.png", "profile.json", "trace.json"):
        print(f"  {os.path.relpath(target / name)}")


def _profile(context: Context, start: dict[str, float], folder: Path) -> None:
    cfg, budget = context.config, context.plan
    from gptshake.report.plots_tasks import draw_profile
    from gptshake.report.tasks_text import profile_text
    from gptshake.training.callbacks.profiler import Measured, Profiler

    profiler = Profiler(warmup=cfg.task.warmup, steps=cfg.task.steps, seconds=cfg.task.seconds, trace=folder / "trace.json")
    passes = min(budget.accumulation, MOST_PASSES)
    # Steps of ``passes`` micro-batches, in a run that is long enough whatever its limits were; nothing is sent anywhere.
    factor, trainer = budget.accumulation / passes, cfg.trainer
    cfg.logger = None
    cfg.data.batch_tokens, cfg.data.batch_size = None, passes * budget.micro_batch_size
    trainer.max_steps = max(round(budget.steps * factor), 2 * (cfg.task.warmup + 2 * cfg.task.steps + SPARE_STEPS))
    trainer.max_epochs = trainer.max_tokens = trainer.max_time = trainer.patience = None
    trainer.val_check_interval = max(1, round(trainer.val_check_interval * factor))
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as scratch, (folder / "log").open("w", encoding="utf-8") as log:
        cfg.paths.run_dir = scratch
        began = time.perf_counter()
        with contextlib.suppress(Measured), contextlib.redirect_stdout(log):
            train(dataclasses.replace(context, spec=dataclasses.replace(context.spec, path=Path(scratch))), profiler)
    if not profiler.measured:
        if not profiler.exhausted:
            raise ConfigError("A callback ended the training before a step was measured: leave it out of the profile.")
        raise DataError(
            f"The data ended before a step was measured, with task.warmup={cfg.task.warmup}: give a longer text or a shorter warm-up."
        )
    callbacks = bottleneck.callbacks_of([profiler.start])
    batch, own = profiler.start.get("data", 0.0), sum(callbacks.values())
    start |= {
        "model and record": profiler.arrived - began + sum(profiler.start.values()) - batch - own,
        "first batch": batch,
        f"callbacks ({next(iter(callbacks), '')})": own,
        "first step": profiler.first_step_s,
    }
    facts = _facts(context, passes, profiler) | {"start": start}
    facts["verdict"] += [bottleneck.start_verdict(start)]
    draw_profile(facts, folder)
    print(profile_text(facts))


def _facts(context: Context, passes: int, profiler: "Profiler") -> dict[str, Any]:
    cfg, spec, budget = context.config, context.spec, context.plan
    trainer, workers = cfg.trainer, cfg.data.get("workers", 0)
    parts = bottleneck.parts_of(profiler.measured, passes, budget.accumulation)
    callbacks, step = bottleneck.callbacks_of(profiler.measured), sum(part.mean_s for part in parts)
    speed = budget.tokens_per_step / step
    mfu = None if profiler.flops_per_token is None else speed * profiler.flops_per_token / profiler.peak_flops
    measured_peak = profiler.peak_flops == hardware.measured_gemm_flops(context.device, trainer.precision)
    situation = bottleneck.Situation(
        device=context.device,
        precision=trainer.precision,
        compiled=trainer.compile,
        workers=workers,
        cores=hardware.logical_cores(),
        accumulation=budget.accumulation,
        batch_size=budget.batch_size,
        callback=next(iter(callbacks), ""),
        mfu=mfu,
        peak="this machine's measured matrix speed" if measured_peak else "the device's dense peak",
        computing=profiler.computing if workers == 0 else None,
    )
    verdict = bottleneck.verdict({part.name: part.mean_s for part in parts}, situation)
    occasions = {name: {"times": len(all_s), "seconds": fmean(all_s)} for name, all_s in profiler.announcer.occasions.items() if all_s}
    if "validation" in occasions:
        interval = max(1, round(trainer.val_check_interval * passes / budget.accumulation))
        verdict += filter(None, [bottleneck.validation_hint(occasions["validation"]["seconds"], interval, step)])
    return {
        "name": spec.name,
        "overrides": spec.overrides,
        "versions": spec.provenance,
        "hardware": hardware.describe(),
        "data": context.store.label,
        "device": f"{trainer.accelerator}, {trainer.precision}, {counted(trainer.threads, 'thread')}",
        "batch": {"size": budget.batch_size, "accumulation": budget.accumulation, "measured": passes, "block_size": budget.block_size},
        "step_s": step,
        "tokens_per_s": speed,
        "mfu": mfu,
        "parts": [dataclasses.asdict(part) for part in parts],
        "callbacks": callbacks,
        "occasions": occasions,
        "measuring": bottleneck.measuring_cost(profiler.measured_s, profiler.plain_s),
        "steps": {"measured_s": profiler.measured_s, "plain_s": profiler.plain_s, "parts": profiler.measured},
        "verdict": verdict,
    }
