"""The room in which every test runs: no network, no account, one thread, a cache that is thrown away.

All of it is set in the environment, before any library reads it, so that child processes live in the same room.
"""

import gc
import importlib.util
import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from ray_cluster import RayCluster

import gptshake

ROOM = {
    "GPTSHAKE_DIRTY": "1",  # the tests of the guard take it away again
    "GPTSHAKE_CACHE": tempfile.mkdtemp(prefix="gptshake-tests-"),
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # small tensors are not faster on two, and a busy neighbour makes two much slower
    "OMP_WAIT_POLICY": "PASSIVE",  # for those that ask for two: the other worker uses a core
}
NEVER = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HYDRA_FULL_ERROR", "LOCAL_RANK", "PYTHONPATH")

os.environ.update(ROOM)
for name in NEVER:
    os.environ.pop(name, None)

# nohup and a shell's & leave signals ignored, which every child inherits; the tests send signals and expect them to arrive.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

WORDS = "the of and to in a is that it was for on are as with his they at be this from have or by one had not but what all"

# The same examples on every run, and no deadline, because a shared machine stalls now and then.
hypothesis.settings.register_profile("gptshake", deadline=None, derandomize=True)
hypothesis.settings.load_profile("gptshake")


# Under CI everything but these must be there, or a skipped test would pass unseen. The last two are no lack of the machine.
MAY_BE_MISSING = (
    "GPU",
    "CUDA",
    "MPS",
    "hub",
    "Chromium",
    "zsh",
    "fish",
    "C++ compiler",
    "a Slurm of its own",
    "rclone",
    "scipy",
    "root may read",
    "continues the first",
    "shallow",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[Any]:
    """Under CI a skip is a failure, unless its reason is one that a machine of CI cannot help."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in MAY_BE_MISSING):
            report.outcome, report.longrepr = "failed", f"skipped under CI: {reason}"
    return report


LONGEST = ("test_api.py", "test_sweeps.py", "test_wandb.py", "test_resume.py", "test_sync.py", "test_devices.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Keep the garbage collector out of the modules and the thousands of tests, which stay until the end."""
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's cache, and the key of its records beside it."""
    shutil.rmtree(ROOM["GPTSHAKE_CACHE"], ignore_errors=True)
    Path(f"{ROOM['GPTSHAKE_CACHE']}.key").unlink(missing_ok=True)


@dataclass
class Done:
    """How a command ended."""

    code: int  # negative for a signal that killed it
    out: str
    err: str

    @property
    def error(self) -> str:
        """The sentence after ``error: ``; a traceback or anything else beside it fails the test."""
        assert self.err.startswith("error: "), f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err, self.err
        return self.err.removeprefix("error: ").strip()


class Command:
    """A command line at work in a forked child."""

    def __init__(self, parent: "Commands", pid: int, out: Path, err: Path) -> None:
        self.parent, self.pid, self._out, self._err = parent, pid, out, err
        self._code: int | None = None

    def output(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8", errors="replace") if self._out.exists() else ""

    def until(self, text: str, seconds: float = 60.0) -> None:
        """Wait until it has printed a text."""
        limit = time.monotonic() + seconds
        while text not in self.output():
            alive = time.monotonic() < limit and self.code() is None
            assert alive or text in self.output(), f"never printed {text!r}:\n{self.output()}\n{self._err.read_text()}"
            time.sleep(0.01)

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def code(self, seconds: float = 0.0) -> int | None:
        """Its exit code; None if it is still at work after so long."""
        if self._code is None:
            self._code = self.parent.ask({"wait": self.pid, "seconds": seconds})
        return self._code

    def wait(self, seconds: float = 120.0) -> Done:
        """Its end; killed if it does not come."""
        code = self.code(seconds)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.parent.ask({"wait": self.pid, "seconds": 5})
            pytest.fail(f"still running after {seconds:.0f} s:\n{self.output()}\n{self._err.read_text()}")
        return Done(code, self.output(), self._err.read_text(encoding="utf-8", errors="replace"))


class Commands:
    """Runs command lines in forked children of one process that has imported ``modules`` (see ``forkserver.py``)."""

    def __init__(self, *modules: str) -> None:
        script = Path(__file__).with_name("forkserver.py")
        self._parent = subprocess.Popen([sys.executable, str(script), *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._folder = Path(tempfile.mkdtemp(prefix="gptshake-commands-"))
        self._n = 0
        assert self._read() == "ready"

    def start(self, cwd: Path, *argv: str, before: str = "", **env: str) -> Command:
        """Start ``gptshake *argv`` in a folder."""
        self._n += 1
        out, err = self._folder / f"{self._n}.out", self._folder / f"{self._n}.err"
        request = {"argv": argv, "cwd": str(cwd), "env": dict(os.environ) | env, "out": str(out), "err": str(err), "before": before}
        return Command(self, self.ask(request), out, err)

    def __call__(self, cwd: Path, *argv: str, before: str = "", **env: str) -> Done:
        """Run ``gptshake *argv`` in a folder to its end."""
        return self.start(cwd, *argv, before=before, **env).wait()

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(request) + "\n")
        self._parent.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._parent.stdout is not None
        return json.loads(self._parent.stdout.readline())

    def close(self) -> None:
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def light_commands() -> Iterator[Commands]:
    """Command lines that are refused before torch is imported; the parent has not imported it either."""
    commands = Commands("gptshake.cli", "gptshake.config.help")
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Command lines that train."""
    everything = [name for _, name, _ in pkgutil.walk_packages(gptshake.__path__, "gptshake.") if "wandb" not in name]
    commands = Commands(*(name for name in everything if name != "gptshake.__main__"), "matplotlib.pyplot", "gptshake.__main__")
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One for all tests that need it: it takes half a minute to start."""
    cluster = RayCluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 24 kB that a model can learn something from."""
    draw = random.Random(1)
    path = tmp_path_factory.mktemp("texts") / "book.txt"
    path.write_text(" ".join(draw.choice(WORDS.split()) for _ in range(6000)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def excerpt() -> None:
    """Skips a test where the carrier of the Wikipedia excerpt is not installed."""
    if importlib.util.find_spec("gensim") is None:
        pytest.skip("the Wikipedia excerpt comes with gensim, which is not installed")
