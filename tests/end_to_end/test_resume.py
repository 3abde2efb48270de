"""A run that was killed or stopped, at any moment, and continued is the run that was left alone: bit for bit."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gptshake.files import sha256

pytestmark = pytest.mark.slow

# Each is Python that runs in the child before the command: it ends or signals its own process at an exact moment.
AT_THE_RECORD = """
import os
from gptshake.record import run
def write_atomic(path, text, own=run.write_atomic):
    own(path, text)
    if path.name == "run.json":
        run.write_atomic = own
        os.kill(os.getpid(), {signum})
run.write_atomic = write_atomic
"""
IN_STEP = """
import os
from gptshake.training.module import GPTModule
step, micro_batch, signum = {step}, {micro}, {signum}
def training_step(self, batch, number, own=GPTModule.training_step):
    loss = own(self, batch, number)
    if (self.steps, self.micro_batches) == (step, micro_batch):
        os.kill(os.getpid(), signum)
    return loss
GPTModule.training_step = training_step
"""
AFTER_CHECKPOINT = """
import os
from gptshake.training.callbacks.checkpoint import Checkpoint
def save(self, trainer, module, own=Checkpoint.save):
    own(self, trainer, module)
    if module.steps == {step}:
        os.kill(os.getpid(), {signum})
Checkpoint.save = save
"""
WITHIN_CHECKPOINT = """
import os
from gptshake.training import checkpoint
def save_file(tensors, path, own=checkpoint.save_file, **more):
    own(tensors, path, **more)
    if "step-{step:08d}" in str(path) and "state" in path.name:
        os.kill(os.getpid(), {signum})
checkpoint.save_file = save_file
"""
IN_VALIDATION = """
import os
from gptshake.training import evaluation
calls = []
def evaluate(model, batches, *rest, own=evaluation.evaluate, **more):
    calls.append(0)
    if len(calls) == {step}:
        os.kill(os.getpid(), {signum})
    return own(model, batches, *rest, **more)
evaluation.evaluate = evaluate
"""
AFTER_VALIDATION = """
import os
from gptshake.training.callbacks.checkpoint import Checkpoint
def complete(self, trainer, module, own=Checkpoint.complete):
    own(self, trainer, module)
    if module.steps == {step}:
        os.kill(os.getpid(), {signum})
Checkpoint.complete = complete
"""
IN_SAMPLE = """
import os
from gptshake.training.callbacks import samples
def continued(model, *rest, own=samples.continuation, calls=[], **more):
    calls.append(0)
    if len(calls) == {step}:
        os.kill(os.getpid(), {signum})
    return own(model, *rest, **more)
samples.continuation = continued
"""
COUNTED = """
from gptshake.training import evaluation
def evaluate(*rest, own=evaluation.evaluate, **more):
    print("EVALUATION")
    return own(*rest, **more)
evaluation.evaluate = evaluate
"""


def moment(code: str, step: int, micro: int = 0, signum: int = signal.SIGKILL) -> str:
    return code.format(step=step, micro=micro, signum=int(signum))


KILLS = {
    "as soon as there is a record": [moment(AT_THE_RECORD, 0)],
    "before the first step": [moment(IN_STEP, 0, 0)],
    "before the first checkpoint": [moment(IN_STEP, 2, 3)],
    "in mid-accumulation": [moment(IN_STEP, 6, 1)],
    "at the first micro-batch after a checkpoint": [moment(IN_STEP, 4, 0)],
    "just after a checkpoint": [moment(AFTER_CHECKPOINT, 8)],
    "while a checkpoint is written": [moment(WITHIN_CHECKPOINT, 8)],
    "while the first checkpoint is written": [moment(WITHIN_CHECKPOINT, 4)],
    "in a validation": [moment(IN_VALIDATION, 2)],
    "in the first validation": [moment(IN_VALIDATION, 1)],
    "in the last validation": [moment(IN_VALIDATION, 3)],
    "just after a validation": [moment(AFTER_VALIDATION, 8)],
    "just after the last validation": [moment(AFTER_VALIDATION, 12)],
    "in one validation, again and again": [moment(IN_VALIDATION, 2), moment(IN_VALIDATION, 1), moment(IN_VALIDATION, 1)],
    "in the last step": [moment(IN_STEP, 11, 3)],
    "after the last checkpoint": [moment(AFTER_CHECKPOINT, 12)],
    "twice in a row": [moment(IN_STEP, 6, 2), moment(IN_STEP, 7, 0)],
    "before the first checkpoint, twice, then later": [moment(IN_STEP, 1, 1), moment(IN_STEP, 2, 0), moment(IN_STEP, 9, 2)],
}
STOPS = {
    "in mid-accumulation": moment(IN_STEP, 6, 1, signal.SIGTERM),
    "before the first step is done": moment(IN_STEP, 0, 1, signal.SIGTERM),
    "in the last micro-batch of a step": moment(IN_STEP, 6, 3, signal.SIGTERM),
    "in the last micro-batch before a validation": moment(IN_STEP, 7, 3, signal.SIGTERM),
    "in a validation": moment(IN_VALIDATION, 2, signum=signal.SIGTERM),
    "in the first validation": moment(IN_VALIDATION, 1, signum=signal.SIGTERM),
    "in the last validation": moment(IN_VALIDATION, 3, signum=signal.SIGTERM),
    "just after a validation": moment(AFTER_VALIDATION, 8, signum=signal.SIGTERM),
    "just after the last validation": moment(AFTER_VALIDATION, 12, signum=signal.SIGTERM),
    "in the last step": moment(IN_STEP, 11, 3, signal.SIGTERM),
}


@pytest.fixture(scope="module")
def whole(commands: Any, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run's folder."""
    folder = tmp_path_factory.mktemp("whole")
    done = commands(folder, *small)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The finished run in a folder of its own."""
    shutil.copytree(whole / "runs", tmp_path / "runs")
    return tmp_path


def is_the_same_run(record: Any, uninterrupted: Any) -> None:
    assert record.numbers() == uninterrupted.numbers()
    assert len(record.numbers()) == 12 and record.numbers()[-1][-1] is not None
    assert record.info["status"] == "ok"
    assert record.saved() == uninterrupted.saved()
    for key in ("train/loss", "val/loss", "best/val/loss", "best/step"):
        assert record.info["summary"][key] == uninterrupted.info["summary"][key], key


def test_the_uninterrupted_run_repeats_itself(commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any) -> None:
    commands(tmp_path, *small)
    is_the_same_run(the_run(tmp_path), the_run(whole))


@pytest.mark.parametrize("when", KILLS)
def test_killed_and_resumed_equals_uninterrupted(when: str, commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any) -> None:
    argv = small
    for before in KILLS[when]:
        done = commands(tmp_path, *argv, before=before)
        assert done.code == -signal.SIGKILL, done.err
        argv = (f"resume={the_run(tmp_path).info['id']}",)
    done = commands(tmp_path, *argv)
    assert done.code == 0, done.err
    is_the_same_run(the_run(tmp_path), the_run(whole))


@pytest.mark.parametrize("when", STOPS)
def test_stopped_and_resumed_equals_uninterrupted(when: str, commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, before=STOPS[when])
    assert done.code == 143, done.err
    record = the_run(tmp_path)
    assert record.info["status"] == "interrupted"
    assert f"gptshake resume={record.info['id']}" in done.out
    done = commands(tmp_path, f"resume={record.path.name}")
    assert done.code == 0, done.err
    is_the_same_run(the_run(tmp_path), the_run(whole))


def test_a_stop_keeps_every_finished_step(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    commands(tmp_path, *small, before=moment(IN_STEP, 6, 1, signal.SIGTERM))
    assert the_run(tmp_path).saved() == ["step-00000004", "step-00000006"]
    assert the_run(tmp_path).steps == [1, 2, 3, 4, 5, 6]


def test_a_stop_in_a_validation_keeps_the_step_that_it_was_due_after(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    commands(tmp_path, *small, before=STOPS["in a validation"])
    record = the_run(tmp_path)
    assert record.saved() == ["step-00000004", "step-00000008"] and record.steps == list(range(1, 9))
    assert record.numbers()[3][-1] is not None and record.numbers()[-1][-1] is None
    state = json.loads((record.path / "checkpoints" / "step-00000008" / "state.json").read_text())["gptshake"]
    assert state["validation_due"]["train/loss"] == record.numbers()[-1][2]


def test_a_stop_after_the_last_step_leaves_only_what_is_missing(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    argv = [text for text in small if "limit_val" not in text]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    assert commands(whole, *argv, before=COUNTED).out.count("EVALUATION") == 4
    for before, left in ((IN_VALIDATION, 3), (IN_VALIDATION, 4)):  # in the last validation, then in the test
        argv = [f"resume={the_run(stopped).info['id']}"] if left == 4 else argv
        done = commands(stopped, *argv, before=moment(before, left if left == 3 else 2, signum=signal.SIGTERM))
        assert done.code == 143 and the_run(stopped).info["status"] == "interrupted"
    done = commands(stopped, f"resume={the_run(stopped).info['id']}", before=COUNTED)
    assert done.code == 0 and done.out.count("EVALUATION") == 1
    is_the_same_run(the_run(stopped), the_run(whole))
    assert the_run(stopped).info["summary"]["test/bpb"] == the_run(whole).info["summary"]["test/bpb"]


def test_patience_that_ran_out_in_a_validation_that_was_cut_off_ends_the_run(
    commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    argv = (*small, "trainer.patience=1", "optimizer.lr=3", "trainer.max_steps=40")  # the second validation is worse
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    assert "stopping (trainer.patience)" in commands(whole, *argv).out
    n_validations = sum(row[-1] is not None for row in the_run(whole).numbers())
    commands(stopped, *argv, before=moment(IN_VALIDATION, n_validations))
    assert commands(stopped, f"resume={the_run(stopped).info['id']}").code == 0
    assert the_run(stopped).numbers() == the_run(whole).numbers()


def test_a_checkpoint_of_an_older_version_has_no_validation_due_and_resumes(
    commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any
) -> None:
    commands(tmp_path, *small, before=moment(IN_STEP, 6, 1, signal.SIGTERM))
    folder = the_run(tmp_path).path / "checkpoints" / "step-00000006"
    state = json.loads((folder / "state.json").read_text())
    assert state["gptshake"].pop("validation_due") is None
    (folder / "state.json").write_text(json.dumps(state))
    sums = json.loads((folder / "checksums.json").read_text()) | {"state.json": sha256(folder / "state.json")}
    (folder / "checksums.json").write_text(json.dumps(sums))
    assert commands(tmp_path, f"resume={the_run(tmp_path).info['id']}").code == 0
    is_the_same_run(the_run(tmp_path), the_run(whole))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)])
def test_every_watched_signal_has_its_own_exit_code(
    signum: int, code: int, commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any
) -> None:
    assert commands(tmp_path, *small, before=moment(IN_STEP, 5, 2, signum)).code == code
    assert commands(tmp_path, f"resume={the_run(tmp_path).path}").code == 0
    is_the_same_run(the_run(tmp_path), the_run(whole))


GONE = {
    "the reader is gone": "import os\nreading, writing = os.pipe()\nos.close(reading)\nos.dup2(writing, 1), os.dup2(writing, 2)\n",
    "both are closed": "import os\nos.close(1), os.close(2)\n",
}


@pytest.mark.parametrize("output", GONE)
def test_output_that_goes_nowhere_neither_ends_nor_shortens_a_run(
    output: str, commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any
) -> None:
    stopped = commands(tmp_path, *small, before=GONE[output] + moment(IN_STEP, 6, 1, signal.SIGINT))
    assert stopped.code == 130 and the_run(tmp_path).saved()[-1] == "step-00000006"
    assert commands(tmp_path, f"resume={the_run(tmp_path).info['id']}", before=GONE[output]).code == 0
    is_the_same_run(the_run(tmp_path), the_run(whole))


HANGS = """
import ctypes
from gptshake import signals
from gptshake.training.module import GPTModule
signals.GRACE, library, mutex = {grace}, ctypes.CDLL(None), ctypes.create_string_buffer(64)
def training_step(self, batch, number, own=GPTModule.training_step):
    if self.steps == 5:
        print("hanging", flush=True)
        library.pthread_mutex_lock(mutex), library.pthread_mutex_lock(mutex)
    return own(self, batch, number)
GPTModule.training_step = training_step
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the mutex is Linux's")
@pytest.mark.parametrize(("grace", "n_signals"), [(0.3, 1), (1000, 2)])
def test_a_process_that_hangs_in_a_library_ends_after_the_grace_period_or_at_the_second_signal(
    grace: float, n_signals: int, commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    hanging = commands.start(tmp_path, *small, before=HANGS.format(grace=grace))
    hanging.until("hanging")
    for _ in range(n_signals):
        hanging.signal(signal.SIGTERM)
        time.sleep(0.3)
    done = hanging.wait(30)
    assert done.code == 143 and done.error.startswith("signal 15 was not answered")
    assert the_run(tmp_path).saved() == ["step-00000004"]


def test_a_second_interrupt_ends_it_at_once(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    stuck = moment(IN_STEP, 5, 2, signal.SIGINT).replace(
        "return loss", "\n    while self.steps == 5: os.kill(os.getpid(), 2)\n    return loss"
    )
    assert commands(tmp_path, *small, before=stuck).code == 130
    assert the_run(tmp_path).info["status"] == "running"


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json", "checksums.json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(name: str, commands: Any, whole: Path, copy: Path, the_run: Any) -> None:
    record = the_run(copy)
    file = record.path / "checkpoints" / record.saved()[-1] / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = commands(copy, f"resume={record.info['id']}")
    assert done.code == 0, done.err
    assert "Going back to the one before" in done.out and "resuming after step 8" in done.out
    is_the_same_run(the_run(copy), the_run(whole))


def test_without_a_whole_checkpoint_it_is_refused(commands: Any, copy: Path, the_run: Any) -> None:
    record = the_run(copy)
    for folder in record.saved():
        (record.path / "checkpoints" / folder / "model.safetensors").unlink()
    done = commands(copy, f"resume={record.info['id']}")
    assert done.code == 1 and "has no checkpoint that can be continued from" in done.error
    assert "step-00000008" in done.error and "step-00000012" in done.error


def test_resuming_a_finished_run_changes_nothing(commands: Any, copy: Path, whole: Path, the_run: Any) -> None:
    done = commands(copy, f"resume={the_run(copy).info['id']}")
    assert done.code == 0, done.err
    is_the_same_run(the_run(copy), the_run(whole))
    info = the_run(copy).info
    shorter = commands(copy, f"resume={info['id']}", "trainer.max_steps=4")
    assert shorter.code == 2 and "has done 12 steps already, so it cannot end after 4" in shorter.error
    assert the_run(copy).info == info


def test_a_longer_limit_is_allowed_for_a_constant_rate_and_equals_the_long_run(
    commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    short.mkdir(), long.mkdir()
    constant = (*small, "scheduler=constant", "scheduler.warmup=0")
    assert commands(long, *constant).code == 0
    assert commands(short, *constant, "trainer.max_steps=8").code == 0
    done = commands(short, f"resume={the_run(short).info['id']}", "trainer.max_steps=12")
    assert done.code == 0, done.err
    assert the_run(short).numbers() == the_run(long).numbers()


def test_a_warm_up_is_frozen_in_tokens_when_the_run_begins(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    argv = (*small, "scheduler=constant", "trainer.val_check_interval=1000", "trainer.max_steps=10", "scheduler.warmup=0.4")
    begun = commands(tmp_path, *argv)
    assert "peak lr 0.004, constant, warm-up 4 steps, 40 % of the run" in begun.out
    done = commands(tmp_path, f"resume={the_run(tmp_path).info['id']}", "trainer.max_steps=100")
    assert done.code == 0 and "warm-up 4 steps" in done.out, done.err
    assert [row[3] for row in the_run(tmp_path).numbers()] == [4e-3 * min(step / 4, 1) for step in range(1, 101)]


def test_redecay_goes_back_to_before_the_decay_and_equals_the_long_run(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    short.mkdir(), long.mkdir()
    argv = (*small, "scheduler=wsd", "scheduler.warmup=256", "trainer.val_check_interval=5")
    assert commands(long, *argv, "trainer.max_steps=40").code == 0
    assert commands(short, *argv, "trainer.max_steps=20").code == 0
    resume = f"resume={the_run(short).info['id']}"
    assert "step-00000012" in the_run(short).saved()
    refused = commands(short, resume, "trainer.max_steps=40")
    assert refused.code == 2 and "trainer.extend=redecay" in refused.error and len(the_run(short).steps) == 20
    stopped = commands(short, resume, "trainer.max_steps=40", "trainer.extend=redecay", before=moment(IN_STEP, 30, 1, signal.SIGTERM))
    assert stopped.code == 143 and "going back to step 12" in stopped.out
    assert commands(short, resume).code == 0  # the limit that the run has now is its own
    assert the_run(short).numbers() == the_run(long).numbers()


def test_redecay_without_a_checkpoint_from_before_the_decay_is_refused(commands: Any, copy: Path, the_run: Any) -> None:
    before = the_run(copy)
    done = commands(copy, f"resume={before.info['id']}", "trainer.max_steps=20", "trainer.extend=redecay")
    assert done.code == 2 and "init_from=" in done.error and "scheduler=wsd" in done.error
    assert the_run(copy).info == before.info and the_run(copy).numbers() == before.numbers()


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_a_group_may_be_left_out_on_resume_although_a_key_of_it_was_typed(
    group: str, commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    key = {"callbacks": ("callbacks.samples.times=1", "~callbacks.plots"), "logger": ("logger.every=2",)}[group]
    argv = [text for text in small if not text.startswith(f"{group}=")]
    option = ["logger=wandb", "logger.mode=offline"] if group == "logger" else []
    assert commands(tmp_path, *argv, *option, *key, before=moment(IN_STEP, 6, 1, signal.SIGTERM)).code == 143
    done = commands(tmp_path, f"resume={the_run(tmp_path).info['id']}", f"{group}=none")
    assert done.code == 0, done.err


def test_a_longer_limit_is_refused_for_a_cosine_and_the_run_stays_as_it_was(commands: Any, copy: Path, the_run: Any) -> None:
    before = the_run(copy)
    done = commands(copy, f"resume={before.info['id']}", "trainer.max_steps=20")
    assert done.code == 2 and f"init_from={before.info['id']}" in done.error
    assert the_run(copy).info == before.info and the_run(copy).numbers() == before.numbers()


@pytest.mark.parametrize("content", [None, "", "a: [", "\x00"])
def test_a_record_without_a_readable_config_is_refused_in_a_sentence(
    content: str | None, light_commands: Any, copy: Path, the_run: Any
) -> None:
    file = the_run(copy).path / "config.yaml"
    file.unlink() if content is None else file.write_text(content)
    done = light_commands(copy, f"resume={the_run(copy).info['id']}")
    assert done.code == 2 and "config.yaml is missing or damaged" in done.error


def test_a_finished_run_without_checkpoints_keeps_its_record(commands: Any, copy: Path, the_run: Any) -> None:
    record = the_run(copy)
    assert record.info["status"] == "ok"
    shutil.rmtree(record.path / "checkpoints")
    done = commands(copy, f"resume={record.info['id']}")
    assert done.code == 2 and "its checkpoints were removed, so it cannot be resumed" in done.error
    assert the_run(copy).numbers() == record.numbers() and the_run(copy).info["status"] == "ok"


@pytest.mark.parametrize("key", ["budget", "data"])
def test_a_record_that_lacks_what_a_resume_needs_is_refused_in_a_sentence(key: str, commands: Any, copy: Path, the_run: Any) -> None:
    record = the_run(copy)
    (record.path / "run.json").write_text(json.dumps({name: value for name, value in record.info.items() if name != key}))
    done = commands(copy, f"resume={record.info['id']}", "trainer.max_steps=20")
    assert done.code == 2 and "cannot be resumed" in done.error and "init_from=" in done.error


def test_a_run_that_its_time_limit_ends_says_so(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    slow = """
import time
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    time.sleep(0.1)
    return own(self, batch, number)
GPTModule.training_step = training_step
"""
    done = commands(tmp_path, *small, "trainer.max_time=00:00:00:01", before=slow)
    assert (
        done.code == 0
        and "stopping after step" in done.out
        and "ended early by trainer.max_time, after step" in done.out
        and "done:" not in done.out
    )
    assert the_run(tmp_path).numbers()[-1][-1] is not None


def test_another_config_is_refused_with_the_difference(light_commands: Any, copy: Path, the_run: Any) -> None:
    run_id = the_run(copy).info["id"]
    done = light_commands(copy, f"resume={run_id}", "optimizer.lr=1e-5", "model.dropout=0")
    assert done.code == 2
    assert "optimizer.lr: was 0.004, would be 1e-05" in done.error and "model.dropout: was 0.2, would be 0.0" in done.error
    assert "init_from=" in done.error


def test_a_run_is_continued_by_no_other_task(light_commands: Any, copy: Path, the_run: Any) -> None:
    record = the_run(copy).info
    done = light_commands(copy, f"resume={record['id']}", "task=find_lr")
    assert done.code == 2 and f"{record['name']} was begun by task=train, which alone continues it: leave task= out." in done.error
    assert the_run(copy).info == record


def test_one_command_starts_a_run_and_resumes_it_where_it_was_interrupted(
    commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any
) -> None:
    first = commands(tmp_path, *small, "resume=auto", before=moment(IN_STEP, 6, 1))
    assert first.code == -signal.SIGKILL and "no unfinished run of this command" in first.out
    again = commands(tmp_path, *small, "resume=auto", "note=after the kill")
    assert again.code == 0 and f"resuming {the_run(tmp_path).path.name}" in again.out, again.err
    is_the_same_run(the_run(tmp_path), the_run(whole))


def test_resume_auto_takes_no_run_of_another_command_and_does_not_choose_among_several(commands: Any, small: Any, tmp_path: Path) -> None:
    for change in ("seed=1", "seed=1", "data.batch_size=6"):
        assert commands(tmp_path, *small, change, before=moment(IN_STEP, 6, 1)).code == -signal.SIGKILL
    first, second, other = sorted((tmp_path / "runs").iterdir(), key=lambda path: (path / "run.json").stat().st_mtime)
    done = commands(tmp_path, *small, "seed=1", "resume=auto")
    assert done.code == 2 and first.name in done.error and second.name in done.error and other.name not in done.error
    assert "no unfinished run of this command" in commands(tmp_path, *small, "data.batch_size=3", "resume=auto").out
    assert f"resuming {other.name}" in commands(tmp_path, *small, "data.batch_size=6", "resume=auto").out


def test_resume_auto_looks_into_the_run_directory_that_was_typed(commands: Any, small: Any, tmp_path: Path) -> None:
    command = (*small, "paths.run_dir=elsewhere/mine", "resume=auto")
    assert commands(tmp_path, *command, before=moment(IN_STEP, 6, 1)).code == -signal.SIGKILL
    again = commands(tmp_path, *command)
    assert again.code == 0 and "resuming mine" in again.out, again.err
    assert json.loads((tmp_path / "elsewhere/mine/run.json").read_text())["status"] == "ok"


def test_resume_auto_begins_anew_where_only_half_a_checkpoint_was_copied(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    assert commands(tmp_path, *small, before=moment(IN_STEP, 6, 1)).code == -signal.SIGKILL
    lost = the_run(tmp_path).path
    for file in lost.glob("checkpoints/step-*/state.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    again = commands(tmp_path, *small, "resume=auto")
    assert again.code == 0 and "no unfinished run of this command, so one begins" in again.out, again.err
    assert f"{lost.name} has no checkpoint that can be continued from. The checkpoint step-" in again.out


def test_resume_auto_refuses_a_run_at_work(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    long = (*small, "trainer.max_steps=1000000", "trainer.val_check_interval=1000000", "resume=auto")
    alive = commands.start(tmp_path, *long)
    alive.until("first block")  # no checkpoint yet
    done = commands(tmp_path, *long)
    alive.signal(signal.SIGTERM)
    assert alive.wait().code == 143
    assert done.code == 2 and "is at work" in done.error and the_run(tmp_path).path.name in done.error


def test_a_run_that_is_alive_is_not_resumed(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    alive = commands.start(tmp_path, *small, "trainer.max_steps=1000000", "trainer.val_check_interval=1000000")
    alive.until("first block")
    done = commands(tmp_path, f"resume={the_run(tmp_path).info['id']}")
    alive.signal(signal.SIGTERM)
    assert alive.wait().code == 143
    assert done.code == 2 and f"is in use by process {alive.pid}" in done.error
    assert the_run(tmp_path).info["status"] == "interrupted"


def test_a_run_at_work_on_a_host_whose_lock_is_not_seen_is_not_resumed(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    assert commands(tmp_path, *small, before=moment(IN_STEP, 6, 1)).code == -signal.SIGKILL
    heartbeat = {"pid": 7, "host": "elsewhere", "time": time.time(), "step": 5}
    (the_run(tmp_path).path / "lease.json").write_text(json.dumps(heartbeat))
    done = commands(tmp_path, f"resume={the_run(tmp_path).info['id']}")
    assert done.code == 2 and "is in use by process 7 on elsewhere; wait for it or stop it first." in done.error
    assert "If that host is gone, wait 60 s from its last heartbeat on." in done.error


def test_a_run_is_resumed_from_another_folder_by_its_path(commands: Any, small: Any, whole: Path, tmp_path: Path, the_run: Any) -> None:
    home, away = tmp_path / "it's ho=me", tmp_path / "away"
    home.mkdir(), away.mkdir()
    commands(home, *small, before=KILLS["in mid-accumulation"][0])
    done = commands(away, f"resume={the_run(home).path}")
    assert done.code == 0, done.err
    is_the_same_run(the_run(home), the_run(whole))
    assert list(away.iterdir()) == []


def test_a_run_on_a_text_of_ones_own_is_resumed_from_anywhere_and_after_the_text_has_moved(
    commands: Any, small: Any, book: Path, whole: Path, tmp_path: Path, the_run: Any
) -> None:
    home, away, new = tmp_path / "home", tmp_path / "away", tmp_path / "a, new 'place'"
    for folder in (home, away, new):
        folder.mkdir()
    shutil.copy(book, home / "book.txt")
    argv = [*(text for text in small if not text.startswith("data.path=")), "data.path=book.txt"]
    commands(home, *argv, before=moment(IN_STEP, 2, 1))
    run = the_run(home)
    assert "data.path='book.txt'" in run.info["overrides"] and run.info["resolved"]["data.path"] == str(home / "book.txt")
    assert commands(away, f"resume={run.path}", before=moment(IN_STEP, 6, 1)).code == -signal.SIGKILL
    (home / "book.txt").rename(new / "book.txt")
    gone = commands(away, f"resume={run.path}")
    assert gone.code == 2 and "data.path" in gone.error and "does not exist" in gone.error
    done = commands(away, f"resume={run.path}", f"data.path={new / 'book.txt'}")
    assert done.code == 0, done.err
    is_the_same_run(the_run(home), the_run(whole))
    assert "does not exist" not in commands(away, f"resume={run.path}").err  # its new place is known from now on
    (new / "book.txt").write_text("another text " * 2000)
    other = commands(away, f"resume={run.path}", f"data.path={new / 'book.txt'}")
    assert other.code != 0 and "fingerprint" in other.error


def test_samples_are_neither_doubled_nor_lost_by_a_resume(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    argv = [*(text for text in small if text != "callbacks=none"), "~callbacks.plots", "callbacks.samples.n_tokens=5"]
    for before in (moment(IN_STEP, 2, 1), moment(IN_STEP, 7, 1), moment(IN_SAMPLE, 1, signum=signal.SIGTERM)):
        assert commands(tmp_path, *argv, before=before).code in (-signal.SIGKILL, 143)
        argv = [f"resume={the_run(tmp_path).info['id']}"]
    assert commands(tmp_path, *argv).code == 0
    headings = [line for line in (the_run(tmp_path).path / "samples.md").read_text().splitlines() if line.startswith("## ")]
    assert [line.split(" · ")[0] for line in headings] == ["## step 0", "## step 0", "## step 6", "## step 12"]


DIVERGED = ("scheduler.warmup=0", "optimizer.lr=1e30", "scheduler=constant", "trainer.gradient_clip_val=null")
SAMPLED = "+callbacks.samples={_target_: gptshake.training.callbacks.samples.Samples, prompts: [a], n_tokens: 3, times: 9}"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (("trainer.max_steps=1",), "Step 1: the validation loss is not finite (learning rate 1e+30)"),
        (("trainer.max_steps=2", "trainer.val_check_interval=9"), "Step 2: the loss is not finite (learning rate 1e+30)"),
        (("trainer.max_steps=8", SAMPLED), "Step 1: the output of the network is not finite (learning rate 1e+30)"),
    ],
)
def test_a_run_that_diverged_fails_with_the_sentence_wherever_it_is_seen(
    case: tuple[str, ...], said: str, commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    done = commands(tmp_path, *(text for text in small if not text.startswith("scheduler=")), *DIVERGED, *case)
    assert done.code == 1 and done.error.startswith(said) and "Try a lower optimizer.lr" in done.error, done.out
    assert the_run(tmp_path).info["status"] == "failed" and said in the_run(tmp_path).info["reason"]


def test_a_signal_while_the_record_is_made_is_in_the_record(commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, before=AT_THE_RECORD.format(signum=int(signal.SIGTERM)))
    assert done.code == 128 + signal.SIGTERM
    info = the_run(tmp_path).info
    assert info["status"] == "interrupted" and f"resume with: gptshake resume={info['id']}" in done.out
    assert commands(tmp_path, f"resume={info['id']}").code == 0
