"""The learning rate finder as people run it: what it says, leaves and refuses, and that it disturbs nothing."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from gptshake.estimate.formatting import short_rate

pytestmark = pytest.mark.slow

QUICK = ("task=find_lr", "task.steps=40", "task.repeats=2", "task.confirm=0")


def record(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The only finder's directory below a folder and its run.json."""
    found = [(file.parent, json.loads(file.read_text())) for file in (folder / "runs").glob("*/run.json")]
    ((path, info),) = [entry for entry in found if entry[1]["task"] == "find_lr"]
    return path, info


@pytest.fixture(scope="module")
def found(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder in which the finder ran, and how that ended."""
    folder = tmp_path_factory.mktemp("found")
    return folder, commands(folder, *small, *QUICK)


def test_the_range_test_leaves_a_record_a_picture_and_a_command(found: tuple[Path, Any]) -> None:
    folder, done = found
    assert done.code == 0, done.err
    path, info = record(folder)
    result = info["find_lr"]
    assert info["status"] == "ok" and info["summary"] == {"find_lr/lr": result["lr"]}
    assert {"steep", "valley", "minimum", "middle"} <= result["rules"].keys() and result["preset"] == 4e-3 and result["confirm"] == []
    witnesses = sorted([result["rules"]["middle"], result["law"], result["declared"]])
    assert result["start"] == witnesses[1] and result["lr"] == float(f"{witnesses[1]:.2g}")
    assert [len(losses) for losses in result["ramps"]["losses"]] == [40, 40] and result["ramps"]["losses"][0] != result["ramps"]["losses"][
        1
    ]
    assert (path / "plots/lr_range.png").exists() and (path / "plots/lr_range.svg").exists()
    assert f"optimizer.lr=from:{info['id']}" in done.out and "the preset (4e-3)" in done.out and "scaling law: lr" in done.out
    assert "\x1b" not in done.out and "no run has confirmed it" in done.out


def test_finding_and_then_training_is_training_bit_for_bit(commands: Any, small: Any, found: Any, tmp_path: Path, the_run: Any) -> None:
    assert commands(tmp_path, *small).code == 0
    folder, _ = found
    assert commands(folder, *small, "paths.runs=after").code == 0
    (folder / "after").rename(folder.with_name("after"))
    (after,) = folder.with_name("after").glob("*")
    assert type(the_run(tmp_path))(after).numbers() == the_run(tmp_path).numbers()


def test_short_real_runs_decide_and_the_rate_is_reused(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, "task=find_lr", "task.confirm=3", "task.confirm_steps=8", "optimizer.lr=1e-3", "note=a 'note'")
    assert done.code == 0, done.err
    path, info = record(tmp_path)
    found = info["find_lr"]
    assert "ramps" not in found and "range test" not in done.out and (path / "plots/lr_range.png").exists()
    study = json.loads((tmp_path / "multirun" / f"find_lr-{info['id']}" / "study.json").read_text())
    assert [run["lr"] for run in found["confirm"]] == sorted(trial["params"]["optimizer.lr"] for trial in study["trials"])
    assert len(found["confirm"]) == 3 and found["steps"] == 8 and found["objective"] == "val/bpb"
    assert "Repeat it" not in done.out and "The best is trial" not in done.out  # the study's best is not the answer
    assert set(re.findall(r"^optimizer\.lr=(\S+)", done.out, re.M)) == {short_rate(found["lr"])}
    assert found["low"] <= found["lr"] * 1.05 and found["lr"] <= found["high"] * 1.05
    trial = json.loads((tmp_path / "multirun" / study["name"] / "0" / "run.json").read_text())
    assert trial["task"] == "train" and trial["budget"]["steps"] == 8 and trial["resolved"]["trainer.val_check_interval"] == 4
    assert "optimizer.lr (1e-3)" in done.out
    path.rename(tmp_path / "finder")
    used = commands(tmp_path, *small, f"optimizer.lr=from:{tmp_path / 'finder'}", "model.n_layer=2")
    assert used.code == 0, used.err
    assert "for other terms: model.n_layer 1, here 2" in used.out
    trained = the_run(tmp_path).info
    assert trained["lr_from"]["run"] == info["id"] and f"optimizer.lr={found['lr']:g}" in trained["overrides"]


def test_a_stopped_finder_goes_on(commands: Any, small: Any, tmp_path: Path) -> None:
    finder = commands.start(tmp_path, *small, "task=find_lr", "task.steps=20000", "task.confirm=0", "callbacks=none")
    finder.until("range test:")
    finder.signal(signal.SIGINT)
    done = finder.wait()
    _, info = record(tmp_path)
    assert done.code == 130 and info["status"] == "interrupted" and f"resume={info['id']}" in done.out
    again = commands(tmp_path, f"resume={info['id']}", "task.steps=40", "task.repeats=1")
    assert again.code == 0, again.err
    assert record(tmp_path)[1]["find_lr"]["lr"] > 0


FAKE_STUDY = """
import json, gptshake.tasks.find_lr as room
from pathlib import Path
from gptshake.outcome import outcome_of
def fake(command, env):
    words = command[3:]
    with open("words", "a") as file:
        file.write(json.dumps(words) + "\\n")
    if len(open("words").readlines()) == 1:
        return outcome_of(130), ""
    name = [word for word in words if word.startswith("study=")][0].removeprefix("study=")
    Path("multirun", name).mkdir(parents=True)
    runs = lambda value: [{"state": "ok", "value": value, "repeat": 0, "path": "0"}]
    trials = [
        {"number": n, "params": {"optimizer.lr": lr}, "value": value, "state": "ok", "runs": runs(value)}
        for n, (lr, value) in enumerate(((1e-3, 2.2), (4e-3, 2.0), (1.6e-2, 2.2)))
    ]
    axis = {"key": "optimizer.lr", "low": 1e-4, "high": 1.0, "log": True, "powers": False, "choices": [], "declared": 4e-3}
    rows = {"trials": trials, "axes": [axis], "objective": "val/bpb", "direction": "minimize", "repeats": 1, "confirm": []}
    Path("multirun", name, "study.json").write_text(json.dumps(rows))
    return outcome_of(0), ""
room.run_command = fake
"""


def test_a_finder_that_was_stopped_amidst_its_runs_goes_on_with_the_same_study(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, *QUICK[:3], "task.confirm=3", before=FAKE_STUDY)
    _, info = record(tmp_path)
    assert done.code == 130 and info["status"] == "interrupted" and "lr" not in info["find_lr"]
    again = commands(tmp_path, f"resume={info['id']}", before=FAKE_STUDY)
    assert again.code == 0, again.err
    first, second = map(json.loads, (tmp_path / "words").read_text().splitlines())
    assert first == second and "range test:" not in again.out
    assert record(tmp_path)[1]["find_lr"]["lr"] == pytest.approx(4e-3, rel=0.1)


def test_a_finder_with_a_logger_shows_its_picture(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, *QUICK, "logger=wandb", "task.repeats=1", "scheduler=one_cycle", "trainer.precision=bf16-mixed")
    assert done.code == 0, done.err
    path, info = record(tmp_path)
    assert list((path / "wandb").rglob("lr_range*.png"))
    assert info["find_lr"]["one_cycle"] and "for one cycle" in done.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task.low=1", "task.high=1e-6"), "leave no range: it must cover at least a factor of 10"),
        (("task.steps=5",), "a range test needs 40 steps or more"),
        (("task.repeats=0",), "task.repeats=0 cannot work"),
        (("task.confirm=-1",), "task.confirm=-1 cannot work"),
        (("model.block_size=20000",), "The training text is one block"),
        (("+logger.mine._target_=collections.Counter",), "a Counter"),
    ],
)
def test_bad_use_gets_a_sentence(commands: Any, small: Any, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    done = commands(tmp_path, *small, "task=find_lr", *words)
    assert done.code == 2 and sentence in done.error
    assert not (tmp_path / "runs").exists()


def test_a_finder_needs_data(light_commands: Any, tmp_path: Path) -> None:
    assert "Choose a data set" in light_commands(tmp_path, "task=find_lr", "model=tiny").error


def test_a_loss_that_is_no_number_from_the_start_is_not_the_rates_fault(commands: Any, small: Any, tmp_path: Path) -> None:
    fault = "from gptshake.model.gpt import GPT\nreal = GPT.loss\nGPT.loss = lambda self, *a, **k: real(self, *a, **k) * float('nan')"
    done = commands(tmp_path, *small, *QUICK, before=fault)
    assert done.code == 1 and "not finite after one step at a learning rate of 1e-06" in done.err
    assert record(tmp_path)[1]["status"] == "failed"


def test_a_range_test_that_is_killed_says_what_to_change(commands: Any, small: Any, tmp_path: Path) -> None:
    fault = "import os, signal\nimport gptshake.training.lr_range as room\nroom.range_test = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)"
    done = commands(tmp_path, *small, *QUICK, before=fault)
    assert done.code == 1 and "killed by SIGKILL (out of memory?): try a smaller data.micro_batch_size" in done.err


def test_several_models_are_looked_at_one_after_the_other(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "-m", *small, *QUICK, "task.repeats=1", "model.n_embd=8,16")
    assert done.code == 0, done.err
    assert done.out.count("estimates") == 2 and len(list((tmp_path / "multirun").glob("*/*/run.json"))) == 2
