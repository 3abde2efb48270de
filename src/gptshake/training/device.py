"""What depends on the kind of device: autocast and loss scale, transfers, random state, time stamps, errors of memory."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from gptshake.errors import TrainingError
from gptshake.estimate.budget import Budget
from gptshake.estimate.formatting import counted

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
EVENTS: dict[str, Callable[..., Any]] = {"cuda": torch.cuda.Event, "mps": torch.mps.event.Event}  # devices with a clock of their own
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "alloc_failed")  # in errors without a class


def forward_pass(device: str, precision: str) -> torch.autocast:
    """The precision of one forward pass, as Lightning sets it for a training step.

    Never to be held over an update: autocast's cache would hand out copies of the weights as they were before.
    """
    return torch.autocast(device, HALF.get(precision, torch.bfloat16), enabled=precision in HALF, cache_enabled=False)


class ScaledPrecision(MixedPrecision):
    """``16-mixed``: gradients are unscaled before they are measured and clipped, and a step whose gradients overflow is skipped.

    Lightning leaves the unscaling to fused optimizers, which do it in their step, after the clipping.
    """

    scaler: torch.amp.GradScaler

    def __init__(self, device: str) -> None:
        super().__init__("16-mixed", device)

    def optimizer_step(self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any) -> Any:  # type: ignore[override]  # as its own superclass
        loss = closure()
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)
        self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return loss


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """The batch there; a GPU fetches it from pinned memory while the host goes on."""
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def fork_rng(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers of the host and of this device come back afterwards; no other device is touched."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device.index or 0], device_type=device.type)


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators of the host and of the current device of this kind, as ``torch.manual_seed`` does with those of all devices.

    That formats the Python stack for every kind of device that is not there.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Stamp:
    """A time stamp on the own clock of a device (``cpu``, ``cuda``, ``mps``): when all work queued so far is done. Taking one does not wait."""

    def __init__(self, device: str) -> None:
        kind = EVENTS.get(device)
        self._event = kind(enable_timing=True) if kind else None
        if self._event:
            self._event.record()
        else:
            self._clock = time.perf_counter()

    def wait(self) -> None:
        if self._event:
            self._event.synchronize()

    def until(self, later: "Stamp") -> float:
        """Seconds to a later time stamp, which has passed."""
        return self._event.elapsed_time(later._event) / 1e3 if self._event else later._clock - self._clock


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out; some of torch's have no class of their own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)


def no_memory(budget: Budget) -> TrainingError:
    """The error of a run that ran out of memory, with a way out."""
    rows = budget.micro_batch_size
    way = f"data.micro_batch_size={rows // 2}" if rows > 1 else "a smaller model or model.block_size"
    return TrainingError(f"There is not enough memory for {counted(rows, 'sequence')} of {budget.block_size} tokens at once: try {way}.")
