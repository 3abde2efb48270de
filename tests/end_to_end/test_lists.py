"""Lists and comparisons of real runs through the real command line, and ``latest`` as a run's name."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.index import read_entry

SHORT = ("trainer.max_steps=4", "trainer.val_check_interval=2")


@pytest.fixture(scope="module")
def folder(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, the second from the first one's weights, and a torn record."""
    path = tmp_path_factory.mktemp("lists")
    for change in ("note=it's (first)", "optimizer.lr=3e-2"):
        more = ["init_from=latest"] if change.startswith("optimizer") else []
        done = commands(path, *small, *SHORT, change, *more)
        assert done.code == 0, done.err
    (path / "runs/torn").mkdir()
    (path / "runs/torn/run.json").write_text("{")
    return path


def ids(folder: Path) -> list[str]:
    """Of the whole runs, the first one first."""
    infos = [json.loads(file.read_text()) for file in folder.glob("runs/*/run.json") if file.parent.name != "torn"]
    return [info["id"] for info in sorted(infos, key=lambda info: info["started"])]


def test_runs_are_listed_with_their_figures_and_notes(light_commands: Any, folder: Path) -> None:
    done = light_commands(folder, "task=runs", "task.sort=-optimizer.lr", "task.filter=status=ok,broken")
    assert done.code == 0, done.err
    first, second = ids(folder)
    table = done.out.split("\n\n")[0].splitlines()
    assert table[0].split()[:3] == ["id", "started", "status"]
    assert [line.split()[0] for line in table[1:]] == [second, first, "torn"]
    assert "lr 3e-2" in table[1] and "it's (first)" in table[2] and "broken" in table[3]
    assert "3 runs: 2 ok, 1 broken" in done.out and "runs/torn/run.json is damaged" in done.out


def test_a_list_of_nothing_says_so_and_a_wrong_key_is_refused(light_commands: Any, folder: Path, tmp_path: Path) -> None:
    assert "There is no run yet in" in light_commands(tmp_path, "task=runs").out
    assert list(tmp_path.iterdir()) == []
    assert "No run in" in light_commands(folder, "task=runs", "task.filter=nothing-like-it").out
    refused = light_commands(folder, "task=runs", "task.sort=optimizer.l")
    assert refused.code == 2 and "did you mean optimizer.lr?" in refused.error


def test_latest_is_written_into_the_record_as_the_run_that_it_named(folder: Path) -> None:
    first, second = ids(folder)
    info = next(json.loads(file.read_text()) for file in folder.glob(f"runs/*{second}/run.json"))
    assert info["parent"] == first and f"init_from={first}" in info["overrides"]


def test_latest_is_resumed(commands: Any, folder: Path, tmp_path: Path) -> None:
    first, _ = ids(folder)
    (run,) = folder.glob(f"runs/*{first}")
    shutil.copytree(run, tmp_path / "runs" / run.name)
    done = commands(tmp_path, "resume=latest")
    assert done.code == 0, done.err


def test_a_difference_is_told_and_drawn(commands: Any, folder: Path, tmp_path: Path) -> None:
    first, second = ids(folder)
    place = (f"paths.runs={folder / 'runs'}", f"paths.multirun={folder / 'multirun'}")
    done = commands(tmp_path, "task=diff", f"task.runs=[{first},latest,{folder}/runs/torn]", *place)
    assert done.code == 2 and "runs/torn/run.json is damaged" in done.error  # said when all is shown that can be read
    sections = dict(part.split("\n", 1) for part in done.out.split("\n\n"))
    assert [*sections][:6] == ["Runs", "Config", "Code", "Data", "Machine", "Results"]
    assert "optimizer.lr" in sections["Config"] and "init_from" in sections["Config"] and "the same" in sections["Data"]
    assert "val/loss" in sections["Results"]
    assert sorted(file.name for file in tmp_path.glob("diff/*")) == [f"{first}-{second}-torn.png", f"{first}-{second}-torn.svg"]


DAMAGED = {
    "truncated": ("run.json", lambda text: text[:300], "run.json is damaged: Unterminated string"),
    "empty": ("run.json", lambda text: "", "run.json is damaged: Expecting value"),
    "not a mapping": ("run.json", lambda text: "[]", "run.json is not the record of a run"),
    "a list for a mapping": ("run.json", lambda text: json.dumps(json.loads(text) | {"data": [1]}), "data is not a mapping"),
    "words for numbers": ("run.json", lambda text: json.dumps(json.loads(text) | {"summary": {"val/bpb": "x"}}), "mapping of numbers"),
    "no config": ("config.yaml", lambda text: "", "config.yaml is missing or cannot be read"),
    "no rows": ("metrics.csv", lambda text: "", "metrics.csv ends at step 0, and run.json counts 4 steps"),
    "a torn row": ("metrics.csv", lambda text: text[:-9], "metrics.csv ends at step 3, and run.json counts 4 steps"),
    "a word in a row": ("metrics.csv", lambda text: text.replace("\n3,", "\nabc,"), "metrics.csv cannot be read as rows of numbers"),
    "a word in the last column": ("metrics.csv", lambda text: text[:-2] + "abc\n", "metrics.csv cannot be read as rows of numbers"),
    "Windows' ends of lines": ("metrics.csv", lambda text: text.replace("\n", "\r\n"), ""),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_record_is_shown_as_far_as_it_can_be_read_and_then_an_error(
    commands: Any, folder: Path, tmp_path: Path, how: str
) -> None:
    file, change, said = DAMAGED[how]
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("torn", "checkpoints"))
    first, second = sorted((tmp_path / "runs").iterdir())
    (second / file).write_text(change((second / file).read_text()), newline="")
    for words, shown in (
        (f"task=diff task.runs=[{first.name},{second.name}]", "Results"),
        (f"task=report task.run={second.name}", "report.html"),
    ):
        done = commands(tmp_path, *words.split())
        assert shown in done.out
        assert (done.code, done.error[: len("runs/")] if said else done.err) == ((2, "runs/") if said else (0, ""))
        assert said in done.err
    done = commands(tmp_path, "task=note", f"task.run={second.name}", "task.text=hello")
    assert (done.code, (second / "notes.jsonl").exists()) == ((2, False) if file == "run.json" else (0, True))
    done = commands(tmp_path, "task=runs")
    assert done.code == 0 and ("1 broken" in done.out) == (file == "run.json")


def test_rows_that_are_missing_are_damage_only_where_they_were_counted(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(next(folder.glob(f"runs/*{ids(folder)[0]}")), tmp_path / "run"))
    assert read_entry(path).damage == ""
    (path / "metrics.csv").unlink()
    assert read_entry(path).damage == f"{path}/metrics.csv is missing, and run.json counts 4 steps."
    info = json.loads((path / "run.json").read_text())
    for other in ({"status": "failed"}, {"summary": {}}):  # ended before its first step; a task that trains nothing
        (path / "run.json").write_text(json.dumps(info | other))
        assert read_entry(path).damage == ""


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("", "two or more"),
        ("task.runs=latest", "two or more"),
        ("task.runs=[latest,latest]", "twice"),
        ("task.runs=[latest,zz]", "no run 'zz'"),
    ],
)
def test_a_wrong_comparison_is_refused_in_a_sentence(light_commands: Any, folder: Path, runs: str, said: str) -> None:
    done = light_commands(folder, "task=diff", *filter(None, [runs]))
    assert done.code == 2 and said in done.error


def test_a_trial_that_is_named_twice_is_named_with_its_study(light_commands: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(
        next(folder.glob(f"runs/*{ids(folder)[0]}")), tmp_path / "multirun/night/3", ignore=shutil.ignore_patterns("checkpoints")
    )
    done = light_commands(tmp_path, "task=diff", "task.runs=[night/3,latest]")
    assert done.error == "task.runs names one run twice: latest is multirun/night/3, which was named before."


def test_runs_at_work_are_watched_and_others_are_not(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    assert "No run is at work here." in commands(tmp_path, "task=watch").out
    at_work = commands.start(tmp_path, *small, "trainer.max_steps=10000000", "callbacks=default", "callbacks.samples.times=0")
    at_work.until("step  ")
    done = commands(tmp_path, "task=watch", "task.html=runs.html")
    at_work.signal(signal.SIGKILL)
    at_work.wait()
    record = the_run(tmp_path)
    row = next(line for line in done.out.splitlines() if line.startswith(record.info["id"]))
    assert " %, left " in row and "train/loss" in done.out and "tokens" in done.out.splitlines()[-1]
    assert record.info["id"] in (tmp_path / "runs.html").read_text()
    assert "No run is at work here." in commands(tmp_path, "task=watch").out
