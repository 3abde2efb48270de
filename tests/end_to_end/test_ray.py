"""Sweeps on a real Ray with two nodes: what dies, and that every value is that of the sweep on this machine to the last digit."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_sweep import BRISK, WORDS, values
from ray_cluster import RayCluster
from slurm_cluster import until

from gptshake.outcome import is_running

pytestmark = pytest.mark.ray


def sessions(folder: Path) -> list[list[Any]]:
    return [json.loads((folder / f"multirun/s/{number}/run.json").read_text())["sittings"] for number in range(3)]


def saving(folder: Path) -> list[Path]:
    """Runs that have a checkpoint and are not at their end."""
    return [file.parents[1] for file in folder.glob("multirun/s/*/checkpoints/step-*/") if is_running(file.parents[1])]


def until_seen(command: Any, happened: Callable[[], object]) -> None:
    """Wait for something that a command does; its output says why it does not."""
    try:
        until(happened)
    except AssertionError:
        pytest.fail(str(command.wait(0.0)))


@pytest.fixture
def sweep(commands: Any, small: Any, ray_cluster: RayCluster, tmp_path: Path) -> Any:
    """Starts the sweep there; Ray places two runs on the first node and then one on the second."""
    keys = {"address": ray_cluster.address, "slots": 3}
    words = ["executor=ray", *(f"hydra.sweeper.executor.{key}={value}" for key, value in keys.items())]
    before = f"import sys; sys.path.append({ray_cluster.path!r})\n{BRISK}"
    return lambda: commands.start(tmp_path, "-m", *small, *WORDS, *words, before=before)


def test_a_sweep_loses_a_node_and_no_digit(sweep: Any, ray_cluster: RayCluster, undisturbed_sweep: Any, tmp_path: Path) -> None:
    there = sweep()
    until_seen(there, lambda: tmp_path / "multirun/s/2" in saving(tmp_path))
    ray_cluster.kill_node(ray_cluster.second)
    ray_cluster.second = ray_cluster.add_node()
    done = there.wait()
    assert done.code == 0, done.err
    assert values(tmp_path) == undisturbed_sweep
    resumed = [each for each in sessions(tmp_path) if len(each) > 1]
    assert resumed and all(each[-1]["from_step"] > 0 for each in resumed), "no run begins again from the start"
    shown = [line for line in done.err.splitlines() if not line.endswith("it is submitted again.")]
    assert not shown and "raylet" not in done.out, "what Ray logs is not shown"


def test_runs_whose_controller_is_killed_save_and_the_same_command_resumes_them(sweep: Any, undisturbed_sweep: Any, tmp_path: Path) -> None:
    first = sweep()
    until_seen(first, lambda: saving(tmp_path))
    os.kill(first.pid, signal.SIGKILL)
    done = sweep().wait()
    assert done.code == 0, done.err
    assert values(tmp_path) == undisturbed_sweep
    resumed = [each for each in sessions(tmp_path) if len(each) > 1]
    assert resumed and all(each[-1]["from_step"] > 0 for each in resumed), "no run begins again from the start"
    assert not list((tmp_path / "multirun").rglob("task.json"))
