"""The sessions of a run: one for its start and one for each resume; what they took together. Pure functions on plain values.

A session is ``started`` (seconds since 1970), ``commit``, ``dirty``, ``from_step``, and at its end ``ended`` and, where known,
``energy_kwh``; ``price_per_hour`` if it was given. run.json calls them ``sittings``.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

Session = dict[str, Any]


class Clock:
    """Seconds since 1970 as the system had them once, and from there by a clock that nobody sets: its differences are true."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since 1970, unless the system's clock was set meanwhile."""
        return self._ahead + time.monotonic()


def start_session(
    sessions: Sequence[Session], *, now: float, last_seen: float | None, git: Mapping[str, Any], price_per_hour: float | None
) -> list[Session]:
    """The sessions with a new one; one that was killed before ended when it was last seen.

    Args:
        sessions: so far.
        now: seconds since 1970.
        last_seen: when the last row was written, if any.
        git: of the code, as in run.json.
        price_per_hour: of the machine, in any currency, or None.
    """
    new: Session = {"started": now, "commit": git.get("commit"), "dirty": git.get("dirty"), "from_step": None if sessions else 0}
    if git.get("diff_sha256"):
        new["diff_sha256"] = git["diff_sha256"]
    if price_per_hour is not None:
        new["price_per_hour"] = price_per_hour
    return [*end_session(sessions, now=last_seen or 0.0), new]


def end_session(sessions: Sequence[Session], *, now: float, energy_kwh: float | None = None) -> list[Session]:
    """The sessions with the last one closed, unless it is closed already."""
    if not sessions or "ended" in sessions[-1]:
        return list(sessions)
    last = sessions[-1] | {"ended": max(now, sessions[-1]["started"])}
    return [*sessions[:-1], last if energy_kwh is None else last | {"energy_kwh": energy_kwh}]


def totals(sessions: Sequence[Session]) -> dict[str, float | None]:
    """``wall_s``, ``energy_kwh`` and ``price`` of all sessions together; None if it is not known of each."""
    seconds = [one.get("ended", one["started"]) - one["started"] for one in sessions]
    energy, rates = ([one.get(key) for one in sessions] for key in ("energy_kwh", "price_per_hour"))
    return {
        "wall_s": sum(seconds),
        "energy_kwh": None if None in energy else sum(kwh or 0.0 for kwh in energy),
        "price": None if None in rates else sum((rate or 0.0) * time / 3600 for rate, time in zip(rates, seconds, strict=True)),
    }
