"""Children of the fork server: every end has an outcome, whoever died, and nothing runs on unnoticed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake import processes
from gptshake.errors import ConfigError, GptshakeError, Pruned, TrainingError
from gptshake.processes import Child, ForkServer, Outcome, Spec, is_running, read_outcome


def deed(task: Any) -> Any:
    """What the children of these tests do: (name of a deed, argument)."""
    name, value = task
    deeds: dict[str, Callable[[], Any]] = {
        "give back": lambda: value,
        "say": lambda: print(value) or value,
        "look": lambda: {key: os.environ.get(key) for key in value} | {"session": os.getsid(0) == os.getpid()},
        "raise": lambda: (_ for _ in ()).throw(value),
        "exit": lambda: sys.exit(value),
        "exit at once": lambda: os._exit(value),
        "signal": lambda: os.kill(os.getpid(), value),
        "sleep": lambda: time.sleep(value) or "awake",
        "tidy up badly": lambda: tidy_up_badly(value),
    }
    return deeds[name]()


def tidy_up_badly(signum: int) -> None:
    """What a library does whose clean-up a signal found half done: it raises an error of its own in place of the ``Stop``."""
    try:
        try:
            os.kill(os.getpid(), signum)
        finally:
            raise AttributeError("'NoneType' object has no attribute 'flags'")
    except AttributeError as error:
        raise ConfigError("this cannot be composed") from error


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(deed)
    yield server
    server.close(grace=1.0)


def run(server: ForkServer, folder: Path, *task: Any, **options: Any) -> Outcome:
    child = server.start(Spec(task, folder, **options))
    return end_of(server, child)


def end_of(server: ForkServer, child: Child) -> Outcome:
    assert server.wait([child], 20.0) == [child]
    assert child.outcome is not None
    return child.outcome


def test_what_the_target_returns_comes_back_and_lies_in_the_folder(server: ForkServer, tmp_path: Path) -> None:
    outcome = run(server, tmp_path / "new" / "folder", "give back", {"val/bpb": 2.5, "list": [1, None]})
    assert outcome == Outcome("ok", {"val/bpb": 2.5, "list": [1, None]}) == read_outcome(tmp_path / "new" / "folder")


def nested(folder: str) -> Any:
    """A child that has a server of its own; gives what that answers, and which of its caller's lifelines it thinks it holds."""
    held = len(processes._LIFELINES)
    inner = ForkServer(deed)
    outcome = run(inner, Path(folder) / "inner", "give back", 7)
    inner.close(grace=1.0)
    return [outcome.value, held]


def test_a_child_may_have_a_server_of_its_own(server: ForkServer, tmp_path: Path) -> None:
    outer = ForkServer(nested)  # the second of this process
    try:
        assert end_of(outer, outer.start(Spec(str(tmp_path), tmp_path))) == Outcome("ok", [7, 0])
    finally:
        outer.close(grace=1.0)
    assert run(server, tmp_path / "still there", "give back", 1).value == 1


def test_a_number_that_is_none_comes_back_as_none(server: ForkServer, tmp_path: Path) -> None:
    value = run(server, tmp_path, "give back", [float("nan"), float("inf")]).value
    assert value[0] != value[0] and value[1] == float("inf")


@pytest.mark.parametrize(
    ("task", "status", "reason", "error"),
    [
        (("raise", ValueError("no\nsuch")), "failed", "ValueError: no such", "ValueError"),
        (("raise", ConfigError("A sentence.")), "failed", "A sentence.", "ConfigError"),
        (("raise", TrainingError("Step 3: not finite.")), "failed", "Step 3: not finite.", "TrainingError"),
        (("raise", Pruned("behind the others")), "pruned", "behind the others", ""),
        (("raise", MemoryError()), "failed", "MemoryError:", "MemoryError"),
        (("exit", 0), "failed", "ended itself with exit code 0 before it was done", "SystemExit"),
        (("exit", 3), "failed", "ended itself with exit code 3 before it was done", "SystemExit"),
        (("exit at once", 0), "failed", "ended itself with exit code 0 before it was done", ""),
        (("exit at once", 5), "failed", "ended itself with exit code 5 before it was done", ""),
        (("signal", signal.SIGSEGV), "killed", "killed by SIGSEGV", ""),
        (("signal", signal.SIGKILL), "killed", "killed by SIGKILL (out of memory?)", ""),
        (("signal", signal.SIGTERM), "stopped", "stopped by SIGTERM", ""),
        (("tidy up badly", signal.SIGTERM), "stopped", "stopped by SIGTERM", ""),
    ],
)
def test_every_end_has_its_outcome(server: ForkServer, tmp_path: Path, task: Any, status: str, reason: str, error: str) -> None:
    assert run(server, tmp_path, *task) == Outcome(status, None, reason, error) == read_outcome(tmp_path)


def test_where_a_crash_happened_is_kept(server: ForkServer, tmp_path: Path) -> None:
    run(server, tmp_path, "signal", signal.SIGSEGV)
    assert "Segmentation fault" in (tmp_path / "output").read_text() and "in deed" in (tmp_path / "output").read_text()


def test_the_others_and_the_server_live_on(server: ForkServer, tmp_path: Path) -> None:
    long = server.start(Spec(("sleep", 0.5), tmp_path / "long"))
    assert run(server, tmp_path / "short", "signal", signal.SIGKILL).status == "killed"
    assert end_of(server, long) == Outcome("ok", "awake")


def test_what_it_prints_is_kept_and_appended(server: ForkServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(server, tmp_path, "say", "first é")
    run(server, tmp_path, "say", "second")
    run(server, tmp_path, "raise", ValueError("third"))
    output = (tmp_path / "output").read_text(encoding="utf-8")
    assert output.startswith("first é\nsecond\nTraceback") and output.rstrip().endswith("ValueError: third")
    assert capfd.readouterr().out == ""


def test_a_child_that_is_not_quiet_speaks_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from gptshake.processes import *\n"
        "server = ForkServer(print)\n"
        f"server.wait([server.start(Spec('hello', Path({str(tmp_path)!r}), quiet=False))], 10); server.close()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "hello\n"


def test_its_folder_is_its_own(server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["CUDA_VISIBLE_DEVICES", "HOME", "OMP_NUM_THREADS"]
    seen = run(server, tmp_path, "look", keys, env={"CUDA_VISIBLE_DEVICES": "2", "HOME": None}, threads=3).value
    assert seen == {"CUDA_VISIBLE_DEVICES": "2", "HOME": None, "OMP_NUM_THREADS": "3", "session": True}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "2"


def test_a_closure_is_as_good_a_target_as_a_function(tmp_path: Path) -> None:
    secret = object()
    server = ForkServer(lambda task: task if secret else None)
    assert run(server, tmp_path, 7).value == [7]
    server.close()


def test_modules_are_imported_once_by_the_server_and_not_by_the_caller(tmp_path: Path) -> None:
    server = ForkServer(lambda name: name[0] in sys.modules, preload=["colorsys"])
    assert run(server, tmp_path, "colorsys").value is True
    server.close()


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    server = ForkServer(deed, preload=["no_such_module"])
    with pytest.raises(GptshakeError, match="no_such_module"):
        server.start(Spec(("give back", 1), tmp_path))
    server.close()


def test_a_child_that_hangs_is_killed_with_a_reason(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path))
    child.kill("no end after 3 s")
    assert end_of(server, child) == Outcome("timeout", reason="no end after 3 s") == read_outcome(tmp_path)


def test_a_wait_that_is_over_gives_nothing(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path))
    start = time.monotonic()
    assert server.wait([child], 0.2) == []
    assert 0.15 < time.monotonic() - start < 5


def test_a_folder_knows_whether_somebody_is_at_work_in_it(server: ForkServer, tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    child = server.start(Spec(("sleep", 100), tmp_path))
    until(lambda: is_running(tmp_path))
    child.terminate()
    assert end_of(server, child).status == "stopped"
    assert not is_running(tmp_path)


def test_an_outcome_of_an_earlier_life_is_forgotten(server: ForkServer, tmp_path: Path) -> None:
    run(server, tmp_path, "give back", "old")
    child = server.start(Spec(("sleep", 100), tmp_path))
    assert read_outcome(tmp_path) is None
    child.kill("enough")
    end_of(server, child)


def test_a_hundred_children_leave_no_file_open_and_no_zombie(server: ForkServer, tmp_path: Path) -> None:
    run(server, tmp_path / "first", "give back", 0)
    before = len(list(Path("/dev/fd").iterdir()))
    for number in range(100):
        assert run(server, tmp_path / str(number), "give back", number).value == number
    assert len(list(Path("/dev/fd").iterdir())) == before
    listed = subprocess.run(["ps", "-o", "stat=", "--ppid", str(server.pid)], capture_output=True, text=True, check=False).stdout
    assert "Z" not in listed


def until(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


CALLER = """
import json, sys, time
from pathlib import Path
from gptshake.errors import Stop
from gptshake.processes import ForkServer, Spec

def target(task):
    if task == "quick":
        time.sleep(0.3)
        return "done"
    try:
        time.sleep(100)
    finally:
        Path(task).write_text("saved")

server = ForkServer(target)
folder = Path(sys.argv[1])
children = [server.start(Spec("quick", folder / "quick")), server.start(Spec(str(folder / "saved"), folder / "long"))]
print(json.dumps([server.pid, *(child.pid for child in children)]), flush=True)
time.sleep(100)
"""


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with a server and two children, one of which ends by itself soon; and their numbers."""
    process = subprocess.Popen([sys.executable, "-c", CALLER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    until(lambda: is_running(tmp_path / "long"))
    time.sleep(0.1)
    yield process, pids
    process.kill()
    process.wait()
    process.stdout.close()


def test_when_the_caller_is_killed_children_save_and_end_and_so_does_the_server(caller: Any, tmp_path: Path) -> None:
    process, pids = caller
    process.kill()
    process.wait()
    until(lambda: not any(is_there(pid) for pid in pids))
    assert (tmp_path / "saved").read_text() == "saved"
    assert read_outcome(tmp_path / "long") == Outcome("stopped", reason="stopped by SIGTERM")
    assert read_outcome(tmp_path / "quick") in (Outcome("ok", "done"), Outcome("stopped", reason="stopped by SIGTERM"))


def test_when_the_server_is_killed_children_save_and_end(caller: Any, tmp_path: Path) -> None:
    _, (server, *children) = caller
    os.kill(server, signal.SIGKILL)
    until(lambda: not any(is_there(pid) for pid in children))
    assert (tmp_path / "saved").read_text() == "saved"


def test_the_death_of_the_server_is_told(server: ForkServer, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path))
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(GptshakeError, match="run the same command again"):
        server.wait([child], 20.0)
    with pytest.raises(GptshakeError, match="run the same command again"):
        server.start(Spec(("give back", 1), tmp_path / "other"))


def test_closing_ends_what_still_runs(tmp_path: Path) -> None:
    server = ForkServer(deed)
    child = server.start(Spec(("sleep", 100), tmp_path))
    server.close(grace=5.0)
    assert not is_there(child.pid) and not is_there(server.pid)
    assert read_outcome(tmp_path) == Outcome("stopped", reason="stopped by SIGTERM")
