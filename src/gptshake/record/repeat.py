"""A run's restored code at work in an interpreter of its own, watched through the record that it writes.

The record is what versions of gptshake agree on, so nothing else is asked of old code: what it is about to train on is in
run.json before it imports torch, and a stop after some steps is a signal after their rows, which leaves the length of the
schedule alone. The two are tied by a pipe: when whoever waits dies, the run stops too, whatever version it is.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from gptshake.errors import GptshakeError
from gptshake.record.metrics import Tail
from gptshake.record.restore import Code

POLL_S = 0.02
GRACE_S = 60.0  # for saving the last step
# `python -m gptshake` with a thread that waits for a word of its caller, after which the rest is not worth telling, or for its end.
# The user's own modules join the path after Hydra, whatever its version of gptshake does, has looked for plugins.
RUN = f"""
import os, runpy, signal, sys, threading, time, warnings
def watch(line):
    if os.read(line, 1):
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({GRACE_S})
    os._exit(128 + signal.SIGTERM)
threading.Thread(target=watch, args=(int(sys.argv.pop(1)),), daemon=True).start()
from hydra.core.plugins import Plugins
with warnings.catch_warnings(action="ignore"):
    Plugins.instance()
sys.path.insert(len(list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))), sys.argv.pop(1))
runpy.run_module("gptshake", run_name="__main__", alter_sys=True)
"""
Info = dict[str, Any]


def repeat(code: Code, overrides: Sequence[str], path: Path, folder: Path, steps: int, before: Callable[[Info], None]) -> None:
    """Run gptshake until it has written ``steps`` rows.

    Args:
        code: what to run.
        overrides: of the run; its directory is ``path``.
        path: the new run directory.
        folder: where to start it: relative paths and ./conf are looked up there. If the ./conf there is not the run's, it starts in an
            empty folder instead, where no version of gptshake sees it.
        steps: rows to wait for.
        before: looks at run.json before anything trains; what it raises ends the run and removes its directory.
    Raises:
        GptshakeError: the run ended before; the reason that its record gives.
    """
    theirs, line = os.pipe()
    command = [sys.executable, "-P", "-c", RUN, str(theirs), str(folder), *overrides]
    start = folder if code.own_conf or not (folder / "conf").is_dir() else Path(mkdtemp(prefix="gptshake-start-"))
    child = subprocess.Popen(command, cwd=start, env=_environment(code), stdin=subprocess.DEVNULL, pass_fds=(theirs, *code.held))
    os.close(theirs)
    enough = False
    try:
        info = _begun(child, path)
        if info:
            try:
                before(info)
            except BaseException:
                child.kill()  # it has saved nothing yet
                child.wait()
                shutil.rmtree(path, ignore_errors=True)
                raise
            enough = _until(child, path, steps, planned=int(info["budget"]["steps"]))
    finally:
        _end(child, line, quietly=enough)
        if start != folder:
            shutil.rmtree(start, ignore_errors=True)
    if (done := _steps(path)) < steps:
        raise GptshakeError(
            f"The reproduction ended {f'after step {done}, before step {steps}' if done else 'before its first step'}: {_reason(path)}"
        )


def _environment(code: Code) -> Mapping[str, str]:
    """The restored sources first, then what was there."""
    env = {key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "GPTSHAKE_CONFIG_DIR")}  # ours
    folders = [str(code.source)] * (code.source is not None) + list(filter(None, [env.get("PYTHONPATH")]))
    return env | {"PYTHONPATH": os.pathsep.join(folders), "GPTSHAKE_DIRTY": "1"}


def _begun(child: subprocess.Popen[bytes], path: Path) -> Info:
    """run.json as soon as it says what the run is about; empty if the run ended before."""
    while True:
        ended = child.poll() is not None
        info = _info(path)
        if "data" in info or ended:
            return info if "data" in info else {}
        time.sleep(POLL_S)


def _until(child: subprocess.Popen[bytes], path: Path, steps: int, planned: int) -> bool:
    """Wait for the rows; gives whether the run would go on after them."""
    tail = Tail(path / "metrics.csv")
    while child.poll() is None:
        rows = tail.new()
        if rows and steps <= rows[-1]["step"] < planned:
            return True
        time.sleep(POLL_S)
    return False


def _end(child: subprocess.Popen[bytes], line: int, *, quietly: bool) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
        if quietly:
            os.write(line, b".")
        else:
            child.terminate()
        child.wait(GRACE_S)
    child.kill()
    child.wait()
    os.close(line)


def _info(path: Path) -> Info:
    with contextlib.suppress(OSError, ValueError):
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        return info if isinstance(info, dict) else {}
    return {}


def _steps(path: Path) -> int:
    rows = Tail(path / "metrics.csv").new()
    return int(rows[-1]["step"]) if rows else 0


def _reason(path: Path) -> str:
    return str(_info(path).get("reason") or "what it said is above.")
