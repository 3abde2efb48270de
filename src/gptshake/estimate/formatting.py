"""Numbers as people say and write them."""

import re

from gptshake.errors import ConfigError


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 05 s``, ``2 h 10 min``, ``9.5 days``."""
    seconds = round(seconds)  # first, or 59.7 s are 60 s and 119.7 s are 1 min 60 s
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return f"{seconds / 86400:.1f} days"


def short_count(value: float) -> str:
    """A count, such as 950, 12.8k, 3.2M or 1B."""
    return _scaled(value, 1000, ("", "k", "M", "B", "T"))


def short_bytes(value: float) -> str:
    """Memory, such as 12.8 MiB."""
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    for power in range(len(units) - 1, 0, -1):
        if abs(value) >= 0.9995 * base**power:
            scaled = value / base**power
            return f"{scaled:.{3 if abs(scaled) < 999.5 else 4}g}{units[power]}"  # of bytes there are up to 1023
    return f"{value:.0f}{units[0]}"


def counted(number: float, noun: str, form: str = ",") -> str:
    """A number with its noun: ``1 thread``, ``2 threads``, ``1,000 steps``."""
    text = format(number, form)
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"


def percent(share: float) -> str:
    """``62 %``, and ``0.4 %`` below 1 %."""
    return f"{100 * share:.1f} %" if 0.0005 <= abs(share) < 0.0095 else f"{100 * share:.0f} %"


def three_digits(value: float) -> str:
    """A measured figure without an exponent: 0.132, 4.53, 4,535."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short_rate(value: float) -> str:
    """A learning rate as people type it: 1e-3, 9.4e-4."""
    digits, power = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def parse_bytes(key: str, text: str) -> int:
    """Bytes in ``1GiB``, ``1.5G``, ``800 MB`` (powers of 1000) or ``1000000``; ConfigError, which names ``key``, for something else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(ib|b|)", text.strip().lower())
    power = " kmgt".index(match[2] or " ") if match else 0
    found = int(float(match[1]) * (1000 if match[3] == "b" else 1024) ** power) if match else 0
    if found < 1:
        raise ConfigError(f"{key}={text} is not an amount of memory: use a number and a unit, such as 800MiB or 1.5GiB.")
    return found
