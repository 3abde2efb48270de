"""What a run would cost, here or on a device that is not here: memory, hours, money; for ``task=plan`` and ``task=cloud``. Trains nothing."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError
from gptshake.estimate.budget import TOKENS_PER_PARAMETER, Budget
from gptshake.estimate.forecast import GEMM_SHARE, Speed, assumed_speed, run_seconds, step_seconds, steps_within
from gptshake.estimate.formatting import counted
from gptshake.estimate.laws import hold_for
from gptshake.keys import AUTO
from gptshake.model.config import GPTConfig
from gptshake.setup import costs
from gptshake.setup.instantiate import device_of
from gptshake.setup.resolve import resolve
from gptshake.setup.schedule import schedule_text, warmup_notes

LAUNCH_SECONDS = 4e-4  # in which a host starts the kernels of one block, forward and backward: the usual figure, not measured here


def plan(
    cfg: DictConfig,
    store: TokenStore,
    title: str,
    gpu: hardware.Gpu | None = None,
    hours: float | None = None,
    presets: Iterable[Path] = (),
) -> dict[str, Any]:
    """Resolve the config, find the speed, and work everything out; as ``report.tasks_text`` shows it.

    Args:
        cfg: changed in place; its task has ``mfu`` and ``price_per_hour``.
        title: of the model and the text.
        gpu: a device that is not here.
        hours: to work out what fits into them.
        presets: files of models, of which those that fit are found, too.
    """
    if gpu and cfg.trainer.hours:
        raise ConfigError(
            "trainer.hours is measured where a run trains: for another device give trainer.max_steps; task=plan task.hours= says how many fit."
        )
    interval, vocabulary = cfg.trainer.val_check_interval, store.tokenizer.vocab_size
    budget = resolve(cfg, store, gpu=gpu)
    model = costs.model_costs(cfg, vocabulary)
    flops, device, precision = model.flops_per_token(), device_of(cfg), cfg.trainer.precision
    speed, how = _speed(cfg, store, budget, flops, gpu)
    overhead = costs.overhead(cfg, store, model, budget)
    base = hardware.CUDA_CONTEXT if device == "cuda" else speed.base_bytes
    memory = costs.memory(cfg, model, budget.micro_batch_size, base)
    tokens_per_s = budget.tokens_per_step / step_seconds(budget.accumulation, speed)
    settings = precision if device != "cpu" else f"{precision}, {counted(cfg.trainer.threads, 'thread')}"
    built_in = cfg.task.price_per_hour is None and gpu is not None  # in US dollars; the user's may be in any currency
    price = gpu.price_per_hour if built_in and gpu else cfg.task.price_per_hour
    facts: dict[str, Any] = {
        "title": title,
        "device": (f"{budget.devices} x " if budget.devices > 1 else "") + gpu.name if gpu else "this machine",
        "how": how,
        "settings": f"{budget.devices} devices, each {settings}" if budget.devices > 1 else settings,
        "parameters": model.params_by_part() if hasattr(model, "params_by_part") else {"all": model.num_params()},
        "non_embedding": model.num_params(non_embedding=True),  # what laws call N
        "flops_per_token": flops,
        "budget": replace(budget, notes=(*budget.notes, *warmup_notes(cfg, budget))),
        "memory": (memory if speed.held_bytes is None else memory.holding(speed.held_bytes)).sharded(costs.shards(cfg)),
        "memory_there": gpu.memory if gpu else costs.available_memory(cfg),
        "tokens_per_s": tokens_per_s,
        "seconds": run_seconds(budget.steps, budget.accumulation, speed, overhead),
        "price_per_hour": None if price is None else price * budget.devices,
        "currency": "$" if built_in else "",
        "checkpoint_bytes": overhead.checkpoint_bytes,
        "lr": cfg.optimizer.get("lr"),
        "laws": hold_for(str(cfg.optimizer._target_)),
        "schedule": schedule_text(cfg, budget),
        "bytes_per_token": store.bytes_per_token,
    }
    if hours is not None:
        overhead = replace(overhead, interval=None) if interval == AUTO else overhead
        facts["within"] = {
            "hours": hours,
            "steps": steps_within(3600 * hours, budget.accumulation, speed, overhead),
            "epoch_tokens": budget.total_tokens / budget.epochs,
            "documents": store.train.n_documents,
            "presets": [] if flops is None else _presets(presets, cfg, vocabulary, base, flops * tokens_per_s),
        }
    return facts


def _speed(cfg: DictConfig, store: TokenStore, budget: Budget, flops: float | None, gpu: hardware.Gpu | None) -> tuple[Speed, str]:
    """Measured here, or worked out from the FLOPs of a token; and a word about it."""
    if gpu is None and costs.step_fits(cfg, store, budget):
        return costs.speed_in_child(store, cfg, budget), "measured in a few trial steps"
    if flops is None:
        raise ConfigError(
            "The speed is not known: nothing can be measured for this device, and the network does not say its flops_per_token() "
            "and cannot be counted. Give its config that method (docs/extending.md)."
        )
    tokens, precision = budget.micro_batch_size * budget.block_size, cfg.trainer.precision
    if gpu is None:
        reached = GEMM_SHARE * hardware.measured_gemm_flops(device_of(cfg), precision)
        return assumed_speed(flops, tokens, reached), "guessed from a matrix product: a step would not fit"
    reached = cfg.task.mfu * (hardware.known_peak(gpu.name, precision) or 0.0)
    speed = assumed_speed(flops, tokens, reached, launch=LAUNCH_SECONDS * cfg.model.get("n_layer", 0))
    return speed, f"assumed, {cfg.task.mfu:.0%} of its peak"


def _presets(files: Iterable[Path], cfg: DictConfig, vocab_size: int, base: int, flops: float) -> list[dict[str, Any]]:
    """Each of these models with as many tokens as suit its size, one sequence at a time, at the FLOPs per second of this plan."""
    rows: list[dict[str, Any]] = []
    for file in files:
        model = GPTConfig(**OmegaConf.load(file).model, vocab_size=vocab_size)
        tokens = TOKENS_PER_PARAMETER * model.num_params()
        seconds, memory = tokens * model.flops_per_token() / flops, costs.memory(cfg, model, 1, base).sharded(costs.shards(cfg)).total
        rows.append({"name": file.stem, "parameters": model.num_params(), "tokens": tokens, "seconds": seconds, "memory": memory})
    return rows
