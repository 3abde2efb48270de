"""``callbacks=notify``: when a run or a sweep has ended, however it ended, a shell command is run and JSON is posted to a webhook.

It surrounds the command, not the training, which sees neither a failure before it nor the end of a sweep. A hook that fails or hangs is one warning.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from gptshake.errors import GptshakeError, RecordError, Stop, first_line
from gptshake.estimate.formatting import duration
from gptshake.processes import ASKED_BY, Command
from gptshake.record.index import STUDY_FILE, read_entry, read_study
from gptshake.redaction import redact
from gptshake.report.study_stats import best, objective_text
from gptshake.signals import SIGNALS, stop_behind


@contextmanager
def notified(callbacks: Mapping[str, Any] | None, folder: Callable[[], Path | None]) -> Iterator[None]:
    """Around a run or a sweep; ``folder`` gives where its record lies, once that is known."""
    options = (callbacks or {}).get("notify")
    if options is None or "_target_" in options or ASKED_BY in os.environ:
        yield
        return
    hooks = [(name, call, options[name]) for name, call in (("command", _run), ("url", _post)) if options.get(name)]
    if not hooks:
        print("note: callbacks.notify has no command and no url, which is not stored in a record: nobody is notified", flush=True)
    began, status, reason = time.monotonic(), "ok", None
    try:
        yield
    except (Stop, Exception) as error:
        status, reason = ("interrupted", None) if stop_behind(error) else ("failed", redact(first_line(error)))
        raise
    finally:
        with SIGNALS.deferred():  # the exit code is that of the run
            for name, call, target in hooks:
                try:
                    call(target, _message(folder(), status, time.monotonic() - began, reason), options.get("timeout", 10))
                except Exception as error:  # what the standard library says of an address may hold a part of it
                    why = first_line(error) if isinstance(error, OSError | GptshakeError) else type(error).__name__
                    print(f"warning: callbacks.notify.{name} failed ({redact(why)}); the run is not affected", file=sys.stderr)


def _message(folder: Path | None, status: str, seconds: float, reason: str | None) -> dict[str, Any]:
    loss, name = None, folder.name if folder else "gptshake"
    if folder and (folder / STUDY_FILE).exists():
        with suppress(RecordError):  # damaged: the message says the rest
            loss = winner.value if (winner := best(read_study(folder))) else None
    elif folder and (folder / "run.json").exists():
        loss = read_entry(folder).figures.get("val/loss")
    text = f"{name}: {status} after {duration(seconds)}{'' if loss is None else f', loss {objective_text(loss)}'}{f': {reason}' if reason else ''}"
    place = str(folder) if folder and folder.exists() else None
    return {"name": name, "status": status, "loss": loss, "folder": place, "duration": round(seconds, 1), "reason": reason, "text": text}


def _run(command: str, message: Mapping[str, Any], seconds: float) -> None:
    """Run a shell command with the message in its environment, as GPTSHAKE_NAME and so on."""
    env = {f"GPTSHAKE_{key.upper()}": "" if value is None else str(value) for key, value in message.items()}
    child = Command(["sh", "-c", command], env, process_group=0)
    if (outcome := child.wait(seconds)) is None:
        os.killpg(child.process.pid, signal.SIGKILL)
        raise GptshakeError(f"no end after {seconds:g} s")
    if outcome.status != "ok":
        raise GptshakeError(f"exit code {outcome.value}")


def _post(url: str, message: Mapping[str, Any], seconds: float) -> None:
    """Post the message; in a thread, as looking up a name and an answer that comes in drops have no time limit of their own."""
    import urllib.request  # late: 20 ms, and only a few are notified

    request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json", "User-Agent": "gptshake"})
    failed: list[Exception] = [GptshakeError(f"no answer after {seconds:g} s")]

    def post() -> None:
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            failed.clear()
        except Exception as error:
            failed[:] = [error]

    thread = Thread(target=post, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
