"""A run made with uncommitted code is reproduced bit for bit when that code is gone; another text or machine is told.

The run and its repetitions are real processes of a throw-away checkout (five seconds each); the command that compares
them is forked. Where only the comparison matters, a copy of the run stands for its repetition.
"""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.metrics import read_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small: tuple[str, ...], book: Path) -> Path:
    """A folder with a checkout, a text, and a run that was made in the checkout when it had a changed file and a new one; it has neither now."""
    folder = tmp_path_factory.mktemp("place")
    checkout = folder / "checkout"
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / ".gitignore").write_text("__pycache__/\n")
    git(checkout, "init", "--quiet", "-b", "main")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "all")
    network = checkout / "src/gptshake/model/gpt.py"
    network.write_text(network.read_text().replace("INIT_STD = 0.02", "INIT_STD = 0.05"))
    shutil.copy(checkout / "conf/model/tiny.yaml", checkout / "conf/model/mine.yaml")
    shutil.copy(book, folder / "book.txt")
    words = [word for word in small if not word.startswith(("data.path", "model=tiny"))]
    env = dict(os.environ) | {"PYTHONPATH": str(checkout / "src"), "GPTSHAKE_DIRTY": "0"}
    command = [
        sys.executable,
        "-m",
        "gptshake",
        *words,
        "model=mine",
        "data.path=../book.txt",
        "paths.runs=../runs",
        "note=it's a first try",
        "--dirty",
    ]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    git(checkout, "clean", "--quiet", "-fd")
    git(checkout, "commit", "--quiet", "--all", "--message", "another start", "--allow-empty")
    git(checkout, "rm", "--quiet", "src/gptshake/tasks/sample.py")
    (folder / "runs").rename(folder / "moved")
    return folder


@pytest.fixture
def reproduce(place: Path, commands: Any, tmp_path: Path) -> Any:
    """``task=reproduce`` from another folder, as if this gptshake were the checkout's."""
    root = f"from pathlib import Path; from gptshake.record import git; git.checkout_root = lambda: Path({str(place / 'checkout')!r})"

    def command(run: Path, *words: str, before: str = "") -> Any:
        return commands(tmp_path, "task=reproduce", f"task.run={run}", *words, before=f"{root}\n{before}")

    return command


COPY = """
import shutil
from gptshake.record.run import read_run
from gptshake.tasks import reproduce
def repeat(code, overrides, path, folder, steps, before):
    before(read_run(Path(shutil.copytree({run!r}, path))))
reproduce.repeat = repeat
"""


def the_run(place: Path) -> Path:
    (file,) = (place / "moved").glob("*/run.json")
    return file.parent


def copied(place: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    run = Path(shutil.copytree(the_run(place), folder / "copy"))
    return run, json.loads((run / "run.json").read_text())


def test_a_dirty_run_that_was_moved_is_reproduced_bit_for_bit_when_its_code_is_gone(place: Path, reproduce: Any, tmp_path: Path) -> None:
    checkout = place / "checkout"
    before = git(checkout, "status", "--porcelain"), git(checkout, "worktree", "list"), git(checkout, "rev-parse", "HEAD")
    done = reproduce(the_run(place), "task.steps=6", f"task.data_path={place / 'book.txt'}")
    assert done.code == 0, done.out + done.err
    assert "Reproduced: 6 train and 1 val losses of 6 steps are bit-identical." in done.out
    assert "6 steps of 12" in done.out and "with diff.patch and 1 untracked file" in done.out
    assert "environment: the same in everything that is recorded" in done.out
    assert (git(checkout, "status", "--porcelain"), git(checkout, "worktree", "list"), git(checkout, "rev-parse", "HEAD")) == before
    (file,) = (tmp_path / "runs").glob("*/run.json")
    info, original = json.loads(file.read_text()), json.loads((the_run(place) / "run.json").read_text())
    assert info["reproduces"] == original["id"] and info["reproduction"]["identical"] and info["id"] != original["id"]
    assert info["git"]["commit"] == original["git"]["commit"] and info["git"]["diff_sha256"] == original["git"]["diff_sha256"]
    assert info["budget"] == original["budget"]  # a quick proof bends no schedule
    assert {"reproduction.png", "reproduction.svg"} <= {picture.name for picture in (file.parent / "plots").iterdir()}


def test_another_text_is_told_with_both_fingerprints_before_anything_trains(place: Path, reproduce: Any, tmp_path: Path) -> None:
    text = tmp_path / "other.txt"
    text.write_text((place / "book.txt").read_text().replace("that", "this"))
    done = reproduce(the_run(place), f"task.data_path={text}")
    assert done.code == 2 and "nothing was trained" in done.error
    then = json.loads((the_run(place) / "run.json").read_text())["data"]
    assert f"tokens of the text: was {then['fingerprint'][:16]}, is " in done.error
    assert list((tmp_path / "runs").glob("*")) == []
    assert "code" not in git(place / "checkout", "worktree", "list")


def test_another_machine_is_told_line_by_line_and_has_a_tolerance(place: Path, reproduce: Any, tmp_path: Path) -> None:
    run, info = copied(place, tmp_path)
    info["environment"]["packages"]["torch"] = "2.0.0"
    info["hardware"]["cpu"] = "6502"
    (run / "run.json").write_text(json.dumps(info))
    lines = (run / "metrics.csv").read_text().splitlines()
    loss = read_rows(run / "metrics.csv")[1]["train/loss"]
    lines[2] = lines[2].replace(repr(loss), repr(loss * (1 + 1e-4)))
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    copy = COPY.format(run=str(the_run(place)))
    done = reproduce(run, "task.tolerance=1e-3", before=copy)
    assert done.code == 0 and "Reproduced, within the tolerance of 0.001 for another machine" in done.out, done.err
    done = reproduce(run, "task.tolerance=1e-5", before=copy)
    assert done.code == 1 and "Not reproduced, above the tolerance of 1e-05" in done.error
    assert "1 differ, the first at step 2, the most train/loss of step 2" in done.error and "1.0e-04" in done.error
    table = [line.split() for line in done.out.splitlines()]
    assert [row[:2] for row in table if row[:1] == ["torch"]] == [["torch", "2.0.0"]] and [
        row for row in table if row[:2] == ["processor", "6502"]
    ]


def test_on_the_same_machine_one_other_digit_is_a_failure(place: Path, reproduce: Any, tmp_path: Path) -> None:
    run, _ = copied(place, tmp_path)
    rows = (run / "metrics.csv").read_text()
    loss = read_rows(run / "metrics.csv")[6]["train/loss"]
    (run / "metrics.csv").write_text(rows.replace(repr(loss), repr(loss + 1e-9)))
    done = reproduce(run, "task.tolerance=1", before=COPY.format(run=str(the_run(place))))
    assert done.code == 1 and "on the same machine every bit must be the same" in done.error
    assert "1 differ, the first at step 7" in done.error


def test_another_config_or_plan_is_told_before_anything_trains(place: Path, reproduce: Any, tmp_path: Path) -> None:
    run, info = copied(place, tmp_path)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("beta2: 0.95", "beta2: 0.5"))
    done = reproduce(run, before=COPY.format(run=str(the_run(place))))
    assert done.code == 2 and "optimizer.beta2: was 0.5, would be 0.95" in done.error
    run, info = copied(place, tmp_path / "plan")
    (run / "run.json").write_text(json.dumps(info | {"budget": info["budget"] | {"tokens": 7}}))
    done = reproduce(run, before=COPY.format(run=str(the_run(place))))
    assert done.code == 2 and "was planned for" in done.error


def refused(commands: Any, folder: Path, *words: str) -> str:
    done = commands(folder, "task=reproduce", *words)
    assert done.code == 2, done.out + done.err
    return str(done.error)


def test_what_cannot_be_reproduced_is_told_at_once(place: Path, light_commands: Any, tmp_path: Path) -> None:
    run, info = copied(place, tmp_path)
    assert "Choose a run" in refused(light_commands, tmp_path)
    assert "There is no run 'nothing'" in refused(light_commands, tmp_path, "task.run=nothing")
    assert "task.steps=0 cannot work" in refused(light_commands, tmp_path, f"task.run={run}", "task.steps=0")
    (run / "run.json").write_text(json.dumps(info | {"task": "find_lr"}))
    assert "only training can be reproduced" in refused(light_commands, tmp_path, f"task.run={run}")
    (run / "run.json").write_text(json.dumps(info | {"local_conf": {"conf/model/lost.yaml": "ab"}}))
    assert (
        "Files of the run's own are not in" in (lost := refused(light_commands, tmp_path, f"task.run={run}"))
        and ": conf/model/lost.yaml. " in lost
    )
    mine = Path(info["environment"]["cwd"]) / "mine.py"
    mine.write_text("after = 1\n")
    (run / "run.json").write_text(
        json.dumps(info | {"local_conf": {"mine.py": sha256(b"before = 1\n").hexdigest()}})
    )  # yaml is compared as config
    assert (
        "Files of the run's own were changed since, in" in (told := refused(light_commands, tmp_path, f"task.run={run}"))
        and ": mine.py. " in told
    )
    mine.unlink()
    (run / "run.json").write_text(json.dumps(info))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("init_from: null", "init_from: a-parent"))
    assert "started from the weights of init_from=a-parent, which is not here" in refused(light_commands, tmp_path, f"task.run={run}")
    (run / "metrics.csv").unlink()
    assert "has not finished one step" in refused(light_commands, tmp_path, f"task.run={run}")
    assert not (tmp_path / "runs").exists()
