"""What a study is on the disk besides Optuna's journal: plain rows in study.json, which everything else reads.

Also whether a command means the study that is there: its ``identity``, and the version of its code.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptshake.errors import RecordError
from gptshake.keys import STUDY, not_free
from gptshake.record.index import STUDY_FILE
from gptshake.redaction import redacted
from gptshake.sweep.space import Params

NUMBER = "value"  # the objective of a task that returns a number without a name
NOISE_FOLDER = "noise/"  # how paths of runs with a second seed begin, which measure the noise and confirm nothing


@dataclass
class RunRow:
    """One run of a trial."""

    path: str  # relative to the study's folder
    repeat: int
    seed: int | None
    slot: int = 0
    place: str = ""  # of a run elsewhere: where it runs, or what it waits for
    state: str = "waiting"  # waiting, running, ok, pruned, diverged, failed, stopped
    value: float | None = None
    reason: str | None = None
    started: float | None = None  # seconds since 1970
    ended: float | None = None
    spent: float = 0.0  # seconds that it ran under earlier controllers
    tokens_per_s: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse a path that leaves the study: files of a study may be somebody else's, and runs write and remove there."""
        if Path(self.path).is_absolute() or ".." in Path(self.path).parts:
            raise RecordError(
                f"{STUDY_FILE} names the run {self.path!r}, which is outside of the study: gptshake does not write such a file."
            )


@dataclass(eq=False)
class TrialRow:
    """One point and its runs; the point of a confirmation has the number of the trial that it confirms."""

    number: int
    params: Params
    overrides: list[str]
    runs: list[RunRow]
    state: str = "running"
    value: float | None = None
    reason: str | None = None
    at: int | None = None  # tokens at which it ended early

    @property
    def measures_noise(self) -> bool:
        return any(run.path.startswith(NOISE_FOLDER) for run in self.runs)


@dataclass
class Header:
    """What a study is about; a study goes on only under the same ``identity``."""

    name: str
    program: str
    objective: str
    direction: str
    label: str
    fixed: list[str]
    axes: list[dict[str, Any]]
    search: str
    n_trials: int | None
    repeats: int
    tokens: int | None
    slots: int
    device: str
    seconds: float | None
    ablate: dict[str, Any] | None
    seed_key: str
    frozen: list[str]  # what ``auto`` meant when the study began
    code: dict[str, Any]  # version of the code
    started: float = field(default_factory=time.time)
    schedule: str = ""  # of the learning rate in every run, in words; nothing where it varies
    confirm_runs: int = 0  # with fresh seeds, once the trials are through
    noise: bool = False  # these runs measure the noise between seeds, and confirm nothing
    warmer: str = ""  # an override that makes the warm-up longer; nothing where there is none, or it is long
    options: list[str] = field(default_factory=list)  # overrides of the sweeper that are not at their defaults
    expected: list[int] | None = None  # trials of a search that ends by itself: usually, and at most

    def identity(self) -> dict[str, Any]:
        space = {axis["key"]: {key: axis[key] for key in ("low", "high", "log", "powers", "choices")} for axis in self.axes}
        study = {key: getattr(self, key) for key in ("objective", "direction", "repeats")}
        if self.schedule:  # the defaults of another version may give another one
            study["schedule"] = self.schedule
        return {"range of ": space, "": {text.split("=", 1)[0]: text for text in not_free(self.fixed, STUDY)}, "study's ": study}


def refuse_differences(folder: Path, stored: dict[str, Any], header: Header, *, code: bool) -> None:
    """Compare a stored study with what a command means."""
    old = redacted(Header(**{key: stored[key] for key in Header.__dataclass_fields__ if key in stored}).identity())
    lines = [
        f"  {kind}{key}: was {_shown(old[kind].get(key))}, would be {_shown(now.get(key))}"
        for kind, now in redacted(header.identity()).items()
        for key in sorted({*now, *old[kind]})
        if now.get(key) != old[kind].get(key) and not (key == "schedule" and key not in old[kind])
    ]
    if lines:
        raise RecordError(
            f"The study {header.name} was started with other settings:\n" + "\n".join(lines) + f"\nRestore them, or use another name: "
            f"study=<name>; its results stay in {folder}."
        )
    then, now = stored["code"], header.code
    lines = [
        f"  {key}: was {_shown(then.get(key))}, is {_shown(now.get(key))}" for key in sorted({*then, *now}) if then.get(key) != now.get(key)
    ]
    if code and lines:
        raise RecordError(
            f"The study {header.name} was started with other code, so its trials would not be comparable:\n" + "\n".join(lines) + "\n"
            "Go back to that code, give the study another name (study=<name>), or add --dirty to continue anyway."
        )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, False, []))
    return "nothing" if value is None else str(value)
