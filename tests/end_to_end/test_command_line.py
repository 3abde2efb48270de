"""The real command in real processes: the mission's command, help, errors, the guard, a kill from outside."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def gptshake(cwd: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gptshake", *argv]
    return subprocess.run(command, cwd=cwd, env=dict(os.environ) | env, capture_output=True, text=True, timeout=250)


def cpu_seconds(*command: str) -> float:
    """Processor time of a command: a busy neighbour does not change it much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd="/", capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_the_missions_command_trains_gpt3_small_on_wikipedia(excerpt: None, tmp_path: Path, the_run: Any) -> None:
    done = gptshake(tmp_path, "model=gpt3_small", "data=wiki_char", "debug=smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "plan: 8",
        "excerpt106",
        "first block",
        "bytes per token",
        "sample at 0 %",
        "val loss",
        "sample at 100 %",
        "done: val loss",
        "curves:",
    ):
        assert part in done.stdout, part
    record = the_run(tmp_path)
    assert "gpt3_small-wiki_char-excerpt106" in record.path.name
    assert record.steps == [1, 2, 3, 4] and record.info["status"] == "ok"
    names = {file.relative_to(record.path).as_posix() for file in record.path.rglob("*") if file.is_file()}
    assert {"config.yaml", "overrides", "run.json", "metrics.csv", "samples.md", "log", "plots/loss.png", "plots/loss.svg"} <= names
    assert {"tokenizer/tokenizer.json", "checkpoints/step-00000004/model.safetensors"} <= names


def test_help_and_version_from_anywhere(tmp_path: Path) -> None:
    page = gptshake(tmp_path, "--help")
    assert page.returncode == 0 and page.stdout.startswith("gptshake ") and "gpt3_175b" in page.stdout
    assert gptshake(tmp_path, "--version").stdout.split() == ["gptshake", page.stdout.split()[1].rstrip(":")]
    assert list(tmp_path.iterdir()) == []


def test_the_config_is_shown_from_another_directory_and_nothing_is_written(tmp_path: Path) -> None:
    shown = gptshake(tmp_path, "model=gpt3_small", "data=wiki_char", "optimizer.lr=1e-5", "--cfg", "job")
    assert shown.returncode == 0, shown.stderr
    assert "n_embd: 768" in shown.stdout and "lr: 1.0e-05" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_variables_of_other_programs_do_not_end_a_command(tmp_path: Path) -> None:
    """MPLBACKEND may name what this matplotlib does not know, as a notebook's does elsewhere; a cache that is empty is not set."""
    code = "import sys, runpy\nsys.argv = ['gptshake', 'task=runs']\ntry:\n    runpy.run_module('gptshake', run_name='__main__')\n"
    code += "except SystemExit as end:\n    import matplotlib\n    print(end.code, matplotlib.get_backend())"
    environment = dict(os.environ) | {"MPLBACKEND": "x", "GPTSHAKE_CACHE": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("0 agg\n"), done.stdout + done.stderr


def test_a_mistake_is_told_about_as_quickly_as_hydra_can_be_imported(tmp_path: Path) -> None:
    hydra = min(cpu_seconds(sys.executable, "-c", "import hydra, omegaconf") for _ in range(2))
    for words in (["model=tny", "data=wiki_char"], ["model=tiny", "data=wiki_char", "optimizer.lr=-1"], ["model=tiny"]):
        told = min(cpu_seconds(sys.executable, "-m", "gptshake", *words) for _ in range(2))
        assert told < 4 * hydra + 0.4, f"{' '.join(words)}: {told:.2f} s of processor time, import hydra: {hydra:.2f} s"


def test_a_pipe_that_is_closed_early_is_no_failure(tmp_path: Path) -> None:
    command = f"{sys.executable} -m gptshake --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""


@pytest.mark.parametrize("words", [["task=runs"], ["model=tiny", "data=wiki_char", "--cfg", "job"], ["--help"]], ids=" ".join)
def test_a_full_disk_behind_the_standard_output_is_no_success(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gptshake", *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "error: What was printed could not all be written: No space left on device. Free some space, and run the same command again.\n",
    )


def test_killed_from_outside_and_resumed_by_a_new_process(small: tuple[str, ...], commands: Any, tmp_path: Path, the_run: Any) -> None:
    steps = ("trainer.max_steps=120", "trainer.val_check_interval=30")
    environment = dict(os.environ)
    child = subprocess.Popen([sys.executable, "-m", "gptshake", *small, *steps], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/checkpoints/step-*")):
        assert time.monotonic() < limit and child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    done = gptshake(tmp_path, f"resume={the_run(tmp_path).path.name}")
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    whole.mkdir()
    assert commands(whole, *small, *steps).code == 0
    assert the_run(tmp_path).numbers() == the_run(whole).numbers()


def test_a_signal_during_start_up_ends_it_with_its_code(small: tuple[str, ...], tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "gptshake", *small], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 60
    while not (tmp_path / "runs").exists():
        assert time.monotonic() < limit and child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143 and "Traceback" not in err


# --- the guard, on a throw-away checkout ---


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git checkout of the package, everything committed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "all")
    return folder


def git(folder: Path, *command: str) -> None:
    subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def guarded(checkout: Path, tmp_path: Path) -> Any:
    """The checkout's command on a text that is too short: past the guard, that is what it complains about."""
    (tmp_path / "short.txt").write_text("ab")

    base = ("model=tiny", "data=text_char", "data.path=short.txt", "trainer=cpu", "logger=none")

    def command(*argv: str, words: tuple[str, ...] = base, **env: str) -> subprocess.CompletedProcess[str]:
        return gptshake(tmp_path, *words, *argv, **({"PYTHONPATH": str(checkout / "src"), "GPTSHAKE_DIRTY": "0"} | env))

    yield command
    git(checkout, "checkout", "--quiet", ".")
    git(checkout, "clean", "--quiet", "-fd")


PASSED = "Uncommitted changes"


def test_a_committed_checkout_passes_the_guard(guarded: Any) -> None:
    done = guarded()
    assert done.returncode == 2 and PASSED not in done.stderr and "split train" in done.stderr


def test_uncommitted_changes_are_refused_with_their_files_and_the_ways_out(guarded: Any, checkout: Path, tmp_path: Path) -> None:
    with (checkout / "src/gptshake/model/gpt.py").open("a") as file:
        file.write("# changed\n")
    (checkout / "conf/model/mine.yaml").write_text("# @package _global_\n")
    done = guarded()
    assert done.returncode == 2
    assert "  conf/model/mine.yaml\n  src/gptshake/model/gpt.py\n" in done.stderr
    assert "Commit them, or add --dirty." in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["short.txt"]
    for words, env in ((["--dirty"], {}), (["debug=smoke"], {}), (["dirty=true"], {}), ([], {"GPTSHAKE_DIRTY": "1"})):
        passed = guarded(*words, **env)
        assert passed.returncode == 2 and PASSED not in passed.stderr, (words, env)


def test_many_uncommitted_files_are_counted(guarded: Any, checkout: Path) -> None:
    for number in range(23):
        (checkout / f"src/gptshake/new{number:02}.py").touch()
    assert "  src/gptshake/new19.py\n  and 3 more\nCommit them" in guarded().stderr


def test_a_sweep_and_a_run_that_goes_on_are_guarded_too_and_a_dirty_one_keeps_its_changes(
    guarded: Any, checkout: Path, tmp_path: Path, book: Path, small: tuple[str, ...], the_run: Any
) -> None:
    git(checkout, "remote", "add", "origin", "https://me:planted-in-remote@host.org/x.git")
    (checkout / "src/gptshake/model/gpt.py").open("a").write("URL = 'https://me:planted-in-patch@host.org'\n")
    (checkout / "src/gptshake/mine.py").write_text("KEY = 'planted-in-environment'\n")
    (checkout / "src/gptshake/.env").write_text("KEY=planted-in-dotenv\n")
    environment = {"SOME_KEY": "planted-in-environment"}
    done = guarded(*small, "trainer.max_steps=2", "--dirty", **environment)
    assert done.returncode == 0, done.stderr
    record = the_run(tmp_path)
    kept = b"".join(file.read_bytes() for file in record.path.rglob("*") if file.is_file())
    assert b"planted" not in kept and b"+URL = 'https://<secret>@host.org'" in kept
    state = record.info["git"]
    assert (state["remote"], state["dirty"], list(state["untracked"])) == ("https://host.org/x.git", True, ["src/gptshake/mine.py"])
    assert state["left_out"] == ["src/gptshake/.env"] and state["redacted"] == ["src/gptshake/mine.py", "src/gptshake/model/gpt.py"]
    assert (record.path / "untracked/src/gptshake/mine.py").read_text() == "KEY = '<secret>'\n"
    for words in ([f"resume={record.info['id']}"], [*small, "-m", "optimizer.lr=1e-3,2e-3"]):
        refused = guarded(*words, words=())
        assert refused.returncode == 2 and PASSED in refused.stderr and "  src/gptshake/mine.py\n" in refused.stderr, words
    assert the_run(tmp_path).info == record.info and not (tmp_path / "multirun").exists()


def test_a_change_outside_sources_and_config_is_nobodys_business(guarded: Any, checkout: Path) -> None:
    (checkout / "notes.md").write_text("thoughts")
    assert PASSED not in guarded().stderr


CALLBACK = """
import json
import os
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

class Mine(Callback):
    def on_run_start(self, config, **options): print("run start")
    def on_job_start(self, config, **options): print("job", os.environ["MINE"], HydraConfig.get().runtime.output_dir)
    def on_job_end(self, config, job_return, **options): raise ValueError("no harm")
    def on_run_end(self, config, job_return, **options): print("run end", job_return.status.name)
"""


def test_a_single_run_keeps_what_hydra_promises(tmp_path: Path, small: tuple[str, ...], commands: Any) -> None:
    (tmp_path / "mine.py").write_text(CALLBACK)
    words = ("+hydra.callbacks.mine._target_=mine.Mine", "+hydra.job.env_set.MINE=yes", "hydra.run.dir=here", "note='${hydra:job.name}'")
    done = commands(tmp_path, *small, "trainer.max_steps=1", *words)
    assert done.code == 0, done.err
    for line in ("run start", f"job yes {tmp_path / 'here'}", "run end COMPLETED"):
        assert line in done.out.splitlines(), done.out
    assert "no harm" in done.err
    assert json.loads((tmp_path / "here" / "run.json").read_text())["note"] == "gptshake"
    refused = commands(tmp_path, *small, "hydra.mode=MULTIRUN")
    assert refused.code == 2 and "-m" in refused.err


def test_a_working_directory_that_was_removed_is_a_sentence(light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(
        tmp_path, "model=tiny", "data=wiki_char", before="import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    )
    assert (done.code, done.err) == (2, "error: The working directory was removed: change to another.\n")


@pytest.mark.parametrize("several", [[], ["-m"]])
def test_a_file_of_the_users_own_that_cannot_be_read_is_an_error(several: list[str], light_commands: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("def run(context):\n    print('ran')\n")
    (tmp_path / "mine/other.py").symlink_to("/proc/self/mem")
    done = light_commands(tmp_path, *several, "task=runs", "task._target_=mine.run")
    assert done.code == 1 and "A file cannot be accessed: Input/output error" in done.err and "ran" not in done.out
