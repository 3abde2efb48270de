"""Runs that start from a folder in transformers' layout: as from the run itself, resumed and repeated without surprises, refused in time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, fake_hub
from tokenizer.conftest import tokenizer_of

BYTES = ("tokenizer=byte", "data=text", "trainer.max_steps=6")
SHAPE = ("model=tiny", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16")
KILLED = (
    "import os\nfrom gptshake.training.module import GPTModule\n"
    "def training_step(self, *rest):\n    os.kill(os.getpid(), 9)\n"
    "GPTModule.training_step = training_step\n"
)


@pytest.fixture(scope="module")
def words(small: tuple[str, ...]) -> tuple[str, ...]:
    """The small run without its model, which the folder gives."""
    return (*(word for word in small if not word.startswith(("model", "data=", "trainer.max_steps"))), *BYTES)


@pytest.fixture(scope="module")
def origin(words: tuple[str, ...], commands: Any, the_run: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trained run of bytes with its export."""
    folder = tmp_path_factory.mktemp("origin")
    done = commands(folder, *SHAPE, *words)
    assert done.code == 0, done.err
    exported = commands(folder, "task=export", "task.run=latest", "task.folder=exported")
    assert exported.code == 0, exported.err
    return the_run(folder)


@pytest.fixture
def exported(origin: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(origin.path.parents[1] / "exported", tmp_path / "exported"))


def test_a_run_from_an_export_is_the_run_from_its_origin_with_the_sizes_of_config_json(
    words: tuple[str, ...], origin: Any, exported: Path, commands: Any, the_run: Callable[[Path], Any], tmp_path: Path
) -> None:
    two = {name: tmp_path / name for name in ("folder", "run")}
    for folder in two.values():
        folder.mkdir()
    rate = ("optimizer.lr=1e-3", "data.batch_size=8")
    done = commands(two["folder"], *words, *rate, "init_from=hf:../exported")
    assert done.code == 0, done.err
    assert commands(two["run"], *SHAPE, *words, *rate, "model.dropout=0.1", f"init_from={origin.path}").code == 0
    record, other = the_run(two["folder"]), the_run(two["run"])
    assert record.numbers() == other.numbers() and record.numbers()[0][2] < origin.numbers()[0][2]
    assert f"weights from hf:{exported}" in done.out and record.info["resolved"]["init_from"] == f"hf:{exported}"
    assert record.info["pretrained"] == {
        "source": f"hf:{exported}",
        "sha256": sha256((exported / "model.safetensors").read_bytes()).hexdigest(),
    }
    assert "model.n_layer=1" in record.info["overrides"] and "model.block_size=16" in record.info["overrides"]


@pytest.mark.slow
def test_resume_and_reproduce_need_what_the_run_began_with_only_before_its_first_checkpoint(
    words: tuple[str, ...], exported: Path, commands: Any, the_run: Callable[[Path], Any], tmp_path: Path
) -> None:
    whole, began = tmp_path / "whole", tmp_path / "began"
    for folder in (whole, began):
        folder.mkdir()
    start = (*words, "init_from=hf:../exported")
    assert commands(whole, *start).code == 0
    expected = the_run(whole).numbers()
    assert commands(began, *start, before=KILLED).code == -9
    file = exported / "model.safetensors"
    weights = file.read_bytes()
    file.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    done = commands(began, "resume=latest")
    assert done.code == 2 and "holds other weights than when the run began" in done.error
    done = commands(whole, "task=reproduce", "task.run=latest")
    assert done.code == 2 and "started from other weights" in done.err
    file.write_bytes(weights)
    assert commands(began, "resume=latest", "trainer.max_time=00:00:00:01").code == 0
    assert commands(whole, "task=reproduce", "task.run=latest", "task.steps=2").code == 0
    shutil.rmtree(exported)
    done = commands(began, "resume=latest")
    assert done.code == 0, done.err
    assert the_run(began).numbers() == expected


def test_resume_auto_finds_the_run_that_began_from_the_same_model_and_no_other(
    words: tuple[str, ...], exported: Path, commands: Any, the_run: Callable[[Path], Any], tmp_path: Path
) -> None:
    stops = "import os, signal\nfrom gptshake.training.module import GPTModule as M\nown = M.training_step\n"
    stops += "def step(self, *rest):\n    os.kill(os.getpid(), signal.SIGTERM) if self.steps == 2 else None\n    return own(self, *rest)\n"
    stops += "M.training_step = step\n"
    start = (*words, "init_from=hf:exported", "resume=auto")
    assert commands(tmp_path, *start, before=stops).code == 143
    shutil.copytree(exported, tmp_path / "other")
    done = commands(tmp_path, *(word.replace("exported", "other") for word in start), "paths.run_dir=new")
    assert done.code == 0 and "no unfinished run" in done.out, done.out + done.err
    done = commands(tmp_path, *start)
    assert done.code == 0 and "resuming" in done.out and the_run(tmp_path).info["status"] == "ok", done.out + done.err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((*SHAPE, "model.n_layer=2"), "its weights fit with model.n_layer=1."),
        ((*SHAPE, "model.n_head=1", "model.block_size=17"), "its weights fit with model.n_head=2 model.block_size=16."),
        (("init_from=hf:nosuch",), "hf:nosuch is no folder"),
        ((*SHAPE, "init_from=gpt2"), "init_from=hf:"),  # as nanoGPT has it
        (("init_from=hf:.",), "its config.json cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_before_torch_is_imported(
    more: tuple[str, ...], sentence: str, words: tuple[str, ...], exported: Path, light_commands: Any, tmp_path: Path
) -> None:
    done = light_commands(tmp_path, *words, "init_from=hf:exported", *more)
    assert done.code in (1, 2) and sentence in done.error and [file.name for file in tmp_path.iterdir()] == ["exported"]


def test_the_config_that_is_shown_has_the_sizes_of_config_json(exported: Path, light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, "init_from=hf:exported", "--cfg", "job", "-p", "model")
    assert done.code == 0 and "n_layer: 1\n" in done.out and "block_size: 16\n" in done.out, done.out + done.err


def test_another_tokenizer_is_refused_whether_its_size_differs_or_not(
    words: tuple[str, ...], exported: Path, commands: Any, tmp_path: Path
) -> None:
    done = commands(tmp_path, *words, "init_from=hf:exported", "tokenizer=char")
    assert done.code == 2 and "other ids than tokenizer=char (257, here" in done.error and "tokenizer=gpt2" in done.error
    from gptshake.export.tokenizers import write_tokenizer

    write_tokenizer(tokenizer_of("bpe"), exported)
    done = commands(tmp_path, *words, "init_from=hf:exported")
    assert done.code == 2 and "other ids than tokenizer=byte (257, here 257)" in done.error and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("task", ["train", "find_lr"])
@pytest.mark.parametrize("kind", ["a run", "a folder"])
def test_broken_weights_leave_no_run_behind(
    kind: str, task: str, words: tuple[str, ...], origin: Any, exported: Path, commands: Any, tmp_path: Path
) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(origin.path, parent)
    for file in (exported / "model.safetensors", *parent.glob("checkpoints/*/model.safetensors")):
        file.write_bytes(file.read_bytes()[:-8])
    source = parent if kind == "a run" else f"hf:{exported}"
    done = commands(tmp_path, *SHAPE, *words, f"init_from={source}", f"task={task}")
    assert done.code in (1, 2) and done.error and not (tmp_path / "runs").exists(), done.out


def test_a_model_of_the_hub_is_kept_with_its_commit(
    words: tuple[str, ...], exported: Path, commands: Any, the_run: Callable[[Path], Any], tmp_path: Path
) -> None:
    with fake_hub(tmp_path / "home") as served:
        served.files["me/bytes"] = {file.name: file.read_bytes() for file in exported.iterdir()}
        command = [sys.executable, "-m", "gptshake", *words, "init_from=hf:me/bytes"]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | served.env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = the_run(tmp_path)
    assert record.info["pretrained"]["source"] == record.info["resolved"]["init_from"] == f"hf:me/bytes@{COMMIT}"
    assert commands(tmp_path, "resume=latest").code == 0  # the hub has gone
