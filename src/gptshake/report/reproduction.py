"""A run and its repetition: how many losses are equal bit for bit, and where they differ the most.

metrics.csv holds every number so that it reads back exactly. A loss that only one of them has is not compared: a run that was stopped
early validated at its last step, and its repetition need not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gptshake.estimate.formatting import counted
from gptshake.record.metrics import Row
from gptshake.report.changes import machine_facts

COLUMNS = ("train/loss", "val/loss")  # that are compared
Info = Mapping[str, Any]


class Deviation(NamedTuple):
    """One value that is another one now."""

    step: int
    column: str
    then: float
    now: float
    relative: float  # difference by the size of what it was; infinite if one of the two is not finite


@dataclass(frozen=True)
class Comparison:
    """What came out."""

    steps: int  # that both have
    counts: dict[str, int]  # column -> values compared
    deviations: list[Deviation] = field(default_factory=list)  # in the order of steps

    @property
    def identical(self) -> bool:
        """Whether every value is the same, bit for bit, and there were some."""
        return self.steps > 0 and not self.deviations

    @property
    def largest(self) -> Deviation | None:
        """The largest relative one; the first of equals."""
        return max(self.deviations, key=lambda deviation: deviation.relative, default=None)


def compare(then: Sequence[Row], now: Sequence[Row]) -> Comparison:
    again, found, counts = {row["step"]: row for row in now}, list[Deviation](), dict.fromkeys(COLUMNS, 0)
    pairs = [(row, again[row["step"]]) for row in then if row["step"] in again]
    for old, new in pairs:
        for column in (name for name in COLUMNS if name in old and name in new):
            counts[column] += 1
            was, value = old[column], new[column]
            relative = abs(value - was) / max(abs(was), 1e-300) if math.isfinite(was) and math.isfinite(value) else math.inf
            found += [Deviation(int(old["step"]), column, was, value, relative)] if repr(was) != repr(value) else []
    return Comparison(len(pairs), counts, found)


def steps_of_first_code(sessions: Sequence[Info]) -> int | None:
    """How many steps of a run its first code made, if it was later resumed with other code; None if one code made all."""
    code = [(one.get("commit"), one.get("diff_sha256")) for one in sessions]
    return next((one.get("from_step") or None for one, made_by in zip(sessions, code, strict=True) if made_by != code[0]), None)


def verdict(found: Comparison, *, same: bool, tolerance: float) -> tuple[bool, str]:
    """Whether a reproduction holds: on the same machine every bit, on another up to a relative deviation; and a sentence that says so."""
    values = f"{found.counts['train/loss']:,} train and {found.counts['val/loss']:,} val losses of {counted(found.steps, 'step')}"
    worst = found.largest
    if worst is None:
        return found.identical, f"Reproduced: {values} are bit-identical." if found.identical else "Not reproduced: no step in common."
    summary = (
        f"Of {values}, {len(found.deviations):,} differ, the first at step {found.deviations[0].step:,}, the most {worst.column} of step "
        f"{worst.step:,}: {worst.now:.7g} was {worst.then:.7g}, a relative deviation of {worst.relative:.1e}"
    )
    if same:
        return False, f"Not reproduced: on the same machine every bit must be the same. {summary}."
    holds = worst.relative <= tolerance
    limit = f"{'within' if holds else 'above'} the tolerance of {tolerance:g} for another machine"
    return holds, f"{'Reproduced' if holds else 'Not reproduced'}, {limit}. {summary}."


def same_machine(then: Info, now: Info) -> bool:
    """Whether the same bits can be asked for: device, torch and threads are the same.

    A GPU that was not trained on does not count. Processors are compared by name only.
    """
    before, after = machine_facts(then), machine_facts(now)
    keys = ["torch", "threads of torch", "device", "precision", "processor" if before.get("device") == "cpu" else "GPU"]
    return all(key in before and before[key] == after.get(key) for key in keys)
