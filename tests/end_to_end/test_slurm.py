"""Sweeps on a real Slurm with two nodes: what dies, and that every value is that of the sweep on this machine to the last digit."""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_sweep import BRISK, WORDS, values
from slurm_cluster import NODES, Cluster, lacking, until

from gptshake.outcome import read_job

pytestmark = pytest.mark.slurm

DOCS = Path(__file__).parents[2] / "docs/slurm.md"
SLURM = ("executor=slurm", "hydra.sweeper.executor.slots=3", "hydra.sweeper.executor.partition=main")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    if why := lacking():
        pytest.skip(why)
    cluster = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster
    cluster.close()


def checkpoints(trial: Path) -> list[Path]:
    return sorted(trial.glob("checkpoints/step-*"))


def environ(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_a_sweep_begun_here_goes_on_on_slurm_and_loses_a_node(
    commands: Any, small: Any, slurm: Cluster, undisturbed_sweep: Any, tmp_path: Path
) -> None:
    here = commands.start(tmp_path, "-m", *small, *WORDS)
    until(lambda: checkpoints(tmp_path / "multirun/s/0"))
    here.signal(signal.SIGINT)
    assert here.wait().code == 130
    there = commands.start(tmp_path, "-m", *small, *WORDS, *SLURM, before=BRISK)
    until(lambda: read_job(tmp_path / "multirun/s/2").get("id") and checkpoints(tmp_path / "multirun/s/2"))
    job = read_job(tmp_path / "multirun/s/2")["id"]
    (node,) = [node for node in NODES if any(f"SLURM_JOB_ID={job}".encode() in environ(pid) for pid in slurm.processes(node))]
    slurm.kill_node(node)
    slurm.start_node(node)
    done = there.wait()
    assert done.code == 0, done.err
    assert values(tmp_path) == undisturbed_sweep
    sessions = json.loads((tmp_path / "multirun/s/2/run.json").read_text())["sittings"]
    assert len(sessions) == 2 and sessions[1]["from_step"] >= 20


def test_jobs_outlive_their_controller_and_the_same_command_adopts_them(
    commands: Any, small: Any, slurm: Cluster, undisturbed_sweep: Any, tmp_path: Path
) -> None:
    before = set(slurm.jobs())
    first = commands.start(tmp_path, "-m", *small, *WORDS, *SLURM, before=BRISK)
    until(lambda: read_job(tmp_path / "multirun/s/2").get("id"))
    os.kill(first.pid, signal.SIGKILL)
    done = commands(tmp_path, "-m", *small, *WORDS, *SLURM, before=BRISK)
    assert done.code == 0, done.err
    assert values(tmp_path) == undisturbed_sweep
    assert len(set(slurm.jobs()) - before) == 2 + 3  # two preparations, and one job for each trial
    assert not list((tmp_path / "multirun").rglob("task.json"))


def test_a_controller_in_a_job_that_starts_itself_again_adopts_its_jobs(
    small: Any, slurm: Cluster, undisturbed_sweep: Any, tmp_path: Path
) -> None:
    command = shlex.join([sys.executable, "-c", f"{BRISK}from gptshake.__main__ import main\nmain()", "-m", *small, *WORDS, *SLURM])
    (script,) = re.findall(r"^```bash\n(.+?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    before = set(slurm.jobs())
    (tmp_path / "study.sh").write_text(re.sub("^gptshake .*(?= &$)", lambda _: command, script, flags=re.MULTILINE))
    controller = slurm.run("sbatch", "--parsable", "--partition=main", "--mem=0", f"--chdir={tmp_path}", str(tmp_path / "study.sh")).strip()
    until(lambda: read_job(tmp_path / "multirun/s/1").get("id"))
    slurm.signal(controller, "--signal=USR1", "--batch")  # as Slurm does before a time limit
    until(lambda: slurm.jobs()[controller] == "PENDING")
    until(lambda: slurm.jobs()[controller] in ("COMPLETED", "FAILED"), 120)
    assert values(tmp_path) == undisturbed_sweep, (tmp_path / "study.out").read_text()
    assert len(set(slurm.jobs()) - before) == 1 + 2 + 3  # the controller, two preparations, and one job for each trial
    assert not list((tmp_path / "multirun").rglob("task.json"))
