"""What a run directory holds so that it explains itself, after a clean end, a kill, a stop, a failure, and a move."""

import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.provenance import config_sha256
from gptshake.record.run import read_run, status_of

AT_STEP = """
import os
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    if self.steps == {step}:
        {what}
    return own(self, batch, number)
GPTModule.training_step = training_step
"""


def at_step(step: int, what: str) -> str:
    return AT_STEP.format(step=step, what=what)


def kill(step: int, signum: int) -> str:
    return at_step(step, f"os.kill(os.getpid(), {int(signum)})")


@pytest.fixture(scope="module")
def whole(commands: Any, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("whole")
    done = commands(folder, *small, "note=why not", "trainer.price_per_hour=3.6")
    assert done.code == 0, done.err
    return folder


def test_a_finished_run_says_what_it_was_and_what_it_took(whole: Path, the_run: Any) -> None:
    record = the_run(whole)
    info, summary = record.info, record.info["summary"]
    assert (info["status"], info["reason"], info["note"], info["seed"], info["local_conf"]) == ("ok", None, "why not", 1337, {})
    listed = subprocess.run([sys.executable, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    installed = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in listed.split())}
    recorded = {name.lower().replace("_", "-").replace(".", "-"): version for name, version in info["environment"]["packages"].items()}
    assert installed["torch"] == recorded["torch"] and {name.replace(".", "-") for name in installed} == set(recorded)
    assert info["environment"]["cwd"] == str(whole)
    assert {"python", "platform", "cuda", "driver", "cpu"} <= set(info["environment"])
    (sitting,) = info["sittings"]
    assert sitting["from_step"] == 0 and sitting["commit"] == info["git"].get("commit")
    assert info["wall_s"] == sitting["ended"] - sitting["started"] > 0
    assert info["price"] == pytest.approx(info["wall_s"] / 1000)
    assert summary["best/val/bpb"] == min(row[-1] for row in record.numbers() if row[-1] is not None)
    assert summary["perf/tokens_per_s"] > 0 and 0 < summary["perf/mfu"] < 1


def test_checkpoints_are_known_by_the_hash_of_their_sums(whole: Path, the_run: Any) -> None:
    record = the_run(whole)
    assert list(record.info["checkpoints"]) == record.saved()
    for name, known in record.info["checkpoints"].items():
        assert hashlib.sha256((record.path / "checkpoints" / name / "checksums.json").read_bytes()).hexdigest() == known


def test_the_same_config_elsewhere_has_the_same_hash(
    whole: Path, commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any
) -> None:
    assert commands(tmp_path, *small, "note=another", "paths.runs=runs", "callbacks=default").code == 0
    assert the_run(tmp_path).info["config_sha256"] == the_run(whole).info["config_sha256"] != config_sha256({})


def test_a_killed_and_a_stopped_sitting_count_with_the_rest(commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any) -> None:
    assert commands(tmp_path, *small, before=kill(6, signal.SIGKILL)).code == -signal.SIGKILL
    path = the_run(tmp_path).path
    assert status_of(path) == "killed" and "wall_s" not in read_run(path)
    edited = "import gptshake.cli, gptshake.record.git as git\n"
    edited += "code = git.Code({'commit': 'abcdef0123', 'dirty': True, 'diff_sha256': 'd'}, [], b'a patch', {'src/new.py': b'new'})\n"
    edited += "gptshake.cli.read_code = lambda: code\n"
    done = commands(tmp_path, f"resume={path.name}", before=edited + kill(9, signal.SIGTERM))
    assert done.code == 143 and "is resumed with commit abcdef01 and uncommitted changes" in done.out
    assert (path / "sitting-2/diff.patch").read_text() == "a patch" and (path / "sitting-2/untracked/src/new.py").read_text() == "new"
    stopped = read_run(path)
    assert (stopped["status"], stopped["reason"]) == ("interrupted", "signal 15")
    assert stopped["summary"]["steps"] == 9 and list(stopped["checkpoints"]) == ["step-00000008", "step-00000009"]
    assert commands(tmp_path, f"resume={path.name}").code == 0
    info = read_run(path)
    assert [sitting["from_step"] for sitting in info["sittings"]] == [0, 4, 9]
    assert [sitting["commit"] == "abcdef0123" for sitting in info["sittings"]] == [False, True, False]
    assert info["wall_s"] == sum(sitting["ended"] - sitting["started"] for sitting in info["sittings"])
    assert list(info["checkpoints"]) == the_run(tmp_path).saved() and "step-00000008" not in info["checkpoints"]


def test_a_failed_run_keeps_its_reason_and_its_figures(commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, before=at_step(5, "raise LookupError('nothing there')"))
    info = the_run(tmp_path).info
    assert done.code == 1 and (info["status"], info["reason"]) == ("failed", "LookupError: nothing there")
    assert info["summary"]["steps"] == 5 and info["summary"]["best/val/bpb"] > 0 and info["wall_s"] > 0


GONE = {
    "removed": "shutil.rmtree(here)",
    "moved": "here.rename(here.parents[1] / 'archive')",
    "moved with all runs": "here.parent.rename(here.parents[1] / 'archive')",
}


@pytest.mark.parametrize("how", GONE)
def test_a_run_whose_directory_is_gone_ends_with_a_sentence_and_makes_no_second_one(
    how: str, whole: Path, commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any
) -> None:
    gone = at_step(6, f"if number == 24: import shutil; here = self.context.run.path; {GONE[how]}")
    done = commands(tmp_path, *small, before=gone)
    assert done.code == 1 and "was removed or moved while the run was at work in it" in done.error
    assert not [*tmp_path.glob("runs/*")]
    if how == "moved":
        assert commands(tmp_path, "resume=archive").code == 0
        (tmp_path / "runs").mkdir(exist_ok=True)
        shutil.move(tmp_path / "archive", tmp_path / "runs/again")
        assert the_run(tmp_path).numbers() == the_run(whole).numbers()


TAKEN_AWAY = {
    "metrics.csv": "path = self.context.run.path / 'metrics.csv'; path.unlink()",
    "metrics.csv, saved by an editor": "path = self.context.run.path / 'metrics.csv'; path.rename('old.csv'); path.write_text('step')",
    "the cache": "import shutil; shutil.rmtree('cache')",
    "the working directory": "import shutil; shutil.rmtree(os.getcwd())",
}


@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_what_is_taken_away_during_a_run_changes_none_of_its_rows(
    what: str, whole: Path, commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any
) -> None:
    (tmp_path / "here").mkdir()
    done = commands(
        tmp_path / "here",
        *small,
        f"paths.runs={tmp_path}/runs",
        "paths.cache=cache",
        before=at_step(6, f"if number == 24: {TAKEN_AWAY[what]}"),
    )
    assert done.code == 0, done.err
    assert the_run(tmp_path).numbers() == the_run(whole).numbers() and the_run(tmp_path).info["status"] == "ok"


def test_a_run_that_was_moved_goes_on_where_it_is(whole: Path, commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any) -> None:
    assert commands(tmp_path, *small, before=kill(6, signal.SIGKILL)).code == -signal.SIGKILL
    old, new = the_run(tmp_path).path, tmp_path / "archive/of mine"
    new.parent.mkdir()
    shutil.move(old, new)
    done = commands(tmp_path, f"resume={new}")
    assert done.code == 0, done.err
    assert not old.exists() and read_run(new)["status"] == "ok"
    shutil.move(new, tmp_path / "runs/again")
    assert the_run(tmp_path).numbers() == the_run(whole).numbers()


def test_a_run_does_not_go_on_with_another_text(commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any, book: Path) -> None:
    text = shutil.copy(book, tmp_path / "book.txt")
    assert commands(tmp_path, *small, f"data.path={text}", before=kill(6, signal.SIGKILL)).code == -signal.SIGKILL
    before = the_run(tmp_path).info
    Path(text).write_text(Path(text).read_text() + " and more")
    done = commands(tmp_path, f"resume={before['id']}")
    assert done.code == 2 and done.error.startswith("The text of book is not the one") and the_run(tmp_path).info == before


def test_config_files_of_ones_own_are_kept_told_and_compose_the_run_elsewhere(
    commands: Any, small: tuple[str, ...], tmp_path: Path, the_run: Any
) -> None:
    (tmp_path / "conf/scheduler").mkdir(parents=True)
    text = "_target_: gptshake.optim.schedule.cosine\n_partial_: true\nwarmup: 0\nfloor: 0.5\n"
    (tmp_path / "conf/scheduler/mine.yaml").write_text(text)
    done = commands(tmp_path, *small, "scheduler=mine", "trainer.max_steps=4")
    assert done.code == 0 and "files of your own: conf/scheduler/mine.yaml" in done.out, done.err
    record = the_run(tmp_path)
    assert record.info["local_conf"] == {"conf/scheduler/mine.yaml": hashlib.sha256(text.encode()).hexdigest()}
    shutil.rmtree(tmp_path / "conf")
    again = commands(record.path, f"resume={record.path}")  # its own conf/ is the one of the working directory
    assert again.code == 0, again.err


FRAMES = """
import traceback
from pathlib import Path
import gptshake
from gptshake.training.module import GPTModule
def training_step(self, batch, number, own=GPTModule.training_step):
    package = str(Path(gptshake.__file__).parent)
    Path("frames").write_text(" ".join(frame.name for frame in traceback.extract_stack() if frame.filename.startswith(package)))
    return own(self, batch, number)
GPTModule.training_step = training_step
"""


def test_few_frames_of_the_package_lie_on_the_stack_in_a_training_step(commands: Any, small: Any, tmp_path: Path) -> None:
    assert commands(tmp_path, *small, "trainer.max_steps=1", before=FRAMES).code == 0
    frames = (tmp_path / "frames").read_text().split()
    assert len(frames) <= 5, frames  # and the step itself
