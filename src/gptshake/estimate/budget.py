"""From what was asked (sequences, tokens, steps, epochs) to what a run will do: batch, accumulation, steps, tokens. Pure integers.

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

AUTO = "auto"


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


def plan(
    *,
    n_parameters: int,
    epoch_tokens: int,
    block_size: int,
    batch_size: int | str,
    micro_batch_size: int | str,
    max_micro_batch: int,
    batch_tokens: int | None = None,
    preset_tokens: int | None = None,
    devices: int = 1,
    max_steps: int | None = None,
    max_epochs: float | None = None,
    max_tokens: int | None = None,
) -> Budget:
    """Resolve batch and length of a run.

    The first limit reached ends it: steps, epochs, tokens, or, when none is given, the default of ``run_tokens``. The last step
    is a whole one, so epochs and tokens are reached and may be passed by less than a step. An automatic batch looks at the
    length without ``max_steps``, which counts in batches: a run cut to a few steps takes the steps that the long run would begin with.

    Args:
        n_parameters: of the network, for the default length.
        epoch_tokens: target tokens of one pass: blocks x block_size.
        block_size: tokens per sequence.
        batch_size: sequences per step over all devices, or ``auto``.
        micro_batch_size: sequences per pass and device, or ``auto``, which is ``max_micro_batch``.
        max_micro_batch: the most that a device should be given at once.
        batch_tokens: tokens per step; beats ``batch_size``.
        preset_tokens: tokens per step of the model's preset; used by ``auto`` only.
        devices: that share a step.
        max_steps: limit in optimizer steps.
        max_epochs: limit in passes over the training split; fractions allowed.
        max_tokens: limit in target tokens.
    Raises:
        ConfigError: a value out of its range, or a batch that the devices cannot share.
    """
    _at_least_one("trainer.max_steps", max_steps)
    tokens, stop_rule = run_tokens(n_parameters, epoch_tokens, max_epochs=max_epochs, max_tokens=max_tokens)
    batch, note = resolve_batch(batch_size, batch_tokens, preset_tokens, block_size, tokens)
    if batch * block_size > MOST_BATCH_TOKENS:
        raise ConfigError(f"A batch of {batch:,} sequences is {batch * block_size:,} tokens per step; at most {MOST_BATCH_TOKENS:,} work.")
    if batch % devices:
        raise ConfigError(
            f"A batch of {batch} sequences cannot be shared by {devices} devices: make data.batch_size a multiple of {devices}."
        )
    per_device = batch // devices
    limit, explicit = (max_micro_batch, False) if isinstance(micro_batch_size, str) else (micro_batch_size, True)
    _check_auto("data.micro_batch_size", micro_batch_size)
    micro = micro_batch(per_device, limit)
    notes = [note] if note else []
    if explicit and micro < min(limit, per_device):
        notes.append(f"data.micro_batch_size={limit} does not divide {per_device} sequences; using {micro}")
    steps = ceil(tokens / (batch * block_size))
    if max_steps is not None and (max_steps <= steps or (max_epochs is None and max_tokens is None)):
        steps, stop_rule = max_steps, "max_steps"
    total = steps * batch * block_size
    return Budget(
        batch, micro, per_device // micro, block_size, steps, batch * block_size, total, total / epoch_tokens, stop_rule, tuple(notes)
    )


def run_tokens(n_parameters: int, epoch_tokens: int, *, max_epochs: float | None = None, max_tokens: int | None = None) -> tuple[int, str]:
    """Length of a run in tokens, and the rule that decided: the smallest limit given, else the smaller of two defaults.

    The defaults are 20 tokens per parameter (Hoffmann et al. 2022) and 4 epochs (Muennighoff et al. 2023).

    Raises:
        ConfigError: a limit that is not positive.
    """
    _at_least_one("trainer.max_tokens", max_tokens)
    if max_epochs is not None and not max_epochs > 0:
        raise ConfigError(f"trainer.max_epochs={max_epochs} must be a number above 0, such as 1 or 0.5.")
    limits: list[tuple[int, str]] = []
    if max_epochs is not None:
        limits.append((max(1, round(max_epochs * epoch_tokens)), "max_epochs"))
    if max_tokens is not None:
        limits.append((max_tokens, "max_tokens"))
    defaults = [(TOKENS_PER_PARAMETER * n_parameters, "20 tokens per parameter"), (DEFAULT_EPOCHS * epoch_tokens, "4 epochs")]
    return min(limits or defaults)


def resolve_batch(
    batch_size: int | str, batch_tokens: int | None, preset_tokens: int | None, block_size: int, run_tokens: int
) -> tuple[int, str | None]:
    """Sequences per step, and a sentence when the preset's batch was too large for the run.

    ``batch_tokens`` decides if given, then a number in ``batch_size``. ``auto`` is the preset's tokens (without a preset, 32
    sequences), but at most 1/200 of the run, then rounded down to a power of two of sequences, and at least one.

    Args:
        batch_size: sequences, or ``auto``.
        batch_tokens: tokens per step, or None.
        preset_tokens: tokens per step of the model's preset, or None.
        block_size: tokens per sequence.
        run_tokens: tokens of the run.
    Raises:
        ConfigError: a size below 1, another word than ``auto``, or tokens that are not whole sequences.
    """
    if batch_tokens is not None:
        return whole_sequences(batch_tokens, block_size), None
    if not isinstance(batch_size, str):
        _at_least_one("data.batch_size", batch_size)
        return batch_size, None
    _check_auto("data.batch_size", batch_size)
    wished = max(1, preset_tokens // block_size) if preset_tokens else DEFAULT_BATCH
    most = max(1, run_tokens // MIN_STEPS // block_size)
    if wished <= most:
        return wished, None
    batch = 1 << (most.bit_length() - 1)
    return batch, _too_large(wished * block_size, batch * block_size, run_tokens)


def micro_batch(per_device: int, limit: int) -> int:
    """The largest divisor of ``per_device`` sequences that is not above ``limit``, so that every pass of a step is of one size.

    Raises:
        ConfigError: a limit below 1.
    """
    _at_least_one("data.micro_batch_size", limit)
    return next(size for size in range(min(limit, per_device), 0, -1) if per_device % size == 0)


def parse_max_time(text: str) -> int:
    """Seconds in ``DD:HH:MM:SS`` (Lightning's form: ``00:07:30:00`` is seven and a half hours).

    Raises:
        ConfigError: another form, or no time at all.
    """
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", text)
    days, hours, minutes, seconds = (int(part) for part in match.groups()) if match else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0 or hours > 23 or minutes > 59 or seconds > 59:
        raise ConfigError(f"trainer.max_time={text} is not a time: write days:hours:minutes:seconds, such as 00:07:30:00 for 7.5 hours.")
    return total


def whole_sequences(batch_tokens: int, block_size: int) -> int:
    """Sequences that make up ``batch_tokens``.

    Raises:
        ConfigError: it is no multiple of ``block_size``; with the nearest ones.
    """
    if batch_tokens < 1 or batch_tokens % block_size:
        below = batch_tokens // block_size * block_size
        nearest = " or ".join(str(tokens) for tokens in (below, below + block_size) if tokens > 0)
        raise ConfigError(f"data.batch_tokens={batch_tokens} is not a multiple of model.block_size={block_size}: try {nearest}.")
    return batch_tokens // block_size


def _too_large(wished: int, used: int, run_tokens: int) -> str:
    """The sentence about a preset's batch that would leave too few steps."""
    steps = ceil(run_tokens / wished)
    return (
        f"The preset's {wished:,}-token batch would make {steps} step{'s' if steps > 1 else ''} of this run's {run_tokens:,} tokens; "
        f"using {used:,}; force it with data.batch_tokens={wished}"
    )


def _at_least_one(key: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{key}={value} does nothing: it must be at least 1.")


def _check_auto(key: str, value: int | str) -> None:
    if isinstance(value, str) and value != AUTO:
        raise ConfigError(f"{key}={value} is not understood: write a number of sequences, or auto.")
