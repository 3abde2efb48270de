"""From what was asked (sequences, tokens, steps, epochs) to what a run will do: batch, accumulation, steps, tokens.

``plan`` goes from top to bottom: the run's length in tokens, the batch (an automatic one depends on the length), the
micro-batch, and at last the steps. Every number that a user meets in the plan line comes from here.
"""

import re
from dataclasses import dataclass
from math import ceil

from gptshake.errors import ConfigError

TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022: compute-optimal training
DEFAULT_EPOCHS = 4  # Muennighoff et al. 2023: up to 4 passes, repeated tokens are nearly as good as new ones
MIN_STEPS = 200  # that an automatic batch leaves to the run
MOST_BATCH_TOKENS = 2**31  # of one step: hundreds of times the largest batch of GPT-3; more is a typing error
DEFAULT_BATCH = 32  # sequences of an automatic batch without a preset


@dataclass(frozen=True)
class Request:
    """What the length and the batch of a run are worked out from; ranges of the options are checked before."""

    n_parameters: int  # of the network, for the default length
    epoch_tokens: int  # target tokens of one pass: blocks x block_size
    block_size: int  # tokens per sequence
    batch_size: int | str | None  # sequences per step over all devices; null is auto
    micro_batch_size: int | str  # sequences per pass and device, or auto, which is max_micro_batch
    max_micro_batch: int  # the most that a device should be given at once
    batch_tokens: int | None = None  # tokens per step; beats batch_size
    preset_tokens: int | None = None  # tokens per step of the model's preset; used by auto only
    devices: int = 1  # that share a step
    max_steps: int | None = None
    max_epochs: float | None = None  # passes over the training split; fractions allowed
    max_tokens: int | None = None  # target tokens


@dataclass(frozen=True)
class Budget:
    """A run's batch and length."""

    batch_size: int  # sequences per optimizer step over all devices
    micro_batch_size: int  # sequences per forward pass on one device
    accumulation: int  # forward passes per step and device
    block_size: int  # tokens per sequence
    steps: int  # optimizer steps
    tokens_per_step: int
    total_tokens: int  # steps x tokens_per_step: the length that schedules see
    epochs: float  # passes over the training split
    stop_rule: str  # the limit that decided the length
    notes: tuple[str, ...]  # sentences for the user about what was chosen for them
    measured: bool = False  # the steps come from hours on this machine, so a continuation takes them as they are

    @property
    def devices(self) -> int:
        """How many share a step."""
        return self.batch_size // (self.accumulation * self.micro_batch_size)

    @property
    def limit(self) -> str:
        """What decided the length, with its key: ``trainer.max_steps``, or a rule such as ``20 tokens per parameter``."""
        return f"trainer.{self.stop_rule}" if self.stop_rule.startswith("max_") else self.stop_rule

    @property
    def batch_in_words(self) -> str:
        """``64 = 2 devices x 2 x 16 sequences``, or ``1 sequence``."""
        parts = [f"{self.devices} devices"] * (self.devices > 1) + [str(self.accumulation)] * (self.accumulation > 1)
        passes = f" = {' x '.join([*parts, str(self.micro_batch_size)])}" if parts else ""
        return f"{self.batch_size}{passes} sequence{'s' if self.batch_size > 1 else ''}"


def plan(request: Request) -> Budget:
    """Resolve batch and length of a run.

    The first limit reached ends it: steps, epochs, tokens, or, when none is given, the default of ``run_tokens``. The last step
    is a whole one, so epochs and tokens are reached and may be passed by less than a step. An automatic batch looks at the
    length without ``max_steps``, which counts in batches: a run cut to a few steps takes the steps that the long run would begin with.

    Raises:
        ConfigError: a batch that is too large, not whole sequences, or that the devices cannot share.
    """
    block_size, devices = request.block_size, request.devices
    tokens, stop_rule = run_tokens(request)
    batch, note = resolve_batch(request, tokens)
    if batch * block_size > MOST_BATCH_TOKENS:
        raise ConfigError(f"A batch of {batch:,} sequences is {batch * block_size:,} tokens per step; at most {MOST_BATCH_TOKENS:,} work.")
    if batch % devices:
        raise ConfigError(
            f"A batch of {batch} sequences cannot be shared by {devices} devices: make data.batch_size a multiple of {devices}."
        )
    per_device = batch // devices
    asked = None if isinstance(request.micro_batch_size, str) else request.micro_batch_size
    most = min(request.max_micro_batch if asked is None else asked, per_device)
    micro = micro_batch(per_device, most)
    notes = [note] if note else []
    if asked is not None and micro < most:
        notes.append(f"data.micro_batch_size={asked} does not divide {per_device} sequences; using {micro}")
    steps, per_step, max_steps = ceil(tokens / (batch * block_size)), batch * block_size, request.max_steps
    if max_steps is not None and (max_steps <= steps or (request.max_epochs is None and request.max_tokens is None)):
        steps, stop_rule = max_steps, "max_steps"
    total = steps * per_step
    return Budget(
        batch, micro, per_device // micro, block_size, steps, per_step, total, total / request.epoch_tokens, stop_rule, tuple(notes)
    )


def run_tokens(request: Request) -> tuple[int, str]:
    """Length of a run in tokens, and the rule that decided: the smallest limit given, else the smaller of two defaults.

    The defaults are 20 tokens per parameter (Hoffmann et al. 2022) and 4 epochs (Muennighoff et al. 2023).
    """
    limits: list[tuple[int, str]] = []
    if request.max_epochs is not None:
        limits.append((max(1, round(request.max_epochs * request.epoch_tokens)), "max_epochs"))
    if request.max_tokens is not None:
        limits.append((request.max_tokens, "max_tokens"))
    parameters, epochs = TOKENS_PER_PARAMETER * request.n_parameters, DEFAULT_EPOCHS * request.epoch_tokens
    return min(limits or [(parameters, "20 tokens per parameter"), (epochs, "4 epochs")])


def resolve_batch(request: Request, run_tokens: int) -> tuple[int, str | None]:
    """Sequences per step, and a sentence when the preset's batch was too large for the run.

    ``batch_tokens`` decides if given, then a number in ``batch_size``. ``auto`` is the preset's tokens (without a preset, 32
    sequences), but at most 1/200 of the run, then rounded down to a power of two of sequences, and at least one.

    Raises:
        ConfigError: tokens that are not whole sequences.
    """
    block_size, preset_tokens = request.block_size, request.preset_tokens
    if request.batch_tokens is not None:
        return whole_sequences(request.batch_tokens, block_size), None
    if isinstance(request.batch_size, int):
        return request.batch_size, None
    wanted = max(1, preset_tokens // block_size) if preset_tokens else DEFAULT_BATCH
    most = max(1, run_tokens // MIN_STEPS // block_size)
    if wanted <= most:
        return wanted, None
    batch, tokens = 1 << (most.bit_length() - 1), wanted * block_size
    steps = ceil(run_tokens / tokens)
    return batch, (
        f"The preset's {tokens:,}-token batch would make {steps} step{'s' if steps > 1 else ''} of this run's {run_tokens:,} tokens; "
        f"using {batch * block_size:,}; force it with data.batch_tokens={tokens}"
    )


def micro_batch(per_device: int, limit: int) -> int:
    """The largest divisor of ``per_device`` sequences that is not above ``limit``, so that every pass of a step is of one size."""
    return next(size for size in range(min(limit, per_device), 0, -1) if per_device % size == 0)


def parse_max_time(text: str) -> int:
    """Seconds in ``DD:HH:MM:SS`` (Lightning's form: ``00:07:30:00`` is seven and a half hours); ConfigError for another form, or 0."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", text)
    days, hours, minutes, seconds = (int(part) for part in match.groups()) if match else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0 or hours > 23 or minutes > 59 or seconds > 59:
        raise ConfigError(f"trainer.max_time={text} is not a time: write days:hours:minutes:seconds, such as 00:07:30:00 for 7.5 hours.")
    return total


def whole_sequences(batch_tokens: int, block_size: int) -> int:
    """Sequences that make up ``batch_tokens``; ConfigError, with the nearest ones, if that is no multiple of ``block_size``."""
    if batch_tokens < 1 or batch_tokens % block_size:
        below = batch_tokens // block_size * block_size
        nearest = " or ".join(str(tokens) for tokens in (below, below + block_size) if tokens > 0)
        raise ConfigError(f"data.batch_tokens={batch_tokens} is not a multiple of model.block_size={block_size}: try {nearest}.")
    return batch_tokens // block_size
