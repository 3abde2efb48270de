"""What the children of ``test_processes`` and the runs of ``test_executors`` do; light, because each imports it: ``python -m deeds <folder>``."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.outcome import Outcome
from gptshake.processes import ChildRunner, Spec, live_here


def deed(task: Any) -> Any:
    """Do one: (name of a deed, argument)."""
    name, value = task
    deeds: dict[str, Callable[[], Any]] = {
        "give back": lambda: value,
        "say": lambda: print(value) or value,
        "look": lambda: {key: os.environ.get(key) for key in value} | {"session": os.getsid(0) == os.getpid(), "server": os.getppid()},
        "has": lambda: value in sys.modules,
        "raise": lambda: (_ for _ in ()).throw(value),
        "exit": lambda: sys.exit(value),
        "exit at once": lambda: os._exit(value),
        "signal": lambda: os.kill(os.getpid(), value),
        "sleep": lambda: time.sleep(value) or "awake",
        "tidy up badly": lambda: tidy_up_badly(value),
        "nested": lambda: run(ChildRunner(deed, method=value[1]), Path(value[0]), "give back", 7).value,
        "be asked twice": lambda: (_ for _ in ()).throw(AskedTwice()),
        "save": lambda: save(Path(value)),
        "ignore": lambda: ignore(Path(value)),
        "at the second try": lambda: at_the_second_try(Path(value)),
    }
    return deeds[name]()


class AskedTwice(ConfigError):
    """An error that is being written down when somebody asks the process to stop."""

    def __str__(self) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "this is kept"


def tidy_up_badly(signum: int) -> None:
    """What a library does whose clean-up a signal found half done: it raises an error of its own in place of the ``Stop``."""
    try:
        try:
            os.kill(os.getpid(), signum)
        finally:
            raise AttributeError("'NoneType' object has no attribute 'flags'")
    except AttributeError as error:
        raise ConfigError("this cannot be composed") from error


def save(file: Path) -> None:
    """Work for long, and save when asked to stop."""
    try:
        file.write_text("")
        time.sleep(100)
    finally:
        file.write_text("saved")


def ignore(file: Path) -> None:
    """Work for long, whatever is asked."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    file.touch()
    time.sleep(100)


def at_the_second_try(file: Path) -> str:
    """Work for long, unless it was begun before."""
    if not file.exists():
        file.touch()
        time.sleep(100)
    return "done"


def run(runner: ChildRunner, folder: Path, *task: Any, **options: Any) -> Outcome:
    """The outcome of one child."""
    child = runner.start(Spec(task, folder, **options))
    assert runner.wait([child], 20.0) == [child] and child.outcome is not None
    return child.outcome


def environment(key: str) -> tuple[str | None, str]:
    """A variable of the child, and its threads."""
    return os.environ.get(key), os.environ["OMP_NUM_THREADS"]


if __name__ == "__main__":
    live_here(deed, Path(sys.argv[1]), *sys.argv[2:])
