"""How long the real step takes here, and how much memory: a few of each kind of work, on random tokens and a network of its own.

Takes what makes network and optimizer; gives ``estimate.forecast.Speed``. To be called in a child process, so that running out
of memory ends the probe alone. An estimate: other programs may share the machine.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from gptshake import hardware
from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import Speed
from gptshake.estimate.words import short_bytes
from gptshake.model.generate import generate
from gptshake.model.gpt import GPT
from gptshake.training.compiling import Loss, compiled_loss
from gptshake.training.device import forward_pass, out_of_memory
from gptshake.training.module import OptimizerFactory

SECONDS, MOST_SECONDS = 2.0, 20.0  # of passes: measured for so long, and never begun after so long
FEWEST, MOST = 3, 40  # passes, where time allows
SAMPLED = 16  # tokens
BASE_BYTES = hardware.resident_bytes()  # with all that a training imports; a forked child's own figure lacks the pages of libraries


def measure(
    model: Callable[[], GPT],
    optimizer: OptimizerFactory,
    budget: Budget,
    device: str,
    precision: str,
    clip: float | None,
    typical: Callable[[list[float]], float] = median,
    compile: bool = False,
) -> Speed:
    """Seconds of a pass, an update, an evaluation and a sampled token, and the memory held at the peak.

    Args:
        model: makes the network.
        optimizer: makes the optimizer from named parameters.
        budget: sizes of the micro-batch.
        device: ``cuda``, ``mps`` or ``cpu``.
        precision: Lightning's word for it.
        clip: global gradient norm, or None.
        typical: of several durations: their median to foretell a run; ``min``, the least disturbed, to compare.
        compile: as in ``trainer.compile``: the passes of training are those of the compiled network, if it can be compiled.
    """
    before = hardware.resident_bytes() if device == "cpu" else 0
    network = model().to(device)
    rows = (budget.micro_batch_size, budget.block_size + 1)
    tokens = torch.randint(network.config.vocab_size or 1, rows, generator=torch.Generator().manual_seed(0)).to(device)
    began = time.perf_counter()
    loss: Loss = network.loss
    if compile:
        with forward_pass(device, precision):
            loss = compiled_loss(network, tokens)[0]
    compiling = time.perf_counter() - began
    step = _Step(loss, network, optimizer(network.named_parameters()), tokens, precision, clip)

    def sample() -> None:
        generate(network, tokens[:1, :1], SAMPLED)
        hardware.wait(device)

    @torch.no_grad()
    def evaluation() -> None:
        network.loss(tokens[:, :-1], tokens[:, 1:], reduction="sum").item()

    passes, updates = [_seconds(step.forward_backward)], [_seconds(step.update)]  # the first of each takes memory and makes state
    while len(passes) < FEWEST or (sum(passes) < SECONDS and len(passes) < MOST):
        passes.append(_seconds(step.forward_backward))
        if sum(passes) > MOST_SECONDS:
            break
        updates.append(_seconds(step.update))
    held = max(0, hardware.peak_bytes(device) - before)  # the kernel counts both roughly
    network.eval()  # dropout is for training only
    evaluations = [_seconds(evaluation) for _ in range(FEWEST if passes[-1] < 1 else 1)]
    sampled = _seconds(sample)
    return Speed(
        micro_batch=typical(passes[1:]),
        update=typical(updates[1:] or updates),
        evaluation=typical(evaluations),
        sampled_token=sampled / SAMPLED,
        base_bytes=BASE_BYTES,
        held_bytes=held,
        compiling=compiling,
    )


class _Step:
    """The parts of an optimizer step, each ending when the device is done."""

    def __init__(
        self, loss: Loss, network: GPT, optimizer: torch.optim.Optimizer, tokens: Tensor, precision: str, clip: float | None
    ) -> None:
        self._loss, self._network, self._optimizer = loss, network, optimizer
        self._tokens, self._precision, self._clip = tokens, precision, clip
        self._device = tokens.device.type
        self._scaler = torch.amp.GradScaler(self._device, enabled=precision == "16-mixed")

    def forward_backward(self) -> None:
        """One micro-batch."""
        with forward_pass(self._device, self._precision):
            loss = self._loss(self._tokens[:, :-1], self._tokens[:, 1:])
        self._optimizer.zero_grad(set_to_none=True)  # after the forward pass, as Lightning does it: that is where memory peaks
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        hardware.wait(self._device)

    def update(self) -> None:
        """Unscale, clip, update."""
        self._scaler.unscale_(self._optimizer)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        hardware.wait(self._device)


def within(limit: int, device: str, work: Callable[[], Speed]) -> Speed | str:
    """Do ``work`` in a process that may hold ``limit`` bytes of the device's memory, or say why that was not enough.

    To be called in a child that ends afterwards: the limit stays.
    """
    base = hardware.CUDA_CONTEXT if device == "cuda" else BASE_BYTES
    if limit <= base:
        return f"the process alone takes {short_bytes(base)}"
    hardware.limit_memory(device, limit - base)
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return "memory ran out"


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
