"""Processes that train together: how work is shared, how one knows its place, what is said of one that is gone."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain
from queue import Queue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake import distributed, torchrun
from gptshake.distributed import ALONE, Liveness, Ranks, together
from gptshake.errors import ConfigError, Stop, StorageError, TrainingError
from gptshake.outcome import Outcome
from gptshake.processes import Command
from gptshake.torchrun import srun_variables

BATCH = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}  # a batch script's
BATCH |= {"SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "gpu[07-08]"}
STEP = {"SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NODELIST": "gpu[07-08]"}
TASK = BATCH | STEP | {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@given(n=st.integers(0, 40), size=st.integers(1, 8))
def test_every_item_counts_on_one_rank_and_all_ranks_have_equally_much_to_do(n: int, size: int) -> None:
    parts = [list(Ranks(rank, size).shard(range(n))) for rank in range(size)]
    assert sorted(item for item, counts in chain(*parts) if counts) == list(range(n))
    assert {len(part) for part in parts} == {-(-n // size)}


def test_alone_everything_is_as_it_was() -> None:
    assert ALONE.all_reduce_max(15, True, False) == [15, 1, 0]
    assert ALONE.all_reduce_sum(1.5, 2) == [1.5, 2]
    assert list(ALONE.shard("ab")) == [("a", True), ("b", True)]
    assert ALONE.broadcast("this") == "this"


@pytest.mark.parametrize(
    ("variables", "launched", "follows"),
    [
        ({}, 1, False),
        (TORCHRUN, 4, True),
        (TORCHRUN | {"RANK": "0"}, 4, False),
        ({"LOCAL_RANK": "1"}, 1, False),  # left over in some shell: nobody is there to give orders
    ],
)
def test_a_process_knows_its_place_from_the_environment(
    variables: dict[str, str], launched: int, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in torchrun.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (torchrun.launched(), torchrun.follows()) == (launched, follows)


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORLD_SIZE", "x"), ("WORLD_SIZE", "0"), ("RANK", "4"), ("RANK", "-1"), ("LOCAL_WORLD_SIZE", "0"), ("MASTER_PORT", "99999")],
)
def test_a_variable_that_torchrun_would_not_set_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, text in (TORCHRUN | {name: value}).items():
        monkeypatch.setenv(key, text)
    with pytest.raises(ConfigError, match=f"^{name}={value} in the environment is not what torchrun or srun sets: unset it, and RANK"):
        torchrun.check_variables()
    assert isinstance(torchrun.speaker(), str)  # what begins the sentence
    monkeypatch.delenv("LOCAL_RANK")
    torchrun.check_variables()  # alone


def test_a_task_of_srun_gets_the_variables_of_torchrun() -> None:
    assert srun_variables(TASK) == {
        **{"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "gpu07", "MASTER_PORT": "15080"},
    }
    there = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000"}
    assert srun_variables(TASK | there).items() >= there.items()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH,  # in which a controller, or a trial of executor=slurm, runs
        BATCH | STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},  # srun -n1 in a larger job
        BATCH | {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},  # the shell of salloc
        BATCH | {"SLURM_STEP_ID": "4294967290"},
        {name: value for name, value in TASK.items() if name != "SLURM_PROCID"},
        TASK | TORCHRUN,  # srun has started torchrun, which has started this process
    ],
)
def test_other_processes_of_a_slurm_job_are_no_ranks(environment: dict[str, str]) -> None:
    assert srun_variables(environment) == {}


@pytest.mark.parametrize(
    ("names", "layout", "first"),
    [
        ("a1,b[2-3]", "1(x3)", "a1"),
        ("gpu[007,9]-ib,c2", "2,1(x2)", "gpu007-ib"),
        ("r[1-2]n[03-04]", "1(x4)", "r1n03"),
        ("gpu9", "4", "127.0.0.1"),  # on one node names need not resolve
    ],
)
def test_ranks_meet_on_the_first_node_of_slurms_list(names: str, layout: str, first: str) -> None:
    found = srun_variables(TASK | {"SLURM_NODEID": "0", "SLURM_STEP_NODELIST": names, "SLURM_STEP_TASKS_PER_NODE": layout})
    assert found["MASTER_ADDR"] == first
    assert found["LOCAL_WORLD_SIZE"] == layout[0]


def test_ranks_that_do_not_meet_are_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for name, value in (TORCHRUN | {"MASTER_PORT": port}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "FINDING", timedelta(seconds=1))
    with pytest.raises(TrainingError, match=rf"The 4 processes of this run did not all meet at 127.0.0.1:{port} .* set MASTER_ADDR"):
        distributed.join()


def test_a_stranger_at_the_port_of_rank_0_takes_no_ranks_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a port scan, which may be silent or say anything."""
    told = Queue[tuple[int, bytes]]()

    class Told(Ranks):
        def broadcast(self, order: Any = None) -> Any:
            if order:
                told.put(order)
            return order or told.get()

    monkeypatch.setattr(distributed, "HELLO", 0.1)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with ThreadPoolExecutor() as pool:
        lines = pool.submit(distributed._lines, Told(0, 2))
        port, secret = told.get()
        strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        for stranger, words in zip(strangers[1:], (b"GET", b"?" * 20, b"?" * 20 + secret), strict=True):
            stranger.sendall(words)
        told.put((port, secret))
        (here,) = distributed._lines(Told(1, 2))
        assert list(lines.result(10).values()) == [1]
    (there,) = lines.result()
    assert there.getpeername()[:2] in (here.getsockname(), (f"::ffff:{here.getsockname()[0]}", here.getsockname()[1]))
    assert strangers[0].recv(1) == b""  # it was hung up on
    for line in (*strangers, here, there):
        line.close()


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        return server.accept()[0], there


def test_a_rank_is_lost_when_its_connection_ends_unless_it_has_left_well() -> None:
    (well, first), (lost, second) = pair(), pair()
    here, others = Liveness({well: 1, lost: 2}, 3), [Liveness({first: 0}, 3), Liveness({second: 0}, 3)]
    assert here.lost() == others[0].lost() == ""
    others[0].close(well=True)
    assert here.lost() == ""
    others[1].close(well=False)  # as the kernel does for a process that was killed
    assert here.lost().startswith("Rank 2 of 3 ended early")
    here.close(well=True)


def test_a_rank_that_waits_in_vain_is_ended() -> None:
    """As in a GPU's kernel, from which no error comes."""
    here, there = pair()
    code = "import socket, sys, time; from gptshake import distributed; distributed.GRACE = 0.1; "
    code += f"distributed.Liveness({{socket.socket(fileno={here.fileno()}): 1}}, 2); print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[here.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.read(1)
        there.close()
        assert process.wait(20) == 1
        assert process.stderr and "error: Rank 1 of 2 ended early" in process.stderr.read()
    here.close()


def test_a_rank_that_writes_a_checkpoint_when_another_is_lost_may_finish_it() -> None:
    here, there = pair()
    code = "import socket, time; from gptshake import distributed; distributed.GRACE = 0.1; from gptshake.signals import SIGNALS; "
    code += f"distributed.Liveness({{socket.socket(fileno={here.fileno()}): 1}}, 2)\nwith SIGNALS.saving(): time.sleep(1.2)\nprint('saved')"
    with here, there:
        there.shutdown(socket.SHUT_RDWR)
        done = subprocess.run([sys.executable, "-c", code], pass_fds=[here.fileno()], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("saved\n", "")


def test_a_rank_that_waits_for_rank_0_ends_at_ctrl_c_without_a_traceback() -> None:
    code = "import os, signal, sys; from gptshake.distributed import quiet; quiet(); os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("end", "words"), [("os._exit(3)", "ended itself with exit code 3"), ("os.kill(os.getpid(), 9)", "was killed by SIGKILL")]
)
def test_a_rank_that_ends_early_is_named(end: str, words: str) -> None:
    process = Command([sys.executable, "-c", f"import os; {end}"])
    assert words in distributed._lost([process], patience=10)
    assert "Rank 1 of 2" in distributed._lost([process])


def test_a_rank_at_work_is_not_missed() -> None:
    process = Command([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert distributed._lost([process]) == ""
    process.kill()


@pytest.mark.parametrize("ending", [None, ValueError("something else"), KeyboardInterrupt()])
def test_the_others_end_with_rank_0_and_leave_the_environment_as_it_was(
    ending: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Command] = []

    def begin(rank: int) -> Command:
        assert os.environ["WORLD_SIZE"] == "3" and os.environ["RANK"] == "0"
        begun.append(Command([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        return begun[-1]

    monkeypatch.setattr(distributed, "_begin", begin)
    monkeypatch.setattr(distributed, "join", lambda: Ranks(0, 3))
    left: list[int] = []
    monkeypatch.setattr(distributed, "leave", lambda **how: left.append(len(left)))
    before = dict(os.environ)
    try:
        with together(3, threads=1) as group:
            assert group.size == 3
            if ending:
                raise ending
    except BaseException as error:
        assert error is ending
    assert [process.wait(0) for process in begun] == [Outcome("killed", -9, "killed by SIGKILL (out of memory?)")] * 2
    assert dict(os.environ) == before
    assert left  # the group is gone, however it ended


def test_an_error_of_the_connection_is_told_as_the_loss_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_begin", lambda rank: Command([sys.executable, "-c", "exit(7)"]))
    monkeypatch.setattr(distributed, "join", lambda: Ranks(0, 2))
    with pytest.raises(TrainingError, match="Rank 1 of 2 ended itself with exit code 7"), together(2, threads=1):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_an_error_of_all_ranks_is_not_taken_for_the_loss_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Command] = []

    def begin(rank: int) -> Command:
        begun.append(Command([sys.executable, "-c", "exit(1)"]))
        return begun[-1]

    monkeypatch.setattr(distributed, "_begin", begin)
    monkeypatch.setattr(distributed, "join", lambda: Ranks(0, 2))
    with pytest.raises(StorageError, match="The disk is full"), together(2, threads=1):
        begun[0].wait(10)
        Ranks().gather(StorageError("The disk is full."))


@pytest.mark.parametrize(("received", "code"), [(15, 143), (2, 143), (None, 143), (15, 1)])
def test_a_signal_that_ended_another_rank_first_interrupts_the_run(
    received: int | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "_begin", lambda rank: Command([sys.executable, "-c", f"exit({code})"]))
    monkeypatch.setattr(distributed, "join", lambda: Ranks(0, 2))
    with pytest.raises(Stop) as stopped, together(2, threads=1, received=lambda: received):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert stopped.value.signum == (received or 15)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer"), "Another rank ended early"),
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv"), "has not answered for 30 minutes"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ""),
        (ValueError("gloo"), ""),
    ],
)
def test_a_rank_that_is_gone_and_one_that_hangs_are_told_apart(error: Exception, words: str) -> None:
    said = distributed.connection_ended(error)
    assert words in said and bool(said) is bool(words)


@pytest.mark.parametrize("most", [None, 0, 3, 50])
def test_of_a_sequence_a_rank_makes_only_its_own_items(most: int | None) -> None:
    class Made(list[int]):
        def __getitem__(self, number: Any) -> Any:
            made.append(number)
            return super().__getitem__(number)

    made: list[int] = []
    shared = [list(Ranks(rank, 3).shard(Made(range(10)), most)) for rank in range(3)]
    assert shared == [list(Ranks(rank, 3).shard(iter(range(10)), most)) for rank in range(3)]
    rounds = -(-min(10, 10 if most is None else most) // 3)
    assert len(made) == 3 * rounds


def test_from_the_first_step_on_no_rank_is_waited_for_longer_than_the_patience() -> None:
    """Before it they wait a day, as rank 0 may build a corpus."""
    code = """
import sys, time
from datetime import timedelta
from gptshake import torchrun, distributed
distributed._check_nodes = lambda ranks: None  # the other is at no collective
distributed._lines = lambda ranks: {}
distributed.PATIENCE = timedelta(seconds=0.5)
ranks = distributed.join()
if ranks.rank == 0:
    distributed.limit_waits()
    began = time.monotonic()
    try:
        ranks.all_reduce_max(1)
    except RuntimeError as error:
        print(f"{time.monotonic() - began:.0f} s: {distributed.connection_ended(error)}", flush=True)
else:
    sys.stdin.read()
"""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    ranks = [os.environ | dict(zip(torchrun.VARIABLES, (rank, rank, "2", "127.0.0.1", port), strict=True)) for rank in "01"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first, second = (subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) for environment in ranks)
    with first, second:
        assert first.stdout and "Another rank has not answered for 0 minutes" in first.stdout.read()
        second.kill()
