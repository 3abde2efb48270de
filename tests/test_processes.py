"""Children of the runner: every end has an outcome, whoever died, and nothing runs on unnoticed."""

import json
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deeds import deed, run

from gptshake import processes
from gptshake.errors import ConfigError, GptshakeError, Pruned, TrainingError
from gptshake.outcome import Outcome, is_running, read_outcome, write_outcome, write_task
from gptshake.processes import Child, ChildRunner, Command, Spec, run_command


@pytest.fixture(params=["forkserver", "fork"])
def server(request: pytest.FixtureRequest) -> Iterator[ChildRunner]:
    runner = ChildRunner(deed, method=request.param)
    yield runner
    runner.close(grace=1.0)


def end_of(server: ChildRunner, child: Child) -> Outcome:
    assert server.wait([child], 20.0) == [child]
    assert child.outcome is not None
    return child.outcome


def test_what_the_target_returns_comes_back_and_lies_in_the_folder(server: ChildRunner, tmp_path: Path) -> None:
    outcome = run(server, tmp_path / "new" / "folder", "give back", {"val/bpb": 2.5, "list": [1, None]})
    assert outcome == Outcome("ok", {"val/bpb": 2.5, "list": [1, None]}) == read_outcome(tmp_path / "new" / "folder")


@pytest.mark.parametrize(("outer", "inner"), [("forkserver", "forkserver"), ("forkserver", "fork"), ("fork", "fork")])
def test_a_child_may_start_children_of_its_own(outer: str, inner: str, tmp_path: Path) -> None:
    server = ChildRunner(deed, method=outer)
    assert run(server, tmp_path, "nested", [str(tmp_path / "inner"), inner]) == Outcome("ok", 7)
    assert run(server, tmp_path / "still there", "give back", 1).value == 1


def test_what_json_does_not_know_comes_back_as_it_is_printed_and_loses_no_outcome(tmp_path: Path) -> None:
    itself: list[Any] = []
    itself.append(itself)
    for value, read in ((np.float32(1.5), 1.5), (np.ones(2), "array([1., 1.])"), ({(1, 2): 3, "a": 1}, {"a": 1}), (itself, "[[...]]")):
        write_outcome(tmp_path, Outcome("ok", value))
        assert read_outcome(tmp_path) == Outcome("ok", read)


def test_a_number_that_is_none_comes_back_as_none(server: ChildRunner, tmp_path: Path) -> None:
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
        (("exit at once", 255), "failed", "ended itself with exit code 255 before it was done", ""),
        (("signal", signal.SIGSEGV), "killed", "killed by SIGSEGV", ""),
        (("signal", signal.SIGKILL), "killed", "killed by SIGKILL (out of memory?)", ""),
        (("signal", signal.SIGBUS), "killed", "killed by SIGBUS (was a file that it maps, as a token store, cut short?)", ""),
        (("signal", signal.SIGTERM), "stopped", "stopped by SIGTERM", ""),
        (("be asked twice", None), "failed", "this is kept", "AskedTwice"),
        (("tidy up badly", signal.SIGTERM), "stopped", "stopped by SIGTERM", ""),
    ],
)
def test_every_end_has_its_outcome(server: ChildRunner, tmp_path: Path, task: Any, status: str, reason: str, error: str) -> None:
    assert run(server, tmp_path, *task) == Outcome(status, None, reason, error) == read_outcome(tmp_path)


def test_where_a_crash_happened_is_kept(server: ChildRunner, tmp_path: Path) -> None:
    run(server, tmp_path, "signal", signal.SIGSEGV)
    assert "Segmentation fault" in (tmp_path / "output").read_text() and "in deed" in (tmp_path / "output").read_text()


def test_the_others_and_the_server_live_on(server: ChildRunner, tmp_path: Path) -> None:
    long = server.start(Spec(("sleep", 0.5), tmp_path / "long"))
    assert run(server, tmp_path / "short", "signal", signal.SIGKILL).status == "killed"
    assert end_of(server, long) == Outcome("ok", "awake")


def test_a_child_whose_caller_has_gone_with_its_folder_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    late = Spec(["give back", 1], tmp_path / "gone", quiet=False)
    child = multiprocessing.get_context("fork").Process(target=processes._live, args=(late, deed, {}, None))
    child.start()
    child.join(20.0)
    assert child.exitcode == 1 and capfd.readouterr().err == ""


def test_what_it_prints_is_kept_and_appended(server: ChildRunner, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(server, tmp_path, "say", "first é")
    run(server, tmp_path, "say", "second")
    run(server, tmp_path, "raise", ValueError("third"))
    output = (tmp_path / "output").read_text(encoding="utf-8")
    assert output.startswith("first é\nsecond\nTraceback") and output.rstrip().endswith("ValueError: third")
    assert capfd.readouterr().out == ""


def test_a_child_that_is_not_quiet_speaks_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from gptshake.processes import *\n"
        "runner = ChildRunner(print)\n"
        f"runner.wait([runner.start(Spec('hello', Path({str(tmp_path)!r}), quiet=False))], 10); runner.close()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "hello\n"


def test_its_folder_is_its_own(server: ChildRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["CUDA_VISIBLE_DEVICES", "HOME", "OMP_NUM_THREADS"]
    seen = run(server, tmp_path, "look", keys, env={"CUDA_VISIBLE_DEVICES": "2", "HOME": None}, threads=3).value
    del seen["server"]
    assert seen == {"CUDA_VISIBLE_DEVICES": "2", "HOME": None, "OMP_NUM_THREADS": "3", "session": True}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "2"


def test_a_forked_child_may_do_what_only_its_caller_knows(tmp_path: Path) -> None:
    secret = object()
    runner = ChildRunner(lambda task: task if secret else None, method="fork")
    assert run(runner, tmp_path, 7).value == [7]
    runner.close()


ALONE = """
import sys
from pathlib import Path
from deeds import deed, run
from gptshake.errors import GptshakeError
from gptshake.processes import ChildRunner, Spec

folder = Path(sys.argv[1])
runner = ChildRunner(deed, preload=sys.argv[2].split(","))
try:
    print([run(runner, folder, "has", name).value for name in sys.argv[2].split(",")], sys.argv[2] in sys.modules)
    server = run(runner, folder, "look", []).value["server"]
    import os, signal, time
    os.kill(server, signal.SIGKILL)
    time.sleep(0.5)
    print(run(runner, folder, "look", []).value["server"] != server)
    os.kill(run(runner, folder, "look", []).value["server"], signal.SIGKILL)
    time.sleep(0.5)
    runner._sources = "of an older version"
    run(runner, folder, "give back", 1)
except GptshakeError as error:
    print(error, (folder / "outcome.json").exists())
finally:
    runner.close()
"""


def alone(tmp_path: Path, *words: str, script: str = ALONE) -> str:
    """What a process of its own prints, whose server is new."""
    command = [sys.executable, "-c", script, str(tmp_path), *words]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=here).stdout


FOREIGN = """
import os, sys
from multiprocessing import forkserver
from pathlib import Path
forkserver.ensure_running()
from deeds import deed
from gptshake.outcome import is_running
from gptshake.processes import ChildRunner, Spec

runner = ChildRunner(deed)
for number in range(8):
    child = runner.start(Spec(("sleep", 100), Path(sys.argv[1], str(number))))
    while not is_running(child.folder):
        pass
    child.stop()
    while child.outcome is None:
        runner.wait([child], 1.0)
    print(child.outcome.status)
"""


def test_a_child_that_is_stopped_while_it_starts_says_so_whoever_started_the_server(tmp_path: Path) -> None:
    assert set(alone(tmp_path, script=FOREIGN).splitlines()) == {"stopped"}


def test_modules_are_imported_once_by_the_server_and_a_server_of_other_sources_is_refused(tmp_path: Path) -> None:
    first, again, refused = alone(tmp_path, "colorsys").splitlines()
    assert (first, again) == ("[True] False", "True")
    assert "have changed since this command started" in refused and refused.endswith("False")


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    assert "could not be imported: ModuleNotFoundError: No module named 'no_such_module' False" in alone(tmp_path, "no_such_module")


def test_a_module_that_exits_when_it_is_imported_is_named(tmp_path: Path) -> None:
    assert "could not be imported: SystemExit" in alone(tmp_path, "venv.__main__")


def test_a_child_that_is_suspended_ends_when_it_is_asked_to(server: ChildRunner, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path))
    while not is_running(tmp_path):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGSTOP)
    child.stop()
    assert end_of(server, child).status == "stopped"


def test_a_child_that_hangs_is_killed_with_a_reason(server: ChildRunner, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path))
    child.kill("no end after 3 s")
    assert end_of(server, child) == Outcome("timeout", reason="no end after 3 s") == read_outcome(tmp_path)


def test_a_killed_child_is_no_dead_server_when_another_was_started_before_its_end_was_noticed(server: ChildRunner, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path / "first"))
    child.kill("no end after 3 s")
    assert multiprocessing.connection.wait([child.process.sentinel], 20.0)
    other = server.start(Spec(("give back", 7), tmp_path / "second"))  # for which multiprocessing looks how the first one ended
    assert end_of(server, child) == Outcome("timeout", reason="no end after 3 s") == read_outcome(tmp_path / "first")
    assert end_of(server, other).value == 7


def test_a_wait_that_is_over_gives_nothing(server: ChildRunner, tmp_path: Path) -> None:
    child = server.start(Spec(("sleep", 100), tmp_path))
    start = time.monotonic()
    assert server.wait([child], 0.2) == []
    assert 0.15 < time.monotonic() - start < 5


def test_a_folder_knows_whether_somebody_is_at_work_in_it(server: ChildRunner, tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    child = server.start(Spec(("sleep", 100), tmp_path))
    until(lambda: is_running(tmp_path))
    child.stop()
    assert end_of(server, child).status == "stopped"
    assert not is_running(tmp_path)


def test_an_outcome_of_an_earlier_life_is_forgotten(server: ChildRunner, tmp_path: Path) -> None:
    run(server, tmp_path, "give back", "old")
    child = server.start(Spec(("sleep", 100), tmp_path))
    assert read_outcome(tmp_path) is None
    child.kill("enough")
    end_of(server, child)


def test_thirty_children_leave_no_file_open_and_no_zombie(server: ChildRunner, tmp_path: Path) -> None:
    run(server, tmp_path / "first", "give back", 0)
    before = len(list(Path("/dev/fd").iterdir()))
    for number in range(30):
        assert run(server, tmp_path / str(number), "give back", number).value == number
    assert len(list(Path("/dev/fd").iterdir())) == before
    parent = run(server, tmp_path / "last", "look", []).value["server"]
    listed = subprocess.run(["ps", "-o", "stat=", "--ppid", str(parent)], capture_output=True, text=True, check=False).stdout
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
from deeds import deed, run
from gptshake.processes import ChildRunner, Spec

runner, folder = ChildRunner(deed), Path(sys.argv[1])
server = run(runner, folder / "first", "look", []).value["server"]
children = [runner.start(Spec(("sleep", 0.3), folder / "quick")), runner.start(Spec(("save", str(folder / "saved")), folder / "long"))]
print(json.dumps([server, *(child.pid for child in children)]), flush=True)
time.sleep(100)
"""


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with a server and two children, one of which ends by itself soon; and their numbers."""
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", CALLER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=here)
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
    assert read_outcome(tmp_path / "quick") in (Outcome("ok", "awake"), Outcome("stopped", reason="stopped by SIGTERM"))


def test_when_the_server_is_killed_children_save_and_end(caller: Any, tmp_path: Path) -> None:
    _, (server, *children) = caller
    os.kill(server, signal.SIGKILL)
    until(lambda: not any(is_there(pid) for pid in children))
    assert (tmp_path / "saved").read_text() == "saved"


def test_the_death_of_the_server_is_reported(tmp_path: Path) -> None:
    runner = ChildRunner(deed)
    server = run(runner, tmp_path / "first", "look", []).value["server"]
    child = runner.start(Spec(("sleep", 100), tmp_path))
    until(lambda: is_running(tmp_path))
    os.kill(server, signal.SIGKILL)
    with pytest.raises(GptshakeError, match="run the same command again"):
        runner.wait([child], 20.0)
    runner.close()
    until(lambda: not is_there(child.pid))
    assert read_outcome(tmp_path) == Outcome("stopped", reason="stopped by SIGTERM")


def test_a_child_that_was_killed_together_with_the_server_is_lost_and_may_be_begun_again(tmp_path: Path) -> None:
    runner = ChildRunner(deed)
    server = run(runner, tmp_path / "first", "look", []).value["server"]
    child = runner.start(Spec(("sleep", 100), tmp_path))
    until(lambda: is_running(tmp_path))
    os.kill(server, signal.SIGSTOP)  # it must not see the end of the child before its own
    os.kill(child.pid, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(GptshakeError, match="run the same command again"):
        runner.wait([child], 20.0)
    runner.close()
    assert read_outcome(tmp_path) is None


@pytest.mark.parametrize(
    ("code", "status"), [("", "ok"), ("exit(3)", "failed"), ("exit(143)", "stopped"), ("os.kill(os.getpid(), 9)", "killed")]
)
def test_a_command_has_an_outcome_too(code: str, status: str) -> None:
    outcome, printed = run_command(
        [sys.executable, "-c", f"import os; print('done', flush=True); {code}"], stdout=subprocess.PIPE, text=True
    )
    assert (outcome.status, printed) == (status, "done\n")


def test_a_command_that_does_not_stop_is_killed_after_a_grace() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(100)"
    command = Command([sys.executable, "-c", code], {"HOME": None}, stdout=subprocess.PIPE)
    assert command.process.stdout is not None and command.process.stdout.readline() and command.wait(0) is None
    command.stop(0.1)
    assert command.wait() == Outcome("killed", -9, "killed by SIGKILL (out of memory?)")
    command.process.stdout.close()


def test_after_the_death_of_the_server_closing_lets_all_children_save(tmp_path: Path) -> None:
    runner = ChildRunner(deed)
    server = run(runner, tmp_path / "first", "look", []).value["server"]
    folders = [tmp_path / str(number) for number in range(3)]
    children = [runner.start(Spec(("save", str(folder / "saved")), folder)) for folder in folders]
    until(lambda: all(map(is_running, folders)))
    time.sleep(0.2)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(GptshakeError, match="run the same command again"):
        runner.wait(children, 20.0)
    runner.close()
    until(lambda: not any(is_there(child.pid) for child in children))
    assert [read_outcome(folder) for folder in folders] == [Outcome("stopped", reason="stopped by SIGTERM")] * 3
    assert all((folder / "saved").exists() for folder in folders)


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_closing_ends_what_still_runs(method: str, tmp_path: Path) -> None:
    server = ChildRunner(deed, method=method)
    child = server.start(Spec(("sleep", 100), tmp_path))
    server.close(grace=5.0)
    assert not is_there(child.pid)
    assert read_outcome(tmp_path) == Outcome("stopped", reason="stopped by SIGTERM")


def test_a_process_made_for_one_task_ends_with_it_and_not_after_what_libraries_do_at_the_end(tmp_path: Path) -> None:
    write_task(tmp_path, ["say", "a few words"])
    code = "import atexit, sys, time; from pathlib import Path; from deeds import deed; from gptshake.processes import live_here"
    code += "; atexit.register(time.sleep, 60); live_here(deed, Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "a few words\n"), done.stderr
    assert read_outcome(tmp_path) == Outcome("ok", "a few words")
