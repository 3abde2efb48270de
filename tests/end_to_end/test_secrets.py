"""Secrets planted wherever people leave them are in nothing that the command writes, prints or hands to W&B; and it still resumes."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptshake.redaction import SECRET

pytestmark = pytest.mark.slow

PLANTED = {
    "DATABASE_PASSWORD": "planted-in-environment",
    "OTHER": "planted-through-oc-env",
    "WANDB_API_KEY": 5 * "planted0",
    "WANDB_MODE": "offline",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a .env, and a config file of one's own that says a password."""
    (tmp_path / ".env").write_text("LOGIN=planted-in-dotenv\nMODE=offline\n")
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/mine.yaml").write_text("mine:\n  password: planted-in-yaml\n  why: ${oc.env:OTHER}\n")
    return tmp_path


def found(folder: Path) -> list[str]:
    """Files below a folder in which something planted is left, also in their names."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [str(file) for file in files if b"planted" in file.read_bytes() or "planted" in str(file.relative_to(folder))]


def test_no_secret_is_in_a_run_its_output_or_wandb(folder: Path, commands: Any, small: tuple[str, ...], the_run: Any) -> None:
    words = (
        *("logger=wandb", "callbacks=mine", "trainer.max_steps=4", "init_from=null"),
        "note=with planted-in-environment, ${oc.env:OTHER}, planted-in-dotenv and https://me:planted-in-url@host.org/x?token=planted-in-query",
        "++callbacks.mine.api_key=planted-in-override",
    )
    done = commands(folder, *small, *words, **PLANTED)
    assert done.code == 0, done.err
    record = the_run(folder)
    assert found(folder / "runs") == [] and "planted" not in done.out + done.err
    assert record.info["note"] == f"with {SECRET}, {SECRET}, {SECRET} and https://{SECRET}@host.org/x?token={SECRET}"
    assert list((record.path / "wandb").glob("offline-run-*/*.wandb"))
    assert (record.path / "conf/callbacks/mine.yaml").read_text() == f"mine:\n  password: {SECRET}\n  why: ${{oc.env:OTHER}}\n"
    assert "conf/callbacks/mine.yaml" in record.info["local_conf"]
    assert "${oc.env:OTHER}" in (record.path / "overrides").read_text()
    again = commands(folder, f"resume={record.info['id']}", "logger=none", words[-1], **PLANTED)
    assert again.code == 0, again.err
    assert found(folder / "runs") == [] and "planted" not in again.out + again.err


def test_no_secret_is_in_the_folder_of_hydras_own_sweeper(folder: Path, commands: Any, small: tuple[str, ...]) -> None:
    words = ("-m", "hydra/sweeper=basic", "seed=1", "trainer.max_steps=2", "note=with planted-in-environment", "callbacks=mine")
    done = commands(folder, *small, *words, **PLANTED)
    assert done.code == 0, done.err
    assert found(folder / "multirun") == [] and "planted" not in done.out + done.err
    assert list(folder.glob("multirun/*/multirun.yaml")) and list(folder.glob("multirun/*/0/run.json"))


def test_a_failure_and_a_mistake_show_no_secret(folder: Path, commands: Any, small: tuple[str, ...], the_run: Any) -> None:
    fails = "from gptshake.training.module import GPTModule\ndef training_step(*_): raise OSError('no https://me:planted-1@host')\n"
    fails += "GPTModule.training_step = training_step\n"
    done = commands(folder, *small, before=fails, HYDRA_FULL_ERROR="1")
    assert done.code == 1 and f"no https://{SECRET}@host" in done.err and "Traceback" in done.err
    assert the_run(folder).info["reason"] == f"OSError: no https://{SECRET}@host"
    mistake = commands(folder, "model=tiny", "data=text_char", "data.path=https://me:planted-2@host/x")
    assert mistake.code == 2 and f"https://{SECRET}@host/x" in mistake.error
    assert found(folder / "runs") == [] and "planted" not in done.out + done.err + mistake.out + mistake.err


def test_a_value_that_was_hidden_and_matters_must_be_given_again(
    folder: Path, commands: Any, light_commands: Any, small: tuple[str, ...], the_run: Any, book: Path
) -> None:
    secret = folder / "planted-in-environment"
    secret.mkdir()
    (secret / "book.txt").write_bytes(book.read_bytes())
    path = f"data.path={secret}/book.txt"
    assert commands(folder, *small, path, "trainer.max_steps=4", **PLANTED).code == 0
    record = the_run(folder)
    assert found(folder / "runs") == []
    refused = light_commands(folder, f"resume={record.info['id']}", **PLANTED)
    assert refused.code == 2 and "secrets are not stored. Give data.path= again" in refused.error
    again = commands(folder, f"resume={record.info['id']}", path, **PLANTED)
    assert again.code == 0, again.err


def test_no_secret_is_in_a_study(folder: Path, commands: Any, small: tuple[str, ...]) -> None:
    words = ("-m", "optimizer.lr=1e-3,3e-3", "trainer.max_steps=4", "note=with planted-in-environment", "callbacks=mine")
    sweeps = (*small, *words, "study=s", "hydra.sweeper.executor.slots=1", "hydra.sweeper.executor.threads=1")
    done = commands(folder, *sweeps, **PLANTED)
    assert done.code == 0, done.out + done.err
    assert found(folder / "multirun") == [] and "planted" not in done.out + done.err
    info = json.loads((folder / "multirun/s/0/run.json").read_text())
    assert info["note"] == f"with {SECRET}" and info["trial"]["study"] == "s" and "energy_kwh" not in info
    assert commands(folder, *sweeps, **PLANTED).code == 0  # the same command is still the same study


def test_a_failing_trial_shows_no_secret_in_its_output(folder: Path, commands: Any, small: tuple[str, ...]) -> None:
    fails = "from gptshake.training.module import GPTModule\ndef training_step(*_):\n    print('planted-in-environment')\n    raise OSError('no')\n"
    words = ("-m", "seed=1,2", "note=with planted-in-environment", "study=s", "hydra.sweeper.executor.slots=1")
    done = commands(folder, *small, *words, before=fails + "GPTModule.training_step = training_step\n", **PLANTED)
    assert done.code == 1 and "planted" not in done.out + done.err
    output = (folder / "multirun/s/0/output").read_text()
    assert "Error executing job with overrides" in output and SECRET in output and found(folder / "multirun") == []


@pytest.mark.parametrize("flags", [("--cfg", "job"), ("--cfg", "job", "--resolve"), ("--cfg", "all"), ("--info", "all")])
def test_what_hydra_prints_shows_no_secret(flags: tuple[str, ...], folder: Path, light_commands: Any, small: tuple[str, ...]) -> None:
    done = light_commands(folder, *small, "callbacks=mine", "note=planted-in-environment", *flags, **PLANTED)
    assert done.code == 0 and "planted" not in done.out + done.err and "n_layer: 1" in done.out


def test_no_secret_is_in_the_names_that_wandb_keeps(folder: Path, commands: Any, small: tuple[str, ...]) -> None:
    words = ("logger=wandb", "logger.project=planted-in-environment", "logger.entity=planted-in-dotenv", "trainer.max_steps=2")
    done = commands(folder, *small, *words, **PLANTED)
    assert done.code == 0, done.err
    assert found(folder / "runs") == [] and list(folder.rglob("*.wandb"))
