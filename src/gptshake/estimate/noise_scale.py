"""The gradient noise scale: the batch at which noise and signal of a step's gradient are equal, from gradient norms.

With micro-batches of b sequences and a batch of B, E|g_b|^2 = |G|^2 + S / b and E|g_B|^2 = |G|^2 + S / B, so two norms give |G|^2
(signal) and S (noise of one sequence), and B_simple = S / |G|^2 in sequences (McCandlish et al. 2018, appendix A.2). One
measurement is worthless, so both are averaged, and nothing is reported before |G|^2 is two standard errors above zero.
Under Adam it underestimates the critical batch by far (Merrill et al. 2025): a floor, and a trend.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, sqrt

from gptshake.estimate.formatting import short_count

LEAST = 8  # measurements before an error means anything
MEMORY = 50  # measurements over which the average forgets; a tenth of those so far, when that is more
SURE = 2.0  # standard errors: of |G|^2 above zero, and the half-width of the band (about 95 %)


@dataclass(frozen=True)
class Measurement:
    """Squared gradient norms of one step, neither clipped nor scaled."""

    step: int  # optimizer steps finished, this one included
    tokens: int  # target tokens seen
    micro_batch_size: int  # b, sequences
    batch_size: int  # B > b, sequences
    micro_norm2: float  # mean over the micro-batches of |g_b|^2
    batch_norm2: float  # |g_B|^2

    @property
    def signal(self) -> float:
        """Unbiased estimate of |G|^2; often negative."""
        small, large = self.micro_batch_size, self.batch_size
        return (large * self.batch_norm2 - small * self.micro_norm2) / (large - small)

    @property
    def noise(self) -> float:
        """Unbiased estimate of S, the variance of one sequence's gradient summed over all parameters."""
        return (self.micro_norm2 - self.batch_norm2) / (1 / self.micro_batch_size - 1 / self.batch_size)


@dataclass(frozen=True)
class Estimate:
    """What is known after some measurements."""

    step: int
    tokens: int
    measurements: int
    signal: float  # mean of |G|^2
    signal_error: float  # its standard error; infinite after one measurement
    noise: float  # mean of S
    low: float | None = None  # band of B_simple, sequences
    high: float | None = None

    @property
    def scale(self) -> float | None:
        """B_simple in sequences; None until it can be estimated."""
        return self.noise / self.signal if self.high is not None else None


def running_estimates(measurements: Iterable[Measurement], memory: float = MEMORY) -> list[Estimate]:
    """The estimate after each measurement, from exponentially weighted means and covariances (West 1979).

    ``memory`` is the time constant in measurements; it grows to a tenth of those so far. Infinite: all weigh the same.
    """
    weight = weight2 = mean_g = mean_s = gg = ss = gs = 0.0
    found = []
    for number, one in enumerate(measurements, 1):
        keep = 1 - 1 / max(memory, number / 10)
        weight, weight2 = keep * weight + 1, keep**2 * weight2 + 1
        dg, ds = one.signal - mean_g, one.noise - mean_s
        mean_g, mean_s = mean_g + dg / weight, mean_s + ds / weight
        gg = keep * gg + dg * (one.signal - mean_g)
        ss = keep * ss + ds * (one.noise - mean_s)
        gs = keep * gs + dg * (one.noise - mean_s)
        known = (one.step, one.tokens, number, mean_g)
        if number == 1:
            found.append(Estimate(*known, inf, mean_s))
            continue
        share = weight2 / weight**2
        to_error2 = share / (1 - share) / weight  # sum of squares -> variance without bias -> variance of the mean
        band = ratio_band(mean_s, mean_g, ss * to_error2, gs * to_error2, gg * to_error2) if number >= LEAST else None
        found.append(Estimate(*known, sqrt(gg * to_error2), mean_s, *(band or ())))
    return found


def ratio_band(top: float, bottom: float, top2: float, both: float, bottom2: float) -> tuple[float, float] | None:
    """Interval of top / bottom, two means with errors (Fieller 1954), from their variances and the covariance ``both``; from 0 up.

    It grows without bound as ``bottom`` nears two errors; None if that is less, or ``top`` not above zero.
    """
    if bottom <= SURE * sqrt(bottom2) or top <= 0:
        return None
    a, b, c = bottom**2 - SURE**2 * bottom2, top * bottom - SURE**2 * both, top**2 - SURE**2 * top2
    root = sqrt(max(b**2 - a * c, 0.0))
    return max((b - root) / a, 0.0), (b + root) / a


def two_digits(sequences: float) -> str:
    return f"{sequences:.2g}" if sequences < 10 else short_count(sequences)


def noise_scale_text(estimates: Sequence[Estimate], batch_size: int, block_size: int) -> str:
    """What the estimates mean for this run, to act on: the last one is reported, and the first sure one gives the trend."""
    if not estimates:
        return "noise scale: nothing was measured."
    last, known = estimates[-1], [one for one in estimates if one.scale is not None]
    if last.scale is None or last.low is None or last.high is None:
        return _not_yet(last, known[-1] if known else None, batch_size)
    trend, first = "", known[0]
    if first.scale and last.tokens >= 2 * first.tokens:
        factor = last.scale / first.scale
        how = "grown" if factor > 1.25 else "shrunk" if factor < 0.8 else "hardly changed"
        trend = f", {how} from {two_digits(first.scale)} at {short_count(first.tokens)}"
    ratio = batch_size / last.scale
    return (
        f"noise scale: {two_digits(last.scale)} sequences = {short_count(last.scale * block_size)} tokens ({two_digits(last.low)} to {two_digits(last.high)}) "
        f"after {short_count(last.tokens)} tokens{trend}. "
        f"Batch {batch_size} ({short_count(batch_size * block_size)} tokens) is {ratio:.2g} x critical at most (under Adam the noise scale "
        f"is a lower bound of the critical batch): {_recommendation(batch_size, ratio)}"
    )


def _recommendation(batch: int, ratio: float) -> str:
    """Steps go as 1 + 1 / ratio, tokens as 1 + ratio (McCandlish et al. 2018, equation 2.7)."""
    if ratio <= 0.5:
        steps, tokens = (1 + 0.5 / ratio) / (1 + 1 / ratio), (1 + 2 * ratio) / (1 + ratio)
        return f"you may double it for nearly the same tokens (data.batch_size={2 * batch}: {steps:.2f} x the steps, at most {tokens:.2f} x the tokens)."
    if ratio <= 2:
        return "it is about right; larger ones save steps but cost tokens, smaller ones the other way round."
    return (
        f"a larger one need not learn more per token; data.batch_size={max(batch // 2, 1)} may reach the same loss in fewer tokens "
        f"(down to {(1 + ratio / 2) / (1 + ratio):.2f} x): compare them at equal tokens."
    )


def _not_yet(last: Estimate, sure: Estimate | None, batch_size: int) -> str:
    """How many measurements it would take, if |G|^2 stays what it seems to be: errors fall with the root of those that count."""
    text = f"noise scale: cannot be estimated after {last.measurements} measurements, |G|^2 is {last.signal:.2g} ± {last.signal_error:.2g}"
    if last.signal <= 0 or last.signal_error == inf:
        text += f"; train longer, or with a larger batch than {batch_size}."
    else:
        counted = min(last.measurements, max(2 * MEMORY, last.measurements / 5))  # an average with time constant t is one of 2 t values
        needed = counted * (SURE * last.signal_error / last.signal) ** 2
        measurements = max(needed if needed <= 2 * MEMORY else 5 * needed, last.measurements + 1, LEAST)
        text += f"; it would take about {short_count(measurements)} at batch {batch_size}, fewer at a larger one."
    if sure and sure.scale and sure.low is not None and sure.high is not None:  # it grows out of sight in long runs
        was = f"{two_digits(sure.scale)} sequences ({two_digits(sure.low)} to {two_digits(sure.high)}) after {short_count(sure.tokens)} tokens"
        text += f" It was {was}, when it could last be estimated."
    return text
