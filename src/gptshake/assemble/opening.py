"""The record of a run at its two ends: opened with all that explains it, closed with how it ended, and what is said then.

A run that goes on is held against its plan first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.assemble.forecast import around, device_of, memory, model_shape
from gptshake.assemble.parts import make
from gptshake.data.round_trip import round_trip
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError, GptshakeError, Pruned, Stop
from gptshake.estimate import cost
from gptshake.estimate.budget import Budget, parse_max_time
from gptshake.estimate.forecast import GEMM_SHARE, assumed_speed, doubts, run_seconds
from gptshake.estimate.words import duration, short_bytes, short_count
from gptshake.record.launch import Launch
from gptshake.record.provenance import copy_patch, save_patch
from gptshake.record.run import Run

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule


def open_run(cfg: DictConfig, launch: Launch, store: TokenStore, budget: Budget) -> Run:
    """Begin the record of a new run, or open that of the run to go on with.

    Raises:
        ConfigError: a longer schedule than the one that the run began with.
    """
    if launch.resumes:
        run = Run.open(launch.path)
        _refuse_another_schedule(cfg, run, budget)
        run.update(status="running", reason=None)
        return run
    run = Run.create(
        launch.path,
        id=launch.id,
        name=launch.name,
        task=str(cfg.task._target_).split(".")[-2],
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        overrides=launch.overrides,
        provenance=launch.provenance,
    )
    copy_patch(launch.patch, run.path) if launch.patch else save_patch(run.path)
    (run.path / "tokenizer").mkdir(exist_ok=True)
    store.tokenizer.save(run.path / "tokenizer")
    keys = (
        "data.batch_size",
        "data.micro_batch_size",
        "data.workers",
        "trainer.accelerator",
        "trainer.precision",
        "trainer.threads",
        "trainer.val_check_interval",
    )
    resolved = {key: OmegaConf.select(cfg, key) for key in keys} | {
        f"data.{key}": value for key, value in make(cfg.data.documents).resolved().items()
    }
    if budget.measured:
        resolved |= {"trainer.max_steps": budget.steps, "trainer.hours": None}
    run.update(
        trial=launch.trial,
        choices=launch.choices,
        resolved=resolved,
        budget={
            "steps": budget.steps,
            "tokens": budget.total_tokens,
            "tokens_per_step": budget.tokens_per_step,
            "stop_rule": budget.stop_rule,
        },
        data={
            "label": store.label,
            "licence": store.licence,
            "fingerprint": store.fingerprint,
            "store": store.key,
            "tokenizer": store.tokenizer.digest,
            "vocab_size": store.tokenizer.vocab_size,
            "entropy": store.entropy,
            "bytes_per_token": store.bytes_per_token,
        },
        hardware=hardware.describe(),
    )
    return run


def _refuse_another_schedule(cfg: DictConfig, run: Run, budget: Budget) -> None:
    """The rest of the old plan must be the same under the new one: a constant rate may go on, a cosine may not be stretched."""
    old, seen = int(run.info["budget"]["tokens"]), len(run.rows()) * budget.tokens_per_step
    schedule = make(cfg.scheduler)
    rest = [seen + (old - seen) * part // 8 for part in range(1, 9)]
    if old != budget.total_tokens and any(schedule(tokens, old) != schedule(tokens, budget.total_tokens) for tokens in rest):
        raise ConfigError(
            f"{run.name} was planned for {old:,} tokens and its schedule falls towards that end; {budget.total_tokens:,} would bend it. Leave the limits "
            f"as they were, or start a new run from its weights: init_from={run.id}."
        )


@contextmanager
def outcome(run: Run) -> Iterator[None]:
    """Write into the record how the run ended, if it did not end well."""
    try:
        yield
    except Stop as stop:
        run.finish("interrupted", f"signal {stop.signum}")
        run.say(f"stopped by a signal; go on with: gptshake resume={run.id}")
        raise
    except Pruned as pruned:
        run.finish("pruned", pruned.reason, run.info.get("summary"))
        run.say(f"pruned: {pruned.reason}")
        raise
    except Exception as error:
        run.finish("failed", str(error) if isinstance(error, GptshakeError) else f"{type(error).__name__}: {error}")
        raise


def say_plan(cfg: DictConfig, run: Run, store: TokenStore, budget: Budget, base: int, gemm: float) -> None:
    """Say in one line what the run will do, and in others what was decided for it and what looks wrong.

    Args:
        cfg: settled.
        run: says it, and keeps it.
        store: the data.
        budget: of the run.
        base: bytes that the process held before there was a network.
        gemm: FLOPs per second of a matrix product here.
    """
    shape, vocabulary, device = model_shape(cfg), store.tokenizer.vocab_size, device_of(cfg)
    speed = assumed_speed(shape, vocabulary, budget.micro_batch_size, gemm * GEMM_SHARE)
    seconds = sum(run_seconds(budget.steps, budget.accumulation, speed, around(cfg, store, shape, budget)).values())
    peak, there = memory(cfg, shape, vocabulary, budget.micro_batch_size, base).total, hardware.device_memory(device)
    for note in (*budget.notes, *doubts(budget.epochs, peak, there, budget.micro_batch_size)):
        run.say(f"note: {note}")
    accumulation = f" = {budget.accumulation} x {budget.micro_batch_size}" if budget.accumulation > 1 else ""
    run.say(
        f"plan: {short_count(cost.n_parameters(shape, vocabulary))} parameters | {store.label}, {short_count(store.train.n_tokens)} train tokens,"
        f" vocabulary {vocabulary} | {budget.steps:,} steps x {budget.batch_size}{accumulation} sequences of {budget.block_size}"
        f" = {short_count(budget.total_tokens)} tokens, {budget.epochs:.2g} epochs ({budget.stop_rule})"
        f" | peak lr {OmegaConf.select(cfg, 'optimizer.lr') or 0:.3g} | {cfg.trainer.accelerator}, {cfg.trainer.precision},"
        f" {cfg.trainer.threads} threads, about {short_bytes(peak)} of {short_bytes(there)} | roughly {duration(seconds)}"
    )
    if cfg.trainer.max_time and parse_max_time(cfg.trainer.max_time) < seconds:
        run.say(f"note: trainer.max_time={cfg.trainer.max_time} will probably end this run before its schedule does")


def show_data(run: Run, store: TokenStore, data: TokenDataModule, *, begins: bool) -> None:
    """Show what the model will read, and what the tokenizer makes of three documents, so that garbage is seen at once.

    Raises:
        DataError: the tokenizer does not give back a text that it was given.
    """
    block = store.tokenizer.decode(data.sample_block().tolist())[:120]
    run.say(f"run: {run.path}")
    run.say(f"first block, {store.bytes_per_token:.3g} bytes per token: {block!r}")
    verdict = round_trip(store)
    run.say(verdict)
    if begins:
        run.sample(0, 0, f"{block}\n\n{store.bytes_per_token:.3g} bytes per token; {verdict}", title="first training block")


def say_end(run: Run, summary: dict[str, float]) -> None:
    """Say what came out, where it lies, and what to do next."""
    parts = [f"val loss {summary['val/loss']:.4f} nats per token, {summary['val/bpb']:.4f} bits per byte" if "val/loss" in summary else ""]
    parts += [f"test {summary['test/bpb']:.4f} bpb" if "test/bpb" in summary else "", f"after {summary['train/tokens']:,.0f} tokens"]
    run.say(f"done: {' | '.join(part for part in parts if part)}")
    for name, path in (("record", run.path), ("curves", run.path / "plots" / "loss.png"), ("samples", run.path / "samples.md")):
        if Path(path).exists():
            run.say(f"  {name + ':':<9}{os.path.relpath(path)}")
    run.say(f"  next:    gptshake task=sample task.run={run.id} task.prompt='The '")
