"""``callbacks=notify``: who is told what, how often, and what a hook can do to the command that it belongs to."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake.config.values import unsafe_reason
from gptshake.errors import ConfigError, Stop
from gptshake.notify import notified
from gptshake.processes import ASKED_BY
from gptshake.redaction import SECRET

SECRET_PATH = "hooks/planted-Hn38fK"
SMALL = ("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "trainer=cpu", "trainer.threads=1", "logger=none")


class Hook(HTTPServer):
    """A webhook that keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/{SECRET_PATH}"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/json" and self.path == f"/{SECRET_PATH}"
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def small(book: Path) -> tuple[str, ...]:
    return ("model=tiny", "data=text_char", f"data.path={book}", "data.batch_size=8", "trainer.max_steps=4", *SMALL)


def around(error: BaseException | None = None, folder: Path | None = None, **options: Any) -> None:
    """A run that ends with an error, or without."""
    notify = OmegaConf.create({"command": None, "url": None, "timeout": 10} | options)
    with notified({"notify": notify}, lambda: folder):
        if error:
            raise error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(None, "ok", None), (ConfigError("No text."), "failed", "No text"), (Stop(signal.SIGTERM), "interrupted", None)],
)
def test_the_end_is_told_once_and_an_error_is_raised_on(hook: Hook, tmp_path: Path, error: Any, status: str, reason: str | None) -> None:
    if error:
        with pytest.raises(type(error)):
            around(error, tmp_path, url=hook.url)
    else:
        around(None, tmp_path, url=hook.url)
    (told,) = hook.posted
    assert (told["name"], told["status"], told["reason"], told["folder"], told["loss"]) == (
        tmp_path.name,
        status,
        reason,
        str(tmp_path),
        None,
    )
    assert 0 <= told["duration"] < 10 and told["text"].startswith(f"{tmp_path.name}: {status}")


def test_a_command_has_the_same_in_its_environment(tmp_path: Path) -> None:
    around(
        None,
        tmp_path,
        command=f'printf "%s|%s|%s|%s" "$GPTSHAKE_NAME" "$GPTSHAKE_STATUS" "$GPTSHAKE_LOSS" "$GPTSHAKE_FOLDER" > {tmp_path}/x',
    )
    assert (tmp_path / "x").read_text() == f"{tmp_path.name}|ok||{tmp_path}"


def test_a_command_that_fails_is_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    around(command="exit 3")
    assert capsys.readouterr().err == "warning: callbacks.notify.command failed (exit code 3); the run is not affected\n"


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    around(command=f"(sleep 3; touch {tmp_path}/late); true", timeout=0.3)
    assert time.monotonic() - began < 2 and capsys.readouterr().err.count("no end after 0.3 s") == 1
    time.sleep(3.2)
    assert not (tmp_path / "late").exists()


def test_a_webhook_that_refuses_or_hangs_is_one_warning_without_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    around(url=f"http://127.0.0.1:9/{SECRET_PATH}")
    around(url=f"http://127.0.0.1:9/{SECRET_PATH} with a space")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        around(url=f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET_PATH}", timeout=0.3)
        assert time.monotonic() - began < 2
    err = capsys.readouterr().err
    assert err.count("warning: callbacks.notify.url failed") == 3 and "planted" not in err


def test_a_signal_during_a_hook_does_not_change_how_the_run_ended() -> None:
    from gptshake.signals import SIGNALS

    before = signal.getsignal(signal.SIGTERM)
    SIGNALS.install()
    try:
        around(command=f"kill -TERM {os.getpid()}; sleep 0.2")
    finally:
        SIGNALS.reset()
        signal.signal(signal.SIGTERM, before)


def test_a_command_that_a_task_starts_notifies_nobody(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASKED_BY, "find_lr")
    around(url=hook.url)
    assert hook.posted == []


def test_from_somebody_elses_record_no_hook_is_taken() -> None:
    for text in ("callbacks.notify.command=date", "callbacks.notify.url='http://x'", "callbacks={notify:{command:date}}"):
        assert unsafe_reason(text)
    assert not unsafe_reason("callbacks.notify.command=date", resolvers=True)


def secrets_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and b"planted" in file.read_bytes()]


def test_a_run_tells_its_loss_and_its_record_has_no_address(commands: Any, small: Any, tmp_path: Path, hook: Hook) -> None:
    done = commands(tmp_path, *small, "callbacks=notify", f"callbacks.notify.url={hook.url}", "paths.run_dir=one", "note=x")
    assert done.code == 0, done.err
    info = json.loads((tmp_path / "one/run.json").read_text())
    (told,) = hook.posted
    assert (told["name"], told["status"], told["folder"]) == ("one", "ok", str(tmp_path / "one")) and told["loss"] == info["summary"][
        "val/loss"
    ]
    assert secrets_in(tmp_path) == [] and f"callbacks.notify.url={SECRET}" in " ".join(info["overrides"]).replace("'", "")
    done = commands(tmp_path, "resume=one")
    assert done.code == 0 and "nobody is notified" in done.out and len(hook.posted) == 1


def test_a_run_that_cannot_begin_is_told_too_with_its_own_exit_code(commands: Any, small: Any, tmp_path: Path, hook: Hook) -> None:
    (tmp_path / "short.txt").write_text("too short")
    done = commands(tmp_path, *small, "data.path=short.txt", "callbacks=notify", f"callbacks.notify.url={hook.url}")
    assert done.code == 2 and done.error
    (told,) = hook.posted
    assert told["status"] == "failed" and told["folder"] is None and told["reason"] in done.error


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", [(), ("hydra/sweeper=basic",)])
def test_a_sweep_is_told_once(commands: Any, small: Any, tmp_path: Path, hook: Hook, sweeper: tuple[str, ...]) -> None:
    study = () if sweeper else ("study=s",)
    done = commands(
        tmp_path, "-m", *small, *study, *sweeper, "callbacks=notify", f"callbacks.notify.url={hook.url}", "optimizer.lr=1e-3,2e-3"
    )
    assert done.code == 0, done.err
    (told,) = hook.posted
    assert told["status"] == "ok" and secrets_in(tmp_path) == []
    if not sweeper:
        rows = json.loads((tmp_path / "multirun/s/study.json").read_text())["trials"]
        assert (told["name"], told["loss"]) == ("s", min(row["value"] for row in rows))
        assert "notify:" not in (tmp_path / "multirun/s/best.yaml").read_text()


@pytest.mark.slow
def test_an_interrupted_run_is_told(commands: Any, small: Any, tmp_path: Path, hook: Hook) -> None:
    command = commands.start(tmp_path, *small, "trainer.max_steps=1000000", "callbacks=notify", f"callbacks.notify.url={hook.url}")
    command.until("plan:")
    time.sleep(1)
    command.signal(signal.SIGTERM)
    assert command.wait().code == 128 + signal.SIGTERM
    assert [told["status"] for told in hook.posted] == ["interrupted"]
