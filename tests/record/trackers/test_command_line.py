"""Runs with their mirror through the real command line, as a user, an agent of ``wandb sweep`` and a signal see them."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SMALL = (
    *("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "trainer=cpu", "trainer.threads=1"),
    *("trainer.precision=32-true", "trainer.val_check_interval=4", "trainer.limit_val_batches=2", "scheduler=constant"),
)


@pytest.fixture
def small(book: Path) -> tuple[str, ...]:
    return ("model=tiny", "data=text_char", f"data.path={book}", "data.batch_size=8", *SMALL)


def the_run(folder: Path) -> Path:
    (file,) = folder.glob("runs/*/run.json")
    return file.parent


def test_a_run_is_mirrored_whole(commands: Any, small: Any, tmp_path: Path, log_of: Any) -> None:
    extra = ("trainer.max_steps=8", "note=why not?", "logger.artifacts=best", "callbacks.samples.times=2", "callbacks.samples.n_tokens=5")
    done = commands(tmp_path, *small, *extra)
    assert done.code == 0, done.err
    path = the_run(tmp_path)
    info = json.loads((path / "run.json").read_text())
    log = log_of(path)
    assert (log.run.run_id, log.run.job_type, log.run.notes) == (info["id"], "train", "why not?")
    assert {"book", "data:text_char", "tokenizer:char", "model:tiny"} <= set(log.run.tags)
    assert log.config["model"]["n_embd"] == 16 and log.config["derived"]["model"] == info["model"]
    assert log.config["derived"]["budget"]["tokens_per_step"] == 128
    assert {0, 4, 8} <= set(log.history)  # a picture lies at the step that was reached when it came
    assert "plots/loss._type" in log.history[8] and log.history[8]["samples.nrows"] == 3
    assert log.summary["best/val/loss"] == info["summary"]["best/val/loss"] and log.summary["status"] == "ok"
    assert [artifact.type for artifact in log.artifacts.values() if "table" not in artifact.type] == ["tokenizer", "token-store", "model"]
    assert info["wandb"]["whole"]


def test_a_run_that_a_signal_ends_has_its_mirror_ended_too(commands: Any, small: Any, tmp_path: Path, log_of: Any) -> None:
    command = commands.start(tmp_path, *small, "trainer.max_steps=1000000", "callbacks=none")
    command.until("W&B: offline")
    command.signal(signal.SIGTERM)
    assert command.wait().code == 128 + signal.SIGTERM
    log = log_of(the_run(tmp_path))
    assert log.summary["status"] == "interrupted" and log.of("exit")[0].exit.exit_code == 255


def test_the_sweep_of_the_manual_drives_the_same_command(
    commands: Any, small: Any, tmp_path: Path, log_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    page = (ROOT / "docs/wandb.md").read_text(encoding="utf-8")
    sweep = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0])
    drawn = {"optimizer.lr": 0.0012345678901234, "data.batch_size": 16}
    assert sweep["parameters"].keys() == drawn.keys()
    words = create_sweep_command_args({"args": {key: {"value": value} for key, value in drawn.items()}})["args_no_hyphens"]
    at = sweep["command"].index("gptshake")
    assert sweep["command"][:at] == ["${env}", "python", "-m"]
    given = [word for word in sweep["command"][at + 1 :] if not word.startswith("${")]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({key: {"value": value} for key, value in drawn.items()}))
    for name, value in (
        ("SWEEP_ID", "s1"),
        ("RUN_ID", "agent1"),
        ("SWEEP_PARAM_PATH", str(tmp_path / "config.yaml")),
        ("PROJECT", "theirs"),
    ):
        monkeypatch.setenv(f"WANDB_{name}", value)
    own_text = [word for word in small if word.startswith("data.path")]
    done = commands(tmp_path, *given, "data=text_char", *own_text, *SMALL, *words, "trainer.max_steps=4", "callbacks=none")
    assert done.code == 0, done.err
    info = json.loads((the_run(tmp_path) / "run.json").read_text())
    log = log_of(the_run(tmp_path))
    assert (log.run.run_id, log.run.sweep_id, log.run.project) == ("agent1", "s1", "theirs") and info["wandb"]["id"] == "agent1"
    assert log.config["optimizer"]["lr"] == drawn["optimizer.lr"] and log.config["optimizer.lr"] == drawn["optimizer.lr"]
    assert log.config["data"]["batch_size"] == 16
    assert sweep["metric"]["name"] in log.summary
