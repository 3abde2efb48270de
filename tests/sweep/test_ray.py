"""What only Ray does, on a real cluster of two nodes with numbers for CPUs and GPUs: nodes that die and join, shares of a GPU, its refusals."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from deeds import deed
from ray_cluster import Head, RayCluster
from slurm_cluster import until

from gptshake.errors import ConfigError, GptshakeError
from gptshake.outcome import write_job
from gptshake.sweep.executor import jobs, ray
from gptshake.sweep.executor.ray import RayJobs


@pytest.fixture
def made(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes executors, opened for deeds, of which nothing is known that would need no GPU."""
    for name, value in (("POLL_S", 0.2), ("LATE_S", 0.5)):
        monkeypatch.setattr(jobs, name, value)
    executors: list[RayJobs] = []

    def make(address: str = ray_cluster.address, **options: Any) -> RayJobs:
        executors.append(RayJobs(address, **options))
        executors[-1].open(deed, [])
        executors[-1].allot(None, None, None)
        return executors[-1]

    yield make
    for executor in reversed(executors):  # Ray has one connection for all, which the first to close takes away
        executor.close()


def at_work(folder: Path) -> int:
    return len(list(folder.glob("*/child.lock")))


@pytest.mark.ray
def test_runs_share_gpus_and_one_for_which_there_is_no_room_begins_when_a_node_joins(
    made: Any, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    counted = made(slots_per_gpu=2)
    assert counted._slots == 4  # two GPUs, six cores
    counted.close()
    executor = made(slots=5, slots_per_gpu=2)
    runs = [executor.start(["at the second try", str(tmp_path / f"file-{number}")], tmp_path / str(number)) for number in range(5)]
    until(lambda: executor.wait(0.1) or at_work(tmp_path) == 4)
    time.sleep(1.0)
    (waiting,) = [run for run in runs if not executor.wait(0.1) and run.state.phase == "waiting"]
    assert {run.place for run in runs if run is not waiting} == {f"on {gethostname()}"} and waiting.place.startswith("waits: for a node")
    assert at_work(tmp_path) == 4 and waiting.state.words == "for a node with 1 free CPU and 0.5 of a GPU"
    third = ray_cluster.add_node()
    until(lambda: executor.wait(0.1) or (waiting.folder / "child.lock").exists())
    ray_cluster.kill_node(third)


@pytest.mark.ray
def test_runs_of_a_node_that_dies_are_lost_and_no_address_of_it_is_recorded(
    made: Any, ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, executor = ray_cluster.add_node(), made(slots=3, cpus=2)  # one on each node
    runs = [executor.start(["save", str(tmp_path / f"saved-{number}")], tmp_path / str(number)) for number in range(3)]
    until(lambda: executor.wait(0.1) or len(list(tmp_path.glob("saved-*"))) == 3)
    monkeypatch.setattr(jobs, "MOST_LOSSES", 0)
    ray_cluster.kill_node(third)
    ended: list[Any] = []
    until(lambda: ended.extend(executor.wait(0.1)) or ended)
    (lost,) = ended
    assert (
        lost in runs
        and lost.outcome.status == "failed"
        and lost.outcome.reason.startswith("lost 1 times without a new checkpoint")
        and "NodeDiedError" in lost.outcome.reason
    )
    assert (tmp_path / f"saved-{lost.folder.name}").read_text() == "saved"
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", "".join(file.read_text() for file in lost.folder.iterdir()))


@pytest.mark.ray
def test_a_new_head_at_the_address_of_one_that_has_died_ends_the_study_and_its_runs_save(made: Any, tmp_path: Path) -> None:
    head = Head()
    executor = made(head.address, slots=2)
    for number in range(2):  # one runs, the other waits
        executor.start(["save", str(tmp_path / f"saved-{number}")], tmp_path / str(number))
    until(lambda: executor.wait(0.1) or at_work(tmp_path) == 1)
    head.kill()
    second = Head(gcs_server_port=head.port)
    with pytest.raises(GptshakeError, match=r"another cluster is at its address, .* the same command resumes them there"):
        until(lambda: executor.wait(0.1))
    until(lambda: list(tmp_path.glob("saved-*")))
    began = time.monotonic()
    executor.close()
    assert time.monotonic() - began < 10  # no run is waited for that cannot be asked
    second.kill()


@pytest.mark.ray
def test_a_preparation_that_the_memory_monitor_ends_again_and_again_says_so(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_LOSSES", 0)
    head = Head(_system_config={"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 100})  # which is always exceeded
    outcome = made(head.address, slots=1).probe(["save", str(tmp_path / "saved")], tmp_path / "prepare")
    head.kill()
    assert outcome.status == "failed" and "OutOfMemoryError" in outcome.reason
    assert outcome.reason.endswith(": the memory of its node is full; with more hydra.sweeper.executor.cpus fewer runs share it")


@pytest.mark.ray
@pytest.mark.parametrize("where", ["folder", "python"])
def test_what_a_node_does_not_see_is_named(where: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = made(slots=1)
    submit = executor.submit
    elsewhere = {"folder": lambda folder, command: (Path("/nowhere"), command), "python": lambda folder, command: (folder, ["/nowhere"])}
    monkeypatch.setattr(executor, "submit", lambda *about: submit(*elsewhere[where](*about)))
    with pytest.raises(ConfigError, match="of the Ray cluster does not see /nowhere: the studies"):
        executor.probe(["give back", 1], tmp_path / "prepare")


@pytest.mark.ray
def test_an_address_that_does_not_answer_is_given_up(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "ANSWER_S", 3.0)
    with pytest.raises(
        ConfigError, match=r"^No Ray cluster answers at hydra.sweeper.executor.address=127.0.0.1:9 \(tried for at most 3 s\)"
    ):
        RayJobs("127.0.0.1:9").open(deed, [])


@pytest.mark.ray
def test_a_cluster_of_another_version_is_named_as_such(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "CONNECT", f"import ray\nray.__version__ = '1.0'\n{ray.CONNECT}")
    with pytest.raises(ConfigError, match="has another version of Ray or Python than this installation"):
        RayJobs(ray_cluster.address).open(deed, [])


@pytest.mark.ray
def test_a_sweep_does_not_go_through_a_client(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    for address in ("auto", "ray://head:10001"):
        with pytest.raises(ConfigError, match=r"cannot go through Ray's client \(ray://head:10001\): start it on a node"):
            RayJobs(address).open(deed, [])


def test_nothing_is_adopted_and_waited_for_as_runs_end_with_their_controller(tmp_path: Path) -> None:
    write_job(tmp_path, "ticket", engine="ray", id="1")
    assert RayJobs().adopt(tmp_path) is None


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs Ray, which is not installed: pip install 'gptshake\[ray\]'"):
        RayJobs().open(deed, [])
