"""How long a run will take and whether it is a good idea, from the seconds that one of each of its parts takes.

Takes ``Speed``, measured by ``training/probe.py`` or assumed from a device's peak, and what a run does around its steps; gives
seconds by part, the steps that fit into given hours, and sentences about what looks wrong before it begins.
"""

from dataclasses import dataclass
from math import ceil

from gptshake.errors import ConfigError
from gptshake.estimate.formatting import counted, short_bytes

GEMM_SHARE = 0.35  # of a machine's matrix-product speed that a step reaches: 0.33 to 0.38 measured from 4/4/128 to 12/12/768 on 2 cores
VALIDATIONS = 20  # in a run, where the interval is left to us
START_SECONDS = 5.0  # imports and opening of the record; the network's own start comes with its size
SAVE_BYTES_PER_S = 2.5e8  # of a checkpoint: written, summed and synced; 1.4e8 to 2.7e8 measured in a busy container
PASS_OVERHEAD, STEP_OVERHEAD = 1.5e-3, 8e-4  # seconds of Lightning's loop and the record; processor time on a 2-core server
MOST_EPOCHS = 20  # beyond, a model learns the text by heart
FULL = 0.95  # of a device's memory: beyond, a run will probably not fit
CERTAIN = 1.5  # times the memory: beyond, it cannot fit; estimates are good to 15 %
CHECKPOINTS = 4  # on the disk at once: the newest two, the best, and the one that is being written


@dataclass(frozen=True)
class Speed:
    """Seconds that one of each takes, and the memory seen meanwhile."""

    micro_batch: float  # forward and backward pass
    update: float  # clipping and optimizer, once a step
    evaluation: float  # forward pass of a micro-batch, without gradients
    sampled_token: float
    base_bytes: int = 0  # of a process that has imported everything and made nothing
    held_bytes: int | None = None  # over that at the peak of a step; None: not measured
    compiling: float = 0.0  # once, before the first step


@dataclass(frozen=True)
class Overhead:
    """What a run does besides its steps."""

    interval: int | None  # steps between validations; None: as ``interval_of`` says
    val_batches: int  # micro-batches of one validation
    test_batches: int  # of the test at the end
    sampled_tokens: int  # in all
    checkpoint_bytes: int


def interval_of(steps: int) -> int:
    """Steps between validations, where the interval is left to us."""
    return max(1, steps // VALIDATIONS)


def step_seconds(accumulation: int, speed: Speed) -> float:
    return accumulation * (speed.micro_batch + PASS_OVERHEAD) + speed.update + STEP_OVERHEAD


def run_seconds(steps: int, accumulation: int, speed: Speed, overhead: Overhead) -> dict[str, float]:
    """Seconds of a whole run by part: start, steps, validations, checkpoints, samples, test."""
    validations = ceil(steps / (overhead.interval or interval_of(steps)))
    return {
        "start": START_SECONDS + speed.compiling,
        "steps": steps * step_seconds(accumulation, speed),
        "validations": validations * overhead.val_batches * speed.evaluation,
        "checkpoints": validations * overhead.checkpoint_bytes / SAVE_BYTES_PER_S,
        "samples": overhead.sampled_tokens * speed.sampled_token,
        "test": overhead.test_batches * speed.evaluation,
    }


def steps_within(seconds: float, accumulation: int, speed: Speed, overhead: Overhead) -> int:
    """The steps of a run that lasts so long, everything around them included; 0 if not even one fits."""

    def fits(steps: int) -> bool:
        return sum(run_seconds(steps, accumulation, speed, overhead).values()) <= seconds

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def assumed_speed(flops_per_token: float, tokens: int, flops: float, *, launch: float = 0.0) -> Speed:
    """The speed of a device that reaches so many FLOPs per second in passes of so many tokens.

    ``flops_per_token`` count forward and backward (which is twice the work); ``launch``: seconds that the host needs to start all kernels of a
    pass, for which a GPU with little to multiply waits.
    """
    forward = max(flops_per_token * tokens / flops, launch) / 3
    return Speed(3 * forward, launch / 2, evaluation=forward, sampled_token=max(launch / 3, forward / tokens))


def run_warnings(epochs: float, peak_bytes: float | None, memory_bytes: float, micro_batch_size: int) -> list[str]:
    """What looks wrong before a run begins, as sentences that say what to change; ``peak_bytes`` of memory are expected, None: not known."""
    said = []
    if peak_bytes is not None and peak_bytes > FULL * memory_bytes:
        way_out = f"data.micro_batch_size={micro_batch_size // 2}" if micro_batch_size > 1 else "a smaller model or model.block_size"
        said.append(
            f"this needs about {short_bytes(peak_bytes)} at its peak and there are {short_bytes(memory_bytes)}: it will probably not fit; try {way_out}"
        )
    if epochs < 1:
        said.append(f"the run covers {epochs:.2g} epochs; trainer.max_epochs=1 reads it whole")
    return said + too_often(epochs)


def check_capacity(peak_bytes: float, memory_bytes: float, disk_bytes: float, free_disk: float) -> None:
    """Refuse, with a ConfigError, a run that surely runs out of memory or disk; a peak that only probably does not fit is a doubt."""
    if peak_bytes > CERTAIN * memory_bytes:
        raise ConfigError(
            f"This run needs about {short_bytes(peak_bytes)} of memory and there are {short_bytes(memory_bytes)}: choose a smaller model, "
            "model.block_size or data.micro_batch_size; task=plan shows what each takes."
        )
    if disk_bytes > free_disk:
        raise ConfigError(
            f"The checkpoints of this run need {short_bytes(disk_bytes)} of disk and {short_bytes(free_disk)} are free: "
            "free some (task=clean lists what can go), or choose another place with paths.runs=<folder>."
        )


def too_often(epochs: float, when: str = "") -> list[str]:
    """The doubt about reading a text more than about 20 times, if there is one; ``when``: in hours that were only asked about."""
    if epochs <= MOST_EPOCHS:
        return []
    read = f"{epochs_in_words(epochs)}{f' in {when}' if when else ''}"
    return [
        f"{read}: beyond about {MOST_EPOCHS} a model learns its text by heart; more text, trainer.max_epochs=4 or model.dropout=0.2 help"
    ]


def epochs_in_words(epochs: float) -> str:
    """``0.4 epochs``, ``1 epoch``, ``170,000 epochs``."""
    return counted(epochs, "epoch", ".3g" if epochs < 1000 else ",.0f")
