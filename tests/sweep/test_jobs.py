"""What jobs of an engine come to when it fails in ways that a real one seldom shows: a Slurm whose commands answer from files."""

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deeds import deed

from gptshake import processes
from gptshake.errors import ConfigError
from gptshake.files import lock_file
from gptshake.outcome import Outcome, read_end, read_job, read_outcome, write_job, write_outcome, write_task
from gptshake.processes import run_here
from gptshake.signals import SIGNALS
from gptshake.sweep.executor import jobs
from gptshake.sweep.executor.slurm import SlurmJobs

COMMANDS = {
    "sbatch": """number=$(($(cat last) + 1)); echo $number >last
for word in "$@"; do case $word in --comment=*) ticket=${word#*=} ;; esac; done
printf '%s\\n' "$@" >sbatch.$number; env >env.$number
if [ -e slow ]; then sleep 1.2; fi
if [ -e full ]; then echo 'sbatch: error: Job creation temporarily disabled, retrying' >&2; (sleep 4; touch late) & wait; fi
if [ -e refuses ]; then echo 'sbatch: error: Batch job submission failed: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; fi
echo "$number|PENDING|$ticket||Resources" >job.$number
if [ -e mute ]; then echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1; fi
if [ -e chatty ]; then echo 'Project 12 has 3 h left'; fi
if [ ! -e nameless ]; then echo $number; fi
if [ -e chatty ]; then echo 'See our pages'; fi""",
    "squeue": """if [ -e mute ]; then exit 1; fi
if [ -e chatty ]; then echo 'Welcome to this cluster'; printf '9|RUNNING|M\\374ller|n1|None\\n'; fi
cat job.* 2>/dev/null; true""",
    "scancel": 'if [ -e mute ]; then exit 1; fi; echo "$@" >>asked',
}


class FakeSlurm:
    """Jobs as files; what becomes of them is written by the test, and time passes when somebody waits for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 1000.0
        (folder / "last").write_text("0")
        for name, script in COMMANDS.items():
            (folder / name).write_text(f"#!/bin/sh\ncd {folder}\n{script}\n")
            (folder / name).chmod(0o755)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def becomes(self, job: Any, state: str, reason: str = "None") -> None:
        self.job(job.id, state, job.ticket, reason)

    def job(self, identity: str, state: str, ticket: str, reason: str = "None", node: str = "n1") -> None:
        (self.folder / f"job.{identity}").write_text(f"{identity}|{state}|{ticket}|{node}|{reason}\n")

    def forgets(self, job: Any) -> None:
        (self.folder / f"job.{job.id}").unlink()

    def submitted(self) -> int:
        return int((self.folder / "last").read_text())

    def switch(self, what: str, on: bool = True) -> None:
        (self.folder / what).touch() if on else (self.folder / what).unlink()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (tmp_path / "slurm").mkdir()
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: fake.now, sleep=fake.sleep))
    return fake


@pytest.fixture
def executor(slurm: FakeSlurm) -> SlurmJobs:
    return opened()


def opened(**options: Any) -> SlurmJobs:
    made = SlurmJobs(**options)
    made.open(deed, [])
    return made


def waits(executor: SlurmJobs, slurm: FakeSlurm, seconds: float) -> list[Any]:
    """What ends within so many seconds."""
    until, ended = slurm.now + seconds, list[Any]()
    while slurm.now < until:
        ended += executor.wait(1.0)
        slurm.sleep(0.75)
    return ended


def leaves(job: Any, outcome: Outcome) -> None:
    """What its process would write."""
    write_outcome(job.folder, replace(outcome, ticket=job.ticket))


def starts(executor: SlurmJobs, slurm: FakeSlurm, folder: Path) -> Any:
    """A run whose job runs."""
    job = executor.start(["give back", 1], folder)
    slurm.becomes(job, "RUNNING")
    (folder / "output").touch()
    waits(executor, slurm, 6)
    assert job.started < slurm.now
    return job


def test_an_outcome_that_is_seen_half_a_minute_after_the_job_has_gone_counts(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    slurm.becomes(job, "COMPLETED")
    assert waits(executor, slurm, 36) == []
    leaves(job, Outcome("ok", 5))
    assert waits(executor, slurm, 1) == [job] and job.outcome == Outcome("ok", 5) and slurm.submitted() == 1


@pytest.mark.parametrize(
    ("state", "written"), [("FAILED", None), ("FAILED", "stopped by SIGTERM"), ("NODE_FAIL", None), ("COMPLETED", None)]
)
def test_what_ends_unasked_without_an_outcome_of_its_own_is_submitted_again(
    state: str, written: str | None, executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, capsys: Any
) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    if written:
        leaves(job, Outcome("stopped", reason=written))
    slurm.becomes(job, state)
    assert waits(executor, slurm, 110) == [] and slurm.submitted() == 2 and job.id == "2"
    assert f"run: its job 1 ended as {state}{f', {written}' if written else ''}; it is submitted again" in capsys.readouterr().err


def test_a_run_that_is_lost_too_often_has_failed(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = executor.start(["give back", 1], tmp_path / "run")
    ended: list[Any] = []
    for _ in range(jobs.MOST_LOSSES + 1):
        slurm.becomes(job, "FAILED", "JobLaunchFailure")
        ended += waits(executor, slurm, 110)
    assert ended == [job] and job.outcome.status == "failed" and slurm.submitted() == 6
    assert job.outcome.reason.startswith("lost 6 times without a new checkpoint, the last time as its job 6 ended as FAILED (killed")
    assert f"can n1 see {tmp_path / 'run'}?" in job.outcome.reason


@pytest.mark.parametrize("state", ["CANCELLED", "OUT_OF_MEMORY"])
def test_a_job_that_somebody_cancels_or_that_needs_more_memory_has_failed(
    state: str, executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path
) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    (job.folder / "output").write_text("slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-12-01T10:00:00 ***\n" + "x" * 1000)
    slurm.becomes(job, state)
    os.utime(job.folder / "output", (700.0, 700.0))
    assert waits(executor, slurm, 110) == [job] and job.outcome.status == "failed" and slurm.submitted() == 1
    assert job.outcome.ended == 700.0  # when it was last seen, not 90 s later


def test_a_job_that_is_cancelled_in_the_queue_is_not_said_to_lack_its_folder(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = executor.start(["give back", 1], tmp_path / "run")
    slurm.job(job.id, "CANCELLED", job.ticket, "JobHeldUser", node="")
    assert waits(executor, slurm, 110) == [job] and job.outcome.reason == "its job 1 ended as CANCELLED (JobHeldUser)"


def test_a_job_that_its_node_could_not_begin_is_submitted_again(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    """A prolog that fails drains the node, and Slurm calls its job cancelled."""
    job = starts(executor, slurm, tmp_path / "run")
    (job.folder / "output").write_text("Error running slurm prolog: 1\n")
    slurm.becomes(job, "CANCELLED")
    assert waits(executor, slurm, 110) == [] and slurm.submitted() == 2


def test_the_outcome_of_an_earlier_job_does_not_end_the_next_one(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    first = job.ticket
    slurm.becomes(job, "NODE_FAIL")
    waits(executor, slurm, 110)
    assert job.ticket != first
    write_outcome(job.folder, Outcome("failed", reason="of the node that came back", ticket=first))
    slurm.becomes(job, "RUNNING")
    assert waits(executor, slurm, 10) == []
    leaves(job, Outcome("ok", 3))
    assert waits(executor, slurm, 2) == [job] and job.outcome.value == 3


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``run_here`` as often as wanted, without what it does to its process for good."""
    monkeypatch.setattr(processes, "SEEN_S", 0.1)
    monkeypatch.setattr(processes, "_redact_streams", lambda: None)
    yield
    SIGNALS.reset()


@pytest.mark.usefixtures("in_this_process")
def test_a_process_whose_place_was_taken_meanwhile_leaves_no_outcome(tmp_path: Path) -> None:
    write_task(tmp_path, None)
    write_job(tmp_path, "first")
    assert run_here(lambda task: write_job(tmp_path, "second"), tmp_path, "first").status == "ok"
    assert read_outcome(tmp_path) is None
    assert run_here(lambda task: 7, tmp_path, "first").status == "refused" and read_outcome(tmp_path) is None
    run_here(lambda task: 7, tmp_path, "second")
    assert read_end(tmp_path, "second") == Outcome("ok", 7) and read_end(tmp_path, "first") is None


def test_a_job_that_slurm_took_without_saying_so_is_found_by_its_ticket(
    executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, capsys: Any
) -> None:
    slurm.switch("mute")
    job = executor.start(["give back", 1], tmp_path / "run")
    assert job.id is None and "Slurm does not answer (" in capsys.readouterr().err
    slurm.switch("mute", on=False)
    waits(executor, slurm, 6)
    assert job.id == "1" == read_job(job.folder)["id"] and slurm.submitted() == 1


def test_a_job_that_sbatch_does_not_name_is_refused_at_first_and_found_by_its_ticket_later(
    executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path
) -> None:
    slurm.switch("nameless")
    with pytest.raises(ConfigError, match="sbatch does not say which job it has taken"):
        executor.start(["give back", 1], tmp_path / "first")
    executor.close()
    slurm.switch("nameless", on=False)
    executor = opened()
    starts(executor, slurm, tmp_path / "0")
    slurm.switch("nameless")
    job = executor.start(["give back", 1], tmp_path / "1")
    waits(executor, slurm, 6)
    assert job.id == "3" and slurm.submitted() == 3


def test_a_slurm_that_answers_slowly_is_asked_no_more_often(
    executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, states, asked = starts(executor, slurm, tmp_path / "run"), executor.states, list[float]()

    def slowly(ids: Any) -> Any:
        slurm.sleep(10)
        asked.append(slurm.now)
        return states(ids)

    monkeypatch.setattr(executor, "states", slowly)
    waits(executor, slurm, 150)
    assert 8 <= len(asked) <= 10 and job.state.phase == "running"


def test_a_controller_that_was_killed_before_it_knew_the_job_adopts_it(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    write_task(tmp_path / "run", ["give back", 1])
    write_job(tmp_path / "run", "t1", engine="slurm")
    assert executor.adopt(tmp_path / "run") is None
    slurm.job("17", "RUNNING", "t1")
    job = executor.adopt(tmp_path / "run")
    assert job and (job.id, job.ticket) == ("17", "t1")
    leaves(job, Outcome("ok", 2))
    assert waits(executor, slurm, 1) == [job]


def test_another_job_under_the_number_of_an_adopted_one_is_not_taken_for_it(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    write_task(tmp_path / "run", ["give back", 1])
    write_job(tmp_path / "run", "t1", engine="slurm", id="17")
    slurm.job("17", "RUNNING", "(null)")
    starts(executor, slurm, tmp_path / "other")
    job = executor.adopt(tmp_path / "run")
    waits(executor, slurm, 110)
    assert slurm.submitted() == 2 and job and job.id == "2"


def test_comments_that_a_site_writes_itself_lose_nothing(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = executor.start(["give back", 1], tmp_path / "run")
    slurm.job(job.id, "PENDING", "(null)")
    waits(executor, slurm, 300)
    slurm.job(job.id, "RUNNING", "billed to physics")
    waits(executor, slurm, 300)
    assert slurm.submitted() == 1 and job.started < slurm.now


def test_a_process_that_still_holds_its_folder_is_not_submitted_again(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    lock = lock_file(job.folder / "child.lock")
    slurm.becomes(job, "NODE_FAIL")
    waits(executor, slurm, 300)
    assert slurm.submitted() == 1
    os.close(lock)
    waits(executor, slurm, 6)
    assert slurm.submitted() == 2


@pytest.mark.usefixtures("in_this_process")
def test_a_process_whose_place_was_taken_ends_while_the_other_is_at_work(tmp_path: Path) -> None:
    write_job(tmp_path, "second")
    lock = lock_file(tmp_path / "child.lock")
    assert run_here(lambda task: 7, tmp_path, "first").status == "refused"
    os.close(lock)


def test_one_answer_without_a_job_loses_nothing(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    slurm.forgets(job)
    while not job.unknown:
        waits(executor, slurm, 1)
    assert job.unknown == 1 and job.state.phase == "running"
    slurm.job("1", "RUNNING", job.ticket)
    waits(executor, slurm, 200)
    assert job.unknown == 0 and slurm.submitted() == 1


def test_the_start_of_a_run_that_shows_itself_is_known_within_a_second(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    starts(executor, slurm, tmp_path / "0")
    job = executor.start(["give back", 1], tmp_path / "1")
    waits(executor, slurm, jobs.POLL_S + 1)  # the engine was asked just before
    slurm.becomes(job, "RUNNING")
    lock, began = lock_file(job.folder / "child.lock"), slurm.now
    waits(executor, slurm, 2)
    os.close(lock)
    assert job.started - began <= 1.5


def test_a_refusal_ends_the_first_job_only(slurm: FakeSlurm, executor: SlurmJobs, tmp_path: Path, capsys: Any) -> None:
    slurm.switch("refuses")
    with pytest.raises(ConfigError, match=r"^Slurm refuses the job: Batch job submission failed: QOSMaxSubmit"):
        executor.start(["give back", 1], tmp_path / "first")
    slurm.switch("refuses", on=False)
    executor = opened()
    starts(executor, slurm, tmp_path / "0")
    slurm.switch("refuses")
    job = executor.start(["give back", 1], tmp_path / "1")
    waits(executor, slurm, 30)
    assert job.id is None and capsys.readouterr().err.count("Slurm refuses the job") == 1
    slurm.switch("refuses", on=False)
    waits(executor, slurm, 6)
    assert job.id is not None


def test_a_job_that_is_known_by_its_ticket_alone_was_not_refused(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.switch("mute")
    job = executor.start(["give back", 1], tmp_path / "0")
    slurm.switch("mute", on=False)
    waits(executor, slurm, 6)
    slurm.switch("refuses")
    assert job.id == "1" and executor.start(["give back", 1], tmp_path / "1").id is None


def test_what_is_refused_for_an_hour_while_nothing_else_runs_ends_the_study(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "0")
    slurm.switch("refuses")
    executor.start(["give back", 1], tmp_path / "1")
    waits(executor, slurm, jobs.REFUSAL_S + 100)
    leaves(job, Outcome("ok", 1))
    assert waits(executor, slurm, jobs.REFUSAL_S - 100) == [job]
    with pytest.raises(ConfigError, match=r"^Slurm refuses the job: Batch job submission failed: QOSMaxSubmit"):
        waits(executor, slurm, 200)


def test_a_slurm_that_is_full_is_not_waited_for_by_sbatch(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, capsys: Any) -> None:
    slurm.switch("full")
    began = time.monotonic()
    job = executor.start(["give back", 1], tmp_path / "run")
    assert "(Job creation temporarily disabled, retrying)" in capsys.readouterr().err
    slurm.switch("full", on=False)
    slurm.switch("slow")
    waits(executor, slurm, 6)
    assert job.id == "2"
    time.sleep(max(0, began + 5 - time.monotonic()))
    assert not (slurm.folder / "late").exists()  # what a site's own sbatch had started has ended, too


def test_a_file_of_slurms_that_cannot_be_read_is_named_at_once(slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", f"{tmp_path}/slurm.conf")
    with pytest.raises(ConfigError, match=rf"^SLURM_CONF={tmp_path}/slurm.conf cannot be read"):
        opened()
    assert slurm.submitted() == 0


@pytest.mark.parametrize(("limit", "minutes"), [(2, "2"), ("3", "3"), ("2:30", "2.5"), ("0:02:59", "2.98"), ("0-0:3", "3")])
def test_a_time_limit_that_warns_a_run_as_it_begins_is_refused(limit: str | int, minutes: str) -> None:
    with pytest.raises(ConfigError, match=rf"executor.time={limit} is a limit of {minutes} minutes"):
        SlurmJobs(time=limit)
    for enough in (0, 4, "3:01", "4:00:00", "1-0", "UNLIMITED", None):
        SlurmJobs(time=enough)


def test_a_time_limit_that_warns_a_run_as_it_begins_is_refused_as_a_flag_or_a_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    for name, options in {"SBATCH_TIMELIMIT": {}, "hydra.sweeper.executor.flags": {"time": 60, "flags": ["--time=60", "-t1"]}}.items():
        with pytest.raises(ConfigError, match=f"^{name}=1 is a limit of 1 minute, and Slurm asks"):
            SlurmJobs(**options)
    SlurmJobs(time=60)


def test_jobs_are_left_when_slurm_is_silent_while_they_are_to_stop(
    executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, capsys: Any
) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    slurm.switch("mute")
    job.stop()
    with pytest.raises(jobs.Unanswered, match="Its jobs go on, and the same command adopts them"):
        waits(executor, slurm, 80)
    executor.close()
    assert (tmp_path / "run/task.json").exists() and read_job(tmp_path / "run")["id"] == job.id


def test_a_job_that_is_cancelled_as_the_disk_is_full_is_not_adopted(
    executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job = executor.start(["give back", 1], tmp_path / "run")
    slurm.becomes(job, "CANCELLED")
    monkeypatch.setattr(jobs, "write_outcome", full)
    executor.close()
    assert opened().adopt(tmp_path / "run") is None and not (tmp_path / "run/task.json").exists()


def test_requests_reach_slurm_even_while_it_takes_no_jobs(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "0")
    slurm.switch("refuses")
    executor.start(["give back", 1], tmp_path / "1")
    job.kill("it took too long")
    slurm.becomes(job, "CANCELLED")
    assert waits(executor, slurm, 6) == [job] and job.outcome == Outcome("timeout", reason="it took too long")
    assert (slurm.folder / "asked").read_text() == "--quiet 1\n"


def test_a_lost_job_begins_anew_when_the_next_one_runs(executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path) -> None:
    job = starts(executor, slurm, tmp_path / "run")
    waits(executor, slurm, 100)
    leaves(job, Outcome("stopped", reason="stopped by SIGUSR1"))
    slurm.becomes(job, "PREEMPTED")
    waits(executor, slurm, 500)
    assert job.started == float("inf")
    slurm.becomes(job, "RUNNING")
    waits(executor, slurm, 50)
    assert 40 < slurm.now - job.started < 60  # what it took before, the controller knows


def test_lines_of_a_sites_own_and_variables_of_the_users_change_nothing(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = ("SQUEUE_PARTITION", "SBATCH_WAIT", "SLURM_NTASKS", "RAY_ADDRESS", "CUDA_VISIBLE_DEVICES", "SBATCH_EXPORT", "SBATCH_ERROR")
    for name in foreign:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SBATCH_QOS", "high")
    slurm.switch("chatty")
    executor = opened()
    job = starts(executor, slurm, tmp_path / "a b%" / "run 50%")
    assert job.id == "1" and job.state.phase == "running"
    words = (slurm.folder / "sbatch.1").read_text().splitlines()
    assert {"--export=ALL", f"--comment={job.ticket}", f"--output={tmp_path}/a b%%/run 50%%/output"} <= set(words)
    kept = {line.partition("=")[0] for line in (slurm.folder / "env.1").read_text().splitlines()}
    assert "SBATCH_QOS" in kept and not kept & set(foreign)


@pytest.mark.parametrize(("cpus", "threads", "asked", "used"), [(4, None, 4, 4), (1, 2, 2, 2), (4, 2, 4, 2)])
def test_threads_of_the_config_take_the_place_of_the_cores(
    cpus: int, threads: int | None, asked: int, used: int, slurm: FakeSlurm, tmp_path: Path
) -> None:
    executor = SlurmJobs(cpus=cpus)
    executor.open(deed, [], threads)
    starts(executor, slurm, tmp_path / "run")
    assert f"--cpus-per-task={asked}" in (slurm.folder / "sbatch.1").read_text().splitlines()
    assert f"OMP_NUM_THREADS={used}" in (slurm.folder / "env.1").read_text().splitlines() and executor.threads == used


@pytest.mark.parametrize("flag", ["--clusters=x", "-Mx", "--array=1-3", "--wait", "--comment=mine", "-o x", "--error=x"])
def test_flags_that_make_a_job_another_kind_of_job_are_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match=rf"executor.flags={flag} cannot work"):
        SlurmJobs(flags=["--qos=high", flag])
    SlurmJobs(flags=["--wait-all-nodes=1", "--constraint=a100"])


def test_a_heartbeat_of_another_machine_keeps_a_run_from_being_submitted_twice(
    executor: SlurmJobs, slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, alive = starts(executor, slurm, tmp_path / "run"), [True]
    monkeypatch.setattr(jobs, "is_alive", lambda folder: alive[0] and folder == job.folder)
    slurm.becomes(job, "NODE_FAIL")
    waits(executor, slurm, 300)
    assert slurm.submitted() == 1
    alive.clear()
    alive.append(False)
    waits(executor, slurm, 6)
    assert slurm.submitted() == 2
