import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import ConfigError
from gptshake.record.run import Run
from gptshake.record.trackers import process as tracker_module
from gptshake.record.trackers.config import WandbConfig
from gptshake.record.trackers.wandb import WandbTracker

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "train/tokens": 100 * step, "train/loss": 4 / step, "train/lr": 1e-3, "time": 1.0, **more}


def hand_over(run: Run, tracker: WandbTracker, one: dict[str, float]) -> None:
    """A step's row, to the record and to its mirror."""
    run.append_row(one)
    tracker.row(one)


def mirrored(run: Run, *rows: dict[str, float], status: str = "ok", **options: Any) -> WandbTracker:
    """Mirror a run from its start to its end."""
    tracker = WandbTracker(every=1, **options)
    tracker.start(run)
    for one in rows:
        hand_over(run, tracker, one)
    run.finish(status, None, {"val/bpb": 9.9, "best/val/bpb": 2.1})
    tracker.finish()
    return tracker


def services() -> list[int]:
    """The living services of wandb that processes of this one started."""
    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list the children of a process")
    workers = [pid for file in Path(f"/proc/{os.getpid()}/task").glob("*/children") for pid in file.read_text().split()]
    found = [int(pid) for worker in workers for file in Path(f"/proc/{worker}/task").glob("*/children") for pid in file.read_text().split()]
    return [pid for pid in found if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def broken_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs some code in each interpreter that starts from now on; wandb is imported there."""

    def break_it(code: str) -> None:
        (tmp_path / "faults").mkdir()
        (tmp_path / "faults/sitecustomize.py").write_text(f"import time, wandb\n{code}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "faults"))

    return break_it


FAIL = """
def fail(*_, **__):
    raise {error}
{name} = fail
"""


LATE = "W&B has not answered in 9 s; the run continues without waiting for it.\n"  # a machine that is busy


def wait_until_opened(run: Run, tracker: WandbTracker) -> None:
    """Until W&B is online or offline, which the run itself does not wait for."""
    until = time.monotonic() + 60
    while "W&B: " not in said(run) and time.monotonic() < until:
        time.sleep(0.1)
        tracker.row({})


def said(run: Run) -> str:
    return (run.path / "log").read_text() if (run.path / "log").exists() else ""


# Offline


def test_without_a_key_it_is_offline_at_once_and_asks_nobody(
    run: Run, capsys: pytest.CaptureFixture[str], log_of: Any, within: Any
) -> None:
    tracker = WandbTracker(every=2)
    assert within(tracker.start, run) < 10
    for step in range(1, 6):
        hand_over(run, tracker, row(step, **({"val/loss": 2.5} if step == 3 else {})))
    run.finish("ok")
    assert within(tracker.finish) < 10
    printed = capsys.readouterr()
    assert "W&B: offline, no key; upload later with: gptshake task=sync task.run=x3k9a2pq" in printed.out and printed.err == ""
    history = log_of(run.path).history
    assert sorted(history) == [2, 3, 4] and history[3]["val/loss"] == 2.5
    assert history[2] == {"train/tokens": 200, "train/loss": 2.0, "train/lr": 1e-3}


def test_an_offline_run_holds_all_that_describes_it(run: Run, log_of: Any) -> None:
    mirrored(run, row(1, **{"val/loss": 3.0}), row(2, **{"val/loss": 3.5}))
    log = log_of(run.path)
    assert (log.run.run_id, log.run.display_name, log.run.project) == ("x3k9a2pq", "a-name-x3k9a2pq", "gptshake")
    assert (log.run.job_type, log.run.notes, log.run.run_group) == ("train", "why not?", "")
    assert list(log.run.tags) == ["excerpt106", "data:wiki_char", "tokenizer:char", "model:tiny"]
    assert log.config["optimizer"] == {"lr": 0.001} and log.config["derived"]["model"]["parameters"] == 4640
    metrics = {record.metric.name or record.metric.glob_name: record.metric for record in log.of("metric")}
    assert metrics["*"].step_metric == "train/tokens" and metrics["val/bpb"].summary.min and metrics["val/loss"].summary.min
    assert log.summary["status"] == "ok" and log.summary["best/val/bpb"] == 2.1
    assert log.summary.get("val/bpb") != 9.9  # the least of the run stands there, not the last
    assert log.of("exit")[0].exit.exit_code == 0


def test_the_record_knows_where_its_mirror_is(run: Run) -> None:
    mirrored(run, row(1), project="mine")
    told = json.loads((run.path / "run.json").read_text())["wandb"]
    assert (told["id"], told["project"], told["mode"], told["url"]) == ("x3k9a2pq", "mine", "offline", None)
    assert told["whole"] and not told["uploaded"] and Path(told["folder"]).is_dir()


@pytest.mark.parametrize(("status", "code"), [("pruned", 0), ("failed", 1), ("interrupted", 255)])
def test_how_a_run_ended_is_told(run: Run, log_of: Any, status: str, code: int) -> None:
    mirrored(run, row(1), status=status)
    assert log_of(run.path).of("exit")[0].exit.exit_code == code


def test_samples_are_one_table_that_grows(run: Run, log_of: Any) -> None:
    tracker = WandbTracker(every=1)
    tracker.start(run)
    for step in (1, 2, 3):
        hand_over(run, tracker, row(step))
        run.sample(step, 100 * step, f"text {step}", title="The")
    run.finish("ok")
    tracker.finish()
    log = log_of(run.path)
    tables = [json.loads((run.path / file).read_text()) for file in sorted(run.path.glob("wandb/offline-*/files/media/table/*.json"))]
    assert sorted(table["data"][0] for table in tables) == [[n, 100 * n, "The", f"text {n}"] for n in (1, 2, 3)]  # each new row once
    assert [log.history[step]["samples.increment_num"] for step in (1, 2, 3)] == [0, 1, 2]
    assert log.history[3]["samples._type"] == "incremental-table-file" and log.history[3]["samples.nrows"] == 3


def test_patch_and_untracked_sources_and_overrides_are_files_of_the_run(run: Run) -> None:
    (run.path / "diff.patch").write_text("a patch")
    (run.path / "untracked/src").mkdir(parents=True)
    (run.path / "untracked/src/new.py").write_text("a source")
    mirrored(run, row(1))
    (files,) = run.path.glob("wandb/offline-run-*/files")
    assert [(files / name).read_text() for name in ("diff.patch", "untracked/src/new.py", "overrides")] == ["a patch", "a source", "a=1\n"]
    assert not any(path.is_symlink() for path in files.rglob("*"))  # the directory may be moved


def test_nothing_of_the_command_line_or_the_environment_goes_along(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gptshake", "data.path=https://me:planted-secret@host/x"])
    monkeypatch.setenv("PLANTED", "planted-secret")
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret" * 4)
    mirrored(run, row(1), mode="offline")
    assert not [file for file in run.path.rglob("*") if file.is_file() and b"planted-secret" in file.read_bytes()]


def test_all_that_is_to_be_uploaded_lies_in_the_runs_directory(run: Run, tmp_path: Path) -> None:
    tracker = WandbTracker()
    tracker.start(run)
    run.sample(0, 0, "text")
    run.finish("ok")
    tracker.finish()
    elsewhere = [path for path in tmp_path.rglob("*") if path.is_file() and run.path not in path.parents]
    assert [path for path in elsewhere if path.suffix != ".log"] == []  # wandb's service keeps a log of its own


def test_a_picture_is_mirrored_as_png_beside_a_metric_of_its_name_and_passed_over_as_svg(run: Run, log_of: Any) -> None:
    from PIL import Image

    tracker = WandbTracker(every=1)
    tracker.start(run)
    hand_over(run, tracker, row(1) | {"loss": 2.5})
    (run.path / "plots").mkdir()
    Image.new("RGB", (4, 4)).save(run.path / "plots/loss.png")
    (run.path / "plots/loss.svg").write_text("<svg/>")
    tracker.finish()
    assert "failed" not in said(run)
    history = log_of(run.path).history
    assert [(step, values["loss"]) for step, values in history.items() if values.get("plots/loss._type") == "image-file"] == [(1, 2.5)]


def test_a_resumed_run_has_its_whole_history_under_its_id_in_one_folder(run: Run, log_of: Any) -> None:
    for step in range(1, 5):
        run.append_row(row(step))
    run.sample(2, 200, "so far", title="The")
    code = "import os, sys; from gptshake.record.run import Path, Run; from gptshake.record.trackers.wandb import WandbTracker"
    code += "; WandbTracker(every=1).start(Run.open(Path(sys.argv[1]))); os._exit(9)"  # a kill
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    tracker = WandbTracker(every=1)
    tracker.start(run)
    hand_over(run, tracker, row(5))
    run.sample(5, 500, "now")
    tracker.finish()
    log = log_of(run.path)
    history = log.history
    assert sorted(history) == [1, 2, 3, 4, 5] and log.times[1] == 1.0  # when it was, not when it is told again
    assert history[2]["samples.increment_num"] == 0 and history[5]["samples.increment_num"] == 1
    assert len(list(run.path.glob("wandb/superseded-*-offline-run-*-x3k9a2pq"))) == 2


def test_the_users_own_wish_in_the_environment_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    mirrored(run, row(1))
    assert (
        not list(run.path.glob("wandb/*run-*"))
        and said(run) == ""
        and run.info["wandb"] == {"mode": "disabled", "whole": False, "uploaded": False}
    )


# Artifacts


@pytest.mark.parametrize("weights", [["model.safetensors"], [f"model-shard-0000{number}-of-00002.safetensors" for number in (1, 2)]])
def test_artifacts_tell_what_a_run_was_made_from_and_what_came_out(run: Run, log_of: Any, weights: list[str]) -> None:
    (run.path / "tokenizer").mkdir()
    (run.path / "tokenizer/tokenizer.json").write_text("{}")
    best = run.path / "checkpoints/step-00000200"
    best.mkdir(parents=True)
    for name in (*weights, "checksums.json", "state.safetensors"):
        (best / name).write_text(name)
    tracker = WandbTracker(artifacts="best")
    tracker.start(run)
    run.finish("ok", None, {"best/step": 200, "val/bpb": 2.1})
    tracker.finish()
    assert said(run).count("\n") == 1
    logged = log_of(run.path).artifacts
    tokenizer, store, model = logged["tokenizer-dddddddddddd"], logged["tokens-555555555555"], logged["model-x3k9a2pq"]
    assert [part.type for part in (tokenizer, store, model)] == ["tokenizer", "token-store", "model"]
    assert [entry.path for entry in store.manifest.contents] == ["description.json"]  # never the data
    assert sorted(entry.path for entry in model.manifest.contents) == ["checksums.json", *weights]
    assert json.loads(model.metadata)["trained_on"]["token-store"] == "tokens-555555555555"
    assert json.loads(store.metadata)["made_with"] == "tokenizer-dddddddddddd" and "best" in model.aliases


@pytest.mark.parametrize("options", [{}, {"trial": {"study": "mine", "number": 1, "params": {}}}])
def test_weights_are_uploaded_on_request_only_and_never_from_a_sweep(run: Run, log_of: Any, options: Any) -> None:
    run.update(**options)
    mirrored(run, row(1), artifacts="best" if options else "none")
    assert log_of(run.path).artifacts == {}


def test_artifacts_that_are_not_taken_cost_themselves_only(run: Run, broken_wandb: Callable[[str], None], log_of: Any) -> None:
    (run.path / "tokenizer").mkdir()
    broken_wandb(FAIL.format(name="wandb.Run.log_artifact", error="OSError('quota used up')"))
    mirrored(run, row(1), artifacts="best")
    assert "took no artifacts of this run: quota used up" in said(run) and "failed" not in said(run)
    assert sorted(log_of(run.path).history) == [1] and run.info["wandb"]["whole"]


# Online


def test_an_online_run_is_described_and_mirrored_and_has_an_address(run: Run, server: Any) -> None:
    mirrored(run, row(1), row(2, **{"val/loss": 2.0}))
    told = server.runs["x3k9a2pq"]
    first = told["upserts"][0]
    assert (first["displayName"], first["project"], first["jobType"], first["notes"]) == (
        "a-name-x3k9a2pq",
        "gptshake",
        "train",
        "why not?",
    )
    assert json.loads(first["config"])["derived"]["value"]["model"]["parameters"] == 4640
    assert [json.loads(line)["_step"] for _, line in sorted(told["history"].items())] == [1, 2]
    assert "overrides" in told["files"]
    assert not [file for file in run.path.rglob("*") if file.is_file() and b"a" * 40 in file.read_bytes()]  # the key
    address = f"{server.url}/me/gptshake/runs/x3k9a2pq"
    assert f"W&B: {address}" in said(run) and run.info["wandb"]["url"] == address
    assert (run.info["wandb"]["mode"], run.info["wandb"]["uploaded"]) == ("online", True)


def test_resume_continues_the_same_online_run(run: Run, server: Any) -> None:
    tracker = WandbTracker(every=1)
    tracker.start(run)
    for step in (1, 2):
        run.append_row(row(step))
        hand_over(run, tracker, row(step))
    run.finish("interrupted")
    tracker.finish()
    tracker = WandbTracker(every=1)
    tracker.start(run)
    hand_over(run, tracker, row(3))
    run.finish("ok")
    tracker.finish()
    assert list(server.runs) == ["x3k9a2pq"]
    lines = [json.loads(line) for _, line in sorted(server.runs["x3k9a2pq"]["history"].items())]
    assert [line["_step"] for line in lines] == [1, 2, 3]


def test_an_agents_run_is_the_one_that_its_sweep_sees(run: Run, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    mirrored(run, row(1))
    assert list(server.runs) == ["agentrun"]
    first = server.runs["agentrun"]["upserts"][0]
    assert (first["sweep"], first["project"], first["displayName"]) == ("sweep1", "theirs", "a-name-x3k9a2pq")
    assert run.info["wandb"]["id"] == "agentrun" and "Ignoring" not in said(run)
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.delenv("WANDB_RUN_ID")
    monkeypatch.delenv("WANDB_PROJECT")
    mirrored(run, row(2))  # continued by hand
    assert list(server.runs) == ["agentrun"] and server.runs["agentrun"]["upserts"][-1]["project"] == "theirs"


def test_a_trial_of_a_sweep_of_ours_keeps_its_own_id_under_an_agent(run: Run, monkeypatch: pytest.MonkeyPatch, log_of: Any) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    run.update(trial={"study": "mine", "number": 1, "params": {}})
    mirrored(run, row(1))
    assert log_of(run.path).run.run_id == "x3k9a2pq"


# What may go wrong, at the real limits


@pytest.mark.parametrize("trouble", ["unreachable", "slow", "fail"])
def test_a_server_that_cannot_be_had_costs_seconds_and_one_sentence(
    run: Run, server: Any, monkeypatch: pytest.MonkeyPatch, log_of: Any, within: Any, capfd: pytest.CaptureFixture[str], trouble: str
) -> None:
    server.mode = trouble
    if trouble == "unreachable":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    tracker = WandbTracker(every=1)
    assert within(tracker.start, run) < 10
    hand_over(run, tracker, row(1))
    wait_until_opened(run, tracker)
    assert within(tracker.finish) < 10
    assert said(run).count("W&B: offline, ") == 1 and said(run).replace(LATE, "").count("\n") == 1
    assert capfd.readouterr().err == ""
    assert sorted(log_of(run.path).history) == [1]


def test_a_server_that_says_hello_and_no_more_costs_seconds(run: Run, server: Any, log_of: Any, within: Any) -> None:
    server.mode = "deaf"
    tracker = WandbTracker(every=1)
    assert within(tracker.start, run) < 10
    hand_over(run, tracker, row(1))
    wait_until_opened(run, tracker)
    tracker.finish()
    assert "W&B: offline, no answer" in said(run)
    assert sorted(log_of(run.path).history) == [1]


def test_a_server_that_refuses_what_is_logged_is_told(run: Run, server: Any) -> None:
    server.mode = "full"
    mirrored(run, row(1))
    assert "did not take everything" in said(run) and "403" in said(run) and "task=sync" in said(run)
    assert not run.info["wandb"]["uploaded"]


@pytest.mark.parametrize("trouble", ["slow", "fail", "gone"])
def test_a_server_that_dies_in_mid_run_costs_a_bounded_end(
    run: Run, server: Any, monkeypatch: pytest.MonkeyPatch, within: Any, trouble: str
) -> None:
    monkeypatch.setattr(tracker_module, "FINISH_SECONDS", 3)
    tracker = WandbTracker(every=1)
    tracker.start(run)
    server.mode = trouble
    if trouble == "gone":
        server.close()
    assert within(lambda: [hand_over(run, tracker, row(step)) for step in range(1, 1000)]) < 1
    run.finish("ok")
    assert within(tracker.finish) < 6
    assert said(run).count("\n") == 2 and "task=sync task.run=x3k9a2pq" in said(run)  # its address, and what to do
    assert not run.info["wandb"]["whole"] and not run.info["wandb"]["uploaded"]


def test_a_frozen_service_costs_a_run_no_step(run: Run, monkeypatch: pytest.MonkeyPatch, within: Any) -> None:
    monkeypatch.setattr(tracker_module, "FINISH_SECONDS", 0.5)
    tracker = WandbTracker(every=1)
    tracker.start(run)
    frozen = services()
    assert frozen
    for service in frozen:
        os.kill(service, signal.SIGSTOP)
    for step in range(1, 3000):
        run.append_row(row(step))
    assert within(lambda: [tracker.row(row(step)) for step in range(1, 3000)]) < 2
    assert within(tracker.finish) < 4
    assert "did not take everything" in said(run) and not run.info["wandb"]["whole"]
    assert not any(map(is_alive, frozen))


@pytest.mark.parametrize(("signum", "sentence"), [(signal.SIGKILL, "W&B failed"), (signal.SIGSTOP, "did not take everything")])
def test_a_service_that_is_killed_or_freezes_holds_back_neither_a_run_nor_its_process(run: Run, signum: int, sentence: str) -> None:
    code = """
import os, sys, time
from pathlib import Path
from gptshake.record.run import Run
from gptshake.record.trackers import process as tracker_module
tracker_module.FINISH_SECONDS = 1
run = Run.open(Path(sys.argv[1]))
from gptshake.record.trackers.wandb import WandbTracker
tracker = WandbTracker(every=1)
tracker.start(run)
def children(pid):
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
for worker in children(os.getpid()):
    for service in children(worker):
        os.kill(service, int(sys.argv[2]))
time.sleep(0.3)
for step in range(1, 200):
    row = {"step": step, "train/tokens": step, "train/loss": 1.0}
    run.append_row(row)
    tracker.row(row)
run.finish("ok")
tracker.finish()
print("the end at", time.time(), flush=True)
"""
    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list the children of a process")
    command = [sys.executable, "-c", code, str(run.path), str(int(signum))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    assert time.time() - float(done.stdout.split()[-1]) < 3
    assert done.returncode == 0 and done.stderr == ""
    assert said(run).count(sentence) == 1 and said(run).count("\n") == 2
    assert len(run.rows()) == 199 and Run.open(run.path).info["status"] == "ok"


def test_the_next_run_of_the_process_is_mirrored_after_one_that_failed(run: Run, tmp_path: Path, log_of: Callable[[Path], Any]) -> None:
    first = Run.create(tmp_path / "first", id="t0000000", name="first", task="train", config_yaml="", overrides=[])
    tracker = WandbTracker(every=1)
    tracker.start(first)
    for service in services():
        os.kill(service, signal.SIGKILL)
    time.sleep(0.3)
    for step in range(1, 9):
        hand_over(first, tracker, row(step))
    tracker.finish()
    assert said(first).count("W&B failed") == 1
    mirrored(run, row(1))
    assert sorted(log_of(run.path).history) == [1]


@pytest.mark.parametrize("method", ["log", "finish"])
def test_an_error_of_wandb_ends_the_mirror_only(run: Run, broken_wandb: Callable[[str], None], method: str) -> None:
    broken_wandb(FAIL.format(name=f"wandb.Run.{method}", error="ConnectionResetError('Connection lost')"))
    mirrored(run, row(1), row(2))
    assert said(run).count("W&B failed") == 1 and "Connection lost" in said(run) and not run.info["wandb"]["whole"]


def test_a_wandb_that_cannot_start_costs_one_sentence(run: Run, broken_wandb: Callable[[str], None]) -> None:
    broken_wandb(FAIL.format(name="wandb.init", error="OSError('no space left on device')"))
    mirrored(run, row(10))
    assert said(run).count("no space left on device") == 1 and said(run).count("\n") == 1


def test_a_start_that_takes_too_long_is_not_waited_for_and_still_mirrored(run: Run, monkeypatch: pytest.MonkeyPatch, log_of: Any) -> None:
    monkeypatch.setattr(tracker_module, "START_SECONDS", 0.2)
    mirrored(run, row(1))
    assert "without waiting for it" in said(run) and "W&B: offline" in said(run)
    assert sorted(log_of(run.path).history) == [1] and run.info["wandb"]["whole"]


def test_a_key_that_cannot_be_one_is_offline_and_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "tooshort")
    mirrored(run)
    assert "40+ characters" in said(run) and "tooshort" not in said(run)


def test_online_without_a_key_is_refused_with_the_ways_out(run: Run) -> None:
    tracker = WandbTracker(mode="online")
    with pytest.raises(ConfigError, match=r"WANDB_API_KEY.*logger\.mode=auto"):
        tracker.start(run)
    tracker.finish()
    assert said(run) == ""


def test_a_run_that_failed_before_its_mirror_began_ends_without_one() -> None:
    WandbTracker().finish()


# Options


def test_yaml_schema_and_constructor_have_the_same_keys_and_defaults() -> None:
    import dataclasses
    import inspect

    import yaml

    written = yaml.safe_load((ROOT / "conf/logger/wandb.yaml").read_text())
    written.pop("defaults")
    assert written == dataclasses.asdict(WandbConfig())
    taken = {name: parameter.default for name, parameter in inspect.signature(WandbTracker).parameters.items()}
    assert {**taken, "_target_": f"{WandbTracker.__module__}.WandbTracker"} == written
    assert yaml.safe_load((ROOT / "conf/logger/none.yaml").read_text()) == {}


def test_the_room_can_be_imported_without_wandb() -> None:
    code = "import sys; import gptshake.record.trackers.wandb; print('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_the_variables_of_wandb_count_unless_a_key_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert (WandbTracker().project, WandbTracker().entity) == ("theirs", "team")
    assert (WandbTracker(project="gptshake").project, WandbTracker(entity="me").entity) == ("gptshake", "me")
    monkeypatch.setenv("WANDB_PROJECT", "")
    monkeypatch.delenv("WANDB_ENTITY")
    assert (WandbTracker().project, WandbTracker().entity) == ("gptshake", None)
    for named, mode in (("dryrun", "offline"), ("offline", "offline"), ("disabled", "disabled")):
        monkeypatch.setenv("WANDB_MODE", named)
        assert WandbTracker().mode_to_try() == mode
    monkeypatch.setenv("WANDB_MODE", "oflfine")
    with pytest.raises(ConfigError, match="WANDB_MODE=oflfine is not known"):
        WandbTracker().mode_to_try()


def test_a_process_that_ends_while_it_is_killed_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run) -> None:
    monkeypatch.setattr(tracker_module, "FINISH_SECONDS", 0.1)
    tracker = WandbTracker()
    tracker.start(run)
    monkeypatch.setattr(Path, "glob", lambda *_: [tmp_path / "a thread that has just ended"])
    os.kill(tracker._child.process.pid, signal.SIGSTOP)
    tracker.finish()
    assert "did not take everything" in said(run)
