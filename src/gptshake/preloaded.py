"""Imported by the fork server alone (see ``processes``): everything that children need, in the state of this moment.

The server leaves the terminal's session and blocks its signals, so that what stops a command stops the runs in order. While it imports
it watches whether its caller is still there; afterwards ``multiprocessing`` does.
"""

import atexit
import importlib
import json
import os
import signal
import sys
import threading
from multiprocessing.spawn import import_main_path

from gptshake.outcome import source_hash
from gptshake.processes import PRELOAD
from gptshake.signals import WATCHED

failed = ""  # why something could not be imported
sources = source_hash()


def _end_with(caller: int, done: threading.Event) -> None:
    while not done.wait(0.2):
        if os.getppid() != caller:
            os._exit(0)


if PRELOAD in os.environ:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    atexit.register(os._exit, 0)  # it has nothing to tear down but what was registered after this
    imported = threading.Event()
    watcher = threading.Thread(target=_end_with, args=(os.getppid(), imported))
    watcher.start()
    plan = json.loads(os.environ.pop(PRELOAD))
    sys.path[:] = plan["path"]
    try:
        for name in plan["modules"]:
            importlib.import_module(name)
        if plan["main"]:
            import_main_path(plan["main"])
    except BaseException as error:  # an app without ``if __name__ == "__main__"`` runs when it is imported, and may exit
        failed = f"{type(error).__name__}: {error}"
    imported.set()
    watcher.join()
