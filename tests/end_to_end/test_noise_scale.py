"""The noise scale through the command line: beside a run, resumed, as a task of its own, and at the checkpoints of a run."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

KILL = """
import os
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    if (self.steps, self.micro_batches) == ({step}, 1):
        os.kill(os.getpid(), {signum})
    return own(self, batch, number)
GPTModule.training_step = training_step
"""
MEASURED = ("+callbacks.noise_scale._target_=gptshake.training.callbacks.noise_scale.NoiseScale",)


def measured(record: Any) -> str:
    return str((record.path / "noise_scale.csv").read_text())


@pytest.fixture(scope="module")
def plain(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert commands(folder, *small).code == 0
    return folder


@pytest.fixture(scope="module")
def noisy(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    done = commands(folder, *small, *MEASURED)
    assert done.code == 0, done.err
    assert "noise scale: " in done.out
    return folder


def weights(record: Any) -> bytes:
    return bytes((record.path / "checkpoints" / record.saved()[-1] / "model.safetensors").read_bytes())


def test_a_measured_run_is_the_run_without(plain: Path, noisy: Path, the_run: Any) -> None:
    assert the_run(noisy).numbers() == the_run(plain).numbers()
    assert weights(the_run(noisy)) == weights(the_run(plain))
    assert len(measured(the_run(noisy)).splitlines()) == 13


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_resumed_run_measures_what_the_uninterrupted_one_did(
    signum: int, commands: Any, small: Any, noisy: Path, tmp_path: Path, the_run: Any
) -> None:
    assert commands(tmp_path, *small, *MEASURED, before=KILL.format(step=6, signum=int(signum))).code != 0
    assert commands(tmp_path, f"resume={the_run(tmp_path).info['id']}").code == 0
    assert measured(the_run(tmp_path)) == measured(the_run(noisy))


def test_the_option_measures_and_draws_and_so_does_a_step_of_one_pass(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    argv = [text for text in small if text not in ("callbacks=none", "data.micro_batch_size=2")]
    done = commands(tmp_path, *argv, "callbacks=noise_scale", "callbacks.noise_scale.split_every=4", "callbacks.samples.times=0")
    assert done.code == 0, done.err
    assert [line.split(",")[0] for line in measured(the_run(tmp_path)).splitlines()[1:]] == ["4", "8", "12"]
    assert {"noise_scale.png", "noise_scale.svg", "loss.png"} <= {file.name for file in (the_run(tmp_path).path / "plots").iterdir()}


def test_the_task_trains_a_short_run_and_tells(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    argv = [text for text in small if text != "callbacks=none"]
    done = commands(tmp_path, "task=noise_scale", *argv, "callbacks.samples.times=0")
    assert done.code == 0, done.err
    assert "noise scale: " in done.out and "plots/noise_scale.png" in done.out
    assert the_run(tmp_path).info["task"] == "noise_scale" and len(measured(the_run(tmp_path)).splitlines()) == 13
    assert the_run(tmp_path).info["git"]  # it is a training like any other, and guarded


def test_the_task_tells_of_a_run_that_has_measured(commands: Any, noisy: Path, the_run: Any) -> None:
    before = the_run(noisy).info
    done = commands(noisy, "task=noise_scale", f"task.run={before['id']}")
    assert done.code == 0, done.err
    assert done.out.startswith("noise scale: ") and "plots/noise_scale.png" in done.out
    assert the_run(noisy).info == before and not (noisy / "noise_scale").exists()


def test_the_task_measures_at_the_checkpoints_of_another(commands: Any, plain: Path, the_run: Any) -> None:
    record = the_run(plain)
    before = sorted(plain.rglob("*"))
    done = commands(plain, "task=noise_scale", f"task.run={record.info['id']}", "task.passes=400")
    assert done.code == 0, done.err
    assert "noise scale: " in done.out and f"checkpoint 1 of {len(record.saved())}" in done.out
    made = plain / "noise_scale" / record.path.name
    rows = (made / "noise_scale.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {str(int(name[5:])) for name in record.saved()}
    assert {file.name for file in made.iterdir()} == {"noise_scale.csv", "noise_scale.png", "noise_scale.svg"}
    assert [file for file in sorted(plain.rglob("*")) if plain / "noise_scale" not in (file, *file.parents)] == before


def test_damaged_checkpoints_are_left_out_and_without_a_whole_one_there_is_nothing_to_measure(
    commands: Any, plain: Path, tmp_path: Path, the_run: Any
) -> None:
    folder = shutil.copytree(plain / "runs", tmp_path / "runs").parent
    first, *others = sorted(the_run(folder).path.glob("checkpoints/*/model.safetensors"))
    for file in others:
        file.write_bytes(file.read_bytes()[:100])
    done = commands(folder, "task=noise_scale", f"task.run={the_run(folder).info['id']}", "task.passes=400")
    assert done.code == 0 and done.out.count("It is left out.") == len(others), done.out + done.err
    first.write_bytes(b"")
    done = commands(folder, "task=noise_scale", f"task.run={the_run(folder).info['id']}", "task.passes=400")
    assert done.code == 2 and f"No checkpoint of {the_run(folder).path.name} is whole." in done.error


def test_without_a_model_the_task_says_which_there_are(light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, "task=noise_scale", "data=wiki_char")
    assert done.code == 2 and "Choose a model" in done.error


def test_a_run_without_checkpoints_and_a_run_that_is_not_there_get_a_sentence(
    commands: Any, small: Any, tmp_path: Path, the_run: Any
) -> None:
    commands(tmp_path, *small, before=KILL.format(step=2, signum=int(signal.SIGKILL)))
    done = commands(tmp_path, "task=noise_scale", f"task.run={the_run(tmp_path).info['id']}")
    assert done.code == 2 and "has no checkpoint to measure at" in done.error
    assert "There is no run" in commands(tmp_path, "task=noise_scale", "task.run=nowhere").error
    assert "task.passes=3 cannot work" in commands(tmp_path, "task=noise_scale", "task.run=nowhere", "task.passes=3").error


def test_a_batch_of_one_sequence_is_refused_with_what_to_set(commands: Any, small: Any, tmp_path: Path) -> None:
    argv = [text for text in small if not text.startswith("data.")]
    book = next(text for text in small if text.startswith("data.path"))
    done = commands(tmp_path, "task=noise_scale", *argv, book, "data=text_char", "data.batch_size=1")
    assert done.code == 2 and "set it to 2 or more" in done.error
    assert not list(tmp_path.rglob("run.json")), "nothing was measured"
