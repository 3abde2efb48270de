"""A stand-in for gptshake that writes the record and nothing else, so that each end takes a moment."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake.errors import GptshakeError, RecordError, Stop
from gptshake.record.git import RestoredCode
from gptshake.record.metrics import read_rows
from gptshake.signals import SIGNALS
from gptshake.tasks.reproduce import _own, repeat

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
given = dict(text.split("=", 1) for text in sys.argv[1:])
path = Path(given["path"])
path.mkdir()
(path / "seen").write_text(json.dumps({"cwd": os.getcwd(), "env": dict(os.environ), "sys.path": sys.path, "pid": os.getpid()}))
def stop(*_):
    print("stopped by a signal")
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
def tell(**info):
    (path / "beside").write_text(json.dumps(info))
    os.replace(path / "beside", path / "run.json")
if given["do"] == "refuse":
    sys.exit(2)
tell(id="x")
budget = {"steps": int(given["planned"])}
tell(id="x", data={}, budget=budget)
time.sleep(float(given.get("wait", "0")))
with (path / "metrics.csv").open("w", buffering=1) as file:
    file.write("step,train/tokens\\n")
    for step in range(1, int(given["planned"]) + 1):
        if given["do"] == f"fail{step}":
            tell(id="x", data={}, budget=budget, reason="the disk is full")
            sys.exit(1)
        file.write(f"{step},{8 * step}\\n")
        if given["do"] == "slow":
            print("first row" if step == 1 else "", end="\\n" if step == 1 else "")
            time.sleep(0.005)
"""


@pytest.fixture
def code(tmp_path: Path) -> RestoredCode:
    package = tmp_path / "src/gptshake"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return RestoredCode(tmp_path / "src", "abc", "a stand-in")


def do(code: RestoredCode, path: Path, what: str, *, planned: int, steps: int, before: Any = lambda info: None, wait: float = 0) -> None:
    repeat(code, [f"path={path}", f"do={what}", f"planned={planned}", f"wait={wait}"], path, path.parent, steps, before)


def test_a_run_is_stopped_after_the_steps_that_were_wanted(code: RestoredCode, tmp_path: Path) -> None:
    do(code, tmp_path / "run", "slow", planned=100_000, steps=10)
    assert 10 <= len(read_rows(tmp_path / "run/metrics.csv")) < 10_000


KILLED = """
import sys
from pathlib import Path
from gptshake.tasks.reproduce import repeat
from gptshake.record.git import RestoredCode
source, path = map(Path, sys.argv[1:])
repeat(RestoredCode(source, "abc", ""), [f"path={path}", "do=slow", "planned=100000", "wait=0"], path, path.parent, 90000, lambda info: None)
"""


def test_a_run_ends_with_whoever_waits_for_it(code: RestoredCode, tmp_path: Path) -> None:
    waiting = subprocess.Popen([sys.executable, "-c", KILLED, str(code.source), str(tmp_path / "run")])
    rows = tmp_path / "run/metrics.csv"
    _wait_until(lambda: rows.exists() and len(read_rows(rows)) > 3)
    waiting.kill()
    waiting.wait()
    pid = json.loads((tmp_path / "run/seen").read_text())["pid"]
    _wait_until(lambda: not _alive(pid))
    assert len(read_rows(rows)) < 90_000


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(") ")[2][0] != "Z"


def _wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_run_that_was_stopped_on_purpose_says_nothing_of_it(
    code: RestoredCode, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    do(code, tmp_path / "run", "slow", planned=100_000, steps=10)
    assert capfd.readouterr().out == "first row\n"


def test_a_run_that_ends_there_by_itself_is_left_alone(code: RestoredCode, tmp_path: Path) -> None:
    do(code, tmp_path / "run", "all", planned=30, steps=30)
    assert len(read_rows(tmp_path / "run/metrics.csv")) == 30


def test_it_runs_the_restored_code_in_the_folder_of_the_run(code: RestoredCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the entry point's own, which would make the other print tracebacks
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    do(code, tmp_path / "run", "all", planned=3, steps=3)
    seen = json.loads((tmp_path / "run/seen").read_text())
    assert seen["cwd"] == str(tmp_path) and "HYDRA_FULL_ERROR" not in seen["env"] and seen["env"]["GPTSHAKE_DIRTY"] == "1"
    assert seen["sys.path"][:3] == [str(tmp_path / "src"), "/of/the/user", str(tmp_path)]


def test_what_is_wrong_is_told_before_anything_trains_and_leaves_no_run_behind(code: RestoredCode, tmp_path: Path) -> None:
    def refuse(info: dict[str, Any]) -> None:
        assert info["data"] == {} and not (tmp_path / "run/metrics.csv").exists()
        raise RecordError("another text")

    with pytest.raises(RecordError, match="another text"):
        do(code, tmp_path / "run", "all", planned=3, steps=3, before=refuse, wait=30)
    assert not (tmp_path / "run").exists()


def test_a_run_that_breaks_off_is_told_with_its_reason(code: RestoredCode, tmp_path: Path) -> None:
    with pytest.raises(GptshakeError, match=r"ended after step 4, before step 9: the disk is full"):
        do(code, tmp_path / "run", "fail5", planned=9, steps=9)


def test_a_run_that_is_refused_is_told(code: RestoredCode, tmp_path: Path) -> None:
    with pytest.raises(GptshakeError, match=r"ended before its first step: what it said is above"):
        do(code, tmp_path / "run", "refuse", planned=9, steps=9)


def test_who_is_stopped_stops_the_run_too(code: RestoredCode, tmp_path: Path) -> None:
    own = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)}
    SIGNALS.reset()
    SIGNALS.install()
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(Stop):
            do(code, tmp_path / "run", "slow", planned=100_000, steps=100_000)
    finally:
        for signum, handler in own.items():
            signal.signal(signum, handler)
        SIGNALS.reset()
    n_rows = len(read_rows(tmp_path / "run/metrics.csv"))
    assert n_rows < 10_000
    assert len(read_rows(tmp_path / "run/metrics.csv")) == n_rows


def test_a_text_that_is_gone_is_told_with_the_option_that_says_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {path: [here.txt, '*.md', gone.txt]}\n")
    (tmp_path / "here.txt").write_text("words")
    paths = dict.fromkeys(("runs", "multirun", "cache"), str(tmp_path))
    cfg = OmegaConf.create({"paths": paths, "task": {"data_path": None}})
    with pytest.raises(RecordError, match=rf"The text of ab is not there: {tmp_path}/gone\.txt\. If it has moved: task\.data_path="):
        _own(cfg, tmp_path, {"id": "ab"}, tmp_path / "new", tmp_path)
    cfg.task.data_path = str(tmp_path / "here.txt")
    assert _own(cfg, tmp_path, {"id": "ab"}, tmp_path / "new", tmp_path)["data.path"] == str(tmp_path / "here.txt")
