"""Micro-batch sizes tried for real, each in a child process of its own, so that running out of memory ends the trial alone.

For ``task=fit_batch``, and for ``data.micro_batch_size=auto`` on a GPU, where the result is cached for the next runs of the same
shape, device, precision and versions. On a CPU ``auto`` stays the closed form of ``estimate/memory.py``: equal commands make equal plans.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.batch_size import Tried, fastest, next_size
from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import Speed
from gptshake.estimate.formatting import counted, duration, short_bytes
from gptshake.estimate.memory import MEMORY_SHARE
from gptshake.files import expanded, sha256_text, write_atomic
from gptshake.outcome import Outcome
from gptshake.setup.costs import memory, model_costs, run_in_child, speed_here
from gptshake.setup.instantiate import device_of

GPU_SHARE = 0.9  # of a GPU's free memory: the rest is for fragments, validation and the libraries' buffers
AUTO_SECONDS = 60.0  # that a run may take to find its micro-batch; five times as long where each size must be compiled
AUTO_DEVICES = ("cuda",)  # where it does


@dataclass
class BatchFinder:
    """A search for the largest and the fastest micro-batch of a run.

    Attributes:
        cfg, store, budget: of the run.
        limit: bytes that a training may hold.
        tried: the sizes so far.
    """

    cfg: DictConfig
    store: TokenStore
    budget: Budget
    limit: int
    tried: list[Tried] = field(default_factory=list)

    def search(
        self,
        *,
        saturates: bool,
        most: int | None = None,
        seconds: float = float("inf"),
        report: Callable[[Tried], None] = lambda row: None,
    ) -> None:
        """Try sizes until ``next_size`` knows enough (``saturates`` and ``most`` are its own), or for so many seconds."""
        cfg, budget, until = self.cfg, self.budget, time.monotonic() + seconds
        while (size := next_size(self.tried, per_device(budget), most=most, saturates=saturates)) is not None:
            one = replace(budget, micro_batch_size=size, accumulation=1)
            outcome = run_in_child(_speed_within, (self.store, cfg, one, self.limit), cfg.trainer.threads, seconds=until - time.monotonic())
            if outcome.status == "timeout":
                return
            if outcome.status not in ("ok", "killed"):
                raise GptshakeError(f"A step of {counted(size, 'sequence')} could not be tried: {outcome.reason}")
            self.tried.append(self._row(size, outcome))
            report(self.tried[-1])
        if any(row.fits for row in self.tried):
            return
        halved = ", trainer.precision=bf16-mixed" if cfg.trainer.precision == hardware.FP32 else ""
        more = "a device with more memory" if OmegaConf.select(cfg, "task.memory") is None else "a larger task.memory"
        raise ConfigError(
            f"Not even one sequence of {budget.block_size:,} tokens fits into {short_bytes(self.limit)} of memory: {self.tried[0].why}. "
            f"Take a smaller model, a smaller model.block_size than {budget.block_size}{halved}, or {more}."
        )

    def _row(self, size: int, outcome: Outcome) -> Tried:
        """A size that was measured, or for which memory ran out: the child says so, or the kernel killed it."""
        if outcome.status == "killed" or isinstance(outcome.value, str):
            return Tried(size, fits=False, why=outcome.value or outcome.reason)
        cfg, speed = self.cfg, Speed(**outcome.value)
        base = hardware.CUDA_CONTEXT if device_of(cfg) == "cuda" else speed.base_bytes
        peak = memory(cfg, model_costs(cfg, self.store.tokenizer.vocab_size), size, base).holding(speed.held_bytes or 0).total or 0
        why = f"took {short_bytes(peak)}" if peak > self.limit else ""
        return Tried(size, not why, peak, speed.micro_batch, speed.update, why)


def _speed_within(task: tuple[TokenStore, DictConfig, Budget, int]) -> dict[str, Any] | str:
    from gptshake.training.probe import within

    store, cfg, budget, limit = task
    found = within(limit, device_of(cfg), lambda: speed_here(store, cfg, budget, min))
    return found if isinstance(found, str) else asdict(found)


def automatic(cfg: DictConfig, store: TokenStore, budget: Budget) -> tuple[int, str]:
    """The size that ``data.micro_batch_size=auto`` means on a GPU, and a sentence about it."""
    most, started = per_device(budget), time.monotonic()
    seconds = AUTO_SECONDS * (5 if cfg.trainer.get("compile") else 1)
    finder = BatchFinder(cfg, store, budget, memory_limit(device_of(cfg)), read_cached(cfg, store))
    tried, known = finder.tried, len(finder.tried)
    try:
        finder.search(saturates=True, most=most, seconds=seconds)
        if not tried:
            raise GptshakeError(f"{seconds:.0f} s were not enough")
    except ConfigError:
        raise
    except GptshakeError as error:
        return budget.micro_batch_size, f"the micro-batch could not be measured ({error}); {budget.micro_batch_size} follows from a formula"
    if len(tried) > known:
        cache(cfg, store, tried)
    best = fastest(tried, most)
    when = f"measured in {duration(time.monotonic() - started)}" if len(tried) > known else "measured before"
    return best.size, f"micro-batch: {best.size} of up to {max(row.size for row in tried)} sequences are the fastest on this GPU, {when}"


def cache(cfg: DictConfig, store: TokenStore, tried: list[Tried]) -> None:
    file = _cache_file(cfg, store)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps([asdict(row) for row in tried]))


def read_cached(cfg: DictConfig, store: TokenStore) -> list[Tried]:
    """What was found before; nothing if there is nothing, or nothing that can be read."""
    try:
        return [Tried(**row) for row in json.loads(_cache_file(cfg, store).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _cache_file(cfg: DictConfig, store: TokenStore) -> Path:
    """Named by everything that speed and memory of a step depend on."""
    gpus, first = hardware.gpus(), os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    parts = {
        "model": OmegaConf.to_container(cfg.model, resolve=True),
        "vocabulary": store.tokenizer.vocab_size,
        "optimizer": cfg.optimizer._target_,
        "precision": cfg.trainer.precision,
        **({"compile": True} if cfg.trainer.get("compile") else {}),
        "accelerator": cfg.trainer.accelerator,
        "gpu": gpus[int(first)] if first.isdigit() and int(first) < len(gpus) else gpus,  # by the driver's list
        "versions": [version("torch"), version("gptshake")],
    }
    return expanded(cfg.paths.cache) / "fits" / f"{sha256_text(json.dumps(parts, sort_keys=True))[:16]}.json"


def memory_limit(device: str) -> int:
    """Bytes that a training may hold here, if nobody says otherwise: a share of what is free, and what the driver takes on top."""
    free = hardware.free_bytes(device)
    return int(GPU_SHARE * free) + hardware.CUDA_CONTEXT if device == "cuda" else int(MEMORY_SHARE * free)


def per_device(budget: Budget) -> int:
    return budget.accumulation * budget.micro_batch_size
