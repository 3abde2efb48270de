import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import ConfigError
from gptshake.record.run import Run
from gptshake.record.sinks import wandb as sink_module
from gptshake.record.sinks.config import WandbConfig
from gptshake.record.sinks.wandb import WandbSink

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without key, netrc or settings."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home/.netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home/wandb"))
    yield
    import wandb

    wandb.teardown()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", id="x3k9a2pq", name="a-name-x3k9a2pq", task="train", config_yaml="", overrides=[], provenance={})


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "train/tokens": 100 * step, "train/loss": 4 / step, "train/lr": 1e-3, "time": 1.0, **more}


def records(log: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (7 bytes of header; 32 KiB blocks of crc, length, type, data)."""
    content, at, begun = log.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        begun += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of it, or its last part
            yield begun
            begun = b""


def history(run: Run) -> dict[int, dict[str, Any]]:
    """What the one W&B folder that is not superseded holds: W&B step -> values."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its service writes when it likes, and ends here
    (log,) = run.path.glob("wandb/offline-run-*/run-x3k9a2pq.wandb")
    steps = {}
    for data in records(log):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            steps[int(values["_step"])] = {name: value for name, value in values.items() if not name.startswith("_")}
    return steps


def children() -> list[int]:
    """The processes that this one started; wandb's service among them."""
    listed = Path(f"/proc/{os.getpid()}/task/{threading.main_thread().native_id}/children")
    if not listed.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(pid) for pid in listed.read_text().split() if "wandb" in Path(f"/proc/{pid}/comm").read_text()]


def test_without_a_key_it_is_offline_at_once_and_asks_nobody(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sink = WandbSink(every=2)
    start = time.monotonic()
    sink.start(run, {"model": {"n_layer": 4}}, ["excerpt106", "x" * 100])
    assert time.monotonic() - start < 10
    for step in range(1, 6):
        sink.row(row(step, **({"val/loss": 2.5} if step == 3 else {})))
    sink.sample(5, 500, "Once upon", title="The")
    sink.finish("ok", {"val/bpb": 2.1})
    said = capsys.readouterr()
    assert "W&B: offline, no key" in said.out and "wandb sync" in said.out and said.err == ""
    logged = history(run)
    assert sorted(logged) == [2, 3, 4, 5]
    assert logged[2] == {"train/tokens": 200, "train/loss": 2.0, "train/lr": 1e-3}
    assert logged[3]["val/loss"] == 2.5
    assert logged[5]["samples._type"] == "table-file" and logged[5]["samples.nrows"] == 1


def test_a_picture_is_mirrored_as_png_and_passed_over_as_svg(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "loss.png")
    (tmp_path / "loss.svg").write_text("<svg/>")
    sink = WandbSink(every=1)
    sink.start(run, {}, [])
    sink.row(row(1))
    for name in ("loss.png", "loss.svg"):
        sink.image("loss", tmp_path / name)
    sink.row(row(2))
    sink.finish("ok", {})
    assert "failed" not in (run.path / "log").read_text()
    assert [step for step, values in history(run).items() if values.get("loss._type") == "image-file"] == [1]


def test_a_resumed_run_has_its_whole_history_under_its_id_in_one_folder(run: Run) -> None:
    for step in range(1, 5):
        run.append_row(row(step))
    run.sample(2, 200, "so far", title="The")
    for _ in range(2):
        sink = WandbSink(every=1)
        sink.start(run, {}, [])
        sink._mirror.finish()  # type: ignore[union-attr]  # a kill: the sink is not told
    sink.start(run, {}, [])
    sink.row(row(5))
    sink.finish("ok", {})
    assert sorted(history(run)) == [1, 2, 3, 4, 5]
    assert len(list(run.path.glob("wandb/superseded-*-offline-run-*-x3k9a2pq"))) == 2


def test_wandb_dying_in_mid_run_costs_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
import os, signal, subprocess, sys, time
from pathlib import Path
from gptshake.record.run import Run
from gptshake.record.sinks.wandb import WandbSink
run = Run.open(Path(sys.argv[1]))
sink = WandbSink(every=1)
sink.start(run, {}, [])
children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
for child in children:
    os.kill(int(child), signal.SIGKILL)
time.sleep(0.3)
for step in range(1, 200):
    row = {"step": step, "train/tokens": step, "train/loss": 1.0}
    run.append_row(row)
    sink.row(row)
sink.sample(200, 200, "text")
sink.image("loss", Path("missing.png"))
sink.finish("ok", {})
run.finish("ok")
os._exit(0)
"""
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list the children of a process")
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B failed") == 1
    assert len(run.rows()) == 199 and Run.open(run.path).info["status"] == "ok"


def test_the_next_run_of_the_process_is_mirrored_after_one_that_failed(run: Run, tmp_path: Path) -> None:
    first = Run.create(tmp_path / "first", id="t0000000", name="first", task="train", config_yaml="", overrides=[], provenance={})
    sink = WandbSink(every=1)
    sink.start(first, {}, [])
    for child in children():
        os.kill(child, signal.SIGKILL)
    time.sleep(0.3)
    for step in range(1, 9):
        sink.row(row(step))
    assert "W&B failed" in (first.path / "log").read_text()
    sink.start(run, {}, [])
    sink.row(row(1))
    sink.finish("ok", {})
    assert sorted(history(run)) == [1]


@pytest.mark.parametrize("method", ["log", "finish"])
def test_an_error_of_wandb_ends_the_mirror_only(run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    sink = WandbSink(every=1)
    sink.start(run, {}, [])

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(sink._mirror, method, fail)
        sink.row(row(1))
        sink.row(row(2))
        sink.finish("ok", {})
    assert (run.path / "log").read_text().count("W&B failed") == 1


def test_a_wandb_that_cannot_start_costs_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def fail(**_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(wandb, "init", fail)
    sink = WandbSink()
    sink.start(run, {}, [])
    sink.row(row(10))
    sink.finish("ok", {})
    assert "no space left on device" in (run.path / "log").read_text()


def test_with_a_key_and_no_network_it_is_offline_after_the_time_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(sink_module, "INIT_SECONDS", 1)
    sink = WandbSink(every=1)
    start = time.monotonic()
    sink.start(run, {}, [])
    assert time.monotonic() - start < 8
    sink.row(row(1))
    sink.finish("ok", {})
    assert "W&B: offline, no answer" in (run.path / "log").read_text()
    assert sorted(history(run)) == [1]


def test_a_key_that_cannot_be_one_is_offline_and_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tooshort")
    sink = WandbSink()
    sink.start(run, {}, [])
    sink.finish("ok", {})
    assert "40+ characters" in (run.path / "log").read_text()
    assert "tooshort" not in (run.path / "log").read_text()


def test_online_without_a_key_is_refused_with_the_ways_out(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"WANDB_API_KEY.*logger\.mode=auto"):
        WandbSink(mode="online").start(run, {}, [])


def test_the_users_own_wish_in_the_environment_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    sink = WandbSink(every=1)
    sink.start(run, {}, [])
    sink.row(row(1))
    sink.finish("ok", {})
    assert not list(run.path.glob("wandb/*run-*"))
    assert "failed" not in (run.path / "log").read_text() if (run.path / "log").exists() else True


@pytest.mark.parametrize(("key", "value"), [("mode", "onlin"), ("every", 0)])
def test_options_out_of_sense_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"logger.{key}={value}"):
        WandbSink(**{key: value})


def test_yaml_schema_and_constructor_have_the_same_keys_and_defaults() -> None:
    import dataclasses
    import inspect

    import yaml

    written = yaml.safe_load((ROOT / "conf/logger/wandb.yaml").read_text())
    written.pop("defaults")
    assert written == dataclasses.asdict(WandbConfig())
    taken = {name: parameter.default for name, parameter in inspect.signature(WandbSink).parameters.items()}
    assert {**taken, "_target_": f"{WandbSink.__module__}.WandbSink"} == written
    assert yaml.safe_load((ROOT / "conf/logger/none.yaml").read_text()) == {}


def test_the_file_can_be_imported_without_wandb() -> None:
    code = "import sys; import gptshake.record.sinks.wandb; print('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
