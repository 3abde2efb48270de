"""A run and its repetition: how many losses are equal bit for bit, where they differ the most, and in what their environments differ.

Pure; takes rows of metrics.csv and two run.json. metrics.csv holds every number so that it reads back exactly, so equal texts are
equal bits. A loss that only one of them has is not compared: a run that was stopped early validated at its last step, and its
repetition need not. Of the environments what only one record holds is a difference: a newer version began to write it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptshake.estimate.formatting import counted
from gptshake.record.metrics import Row

COLUMNS = ("train/loss", "val/loss")
Info = Mapping[str, Any]


@dataclass(frozen=True)
class Deviation:
    """One value that is another one now."""

    step: int
    column: str
    then: float
    now: float

    @property
    def relative(self) -> float:
        """Difference by the size of what it was; infinite if one of the two is not finite."""
        if not (math.isfinite(self.then) and math.isfinite(self.now)):
            return math.inf
        return abs(self.now - self.then) / max(abs(self.then), 1e-300)


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

    def holds(self, tolerance: float) -> bool:
        """Whether no value differs by more than this share of itself."""
        return self.steps > 0 and all(deviation.relative <= tolerance for deviation in self.deviations)


def compare(then: Sequence[Row], now: Sequence[Row]) -> Comparison:
    """Compare the losses of the steps that both have."""
    again = {row["step"]: row for row in now}
    pairs = [(row, again[row["step"]]) for row in then if row["step"] in again]
    counts = {column: sum(column in old and column in new for old, new in pairs) for column in COLUMNS}
    deviations = [
        Deviation(int(old["step"]), column, old[column], new[column])
        for old, new in pairs
        for column in COLUMNS
        if column in old and column in new and repr(old[column]) != repr(new[column])
    ]
    return Comparison(len(pairs), counts, deviations)


def steps_of_first_code(sittings: Sequence[Mapping[str, Any]]) -> int | None:
    """How many steps of a run its first code made, if it was later resumed with other code; None if one code made all.

    Args:
        sittings: of run.json, in order: ``commit``, ``diff_sha256`` and ``from_step`` of the start and of each resume.
    """
    code = [(sitting.get("commit"), sitting.get("diff_sha256")) for sitting in sittings]
    others = [sitting.get("from_step") or None for sitting, made_by in zip(sittings, code, strict=True) if made_by != code[0]]
    return others[0] if others else None


def verdict(found: Comparison, *, same: bool, tolerance: float) -> tuple[bool, str]:
    """Whether a reproduction holds, and the sentence that says so.

    Args:
        found: the comparison.
        same: whether the machine is the same, so that every bit must be.
        tolerance: largest relative deviation that another machine may have.
    """
    values = f"{found.counts['train/loss']:,} train and {found.counts['val/loss']:,} val losses of {counted(found.steps, 'step')}"
    if found.identical:
        return True, f"Reproduced: {values} are bit-identical."
    first, worst = found.deviations[0], found.largest
    assert worst is not None
    summary = (
        f"Of {values}, {len(found.deviations):,} differ, the first at step {first.step:,}, the most {worst.column} of step {worst.step:,}: "
        f"{worst.now:.7g} was {worst.then:.7g}, a relative deviation of {worst.relative:.1e}"
    )
    if same:
        return False, f"Not reproduced: on the same machine every bit must be the same. {summary}."
    holds = found.holds(tolerance)
    limit = f"{'within' if holds else 'above'} the tolerance of {tolerance:g} for another machine"
    return holds, f"{'Reproduced' if holds else 'Not reproduced'}, {limit}. {summary}."


def environment_differences(then: Info, now: Info) -> list[tuple[str, str, str]]:
    """(what, value then, value now) of everything that differs; ``-`` stands for nothing."""
    before, after = _facts(then), _facts(now)
    rows = [(what, before.get(what, "-"), after.get(what, "-")) for what in dict.fromkeys([*before, *after])]
    return [row for row in rows if row[1] != row[2]]


def same_machine(then: Info, now: Info) -> bool:
    """Whether the same bits can be asked for: device, torch and threads are the same.

    A GPU that was not trained on does not count. Processors are compared by name only.
    """
    device = (then.get("resolved") or {}).get("trainer.accelerator")
    keys = ["torch", "threads of torch", "device", "precision", "processor" if device == "cpu" else "GPU"]
    before, after = _facts(then), _facts(now)
    return all(key in before and before[key] == after.get(key) for key in keys)


def _facts(info: Info) -> dict[str, str]:
    environment, hardware, resolved = (info.get(key) or {} for key in ("environment", "hardware", "resolved"))
    gpus = hardware.get("gpus") or []
    facts = {
        "python": environment.get("python"),
        "system": environment.get("platform"),
        "processor": hardware.get("cpu") or environment.get("cpu"),
        "cores": hardware.get("cores"),
        "hardware threads": hardware.get("threads"),
        "memory, GB": hardware.get("ram_gb"),
        "GPU": ", ".join(str(gpu.get("name")) for gpu in gpus) or None,
        "driver": environment.get("driver"),
        "CUDA": environment.get("cuda"),
        "device": resolved.get("trainer.accelerator"),
        "precision": resolved.get("trainer.precision"),
        "threads of torch": resolved.get("trainer.threads"),
        **(environment.get("packages") or {}),
    }
    return {what: str(value) for what, value in facts.items() if value is not None}
