"""Two processes learn what one learns: the same blocks, batch and curve, stopped, killed or resumed, in the record of one run.

Every start costs a second process its imports, so there are few, and each has several things to show.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptshake

pytestmark = pytest.mark.slow

IN_STEP_6 = """
import os
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    if self.steps == 6:
        os.kill({pid}, {signum})
    return own(self, batch, number)
GPTModule.training_step = training_step
"""
IN_EVALUATION = """
import os
from gptshake.training import evaluation
calls = []
def evaluate(*rest, own=evaluation.evaluate, **more):
    calls.append(0)
    if len(calls) == {call}:
        os.kill(os.getpid(), {signum})
    return own(*rest, **more)
evaluation.evaluate = evaluate
"""
DISK_FULL = """
from gptshake.training import checkpoint
def save_file(tensors, file, own=checkpoint.save_file, **more):
    if "step-00000008" in str(file):
        raise OSError(28, "No space left on device")
    own(tensors, file, **more)
checkpoint.save_file = save_file
"""
THE_OTHER = "int(open('/proc/%d/task/%d/children' % (os.getpid(), os.getpid())).read().split()[0])"
NO_DROPOUT = ("model.dropout=0", "callbacks=default", "data.test_fraction=0.05", "trainer.limit_val_batches=null")


@pytest.fixture(scope="module")
def text(small: tuple[str, ...]) -> tuple[str, ...]:
    """The small run without dropout, whose random numbers differ from rank to rank."""
    return (*small, *NO_DROPOUT, "logger=none")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, commands: Any, text: tuple[str, ...], the_run: Callable[[Path], Any]) -> Any:
    """What one device does."""
    folder = tmp_path_factory.mktemp("alone")
    done = commands(folder, *text)
    assert done.code == 0, done.err
    return the_run(folder)


def same_curve(run: Any, alone: Any) -> bool:
    """Row by row within 1e-5, in every figure."""
    rows, others = run.numbers(), alone.numbers()
    return len(rows) == len(others) and all(row == pytest.approx(other, abs=1e-5) for row, other in zip(rows, others, strict=True))


def test_two_processes_learn_what_one_learns(
    commands: Any, tmp_path: Path, text: tuple[str, ...], alone: Any, the_run: Callable[[Path], Any]
) -> None:
    done = commands(tmp_path, *text, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert done.code == 0, done.err
    run = the_run(tmp_path)
    assert same_curve(run, alone)
    assert run.info["summary"]["test/loss"] == pytest.approx(alone.info["summary"]["test/loss"], abs=1e-5)
    assert run.info["devices"] == {"count": 2, "strategy": "ddp"}
    assert run.saved() == alone.saved()
    assert "8 = 2 devices x 2 x 2 sequences" in done.out
    for line in ("plan:", "done:", "--- sample at 100 %"):
        assert done.out.count(line) == (run.path / "log").read_text().count(line) == 1  # one rank speaks
    assert (run.path / "samples.md").read_text().count("---") == (alone.path / "samples.md").read_text().count("---")


def test_slices_learn_the_same_stop_at_a_signal_and_go_on_as_a_whole(
    commands: Any, tmp_path: Path, text: tuple[str, ...], alone: Any, the_run: Callable[[Path], Any]
) -> None:
    stop = IN_STEP_6.format(pid="os.getpid()", signum=int(signal.SIGTERM))
    done = commands(tmp_path, *text, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", before=stop)
    assert done.code == 128 + signal.SIGTERM, done.err
    stopped = the_run(tmp_path)
    assert stopped.steps == list(range(1, 8))  # all ranks finish the step in which one of them was told
    assert stopped.info["status"] == "interrupted"
    assert "step-00000007" in stopped.saved()
    shards = {file.name for file in (stopped.path / "checkpoints/step-00000007").glob("*.safetensors")}
    assert shards == {f"{kind}-shard-0000{number}-of-00002.safetensors" for kind in ("model", "state") for number in (1, 2)}
    evaluated = commands(tmp_path, "task=evaluate", f"task.run={stopped.info['id']}", "task.checkpoints=all", "task.split=val")
    assert evaluated.code == 0, evaluated.err
    assert gptshake.load_run(stopped.path).model().config.n_layer > 0
    assert commands(tmp_path, f"resume={stopped.info['id']}", "trainer=cpu", "trainer.devices=1").code == 0
    run = the_run(tmp_path)
    assert run.info["devices"] == {"count": 1, "strategy": None}
    assert same_curve(run, alone)


@pytest.mark.slow
def test_two_processes_that_are_stopped_in_a_validation_and_in_the_test_end_as_undisturbed_ones(
    commands: Any, tmp_path: Path, text: tuple[str, ...], alone: Any, the_run: Callable[[Path], Any]
) -> None:
    ddp = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    in_validation, in_test = (IN_EVALUATION.format(call=call, signum=int(signal.SIGTERM)) for call in (1, 4))
    done = commands(tmp_path, *text, *ddp, before=in_validation)
    assert done.code == 128 + signal.SIGTERM, done.err
    stopped = the_run(tmp_path)
    assert stopped.info["status"] == "interrupted" and stopped.steps[-1] == 4
    done = commands(tmp_path, f"resume={stopped.info['id']}", before=in_test)
    assert done.code == 128 + signal.SIGTERM, done.err
    assert the_run(tmp_path).info["status"] == "interrupted" and same_curve(the_run(tmp_path), alone)
    done = commands(tmp_path, f"resume={stopped.info['id']}")
    assert done.code == 0, done.err
    run = the_run(tmp_path)
    assert run.info["status"] == "ok" and same_curve(run, alone) and run.saved() == alone.saved()
    assert run.info["summary"]["test/loss"] == pytest.approx(alone.info["summary"]["test/loss"], abs=1e-5)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the other process by Linux's list of them")
def test_a_rank_that_is_killed_ends_the_run_which_torchrun_continues(
    commands: Any, tmp_path: Path, text: tuple[str, ...], alone: Any, the_run: Callable[[Path], Any]
) -> None:
    kill = IN_STEP_6.format(pid=THE_OTHER, signum=int(signal.SIGKILL))
    done = commands(tmp_path, *text, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", before=kill)
    assert done.code == 1
    assert "Rank 1 of 2 was killed by SIGKILL" in done.error
    broken = the_run(tmp_path)
    assert broken.info["status"] == "failed"
    assert broken.saved() == ["step-00000004"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "gptshake"]
    ended = subprocess.run([*torchrun, f"resume={broken.info['id']}"], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("done:") == 1
    assert same_curve(the_run(tmp_path), alone)


def test_a_checkpoint_that_one_rank_cannot_write_ends_all_with_its_reason_said_once(
    commands: Any, tmp_path: Path, text: tuple[str, ...], the_run: Callable[[Path], Any]
) -> None:
    done = commands(tmp_path, *text, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", before=DISK_FULL)
    assert done.code == 1
    assert done.error.startswith("The disk is full: ") and done.err.count("error:") == 1
    broken = the_run(tmp_path)
    assert broken.info["status"] == "failed" and broken.info["reason"].startswith("The disk is full: ")
    assert broken.saved() == ["step-00000004"]


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_begins(
    light_commands: Any, tmp_path: Path, text: tuple[str, ...]
) -> None:
    done = light_commands(tmp_path, *text, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=7")
    assert done.code == 2
    assert done.error == "A batch of 7 sequences cannot be shared by 2 devices: make data.batch_size a multiple of 2."
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("optimizer=sgd", "optimizer.fused=true"), "optimizer.fused=true with optimizer=sgd"),
        (("+callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging",), "EMAWeightAveraging"),
    ],
)
def test_what_cannot_work_on_shards_is_refused_before_anything_begins(
    light_commands: Any, tmp_path: Path, text: tuple[str, ...], words: tuple[str, ...], what: str
) -> None:
    done = light_commands(tmp_path, *text, *words, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert done.code == 2
    assert done.error == f"{what} does not work with trainer=fsdp: leave it out, or use trainer=ddp."
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [("-m", "optimizer.lr=1e-3,2e-3"), ("task=find_lr",)])
def test_several_runs_have_one_device_each(light_commands: Any, tmp_path: Path, text: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = light_commands(tmp_path, *text, *words, "trainer=ddp", "trainer.devices=2")
    assert done.code == 2
    assert "trains on one device: leave trainer.devices=2 out" in done.error
