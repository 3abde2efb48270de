"""What a run costs before it begins: how fast its step is here, what it does besides its steps, what memory it takes.

Speed is measured in a child process, so that the run is not disturbed and running out of memory ends the child alone.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware, torchrun
from gptshake.data.store import Split, TokenStore
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import CHECKPOINTS, Overhead, Speed, check_capacity
from gptshake.estimate.memory import Memory, checkpoint_bytes, train_memory
from gptshake.files import free_disk
from gptshake.keys import AUTO
from gptshake.model.config import Costs
from gptshake.outcome import Outcome
from gptshake.processes import ChildRunner, Spec
from gptshake.record.run import steps_saved
from gptshake.setup.instantiate import built, device_of, set_torch, training_step
from gptshake.signals import SIGNALS

_PRELOAD = ("gptshake.training.probe", "gptshake.training.trainer", "gptshake.training.callbacks.checkpoint", "gptshake.data.module")


def run_in_child(work: Callable[[Any], Any], task: Any, threads: int, *, seconds: float = float("inf"), quiet: bool = True) -> Outcome:
    """How ``work``, a function of a module, ended in a child process; a signal ends both."""
    with tempfile.TemporaryDirectory(prefix="gptshake-", ignore_cleanup_errors=True) as folder, SIGNALS.deferred():
        runner = ChildRunner(work, _PRELOAD)
        try:
            return runner.run(Spec(task, Path(folder), threads=threads, quiet=quiet), time.monotonic() + seconds)
        finally:
            runner.close(grace=1.0)


def speed_in_child(store: TokenStore, cfg: DictConfig, budget: Budget) -> Speed:
    """The speed of a resolved config, measured in a child."""
    if not step_fits(cfg, store, budget):
        raise ConfigError("The speed is not measured, because the trial step would not fit into memory: task=plan shows what would.")
    outcome = run_in_child(_speed_as_dict, (store, cfg, budget), cfg.trainer.threads)
    if outcome.status != "ok":
        smaller = f" Try a smaller data.micro_batch_size than {budget.micro_batch_size}, a smaller model or model.block_size."
        advice = smaller if "memory" in outcome.reason else ""
        raise GptshakeError(f"The speed could not be measured: {outcome.reason.rstrip('.')}.{advice}")
    return Speed(**outcome.value)


def _speed_as_dict(task: tuple[TokenStore, DictConfig, Budget]) -> dict[str, Any]:
    return asdict(speed_here(*task))


def speed_here(store: TokenStore, cfg: DictConfig, budget: Budget, typical: Callable[[list[float]], float] = median) -> Speed:
    """The speed measured in this process; ``typical`` as in ``training.probe.measure``."""
    from gptshake.training.probe import measure

    set_torch(cfg)
    return measure(lambda: training_step(cfg, built(cfg, store.tokenizer.vocab_size), budget), device_of(cfg), typical)


def model_costs(cfg: DictConfig, vocab_size: int) -> Costs:
    """What the network costs by its config's closed forms, without torch; that of the user's own is asked or counted on the meta device."""
    schema: Any = OmegaConf.get_type(cfg.model)
    if hasattr(schema, "num_params") and cfg.model.get("_target_") == schema._target_:
        costs: Costs = schema(**{str(key): value for key, value in cfg.model.items()} | {"vocab_size": vocab_size})
        return costs
    if cfg.model.get("block_size") is None:
        raise ConfigError("model.block_size is missing: the yaml of the model needs its context length in tokens.")
    from gptshake.model.measured import costs_of

    return costs_of(partial(built, cfg, vocab_size), cfg.model.block_size)


def overhead(cfg: DictConfig, store: TokenStore, model: Costs, budget: Budget) -> Overhead:
    trainer, samples = cfg.trainer, OmegaConf.select(cfg, "callbacks.samples")
    most, devices = trainer.limit_val_batches, 1 if trainer.devices == AUTO else trainer.devices

    def batches(split: Split) -> int:
        full, rest = divmod(split.n_tokens - 1, budget.block_size)
        return -(-full // budget.micro_batch_size) + (rest > 0)

    return Overhead(
        interval=None if trainer.val_check_interval == AUTO else trainer.val_check_interval,
        val_batches=-(-(min(batches(store.val), most) if most else batches(store.val)) // devices),
        test_batches=batches(store.test) if store.test is not None and most is None else 0,
        sampled_tokens=len(samples.prompts) * samples.n_tokens * samples.times if samples and "_target_" in samples else 0,
        checkpoint_bytes=checkpoint_bytes(model),
    )


def memory(cfg: DictConfig, model: Costs, micro_batch_size: int, base: int = 0) -> Memory:
    """The expected peak of a resolved config on one device that has the whole network; ``base`` as in ``train_memory``."""
    value_bytes = 4 if cfg.trainer.precision == hardware.FP32 else 2
    return train_memory(model, micro_batch_size, value_bytes=value_bytes, on_cpu=device_of(cfg) == "cpu", base=base)


def shards(cfg: DictConfig) -> int:
    """How many devices of a resolved config share the weights."""
    return int(cfg.trainer.devices) if cfg.trainer.get("strategy") == "fsdp" else 1


def available_memory(cfg: DictConfig) -> int:
    """Bytes that a process of a resolved config has for itself: processes on the CPU share one memory."""
    device = device_of(cfg)
    return hardware.device_memory(device) // (cfg.trainer.devices // torchrun.nodes() if device == "cpu" else 1)


def step_fits(cfg: DictConfig, store: TokenStore, budget: Budget) -> bool:
    """Whether a step fits by the formula; one that surely does not would make the system end other programs, too."""
    expected = memory(cfg, model_costs(cfg, store.tokenizer.vocab_size), budget.micro_batch_size)
    return (expected.total or expected.least) < available_memory(cfg)


def check_run_capacity(cfg: DictConfig, store: TokenStore, budget: Budget, folder: Path) -> None:
    """Refuse a run that cannot fit into memory, or whose checkpoints cannot fit onto the disk of ``folder``."""
    model = model_costs(cfg, store.tokenizer.vocab_size)
    expected = memory(cfg, model, budget.micro_batch_size).sharded(shards(cfg))
    missing = max(1, CHECKPOINTS - len(steps_saved(folder)))
    check_capacity(expected.total or expected.least, available_memory(cfg), missing * checkpoint_bytes(model), free_disk(folder))
