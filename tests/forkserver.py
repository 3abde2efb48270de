"""A parent that has imported everything once and forks a child for every command line: 0.1 s instead of six.

Started as a script by ``conftest.Commands``; reads one JSON request a line and answers with one. A child runs the real entry
point with its own arguments, folder, environment and output files; signals reach it like any process. Not here: what imports
cost, and anything that depends on a fresh interpreter; those tests start real processes.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn


def child(request: dict[str, Any]) -> NoReturn:
    """Become ``python -m gptshake`` with these arguments; ``before`` is Python that runs first (a fault to inject)."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv[:] = ["gptshake", *request["argv"]]
        from gptshake import processes
        from gptshake.__main__ import main

        processes.METHOD = "fork"  # everything is imported here, and a fault that is injected reaches the children, too
        exec(compile(request["before"], "<before>", "exec"), {})
        main()
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """Exit code of a child (negative for a signal), or None if it is still alive after so long."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.005)


def serve() -> None:
    """Answer requests until the pipe is closed."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # a child neither looks through these modules again nor copies their pages
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(json.dumps(wait(request["wait"], request["seconds"])), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            child(request)
        print(json.dumps(pid), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve()
