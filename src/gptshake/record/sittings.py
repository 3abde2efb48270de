"""The sittings of a run: one for its start and one for each resume; what they took together. Pure functions on plain values.

A sitting is ``started`` (seconds since 1970), ``commit``, ``dirty``, ``from_step``, and at its end ``ended`` and, where known,
``energy_kwh``; ``price_per_hour`` if it was told.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

Sitting = dict[str, Any]


class Clock:
    """Seconds since 1970 as the system had them once, and from there by a clock that nobody sets: its differences are true."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since 1970, unless the system's clock was set meanwhile."""
        return self._ahead + time.monotonic()


def begun(
    sittings: Sequence[Sitting], *, now: float, last_seen: float | None, git: Mapping[str, Any], price_per_hour: float | None
) -> list[Sitting]:
    """The sittings with a new one; one that was killed before ended when it was last seen.

    Args:
        sittings: so far.
        now: seconds since 1970.
        last_seen: when the last row was written, if any.
        git: of the code, as in run.json.
        price_per_hour: of the machine, in any currency, or None.
    """
    new: Sitting = {"started": now, "commit": git.get("commit"), "dirty": git.get("dirty"), "from_step": None if sittings else 0}
    if git.get("diff_sha256"):
        new["diff_sha256"] = git["diff_sha256"]
    if price_per_hour is not None:
        new["price_per_hour"] = price_per_hour
    return [*ended(sittings, now=last_seen or 0.0), new]


def ended(sittings: Sequence[Sitting], *, now: float, energy_kwh: float | None = None) -> list[Sitting]:
    """The sittings with the last one closed, unless it is closed already."""
    if not sittings or "ended" in sittings[-1]:
        return list(sittings)
    last = sittings[-1] | {"ended": max(now, sittings[-1]["started"])}
    return [*sittings[:-1], last if energy_kwh is None else last | {"energy_kwh": energy_kwh}]


def totals(sittings: Sequence[Sitting]) -> dict[str, float | None]:
    """``wall_s``, ``energy_kwh`` and ``price`` of all sittings together; None if it is not known of each."""
    seconds = [sitting.get("ended", sitting["started"]) - sitting["started"] for sitting in sittings]
    energy = [sitting.get("energy_kwh") for sitting in sittings]
    rates = [sitting.get("price_per_hour") for sitting in sittings]
    return {
        "wall_s": sum(seconds),
        "energy_kwh": None if None in energy else sum(kwh for kwh in energy if kwh is not None),
        "price": None if None in rates else sum(rate * time / 3600 for rate, time in zip(rates, seconds, strict=True) if rate is not None),
    }
