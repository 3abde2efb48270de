"""What a run will cost before it begins: how fast its real step is here, what it does around its steps, what memory it takes.

Speed is measured in a child process that is thrown away, so that nothing of the run is disturbed and running out of memory ends
the probe alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.data.store import Split, TokenStore
from gptshake.errors import ConfigError, GptshakeError, Stop
from gptshake.estimate.budget import AUTO, Budget
from gptshake.estimate.forecast import CHECKPOINTS, Around, Speed, refuse_what_cannot_fit
from gptshake.estimate.memory import Memory, checkpoint_bytes, train_memory
from gptshake.files import free_disk
from gptshake.model.config import Costs
from gptshake.processes import ChildRunner, Outcome, Spec
from gptshake.setup.instantiate import make
from gptshake.signals import SIGNALS

if TYPE_CHECKING:
    from gptshake.training.step import Step

Measure = Callable[[DictConfig, Budget], Speed]
Ask = Callable[..., Outcome]  # a task, threads and, if it may not take long, a time of time.monotonic()
_MODULES = ("gptshake.training.probe", "gptshake.training.trainer", "gptshake.training.callbacks.checkpoint", "gptshake.data.module")


@contextmanager
def children(work: Callable[[Any], Any]) -> Iterator[Ask]:
    """Gives what does ``work``, a function of a module, on a task in a child, and waits for its outcome; what children import is begun at once."""
    runner = ChildRunner(work, _MODULES)
    folder = Path(tempfile.mkdtemp(prefix="gptshake-probe-"))

    def ask(task: Any, threads: int, until: float = float("inf")) -> Outcome:
        child = runner.start(Spec(task, folder, threads=threads))
        while child.outcome is None:
            runner.wait([child], 0.2)
            if SIGNALS.received is not None:
                raise Stop(SIGNALS.received)
            if time.monotonic() > until:
                child.kill("it took too long")
        return child.outcome

    try:
        yield ask
    finally:
        runner.close(grace=1.0)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stopwatch(store: TokenStore) -> Iterator[Measure]:
    """Gives what measures the speed of a config with a budget, in children.

    Raises:
        ConfigError: the step would not fit into memory.
        GptshakeError: the probe ended early, as for want of memory.
    """
    with children(partial(_in_child, store)) as ask:

        def measure(cfg: DictConfig, budget: Budget) -> Speed:
            if not may_be_tried(cfg, store, budget):
                raise ConfigError(
                    "The speed is not measured, because the trial step would not fit into memory: task=plan shows what would."
                )
            outcome = ask((cfg, budget), cfg.trainer.threads)
            if outcome.status != "ok":
                raise GptshakeError(
                    f"The speed could not be measured: the trial step {outcome.reason}. If memory ran out, try a smaller "
                    f"data.micro_batch_size than {budget.micro_batch_size}, a smaller model or model.block_size."
                )
            return Speed(**outcome.value)

        yield measure


def may_be_tried(cfg: DictConfig, store: TokenStore, budget: Budget) -> bool:
    """Whether a trial step fits by the formula; a step that surely does not would make the system end other programs, too."""
    expected = memory(cfg, model_costs(cfg, store.tokenizer.vocab_size), budget.micro_batch_size, 0)
    return (expected.total or expected.least) < memory_there(cfg)


def measured(store: TokenStore, cfg: DictConfig, budget: Budget, typical: Callable[[list[float]], float] = median) -> Speed:
    """Measure in this process; ``typical`` as in ``training.probe.measure``."""
    from gptshake.training.probe import measure

    set_torch(cfg)
    return measure(lambda: step_of(cfg, make(cfg.model, vocab_size=store.tokenizer.vocab_size), budget), device_of(cfg), typical)


def step_of(cfg: DictConfig, model: Any, budget: Budget, schedule: Any = None, **options: Any) -> Step:
    """The training step of a settled config; without a schedule at the peak rate."""
    from gptshake.optim.schedule import Factors
    from gptshake.training.step import Step

    options = {
        "seed": cfg.seed,
        "clip": cfg.trainer.gradient_clip_val,
        "precision": cfg.trainer.precision,
        "compile": cfg.trainer.compile,
    } | options
    return Step(model, make(cfg.optimizer), schedule or (lambda tokens, total: Factors(1.0)), budget, **options)


def set_torch(cfg: DictConfig) -> None:
    """Threads and determinism of this process, before a GPU is asked for anything."""
    import torch

    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not; it is read when CUDA starts
    torch.set_num_threads(cfg.trainer.threads)
    torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)


def _in_child(store: TokenStore, task: tuple[DictConfig, Budget]) -> dict[str, Any]:
    return asdict(measured(store, *task))


def device_of(cfg: DictConfig) -> str:
    """torch's word for a settled ``trainer.accelerator``."""
    return {"gpu": "cuda"}.get(cfg.trainer.accelerator, str(cfg.trainer.accelerator))


def model_costs(cfg: DictConfig, vocab_size: int) -> Costs:
    """What the network costs by its config's closed forms, without torch; that of the user's own is asked or counted on the meta device.

    Raises:
        ConfigError: a network of the user's own does not say its context length.
    """
    schema: Any = OmegaConf.get_type(cfg.model)
    if hasattr(schema, "num_params") and cfg.model.get("_target_") == schema._target_:
        costs: Costs = schema(**{str(key): value for key, value in cfg.model.items()} | {"vocab_size": vocab_size})
        return costs
    if cfg.model.get("block_size") is None:
        raise ConfigError("model.block_size is missing: the yaml of the model needs its context length in tokens.")
    from gptshake.model.measured import costs_of

    return costs_of(partial(make, cfg.model, vocab_size=vocab_size), cfg.model.block_size)


def around(cfg: DictConfig, store: TokenStore, model: Costs, budget: Budget) -> Around:
    """What the run does beside its steps."""
    trainer, samples = cfg.trainer, OmegaConf.select(cfg, "callbacks.samples")
    most = trainer.limit_val_batches
    batches, devices = _eval_batches(store.val, budget), 1 if trainer.devices == AUTO else trainer.devices
    return Around(
        interval=None if trainer.val_check_interval == AUTO else trainer.val_check_interval,
        val_batches=-(-(min(batches, most) if most else batches) // devices),
        test_batches=_eval_batches(store.test, budget) if store.test is not None and most is None else 0,
        sampled_tokens=len(samples.prompts) * samples.n_tokens * samples.times if samples and "_target_" in samples else 0,
        checkpoint_bytes=checkpoint_bytes(model),
    )


def memory(cfg: DictConfig, model: Costs, micro_batch_size: int, base: int) -> Memory:
    """The expected peak on the device that the config is settled on; ``base`` as in ``train_memory``."""
    value_bytes = 4 if cfg.trainer.precision == hardware.FP32 else 2
    cpu = device_of(cfg) == "cpu"
    return train_memory(model, micro_batch_size, value_bytes=value_bytes, on_cpu=cpu, base=base)


def memory_there(cfg: DictConfig) -> int:
    """Bytes that a process of a settled config has for itself: processes on the CPU share one memory."""
    device = device_of(cfg)
    return hardware.device_memory(device) // (cfg.trainer.devices if device == "cpu" else 1)


def refuse_oversized(cfg: DictConfig, store: TokenStore, budget: Budget, folder: Path) -> None:
    """Refuse a settled run that cannot fit into memory, or whose checkpoints cannot fit onto the disk of ``folder``.

    Raises:
        ConfigError: what does not fit.
    """
    model = model_costs(cfg, store.tokenizer.vocab_size)
    expected = memory(cfg, model, budget.micro_batch_size, 0)
    missing = max(1, CHECKPOINTS - len(list(folder.glob("checkpoints/step-*"))))
    disk = missing * checkpoint_bytes(model)
    refuse_what_cannot_fit(expected.total or expected.least, memory_there(cfg), disk, free_disk(folder))


def _eval_batches(split: Split, budget: Budget) -> int:
    full, rest = divmod(split.n_tokens - 1, budget.block_size)
    return -(-full // budget.micro_batch_size) + (rest > 0)
