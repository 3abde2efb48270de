"""What a sweep needs of the app that it sweeps and of the place where runs happen. A cluster would be another ``Executor``.

A run is a task (plain values) and a folder. Its end is an ``Outcome``, which lies in the folder, too, whoever has died.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from gptshake.outcome import Outcome


@dataclass(frozen=True)
class Prepared:
    """What a host found out in a child process before the first trial."""

    frozen: list[str] = field(default_factory=list)  # overrides that say what ``auto`` means for all trials
    declared: dict[str, Any] = field(default_factory=dict)  # values that were ``auto``: key -> number
    ranges: dict[str, str] = field(default_factory=dict)  # configured ranges that depend on what was found out: key -> the shell's grammar
    schedule: str = ""  # of the learning rate, in words
    warmer: str = ""  # an override that makes its warm-up longer
    label: str = ""  # what the runs are about, for titles
    device: str | None = None  # cuda, mps, cpu
    tokens: int | None = None  # of one run
    seconds: float | None = None  # of one run in one slot, roughly
    memory: int | None = None  # bytes of main memory or of the device
    disk: int | None = None  # bytes of the weights that a kept run leaves, and that a running one needs


def merge_prepared(parts: Sequence[Prepared]) -> Prepared:
    """What a study over several options is prepared for: what all have in common, the mean time, the most memory and disk."""
    first = parts[0]

    def same(name: str, otherwise: Any) -> Any:
        return getattr(first, name) if all(getattr(part, name) == getattr(first, name) for part in parts) else otherwise

    def known(name: str) -> list[Any]:
        return [value for part in parts if (value := getattr(part, name)) is not None]

    return replace(
        first,
        frozen=[text for text in first.frozen if all(text in part.frozen for part in parts)],
        declared={key: value for key, value in first.declared.items() if all(part.declared.get(key) == value for part in parts)},
        warmer=same("warmer", ""),
        schedule=same("schedule", ""),
        label=" · ".join(dict.fromkeys(word for part in parts for word in part.label.split(" · "))),
        tokens=same("tokens", None),
        seconds=fmean(known("seconds")) if known("seconds") else None,
        memory=max(known("memory"), default=None),
        disk=max(known("disk"), default=None),
    )


class Host:
    """What is known of runs beyond what Hydra knows of any app: nothing. gptshake's own task function is a ``Host`` that knows more."""

    name: str | None = None  # the readable part of a study's default name; None: its folder is its name
    dirty: bool = True  # whether a study may go on with another version of the code

    def version(self) -> dict[str, Any]:
        return {}

    def modules(self) -> Sequence[str]:
        return ()

    def on_start(self, folder: Path) -> None:
        """Called once the study's folder is there and held."""

    def check_begun(self, folder: Path, overrides: Sequence[str], study: str) -> None:
        """Refuse to continue a study if these overrides of one of its runs, begun in a folder, mean something else by now."""

    def changes_cost(self, key: str) -> bool:
        """Whether the options of a swept key change what a run costs, so that each is prepared by itself."""
        return False

    def comparable(self, params: Mapping[str, Any], prepared: Prepared) -> list[str]:
        """Overrides that make a point comparable with the others, such as equal tokens for every batch size."""
        return []


class App(Protocol):
    """A Hydra app at the start of a multirun."""

    program: str  # how it is called, for the command that repeats a trial
    folder: Path  # hydra.sweep.dir
    host: Host
    ours: bool  # whether its runs are gptshake's own

    def on_start(self, folder: Path) -> None:
        """Called once the study's folder is there and held."""

    def configured(self, key: str) -> tuple[Any, bool]:
        """The value that the config has without the sweep, and whether the key holds integers."""

    def work(self) -> Callable[[dict[str, Any]], Any]:
        """What does a task in a child process, a run or the host's preparation: a function of a module, or a ``partial`` of one."""

    def shared(self) -> dict[str, Any]:
        """What every task holds besides its own point, as JSON."""


class Running(Protocol):
    """A run at work."""

    slot: int
    folder: Path
    started: float  # time.monotonic(); infinite as long as it waits for a machine

    @property
    def place(self) -> str:
        """In words: where it runs, or what it waits for; empty for this machine."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, if it has."""

    def stop(self) -> None:
        """Ask it to checkpoint and end."""

    def kill(self, reason: str) -> None:
        """End it now, as failed for this reason."""


class Executor(Protocol):
    """Runs tasks, so many at once."""

    threads: int  # of one run
    device: str  # in words, for people

    def open(self, target: Callable[[Any], Any], modules: Sequence[str], threads: int | None = None) -> None:
        """Get ready to call ``target`` with tasks, in processes that have imported ``modules`` already.

        ``threads`` of a run take the place of the executor's own number, if the app's config has one.
        """

    def probe(self, task: Any, folder: Path) -> Outcome:
        """Do one task alone, where a run would be done, its output shown; returns at its end."""

    def allot(self, device: str | None, memory: int | None, most: int | None) -> int:
        """Decide on the slots.

        Args:
            device: ``cuda``, ``mps`` or ``cpu``; None if it is not known what the tasks use.
            memory: bytes that one run needs, or None.
            most: more slots than that could never be filled; None if that is not known.
        Returns:
            Their number.
        """

    def start(self, task: Any, folder: Path) -> Running | None:
        """Begin a run in a free slot; None if all are taken."""

    def adopt(self, folder: Path) -> Running | None:
        """Take over the run that an earlier controller left at work in a folder; None if there is none that goes on by itself."""

    def wait(self, seconds: float) -> Sequence[Running]:
        """The runs that have ended; waits until there is one, or for so long."""

    def close(self) -> None:
        """End what still runs, and let go of everything."""
