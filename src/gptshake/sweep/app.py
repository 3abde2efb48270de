"""What a sweep needs of the app that it sweeps, as protocols: any Hydra app is an ``App``, gptshake's own task is a ``Host``, too."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Prepared:
    """What a host found out in a child process before the first trial."""

    frozen: list[str] = field(default_factory=list)  # overrides that say what ``auto`` means for all trials
    declared: dict[str, Any] = field(default_factory=dict)  # values that were ``auto``: key -> number
    ranges: dict[str, str] = field(default_factory=dict)  # declared ranges that depend on what was found out: key -> the shell's grammar
    schedule: str = ""  # of the learning rate, in words
    warmer: str = ""  # an override that makes its warm-up longer
    label: str = ""  # what the runs are about, for titles
    device: str | None = None  # cuda, mps, cpu
    tokens: int | None = None  # of one run
    seconds: float | None = None  # of one run in one slot, roughly
    memory: int | None = None  # bytes of main memory or of the device
    disk: int | None = None  # bytes of the weights that a kept run leaves, and that a running one needs


def joined(parts: Sequence[Prepared]) -> Prepared:
    """What a study over several options is prepared for: what all have in common, the mean time, the most memory and disk."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def known(name: str) -> list[Any]:
        return [value for part in parts if (value := getattr(part, name)) is not None]

    return replace(
        first,
        frozen=[text for text in first.frozen if all(text in part.frozen for part in parts)],
        declared={key: value for key, value in first.declared.items() if all(part.declared.get(key) == value for part in parts)},
        ranges={key: text for key, text in first.ranges.items() if all(part.ranges.get(key) == text for part in parts)},
        warmer=first.warmer if all(part.warmer == first.warmer for part in parts) else "",
        schedule=first.schedule if all(part.schedule == first.schedule for part in parts) else "",
        label=" · ".join(dict.fromkeys(word for part in parts for word in part.label.split(" · "))),
        tokens=first.tokens if all(part.tokens == first.tokens for part in parts) else None,
        seconds=fmean(known("seconds")) if known("seconds") else None,
        memory=max(known("memory"), default=None),
        disk=max(known("disk"), default=None),
    )


@runtime_checkable
class Host(Protocol):
    """A task function that knows more about its runs than Hydra does."""

    def plain(self) -> dict[str, Any]:
        """What all runs share, as JSON, from which a child makes the host again."""

    def modules(self) -> Sequence[str]:
        """What to import before runs are forked."""

    def study_name(self) -> str:
        """The readable part of a study's default name."""

    def code(self) -> dict[str, Any]:
        """Version of the code; a study does not go on with another one."""

    def may_differ(self) -> bool:
        """Whether a study may go on with another version of the code."""

    def on_start(self, folder: Path) -> None:
        """Called once the study's folder is there and held."""

    def changes_cost(self, key: str) -> bool:
        """Whether the options of a swept key change what a run costs, so that each is prepared by itself."""

    def prepare(self, composed: Any) -> dict[str, Any]:
        """Find out the fields of ``Prepared``; called in a child."""

    def comparable(self, params: Mapping[str, Any], prepared: Prepared) -> list[str]:
        """Overrides that make a point comparable with the others, such as equal tokens for every batch size."""


class App(Protocol):
    """A Hydra app at the start of a multirun."""

    program: str  # how it is called, for the command that repeats a trial
    folder: Path  # hydra.sweep.dir
    host: Host | None

    def on_start(self, folder: Path) -> None:
        """Called once the study's folder is there and held."""

    def declared(self, key: str) -> tuple[Any, bool]:
        """The value that the config has without the sweep, and whether the key holds integers."""

    def work(self) -> Callable[[dict[str, Any]], Any]:
        """What does a task in a child process, a run or the host's preparation: a function of a module, or a ``partial`` of one."""

    def shared(self) -> dict[str, Any]:
        """What every task holds besides its own point, as JSON."""
