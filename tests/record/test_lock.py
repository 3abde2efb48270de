import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gptshake.errors import RecordError
from gptshake.record import lock
from gptshake.record.lock import RunLock, ask_to_stop, is_alive, read_heartbeat

HOLDER = """
import sys, time
from pathlib import Path
from gptshake.record.lock import RunLock
held = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""

PARENT = """
import os, signal, sys
from pathlib import Path
from gptshake.record.lock import RunLock
held, run = RunLock(Path(sys.argv[1])), os.getpid()
if not os.fork():
    print("forked", flush=True)
    os.kill(run, signal.SIGKILL)
    sys.stdin.read()
    os._exit(0)
os.wait()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_a_directory_held_by_another_process_is_refused_with_its_number_until_it_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        assert is_alive(tmp_path)
        with pytest.raises(RecordError, match=f"process {child.pid} "):
            RunLock(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not is_alive(tmp_path)
        RunLock(tmp_path).release()


def test_a_child_that_outlives_a_killed_run_does_not_hold_its_directory(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stdout.readline() == b"forked\n" and run.wait() == -signal.SIGKILL
        assert not is_alive(tmp_path)
        RunLock(tmp_path).release()


def test_one_process_cannot_hold_a_directory_twice(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    with pytest.raises(RecordError, match=str(os.getpid())):
        RunLock(tmp_path)
    held.release()
    RunLock(tmp_path).release()


def test_asking_whether_a_run_is_alive_does_not_end_its_lease(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    assert is_alive(tmp_path) and is_alive(tmp_path)
    with pytest.raises(RecordError):
        RunLock(tmp_path)
    held.release()
    assert not is_alive(tmp_path)


def test_somebody_who_keeps_asking_cannot_keep_a_run_from_starting(tmp_path: Path) -> None:
    RunLock(tmp_path).release()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            is_alive(tmp_path)
            time.sleep(0.001)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(20):
            RunLock(tmp_path).release()
    finally:
        done.set()
        asker.join()


def test_no_directory_and_no_lock_are_not_alive_and_stay_untouched(tmp_path: Path) -> None:
    assert not is_alive(tmp_path / "missing")
    assert not is_alive(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_beats_are_written_at_most_every_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(lock.time, "monotonic", lambda: now[0])
    held = RunLock(tmp_path)
    now[0] += 4.9
    held.heartbeat(7, 2.5)
    assert read_heartbeat(tmp_path)["step"] == 0
    now[0] += 0.2
    held.heartbeat(8, 2.25)
    beat = read_heartbeat(tmp_path)
    assert (beat["step"], beat["value"], beat["pid"]) == (8, 2.25, os.getpid())


def test_a_request_to_stop_is_heard_with_its_reason_and_forgotten_by_the_next_life(tmp_path: Path) -> None:
    held = RunLock(tmp_path)
    assert held.stop_requested() is None
    ask_to_stop(tmp_path, "it is behind the others")
    assert held.stop_requested() == "it is behind the others"
    held.release()
    assert RunLock(tmp_path).stop_requested() is None


def test_a_run_of_another_host_is_alive_while_its_heartbeat_is_fresh(tmp_path: Path) -> None:
    RunLock(tmp_path).release()
    for age, alive in ((10, True), (70, False)):
        (tmp_path / "lease.json").write_text(json.dumps({"pid": 1, "host": "elsewhere", "time": time.time() - age, "step": 0}))
        assert is_alive(tmp_path) is alive


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_host_whose_clock_is_wrong_is_alive_while_its_heartbeats_come(
    ahead: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunLock(tmp_path).release()

    def beats(number: int) -> bool:
        about = {"pid": 1, "host": "elsewhere", "time": time.time() + ahead + 5 * number, "step": number}
        (tmp_path / "lease.json").write_text(json.dumps(about))
        return is_alive(tmp_path)

    assert [beats(0), beats(1), beats(2), is_alive(tmp_path)] == [False, True, True, True]
    later = time.monotonic() + 70
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not is_alive(tmp_path)


HUGE = f'{{"pid": 1, "host": "elsewhere", "time": 1{400 * "0"}}}'  # no double is so large


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\x00", HUGE])
def test_a_heartbeat_that_cannot_be_read_is_no_heartbeat(tmp_path: Path, content: str) -> None:
    RunLock(tmp_path).release()
    (tmp_path / "lease.json").write_text(content)
    assert read_heartbeat(tmp_path) is None and not is_alive(tmp_path)
