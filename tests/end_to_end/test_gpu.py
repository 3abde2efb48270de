"""Every command of the README and the docs, for real and in short, on each kind of GPU that is here.

Elsewhere all of it is skipped, with the reason. ``GPTSHAKE_TEST_DEVICE=cpu`` runs it on the CPU, to try the tests themselves. The
pages' commands run in the order of the page, in one folder, in fresh processes: CUDA and Metal do not outlive a fork.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gptshake import torchrun

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"^`([\w/.]+\.(?:yaml|py))`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
ONLINE = ("data.source=hub", "data.n_documents=10", "data=hf", "data=shakespeare", "tokenizer=gpt2", "task=sync", "offload")
ELSEWHERE = ("trainer.accelerator=cpu", "trainer=cpu", "torchrun", "task=reproduce", "range search_space=law")
SHORT = {
    "model.n_layer": "1",
    "model.n_embd": "32",
    "model.n_head": "2",
    "model.block_size": "32",
    "data.batch_size": "8",
    "data.batch_tokens": "null",
    "trainer.max_steps": "6",
    "trainer.limit_val_batches": "2",
    "trainer.hours": "null",
    "callbacks.samples.n_tokens": "8",
    "callbacks.samples.times": "2",
}
TASKS = {
    "find_lr": ("task.steps=40", "task.repeats=1", "task.confirm=3", "task.confirm_steps=6"),
    "profile": ("task.steps=2", "task.seconds=5"),
}
SWEEP = ("hydra.sweeper.n_trials=2", "repeats=1")


def _missing(device: str) -> str:
    """Why a device cannot be tried, or nothing."""
    if device == os.environ.get("GPTSHAKE_TEST_DEVICE"):
        return ""
    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available() if device == "mps" else False
    return "" if there else f"there is no {device.upper()} device here"


DEVICES = [
    pytest.param(device, marks=[pytest.mark.gpu, pytest.mark.skipif(bool(_missing(device)), reason=_missing(device))])
    for device in ("cuda", "mps", *filter(None, [os.environ.get("GPTSHAKE_TEST_DEVICE")]))
]
pytestmark = pytest.mark.timeout(1800)


def accelerator(device: str) -> str:
    return {"cuda": "gpu"}.get(device, device)


def gptshake(folder: Path, *arguments: str) -> str:
    """What a command prints; it must succeed, and say nothing on standard error that is an error."""
    environment = {name: value for name, value in os.environ.items() if name not in torchrun.VARIABLES}
    done = subprocess.run(
        [sys.executable, "-m", "gptshake", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0 and "error:" not in done.stderr, f"{shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commands(page: Path) -> list[list[str]]:
    """The arguments of the page's gptshake commands that train or read here, without the network."""
    lines = [line for block in BLOCK.findall(page.read_text(encoding="utf-8")) for line in block.replace("\\\n", " ").splitlines()]
    ours = [line for line in lines if line.startswith("gptshake ") and not any(word in line for word in (*ONLINE, *ELSEWHERE))]
    return [shlex.split(line, comments=True)[1:] for line in ours]


def shortened(arguments: list[str], device: str, newest: str, study: str) -> list[str]:
    """The same command, small and on the device, about the newest run and study where it names one."""
    words = [word.replace("<run>", newest).replace("<study>", study).replace("<name>", study) for word in arguments]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    task = next((word.removeprefix("task=") for word in words if word.startswith("task=")), "train")
    if "-m" in words and task == "train":
        words += SWEEP
    if "trainer" in keys and any(word in ("trainer=ddp", "trainer=fsdp") for word in words):
        words = [word for word in words if not word.startswith("trainer.devices=")] + ["trainer.devices=1"]
    if task in ("train", *TASKS, "fit_batch", "plan", "noise_scale", "inspect") and "resume" not in keys and "task.run" not in keys:
        swept = {key for key in keys if any(word.startswith(f"{key}=") and re.search(r"range|interval|,", word) for word in words)}
        words = [word for word in words if word.lstrip("+").partition("=")[0] not in SHORT.keys() - swept]
        own = any(word.startswith("model=g") and not word.startswith("model=gpt") for word in words) or "experiment" in keys
        words += [f"{key}={value}" for key, value in SHORT.items() if key not in swept and not (own and key.startswith("model."))]
    words += TASKS.get(task, ())
    if task in ("train", "sample", "find_lr", "fit_batch", "profile", "noise_scale", "plan") and "resume" not in keys:
        words = [word for word in words if word != "trainer=gpu"] + [f"trainer.accelerator={accelerator(device)}"]
    return words


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES if commands(page)])
def test_the_commands_of_a_page_run_on_a_gpu(page: Path, device: str, tmp_path: Path, book: Path) -> None:
    shutil.copy(book, tmp_path / "book.txt")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "lines.jsonl").write_text(
        "".join(json.dumps({"content": "A text of some length. " * 40}) + "\n" for _ in range(30))
    )
    for where, text in EXAMPLE.findall(page.read_text(encoding="utf-8")):
        (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / where).write_text(text, encoding="utf-8")
    base = ("model=tiny", "data=text_char", "data.path=book.txt", *(f"{key}={value}" for key, value in SHORT.items()))
    gptshake(tmp_path, *base, f"trainer.accelerator={accelerator(device)}")
    gptshake(tmp_path, "-m", *base, "seed=1,2", f"trainer.accelerator={accelerator(device)}", "study=night1")
    for arguments in commands(page):
        newest = max((tmp_path / "runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime).parent.name
        gptshake(tmp_path, *shortened(arguments, device, newest, "night1"))


def record(folder: Path) -> dict[str, Any]:
    (file,) = (folder / "runs").glob("*/run.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        ("trainer.precision=32-true",),
        ("trainer.precision=bf16-mixed",),
        ("trainer.precision=16-mixed",),
        ("trainer.compile=true",),
        ("deterministic=true", "model.dropout=0.2"),
        ("callbacks=noise_scale", "trainer.precision=32-true"),
        ("data.workers=2",),
        ("data.micro_batch_size=auto", "data.batch_size=32"),
        ("trainer.hours=0.02", "trainer.max_steps=null"),
        ("optimizer=sgd", "optimizer.lr=0.1"),
    ],
)
def test_a_run_stops_goes_on_and_samples_on_a_gpu(options: tuple[str, ...], device: str, tmp_path: Path, book: Path) -> None:
    if device != "cuda" and "16-mixed" in options[0]:
        pytest.skip("16-mixed is for CUDA")
    shutil.copy(book, tmp_path / "book.txt")
    short = {**SHORT, "trainer.max_steps": "20", "trainer.limit_val_batches": "null"}
    short = {key: value for key, value in short.items() if not any(option.startswith(f"{key}=") for option in options)}
    base = ("model=tiny", "data=text_char", "data.path=book.txt", f"trainer.accelerator={accelerator(device)}", "scheduler=constant")
    gptshake(tmp_path, *base, *(f"{key}={value}" for key, value in short.items()), *options)
    info = record(tmp_path)
    assert info["status"] == "ok" and info["summary"]["val/loss"] < 3 and info["summary"]["perf/tokens_per_s"] > 0
    if "trainer.max_steps" in short:
        gptshake(tmp_path, f"resume={info['id']}", "trainer.max_steps=30")
        assert record(tmp_path)["summary"]["steps"] == 30
    texts = [gptshake(tmp_path, "task=sample", f"task.run={info['id']}", "task.n_tokens=40", f"trainer={on}") for on in ("auto", "cpu")]
    assert texts[0] and texts[1]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two CUDA devices here")
def test_two_gpus_train_one_run_with_its_test(strategy: str, tmp_path: Path, book: Path) -> None:
    shutil.copy(book, tmp_path / "book.txt")
    short = {**SHORT, "trainer.max_steps": "20", "trainer.limit_val_batches": "null"}
    base = ("model=tiny", "data=text_char", "data.path=book.txt", *(f"{key}={value}" for key, value in short.items()))
    gptshake(tmp_path, *base, f"trainer={strategy}", "trainer.devices=2", "data.test_fraction=0.05")
    info = record(tmp_path)
    assert info["devices"] == {"count": 2, "strategy": strategy} and info["summary"]["test/loss"] > 0
    gptshake(tmp_path, f"resume={info['id']}", "trainer.devices=1", "trainer.max_steps=30")
