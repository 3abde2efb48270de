"""What every executor does, whatever runs its runs: one suite for slots of this machine, and for jobs of a real Slurm and a real Ray with two nodes."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deeds import deed
from slurm_cluster import Cluster, lacking, until

from gptshake import outcome, processes
from gptshake.errors import ConfigError, GptshakeError
from gptshake.outcome import Outcome, read_outcome
from gptshake.sweep.executor import jobs
from gptshake.sweep.executor.local import LocalSlots
from gptshake.sweep.executor.ray import RayJobs
from gptshake.sweep.executor.slurm import SlurmJobs

ALL = ["local", *(pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("slurm", "ray"))]

KINDS: dict[str, Any] = {"local": LocalSlots, "slurm": SlurmJobs, "ray": RayJobs}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if why := lacking():
        pytest.skip(why)
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience."""
    for name, value in (("POLL_S", 0.2), ("HURRY_S", 0.2), ("LATE_S", 0.5), ("MOST_LOSSES", 1)):
        monkeypatch.setattr(jobs, name, value)


@pytest.fixture
def slurm(request: Any, monkeypatch: pytest.MonkeyPatch, brisk: None) -> Cluster:
    """The cluster, as this process sees it."""
    cluster: Cluster = request.getfixturevalue("cluster")
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return cluster


@pytest.fixture
def made(request: Any, brisk: None) -> Iterator[Any]:  # patches are undone after its end
    """Makes executors of the kind that the test names, opened for deeds, with two slots."""
    executors: list[Any] = []

    def make(kind: str = "slurm", **options: Any) -> Any:
        if kind == "slurm":
            request.getfixturevalue("slurm")
        options = {"slots": 2, **options}
        if kind == "ray":
            options["address"] = request.getfixturevalue("ray_cluster").address
        executors.append(KINDS[kind](**options, **({"threads": 1} if kind == "local" else {})))
        executors[-1].open(deed, [])
        executors[-1].allot("cpu", None, None)
        return executors[-1]

    yield make
    for executor in executors:
        executor.close()


def ends(executor: Any, number: int, seconds: float = 60.0) -> list[Any]:
    """The next runs that end."""
    limit, ended = time.monotonic() + seconds, list[Any]()
    while len(ended) < number:
        assert time.monotonic() < limit, "no run has ended"
        ended += executor.wait(0.25)
    return ended


def end(executor: Any) -> Any:
    (run,) = ends(executor, 1)
    return run


@pytest.mark.parametrize("kind", ALL)
def test_runs_fill_the_slots_and_end_with_what_they_return(kind: str, made: Any, tmp_path: Path) -> None:
    executor = made(kind)
    runs = [executor.start(["look", ["OMP_NUM_THREADS", "HOME"]], tmp_path / str(number)) for number in range(3)]
    assert runs[2] is None and [run.slot for run in runs[:2]] == [0, 1] and executor.threads == 1
    variables = {"OMP_NUM_THREADS": "1", "HOME": os.environ["HOME"]}
    assert all(run in runs and run.outcome.status == "ok" and variables.items() <= run.outcome.value.items() for run in ends(executor, 2))
    again = executor.start(["give back", 0.1], tmp_path / "again")
    assert again.slot == 0 and end(executor) is again
    assert again.outcome == Outcome("ok", 0.1) == read_outcome(tmp_path / "again")
    assert not list(tmp_path.rglob("task.json")) and not list(tmp_path.rglob("job.json"))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("task", "reason"), [(["exit", 3], "exit code 3"), (["signal", 9], "killed|FAILED"), (["raise", 1], "TypeError")])
def test_a_run_that_fails_says_why(kind: str, task: Any, reason: str, made: Any, tmp_path: Path) -> None:
    executor = made(kind)
    executor.start(task, tmp_path / "run")
    outcome = end(executor).outcome
    assert outcome.status in ("failed", "killed") and re.search(reason, outcome.reason), outcome


@pytest.mark.parametrize("kind", ALL)
def test_a_run_that_is_asked_to_stop_saves_its_work(kind: str, made: Any, tmp_path: Path) -> None:
    executor = made(kind)
    run = executor.start(["save", str(tmp_path / "file")], tmp_path / "run")
    until(lambda: (tmp_path / "file").exists() or executor.wait(0.0))
    run.stop()
    assert end(executor).outcome.status == "stopped" and (tmp_path / "file").read_text() == "saved"


@pytest.mark.parametrize("kind", ALL)
def test_a_run_that_ignores_signals_is_ended_for_a_reason(kind: str, made: Any, tmp_path: Path) -> None:
    executor = made(kind)
    run = executor.start(["ignore", str(tmp_path / "file")], tmp_path / "run")
    until(lambda: (tmp_path / "file").exists() or executor.wait(0.0))
    until(lambda: executor.wait(0.1) or run.started < time.monotonic())
    run.kill("it took too long")
    assert end(executor).outcome == Outcome("timeout", reason="it took too long") == read_outcome(tmp_path / "run")
    assert executor.start(["give back", 1], tmp_path / "next").slot == 0 and end(executor).outcome.value == 1


@pytest.mark.parametrize("kind", ALL)
def test_preparation_shows_what_it_prints(kind: str, made: Any, tmp_path: Path, capfd: Any) -> None:
    assert made(kind).probe(["say", "a few words"], tmp_path / "prepare").value == "a few words"
    assert kind == "local" or "a few words" in capfd.readouterr().out  # the server of local runs prints where it was started
    assert not (tmp_path / "prepare/task.json").exists()


@pytest.mark.parametrize("kind", ALL)
def test_what_runs_when_an_executor_is_closed_saves_its_work(kind: str, made: Any, tmp_path: Path) -> None:
    executor = made(kind)
    executor.start(["save", str(tmp_path / "file")], tmp_path / "run")
    until(lambda: (tmp_path / "file").exists() or executor.wait(0.0))
    executor.close()
    assert (tmp_path / "file").read_text() == "saved" and not (tmp_path / "run/task.json").exists()


@pytest.mark.parametrize("kind", ALL)
def test_no_run_begins_with_other_sources(kind: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (outcome, processes):
        monkeypatch.setattr(module, "source_hash", lambda: "those of an hour ago")
    executor = made(kind)
    executor.start(["give back", 1], tmp_path / "run")
    with pytest.raises(GptshakeError, match=r"have changed since this command started"):
        end(executor)
    assert read_outcome(tmp_path / "run") is None


# What only engines with machines elsewhere do


@pytest.mark.slurm
def test_a_job_that_must_make_way_is_submitted_again(slurm: Cluster, made: Any, tmp_path: Path) -> None:
    executor = made()
    run = executor.start(["at the second try", str(tmp_path / "file")], tmp_path / "run")
    first = run.id
    until((tmp_path / "file").exists)
    slurm.signal(first, "--signal=USR1", "--batch")  # as Slurm does before a time limit
    assert end(executor).outcome == Outcome("ok", "done") and run.id != first


@pytest.mark.slurm
def test_a_run_that_is_lost_again_and_again_without_a_checkpoint_fails(slurm: Cluster, made: Any, tmp_path: Path) -> None:
    executor, file = made(), tmp_path / "file"
    run = executor.start(["save", str(file)], tmp_path / "run")
    for step in (1, 2, None):
        until(lambda: executor.wait(0.0) or run.started < time.monotonic())
        until(lambda: file.exists() and not file.read_text())
        if step:
            (tmp_path / f"run/checkpoints/step-{step:08d}").mkdir(parents=True)
        slurm.signal(run.id, "--signal=USR1", "--batch")
        before = run.id
        until(lambda before=before: executor.wait(0.1) or run.id != before)
    assert run.outcome.status == "failed" and "lost 2 times without a new checkpoint" in run.outcome.reason


@pytest.mark.slurm
def test_a_job_that_somebody_cancels_has_failed(slurm: Cluster, made: Any, tmp_path: Path) -> None:
    executor = made()
    run = executor.start(["save", str(tmp_path / "file")], tmp_path / "run")
    until((tmp_path / "file").exists)
    slurm.signal(run.id)
    outcome = end(executor).outcome
    assert outcome.status == "failed" and f"its job {run.id} ended as CANCELLED" in outcome.reason


@pytest.mark.slurm
def test_the_next_controller_adopts_what_runs_waits_or_has_ended(made: Any, tmp_path: Path) -> None:
    first, second, tasks = made(slots=3), made(slots=3), (["sleep", 1.5], ["sleep", 1.5], ["sleep", 0])
    for number, task in enumerate(tasks):  # on two nodes
        first.start(task, tmp_path / str(number))
    first._running.clear()  # it was killed
    runs = [second.adopt(tmp_path / str(number)) for number in range(3)]
    assert [run.slot for run in runs] == [0, 1, 2] and second.start(["sleep", 0], tmp_path / "3") is None
    assert set(ends(second, 3)) == set(runs) and {run.outcome.value for run in runs} == {"awake"}
    assert second.adopt(tmp_path / "0") is None and second.adopt(tmp_path / "nowhere") is None


@pytest.mark.slurm
def test_a_job_that_begins_after_another_executor_has_taken_its_run_does_nothing(slurm: Cluster, made: Any, tmp_path: Path) -> None:
    first, here = made(slots=3), made("local")
    for name in ("0", "1", "2"):
        first.start(["sleep", 2] if name != "2" else ["give back", "by the job"], tmp_path / name)
    late = first._running.pop().id
    assert here.adopt(tmp_path / "2") is None
    here.start(["give back", "by the slot"], tmp_path / "2")
    assert end(here).outcome.value == "by the slot"
    until(lambda: slurm.jobs()[late] == "FAILED")
    assert read_outcome(tmp_path / "2") == Outcome("ok", "by the slot")


@pytest.mark.slurm
def test_a_slurm_that_does_not_answer_loses_nothing(slurm: Cluster, made: Any, tmp_path: Path, capfd: Any) -> None:
    executor = made()
    executor.start(["sleep", 1], tmp_path / "0")
    slurm.stop_controller()
    try:
        executor.start(["give back", 7], tmp_path / "1")
        assert executor.wait(0.0) == [] and "Slurm does not answer (" in capfd.readouterr().err
    finally:
        slurm.start_controller()
    assert {run.outcome.value for run in ends(executor, 2)} == {"awake", 7}


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("options", "words"),
    [({"partition": "huge"}, "Invalid partition"), ({"memory": "99G"}, "Memory"), ({"flags": ["--qqos=high"]}, "unrecognized option")],
)
def test_what_slurm_refuses_is_said_in_its_words(options: Any, words: str, made: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^Slurm refuses the job: .*{words}"):
        made(**options).probe(["give back", 1], tmp_path / "prepare")


@pytest.mark.slurm
def test_a_folder_that_nodes_do_not_see_is_named(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = made()
    submit = executor.submit
    monkeypatch.setattr(executor, "submit", lambda folder, command: submit(Path(f"{folder}-elsewhere"), command))
    outcome = executor.probe(["give back", 1], tmp_path / "prepare")
    assert outcome.status == "failed" and re.search("can (the nodes|n1|n2) see", outcome.reason) and "before it had begun" in outcome.reason


def test_without_slurm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs Slurm's commands, and sbatch is not found here"):
        SlurmJobs().open(deed, [])
    with pytest.raises(ConfigError, match="slots=auto cannot work with executor=slurm"):
        SlurmJobs(slots="auto")
