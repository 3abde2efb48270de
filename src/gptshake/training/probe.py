"""How long the real step takes here, and how much memory: a few of each kind of work, on random tokens and a network of its own.

To be called in a child process, so that running out of memory ends the probe alone. An estimate: other programs may share the machine.
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from gptshake import hardware
from gptshake.estimate.forecast import Speed
from gptshake.estimate.formatting import short_bytes
from gptshake.model.generate import generate
from gptshake.training.device import out_of_memory
from gptshake.training.evaluation import evaluate
from gptshake.training.step import Step

SECONDS, MOST_SECONDS = 2.0, 20.0  # of passes: measured for so long, and never begun after so long
FEWEST, MOST = 3, 40  # passes, where time allows
SAMPLED = 16  # tokens
BASE_BYTES = hardware.resident_bytes()  # with all that a training imports; a forked child's own figure lacks the pages of libraries


def measure(make: Callable[[], Step], device: str, typical: Callable[[list[float]], float] = median) -> Speed:
    """Seconds of a pass, an update, an evaluation and a sampled token, and the memory held at the peak.

    ``typical`` of several durations is their median to foretell a run, and ``min``, the least disturbed, to compare.
    """

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        hardware.wait(device)
        return time.perf_counter() - start

    before = hardware.resident_bytes() if device == "cpu" else 0
    step = make()
    network, budget = step.model.to(device), step.budget
    rows = (budget.micro_batch_size, budget.block_size + 1)
    tokens = torch.randint(getattr(network.config, "vocab_size", None) or 1, rows, generator=torch.Generator().manual_seed(0)).to(device)
    compiling = seconds(lambda: step.compile(tokens))
    step.prepare()
    for group in step.optimizer.param_groups:
        group["lr"] = group["peak_lr"] = 0.0  # work is timed, nothing learned: a rate at which training diverges must not end the probe
    passes, updates = [seconds(lambda: step.micro_batch(tokens))], [seconds(step.update)]  # the first of each takes memory and makes state
    while len(passes) < FEWEST or (sum(passes) < SECONDS and len(passes) < MOST):
        passes.append(seconds(lambda: step.micro_batch(tokens)))
        if sum(passes) > MOST_SECONDS:
            break
        updates.append(seconds(step.update))
    held = max(0, hardware.peak_bytes(device) - before)  # the kernel counts both roughly
    evaluations = [seconds(lambda: evaluate(network, [tokens])) for _ in range(FEWEST if passes[-1] < 1 else 1)]
    network.eval()
    sampled = seconds(lambda: generate(network, tokens[:1, :1], SAMPLED))
    return Speed(
        micro_batch=typical(passes[1:]),
        update=typical(updates[1:] or updates),
        evaluation=typical(evaluations),
        sampled_token=sampled / SAMPLED,
        base_bytes=BASE_BYTES,
        held_bytes=held,
        compiling=compiling,
    )


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
