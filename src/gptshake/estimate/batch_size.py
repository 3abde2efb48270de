"""Which micro-batch sizes to try on a device and which to take, from the seconds and the memory of those tried.

Sizes are doubled until one does not fit, or until more brings no more speed; then the gap to the first that does not fit is
halved. The largest that fits and the fastest are two answers: a device is busy long before its memory is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gptshake.estimate.forecast import Speed, step_seconds

SAME = 0.02  # speeds that differ by less are the same: noise of a measurement, and not worth twice the memory
CLOSE = 16  # the largest that fits is found to within a sixteenth of itself


@dataclass(frozen=True)
class Tried:
    """What a trial of one micro-batch size has shown."""

    size: int  # sequences in one pass
    fits: bool
    peak: int | None = None  # bytes of memory; None: it never got there
    micro_batch: float = 0.0  # seconds of a forward and backward pass
    update: float = 0.0  # seconds of the optimizer, once a step
    why: str = ""  # it does not fit

    def rate(self, batch: int) -> float:
        """Sequences per second in steps of ``batch`` sequences; a larger micro-batch is a step of its own."""
        passes = max(1, batch // self.size)
        return passes * self.size / step_seconds(passes, Speed(self.micro_batch, self.update, 0.0, 0.0))


def next_size(tried: Sequence[Tried], batch: int, *, most: int | None = None, saturates: bool) -> int | None:
    """The size to try next, none above ``most``; None when enough is known.

    ``batch`` are the sequences of a step on one device; with ``saturates`` it also stops where two doublings in a row have brought no speed.
    """
    if not tried:
        return 1
    largest_fit = max((row.size for row in tried if row.fits), default=0)
    too_large = min((row.size for row in tried if not row.fits), default=None)
    if too_large is None:
        if (most is not None and largest_fit >= most) or (saturates and is_saturated(tried, batch)):
            return None
        return min(2 * largest_fit, most or 2 * largest_fit)
    low = max((row.size for row in tried if row.fits and row.size < too_large), default=0)
    return None if too_large - low <= max(1, low // CLOSE) else (low + too_large) // 2


def is_saturated(tried: Sequence[Tried], batch: int) -> bool:
    """Whether neither of the two largest sizes that fit was faster than all smaller ones."""
    rates = [row.rate(batch) for row in sorted(tried, key=lambda row: row.size) if row.fits]
    return len(rates) > 2 and max(rates[-2:]) <= (1 + SAME) * max(rates[:-2])


def largest(tried: Sequence[Tried]) -> Tried:
    """The largest size that fits; one must."""
    return max((row for row in tried if row.fits), key=lambda row: row.size)


def fastest(tried: Sequence[Tried], batch: int, *, beyond: bool = False) -> Tried:
    """The smallest of the sizes up to ``batch`` (of all, with ``beyond``) that are as fast as the fastest of them; one must fit."""
    usable = [row for row in tried if row.fits and (beyond or row.size <= batch)]
    enough = max(row.rate(batch) for row in usable) / (1 + SAME)
    return min((row for row in usable if row.rate(batch) >= enough), key=lambda row: row.size)
