"""``task=cloud`` from the command line: what it writes, what it costs, what it refuses, and that nothing is rented without its price being typed."""

import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from gptshake.config.arguments import parse
from gptshake.errors import ConfigError, GptshakeError
from gptshake.export.cloud import Job
from gptshake.record.git import Code
from gptshake.tasks import cloud

KEY = 5 * "0123abcd"  # of W&B, by its shape
WIDE = (
    "model.n_layer=16",
    "model.n_embd=4096",
    "model.n_head=2",
)  # 52 GB for 3.2e9 weights, 13 in each of four shards and 1.6 for the blocks at work; an RTX 4090 has 24 GiB


@pytest.fixture
def words(small: tuple[str, ...]) -> tuple[str, ...]:
    """The small run, on a GPU."""
    return (*(word for word in small if not word.startswith("trainer=")), "task=cloud", "task.gpu=rtx4090", "task.sync=s3://bucket/gpts")


def task_file(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("cloud/*.yaml")
    return dict(yaml.safe_load(file.read_text()))


def arguments(task: dict[str, Any]) -> list[str]:
    """The command line in a task file, as gptshake parses it there."""
    words = shlex.split(task["run"].partition("train=(")[2].partition(")\nlinked()")[0].replace("\\\n", ""))
    argv = parse(words[1:]).argv()
    return [word for word in argv if not word.startswith("dirty=")]  # there if this checkout has uncommitted changes


def test_the_file_holds_the_command_that_was_typed_and_the_price_of_the_plan(commands: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    done = commands(tmp_path, *words, "task.cloud=vast", "task.hours=3", "paths.runs=elsewhere", "note=a 'note'", WANDB_API_KEY=KEY)
    assert done.code == 0, done.err
    assert "peak" in done.out and "rtx4090 at vast: about 0.2 h = $0.08, at most 3.5 h = $1.38 at $0.40 per hour" in done.out
    task, book = task_file(tmp_path), Path(next(word for word in words if word.startswith("data.path=")).partition("=")[2])
    typed = [word for word in words if not word.startswith(("task", "data.path"))]
    sent = "data.path='~/gptshake-inputs/0-book.txt'"
    assert sorted(arguments(task)) == sorted([*typed, "note='a \\'note\\''", sent, "resume='auto'"])
    assert task["file_mounts"] == {"~/gptshake-inputs/0-book.txt": str(book)}
    assert "use_spot" not in task["resources"] and task["resources"]["disk_size"] >= 40 and "limit=180m" in task["run"]
    assert [file.suffix for file in sorted(tmp_path.glob("cloud/*"))] == [".sh", ".yaml"] and not (tmp_path / "runs").exists()


def test_a_network_that_fits_in_shards_is_not_refused(commands: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    done = commands(tmp_path, *words, "task.cloud=vast", "trainer=fsdp", "trainer.devices=4", *WIDE)
    assert done.code == 0 and list(tmp_path.glob("cloud/*.yaml")), done.err
    assert "will probably not fit" not in done.out


def test_another_text_or_another_code_is_another_job(commands: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    book = Path(next(word for word in words if word.startswith("data.path=")).partition("=")[2])
    own = tmp_path / "text.txt"
    typed = [*(word for word in words if not word.startswith("data.path=")), "data.path=text.txt", "task.cloud=vast"]
    for text in (book.read_text(), book.read_text(), book.read_text() + "more"):
        own.write_text(text)
        assert commands(tmp_path, *typed).code == 0
    assert len(list(tmp_path.glob("cloud/*.yaml"))) == 2


def test_a_sweep_is_one_command_in_one_file(commands: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    sweep = ("-m", *words, "task.cloud=lambda", "optimizer.lr=1e-3,3e-3", "repeats=2")
    assert "give task.hours=" in commands(tmp_path, *sweep).error and not (tmp_path / "cloud").exists()
    done = commands(tmp_path, *sweep, "task.hours=2")
    assert done.code == 0, done.err
    argv = arguments(task_file(tmp_path))
    assert (
        argv[0] == "-m" and {"optimizer.lr=1e-3,3e-3", "hydra.sweeper.repeats=2"} <= {*argv} and not any("resume" in word for word in argv)
    )
    assert "at most 2.5 h = $0.98" in done.out and "about" not in done.out.splitlines()[-2]


def test_a_secret_is_a_name_in_the_files_and_nowhere_a_value(commands: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    own = tmp_path / "conf/callbacks/mine.yaml"
    own.write_text("mine:\n  why: ${oc.env:OTHER}\n")
    secrets = {"WANDB_API_KEY": KEY, "OTHER": "planted-through-oc-env", "WEBHOOK": "https://planted.example.org/hook"}
    command = ("logger=wandb", "task.cloud=vast", "callbacks=mine", "+callbacks.notify.url=${oc.env:WEBHOOK}")
    for more in (*command,), (*command, "logger.mode=offline"):
        done = commands(tmp_path, *(word for word in words if word != "logger=none"), *more, **secrets)
        assert done.code == 0, done.err
        texts = {file: file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
        assert [file for file, text in texts.items() if any(value in text for value in secrets.values())] == []
        assert not any(value in done.out + done.err for value in secrets.values())
        assert all("-files/ " in text for file, text in texts.items() if file.suffix == ".sh")  # the own conf/, sent as a folder
        assert ("WANDB_API_KEY" in done.out) == ("logger.mode=offline" not in more)
    own.write_text("mine:\n  password: planted-in-yaml\n")
    for bad, sentence in (
        (("callbacks=none", f"note={KEY}"), "note= holds a secret"),
        (("callbacks=none", "note=https://me:planted@host.org"), "note= holds a secret"),
        (("callbacks=mine",), "mine.yaml holds a secret"),
    ):
        assert sentence in commands(tmp_path, *words, "task.cloud=vast", *bad, **secrets).error


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "Choose a cloud and a GPU"),
        (("task.cloud=vast", "trainer=cpu"), "leave the rented GPU idle"),
        (("task.cloud=vast", "trainer=ddp"), "say how many to rent"),
        (("task.cloud=vast", "logger=trackio"), "are not installed on the machine"),
        (("-m", "task.cloud=vast", "task.hours=1", "executor=slurm", "optimizer.lr=1e-3,3e-3"), "this executor is not installed there"),
        (("task.cloud=vast", "study=night1"), "study= is for a sweep: add -m"),
        (("task.cloud=vast", "model.n_embd=65536"), "The run needs about"),
        (("task.cloud=vast", "trainer=ddp", "trainer.devices=4", *WIDE), "The run needs about"),
        (("task.cloud=runpod", "task.sync=null"), "task.sync= is missing"),
        (("task.cloud=lambda", "data.path=*.txt"), "data.path"),
        (("task.cloud=vast", "task.launch=true"), "there is no terminal here"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    commands: Any, words: tuple[str, ...], tmp_path: Path, more: tuple[str, ...], sentence: str
) -> None:
    done = commands(tmp_path, *words, *more)
    assert done.code == 2 and sentence in done.error and not (tmp_path / "cloud").exists()


@pytest.mark.parametrize(
    ("remote", "cloned"),
    [
        ("https://git.example.org/me/x.git", True),
        ("ssh://host/x.git", False),
        ("git@host:x", False),
        ("host:x", False),
        ("file:///x", False),
    ],
)
def test_only_what_needs_no_key_is_cloned_there(remote: str, cloned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "on_remote", lambda commit: True)
    context: Any = SimpleNamespace(spec=SimpleNamespace(code=Code({"remote": remote, "commit": "0" * 40})))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert cloud._origin(context, tmp_path) == ((remote, "0" * 40) if cloned else None)
    subprocess.run(["git", "-C", str(tmp_path), "config", "remote.origin.url", "https://me:planted-password@host.org/x"], check=True)
    if not cloned:
        with pytest.raises(ConfigError, match="holds a secret"):
            cloud._origin(context, tmp_path)


@pytest.mark.parametrize("history", ["worktrees", "modules"])
def test_a_worktree_and_a_submodule_are_said_to_leave_their_history_behind(history: str, tmp_path: Path) -> None:
    job: Any = SimpleNamespace(origin=None, root=tmp_path)
    (tmp_path / ".git").mkdir()
    assert cloud._code_text(job) == f"uploaded from {tmp_path}"
    (tmp_path / ".git").rmdir()
    (tmp_path / ".git").write_text(f"gitdir: /sources/.git/{history}/x\n")
    assert (
        cloud._code_text(job) == f"uploaded from {tmp_path}, whose git history is elsewhere (.git is a file): the run will record no commit"
    )


def test_the_name_of_a_sent_file_is_no_shell_text_and_env_files_are_never_sources(tmp_path: Path) -> None:
    file, files = tmp_path / 'a "$(touch x)" b.txt', dict[str, Path]()
    file.touch()
    assert cloud._sent("data.path", str(file), [], files) == "~/gptshake-inputs/0-a----touch-x---b.txt"
    assert list(files.values()) == [file]
    root = Path(__file__).parents[2]
    assert subprocess.run(["git", "check-ignore", "-q", "conf/.env.local"], cwd=root).returncode == 0


def test_a_hub_token_is_passed_where_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = OmegaConf.create({"logger": None, "data": {"documents": {"_target_": "gptshake.data.source.files.TextFiles"}}})
    monkeypatch.setenv("HF_TOKEN", "x")
    assert cloud._secrets(cfg, ["model=tiny"], []) == ()
    assert cloud._secrets(cfg, ["init_from=hf:gpt2"], []) == ("HF_TOKEN",)
    cfg.data.documents._target_ = "gptshake.data.source.hub.Hub"
    assert cloud._secrets(cfg, ["data=hf"], []) == ("HF_TOKEN",)


@pytest.mark.parametrize(("typed", "started"), [("1.27", False), ("", False), ("y", False), ("1.28", True), ("$1.28", True)])
def test_only_the_typed_price_starts_sky(typed: str, started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sky = tmp_path / "sky"
    sky.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit 3\n')  # the boundary: the real one rents
    sky.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("builtins.input", lambda question: typed)
    job = Job("x", "lambda", "h100", 1, False, [], tmp_path, None, {}, ("A",), "s3://b", None, 1, 1, 1, confirm="1.28")
    if started:
        with pytest.raises(GptshakeError, match="exit code 3"):
            cloud._start(job, Path("x.yaml"))
    else:
        cloud._start(job, Path("x.yaml"))
    asked = tmp_path / "asked"
    assert asked.exists() == started and (not started or asked.read_text() == "launch --cluster x --secret A x.yaml\n")
