"""Micro-batch sizes tried for real, each in a child process of its own, so that running out of memory ends the trial alone.

For ``task=fit_batch``, and for ``data.micro_batch_size=auto`` on a GPU, where what was found is kept for the next runs of the same
shape, device, precision and versions. On a CPU ``auto`` stays the closed form of ``estimate/memory.py``, measured or not: equal
commands shall make equal plans there.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.batch_size import Tried, fastest, next_size
from gptshake.estimate.budget import AUTO, Budget
from gptshake.estimate.forecast import Speed
from gptshake.estimate.formatting import counted, duration, short_bytes
from gptshake.estimate.memory import MEMORY_SHARE
from gptshake.files import expanded, sha256_text, write_atomic
from gptshake.model.config import Costs
from gptshake.setup.forecast import Ask, children, device_of, measured, memory

GPU_SHARE = 0.9  # of a GPU's free memory: the rest is for fragments, validation and the libraries' buffers
AUTO_SECONDS = 60.0  # that a run may take to find its micro-batch
COMPILING = 5  # times as long where each size must be compiled
AUTO_DEVICES = ("cuda",)  # where it does

AutoFit = Callable[[DictConfig, Costs, Budget], tuple[int, str]]


@dataclass
class Fitter:
    """Tries sizes of one config's micro-batch.

    Args:
        store: of the data, whose vocabulary counts.
        ask: of ``children``.
        file: keeps what was found.
    """

    store: TokenStore
    ask: Ask
    file: Path

    def search(
        self,
        cfg: DictConfig,
        model: Costs,
        budget: Budget,
        limit: int,
        *,
        tried: list[Tried],
        most: int | None = None,
        saturates: bool,
        until: float = float("inf"),
        say: Callable[[Tried], None] = lambda row: None,
    ) -> None:
        """Go on with ``tried`` until ``next_size`` knows enough, or until that time of ``time.monotonic()``.

        Raises:
            ConfigError: not even one sequence fits.
            GptshakeError: a step that failed for another reason than memory.
        """
        batch = per_device(budget)
        while (size := next_size(tried, batch, most=most, saturates=saturates)) is not None:
            row = self._try(cfg, model, replace(budget, micro_batch_size=size, accumulation=1), limit, until)
            if row is None:
                return
            tried.append(row)
            say(row)
        if not any(row.fits for row in tried):
            raise ConfigError(_nothing_fits(cfg, model, limit, tried[0].why))

    def _try(self, cfg: DictConfig, model: Costs, budget: Budget, limit: int, until: float) -> Tried | None:
        """One size in a child; None when time is up."""
        size, device = budget.micro_batch_size, device_of(cfg)
        outcome = self.ask((cfg, budget, limit), cfg.trainer.threads, until)
        if outcome.status == "timeout":
            return None
        if outcome.status == "killed":  # by the kernel, for want of memory
            return Tried(size, fits=False, why=outcome.reason)
        if outcome.status != "ok":
            raise GptshakeError(f"A step of {counted(size, 'sequence')} could not be tried: {outcome.reason}")
        if isinstance(outcome.value, str):
            return Tried(size, fits=False, why=outcome.value)
        speed = Speed(**outcome.value)
        base = hardware.CUDA_CONTEXT if device == "cuda" else speed.base_bytes
        peak = memory(cfg, model, size, base).holding(speed.held_bytes or 0).total or 0
        why = f"took {short_bytes(peak)}" if peak > limit else ""
        return Tried(size, not why, peak, speed.micro_batch, speed.update, why)

    def keep(self, tried: list[Tried]) -> None:
        """Write what was found where the next run looks for it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.file, json.dumps([asdict(row) for row in tried]))

    def kept(self) -> list[Tried]:
        """What was found before; nothing if there is nothing, or nothing that can be read."""
        try:
            return [Tried(**row) for row in json.loads(self.file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []


@contextmanager
def fitter(cfg: DictConfig, store: TokenStore) -> Iterator[Fitter]:
    """Begin the server of the trials; to be entered with a config as it was composed, before this process asks for a GPU."""
    with children(partial(_in_child, store)) as ask:
        yield Fitter(store, ask, expanded(cfg.paths.cache) / "fits" / f"{_fingerprint(cfg, store)}.json")


@contextmanager
def auto_fit(cfg: DictConfig, store: TokenStore) -> Iterator[AutoFit | None]:
    """Gives what finds the size that ``data.micro_batch_size=auto`` means, and a sentence about it; None where nothing is measured."""
    there = any("memory_gb" in gpu for gpu in hardware.gpus())
    if cfg.data.micro_batch_size != AUTO or not there or cfg.trainer.accelerator in ("cpu", "mps"):
        yield None
        return
    until = time.monotonic() + _seconds(cfg)
    with fitter(cfg, store) as ours:
        yield partial(_auto, ours, until)


def _auto(ours: Fitter, until: float, cfg: DictConfig, model: Costs, budget: Budget) -> tuple[int, str]:
    device, batch, begun = device_of(cfg), per_device(budget), time.monotonic()
    if device not in AUTO_DEVICES:
        return budget.micro_batch_size, ""
    tried = ours.kept()
    known = len(tried)
    try:
        ours.search(cfg, model, budget, memory_limit(device), tried=tried, most=batch, saturates=True, until=until)
        if not tried:
            raise GptshakeError(f"{_seconds(cfg):.0f} s were not enough")
    except ConfigError:
        raise
    except GptshakeError as error:
        return budget.micro_batch_size, f"the micro-batch could not be measured ({error}); {budget.micro_batch_size} follows from a formula"
    if len(tried) > known:
        ours.keep(tried)
    best = fastest(tried, batch)
    when = f"measured in {duration(time.monotonic() - begun)}" if len(tried) > known else "measured before"
    return best.size, f"micro-batch: {best.size} of up to {max(row.size for row in tried)} sequences are the fastest on this GPU, {when}"


def _seconds(cfg: DictConfig) -> float:
    return AUTO_SECONDS * (COMPILING if cfg.trainer.get("compile") else 1)


def _in_child(store: TokenStore, task: tuple[DictConfig, Budget, int]) -> dict[str, Any] | str:
    from gptshake.training.probe import within

    cfg, budget, limit = task
    found = within(limit, device_of(cfg), lambda: measured(store, cfg, budget, min))
    return found if isinstance(found, str) else asdict(found)


def memory_limit(device: str) -> int:
    """Bytes that a training may hold here, if nobody says otherwise: a share of what is free, and what the driver takes on top."""
    free = hardware.free_bytes(device)
    return int(GPU_SHARE * free) + hardware.CUDA_CONTEXT if device == "cuda" else int(MEMORY_SHARE * free)


def per_device(budget: Budget) -> int:
    """Sequences of a step on one device."""
    return budget.accumulation * budget.micro_batch_size


def _nothing_fits(cfg: DictConfig, model: Costs, limit: int, why: str) -> str:
    halved = ", trainer.precision=bf16-mixed" if cfg.trainer.precision == hardware.FP32 else ""
    more = "a device with more memory" if OmegaConf.select(cfg, "task.memory") is None else "a larger task.memory"
    return (
        f"Not even one sequence of {model.block_size:,} tokens fits into {short_bytes(limit)} of memory: {why}. "
        f"Take a smaller model, a smaller model.block_size than {model.block_size}{halved}, or {more}."
    )


def _fingerprint(cfg: DictConfig, store: TokenStore) -> str:
    """Names everything that speed and memory of a step depend on."""
    about = {
        "model": OmegaConf.to_container(cfg.model, resolve=True),
        "vocabulary": store.tokenizer.vocab_size,
        "optimizer": cfg.optimizer._target_,
        "precision": cfg.trainer.precision,
        **({"compile": True} if cfg.trainer.get("compile") else {}),
        "accelerator": cfg.trainer.accelerator,
        "gpu": _gpu(),
        "versions": [version("torch"), version("gptshake")],
    }
    return sha256_text(json.dumps(about, sort_keys=True))[:16]


def _gpu() -> object:
    """The first GPU that this process may use, by the driver's list; all of them, if the environment does not say it by number."""
    listed, first = hardware.gpus(), os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return listed[int(first)] if first.isdigit() and int(first) < len(listed) else listed
