"""Metrics that callbacks log, ours, Lightning's and a user's own, through the command line: in the record, the plots and the trackers."""

import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from gptshake.record.metrics import read_rows

YAML = """
early:
  _target_: pytorch_lightning.callbacks.EarlyStopping
  monitor: val/loss
  patience: 1
  min_delta: 100.0
rates:
  _target_: pytorch_lightning.callbacks.LearningRateMonitor
stats:
  _target_: pytorch_lightning.callbacks.DeviceStatsMonitor
timer:
  _target_: pytorch_lightning.callbacks.Timer
  duration: "00:01:00:00"
  interval: step
average:
  _target_: pytorch_lightning.callbacks.EMAWeightAveraging
  decay: 0.5
mine:
  _target_: watch.Watch
plots:
  _target_: gptshake.training.callbacks.plots.Plots
"""
WATCH = '''
import torch
import pytorch_lightning as pl


class Watch(pl.Callback):
    """Logs in every way there is."""

    def __init__(self):
        self.gains = 0.0

    def state_dict(self):
        return {"gains": self.gains}

    def load_state_dict(self, state):
        self.gains = state["gains"]

    def on_after_backward(self, trainer, pl_module):
        self.log("mine/wte_grad", pl_module.model.wte.weight.grad.norm(), prog_bar=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.micro_batches == 0:
            self.gains += 1.0
            self.log_dict({"mine/steps": self.gains, "mine/hidden": 1.0}, logger=False)
            pl_module.context.log({"mine/half": trainer.callback_metrics["mine/steps"] / 2})
            trainer.logger.log_metrics({"mine/direct": 7})

    def on_validation_start(self, trainer, pl_module):
        assert trainer.validating and "train/loss" in trainer.callback_metrics

    def on_validation_epoch_end(self, trainer, pl_module):
        self.log("mine/val_twice", 2 * trainer.callback_metrics["val/loss"])


class Tracker:
    def start(self, run):
        self.file = (run.path / "tracked").open("w")

    def row(self, row):
        print(*row, file=self.file, flush=True)

    def sample(self, *args, **options): pass

    def image(self, name, path):
        print("image", name, file=self.file, flush=True)

    def finish(self): pass
'''
PSUTIL = """
import sys
from types import SimpleNamespace
memory = lambda: SimpleNamespace(percent=5.0)
sys.modules["psutil"] = SimpleNamespace(cpu_percent=lambda: 50.0, virtual_memory=memory, swap_memory=memory)
from pytorch_lightning.accelerators import cpu
from pytorch_lightning.callbacks import device_stats_monitor
cpu._PSUTIL_AVAILABLE = device_stats_monitor._PSUTIL_AVAILABLE = True
"""
IN_STEP = """
import os
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    if (self.steps, self.micro_batches) == (6, 1):
        os.kill(os.getpid(), {signum})
    return own(self, batch, number)
GPTModule.training_step = training_step
"""
IN_VALIDATION = """
import os
from gptshake.training import evaluation
calls = []
def evaluate(model, batches, *rest, own=evaluation.evaluate, **more):
    calls.append(0)
    if len(calls) == 2:
        os.kill(os.getpid(), {signum})
    return own(model, batches, *rest, **more)
evaluation.evaluate = evaluate
"""
AFTER_VALIDATION = """
import os
from gptshake.training.callbacks.checkpoint import Checkpoint
def complete(self, trainer, module, own=Checkpoint.complete):
    own(self, trainer, module)
    if module.steps == 8:
        os.kill(os.getpid(), {signum})
Checkpoint.complete = complete
"""


def with_callbacks(folder: Path) -> Path:
    (folder / "conf" / "callbacks").mkdir(parents=True)
    (folder / "conf" / "callbacks" / "mine.yaml").write_text("# Callbacks of a test.\n" + YAML)
    (folder / "watch.py").write_text(WATCH)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_callbacks(tmp_path)


@pytest.fixture(scope="module")
def resumable(small: Any) -> list[str]:
    """A run with callbacks that log, and without those that look at the machine."""
    argv = [text for text in small if not text.startswith("callbacks=")]
    return [*argv, "callbacks=mine", "~callbacks.stats", "~callbacks.plots", "callbacks.early.min_delta=-100"]


@pytest.fixture(scope="module")
def whole(commands: Any, resumable: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run, uninterrupted."""
    folder = with_callbacks(tmp_path_factory.mktemp("whole"))
    assert commands(folder, *resumable).code == 0
    return folder


def rows(folder: Path, the_run: Any) -> list[dict[str, float]]:
    return read_rows(the_run(folder).path / "metrics.csv")  # type: ignore[return-value]


def exact(found: list[dict[str, float]]) -> list[dict[str, float]]:
    """What must be equal bit for bit: all but what a clock says."""
    return [{key: value for key, value in row.items() if key != "time" and not key.startswith("perf/")} for row in found]


def test_five_callbacks_of_lightnings_and_one_of_the_users_work_as_documented(
    commands: Any, small: Any, folder: Path, the_run: Any
) -> None:
    argv = [text for text in small if not text.startswith(("callbacks=", "logger="))]
    done = commands(
        folder, *argv, "callbacks=mine", "logger=none", "+logger={_target_: watch.Tracker}", "trainer.max_steps=40", before=PSUTIL
    )
    assert done.code == 0, done.err
    found, path = rows(folder, the_run), the_run(folder).path
    assert [row["step"] for row in found] == list(range(1, 9)) and "ended early by EarlyStopping, after step 8" in done.out
    assert the_run(folder).info["reason"] == "ended early by EarlyStopping"
    assert all(row["lr-AdamW/pg1"] == row["train/lr"] for row in found)
    assert all(row["DeviceStatsMonitor.on_train_batch_end/cpu_percent"] == 50.0 for row in found)
    assert [row["mine/half"] for row in found] == [step / 2 for step in range(1, 9)]
    assert all(row["mine/direct"] == 7 and row["mine/wte_grad"] > 0 for row in found)
    assert not any("mine/hidden" in row or "mine/steps" in row for row in found)
    assert [row["mine/val_twice"] / row["val/loss"] for row in found if "val/loss" in row] == pytest.approx([2.0, 2.0], rel=1e-6)
    assert [row["step"] for row in found if "mine/val_twice" in row] == [4, 8]
    newest = path / "checkpoints" / "step-00000008"
    average, state = load_file(newest / "model.safetensors"), load_file(newest / "state.safetensors")
    assert not average["wte.weight"].equal(state["/current_model_state/model.wte.weight"])  # EMAWeightAveraging
    tracked = (path / "tracked").read_text()
    assert tracked.count("mine/half") == 8 and "image loss" in tracked and "image metrics" in tracked
    assert (path / "plots" / "metrics.png").stat().st_size > 0
    assert the_run(folder).info["summary"]["mine/half"] == 4.0


@pytest.mark.parametrize("when", [IN_STEP, IN_VALIDATION, AFTER_VALIDATION])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_logged_is_the_same_after_a_resume(
    when: str, signum: int, commands: Any, resumable: list[str], whole: Path, folder: Path, the_run: Any
) -> None:
    assert commands(folder, *resumable, before=when.format(signum=int(signum))).code == (143 if signum == signal.SIGTERM else -signum)
    done = commands(folder, f"resume={the_run(folder).info['id']}")
    assert done.code == 0, done.err
    assert exact(rows(folder, the_run)) == exact(rows(whole, the_run)) and len(rows(whole, the_run)) == 12
    for name in ("model.safetensors", "state.safetensors"):
        ours, theirs = (load_file(the_run(place).path / "checkpoints" / "step-00000012" / name) for place in (whole, folder))
        assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours), name


def test_a_metric_with_the_name_of_ours_or_of_several_values_is_refused(commands: Any, small: Any, folder: Path) -> None:
    argv = [*small, "+callbacks.mine={_target_: bad.Bad}"]
    for value, said in (("{'val/loss': 1.0}", "val/loss is measured by gptshake"), ("{'a': torch.ones(3)}", "a has 3 values")):
        code = f"import torch, pytorch_lightning as pl\nclass Bad(pl.Callback):\n    def on_train_batch_end(self, *_):\n        self.log_dict({value})\n"
        (folder / "bad.py").write_text(code)
        done = commands(folder, *argv, f"paths.runs={folder}/{len(said)}")
        assert done.code != 0 and said in done.error, done.err


EARLY = "+callbacks.early={{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: {}}}"


@pytest.mark.parametrize(("option", "named"), [("callbacks.early.check_on_train_epoch_end", "true"), ("callbacks.early.patience", "2")])
def test_a_monitor_that_nobody_logs_among_callbacks_that_log_is_one_sentence(
    option: str, named: str, commands: Any, resumable: list[str], folder: Path, the_run: Any
) -> None:
    done = commands(folder, *resumable, "callbacks.early.monitor=mine/val_twce", f"++{option}={named}")
    assert done.code == 2, done.err
    assert "EarlyStopping monitors mine/val_twce, which nobody logs; did you mean mine/val_twice? Logged are " in done.error
    assert (the_run(folder).info["status"], the_run(folder).info["reason"]) == ("failed", done.error)


@pytest.mark.parametrize(
    ("words", "who"),
    [
        (("+callbacks.timer={_target_: pytorch_lightning.callbacks.Timer, duration: '00:00:00:01', interval: step}",), "Timer"),
        (("+callbacks.mine._target_=enough.Enough",), "Enough"),
        (("+callbacks.mine._target_=enough.Named",), "Named"),
        (("trainer.max_time=00:00:00:01",), "trainer.max_time"),
        (("trainer.patience=1", "optimizer.lr=3"), "trainer.patience"),
        ((EARLY.format("val/nothing, strict: false"), "+callbacks.mine._target_=enough.Enough"), "Enough"),
        ((EARLY.format("val/loss, patience: 1"), "optimizer.lr=3"), "EarlyStopping"),
    ],
)
def test_who_ended_a_run_early_is_in_its_closing_line_and_its_record(
    words: tuple[str, ...], who: str, commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    code = "import pytorch_lightning as pl\ndef end(trainer):\n    trainer.should_stop = True\nclass Enough(pl.Callback):\n"
    code += "    def on_train_batch_start(self, trainer, *_):\n        end(trainer)\nclass Named(Enough):\n    state_key = 'mine v1.2'\n"
    (tmp_path / "enough.py").write_text(code)
    done = commands(tmp_path, *small, "trainer.max_steps=100000", *words)
    assert done.code == 0 and f"ended early by {who}, after step " in done.out, done.out + done.err
    assert the_run(tmp_path).info["reason"] == f"ended early by {who}"


def test_a_callback_that_ends_the_training_before_its_first_step_leaves_nothing_to_test(
    commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    code = "import pytorch_lightning as pl\nclass Never(pl.Callback):\n    def on_fit_start(self, trainer, *_):\n        trainer.should_stop = True\n"
    (tmp_path / "enough.py").write_text(code)
    done = commands(tmp_path, *small, "trainer.limit_val_batches=null", "+callbacks.mine._target_=enough.Never")
    assert done.code == 0 and "ended early by Never, after step 0 of " in done.out, done.err
    assert the_run(tmp_path).info["status"] == "ok" and "test/bpb" not in the_run(tmp_path).info["summary"]
    profiled = commands(tmp_path, *small, "task=profile", "+callbacks.mine._target_=enough.Never")
    assert profiled.code == 2 and "A callback ended the training before a step was measured" in profiled.error


NO_PART = {
    "+callbacks.mine={_target_: pytorch_lightning.callbacks.Nope}": "Nope cannot be imported",
    "optimizer._target_=torch.optim.Nope": "Nope cannot be imported",
    "optimizer._target_=json.dumps": "json.dumps makes no optimizer of named parameters",
    "scheduler._target_=json.dumps": "json.dumps cannot stand here: it is called with tokens, total",
    "data._target_=json.dumps": "json.dumps cannot stand here: it is called with store",
    "+callbacks.mine._target_=math.sqrt": "math.sqrt cannot stand here: it is called with no arguments (missing",
    "+callbacks.mine={_target_: pytorch_lightning.callbacks.Timer, typo: 1}": "Timer cannot stand here: it is called with typo",
    "+callbacks.mine._target_=builtins.dict": "builtins.dict cannot stand here: a dict has no on_train_batch_end",
    "task._target_=math.sqrt": "math.sqrt is no Python function of a context",
    EARLY.format(
        "val_loss"
    ): "EarlyStopping monitors val_loss, which nobody logs; did you mean val/loss? Logged are train/grad_norm, train/loss",
}


@pytest.mark.parametrize("part", NO_PART)
def test_a_part_that_cannot_be_built_is_refused_before_anything_is_written(part: str, commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, part)
    assert done.code == 2 and NO_PART[part] in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["nope.Mine", "json.Mine"])
@pytest.mark.parametrize("sweep", [(), ("-m", "seed=1,2")])
def test_a_callback_of_hydra_that_is_not_there_is_one_sentence(
    target: str, sweep: tuple[str, ...], commands: Any, small: Any, tmp_path: Path
) -> None:
    done = commands(tmp_path, *small, f"+hydra.callbacks.mine._target_={target}", *sweep)
    assert done.code == 2 and "hydra.callbacks.mine cannot be built: " in done.error and "\n" not in done.error
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_that_has_no_peak_rate_is_refused(commands: Any, small: Any, tmp_path: Path) -> None:
    code = "import torch\ndef made(parameters, **keys):\n    return torch.optim.Optimizer([p for _, p in parameters], {})\n"
    (tmp_path / "parts.py").write_text(code)
    done = commands(tmp_path, *small, "optimizer._target_=parts.made")
    assert done.code == 2 and "parts.made makes no optimizer of named parameters and its keys (its defaults have no lr)" in done.error


@pytest.mark.parametrize("sweep", [(), ("-m", "optimizer.lr=1e-3,1e-2")])
@pytest.mark.parametrize(("group", "target"), [("optimizer", "torch.optim.SGD"), ("scheduler", "gptshake.optim.schedule.cosine")])
def test_a_part_that_is_to_be_called_later_says_so_or_is_refused_before_anything_begins(
    group: str, target: str, sweep: tuple[str, ...], commands: Any, small: Any, tmp_path: Path
) -> None:
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "mine.yaml").write_text(f"_target_: {target}\n" + "lr: 0.1\n" * (group == "optimizer"))
    done = commands(tmp_path, *small, f"{group}=mine", *sweep)
    assert done.code == 2 and f"{target} cannot be built with its keys" in done.error and "_partial_: true" in done.error
    assert [entry.name for entry in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize("part", ["+callbacks.mine", "data", "trainer", "+logger.mine"])
def test_a_function_that_makes_another_thing_is_refused_and_leaves_no_run(part: str, commands: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("def wrong(**options):\n    return {}\n")
    done = commands(tmp_path, *small, f"{part}._target_=parts.wrong")
    assert done.code == 2 and "a dict" in done.error
    assert {path.name for path in tmp_path.iterdir()} <= {"parts.py", "__pycache__"}
