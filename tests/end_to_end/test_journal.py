"""The journal from the command line: runs, notes at any time, the file."""

import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.lock import RunLock
from gptshake.record.run import Run
from gptshake.record.texts import read_notes


@pytest.fixture(scope="module")
def lab(commands: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, one that was killed, and a sweep."""
    folder = tmp_path_factory.mktemp("lab")
    assert commands(folder, *small, "note=first | <b>try</b>").code == 0
    started = commands.start(folder, "optimizer.lr=1e-3", *small, "trainer.max_steps=100000")
    limit = time.monotonic() + 60
    while not any(file.stat().st_size > 1000 for file in folder.glob("runs/*lr1e-3*/metrics.csv")):
        assert time.monotonic() < limit, started.output()
        time.sleep(0.02)
    started.signal(signal.SIGKILL)
    started.wait()
    assert commands(folder, "-m", *small, "optimizer.lr=1e-3,3e-3", "study=rates").code == 0
    return folder


def test_runs_and_a_sweep_are_told_and_told_the_same_again(lab: Path, commands: Any) -> None:
    done = commands(lab, "task=journal")
    assert done.code == 0 and "JOURNAL.md: 3 entries, 3 new" in done.out, done.out + done.err
    text = (lab / "JOURNAL.md").read_text()
    assert "first \\| &lt;b&gt;try&lt;/b&gt;" in text and "**Verdict:** killed after" in text and "· sweep of lr" in text
    assert all((lab / picture).exists() for picture in re.findall(r"\]\((docs/journal/[^)]+)\)", text)) and text.count("docs/journal/") == 3
    assert "nothing new" in commands(lab, "task=journal").out and (lab / "JOURNAL.md").read_text() == text
    assert sorted(entry.name for entry in lab.iterdir()) == ["JOURNAL.md", "docs", "multirun", "runs"]


def test_notes_are_taken_at_any_time(lab: Path, light_commands: Any) -> None:
    run = next(path for path in (lab / "runs").iterdir() if "lr1e-3" not in path.name)
    lease = RunLock(run)  # somebody is at work in it
    assert light_commands(lab, "task=note", f"task.run={run.name[-8:]}", "task.text=it's #1, (really)! a=b").code == 0
    lease.release()
    assert light_commands(lab, "task=note", "task.run=rates", "task.text=TODO three seeds").code == 0
    assert [note.text for note in read_notes(run)] == ["it's #1, (really)! a=b"]
    done = light_commands(lab, "task=journal")
    text = (lab / "JOURNAL.md").read_text()
    assert done.code == 0 and "it's #1, (really)! a=b" in text and ": TODO three seeds" in text


def test_mistakes_are_answered(tmp_path: Path, light_commands: Any) -> None:
    assert "There is no run 'nowhere'" in light_commands(tmp_path, "task=note", "task.run=nowhere", "task.text=x").error
    assert "Say what to note of which run" in light_commands(tmp_path, "task=note", "task.run=x").error
    assert "There is no run yet" in light_commands(tmp_path, "task=journal").out and not list(tmp_path.iterdir())
    run = Run.create(tmp_path / "runs/a", id="aaaaaaaa", name="a", task="train", config_yaml="seed: 1\n", overrides=[])
    run.update(choices={"debug": "smoke"})
    assert "There is no run yet" in light_commands(tmp_path, "task=journal").out  # a debug= run alone
    Run.create(tmp_path / "runs/b", id="bbbbbbbb", name="b", task="train", config_yaml="seed: 1\n", overrides=[])
    assert "1 entry, 1 new\n1 run with debug= left out." in light_commands(tmp_path, "task=journal").out
    (tmp_path / "JOURNAL.md").write_text("Mine.\n\n<!-- gptshake:begin x3k9a2pq 1 -->\n")
    done = light_commands(tmp_path, "task=journal")
    assert done.code == 2 and "JOURNAL.md, line 3: the block x3k9a2pq that begins here has no end." in done.error
    assert (tmp_path / "JOURNAL.md").read_text() == "Mine.\n\n<!-- gptshake:begin x3k9a2pq 1 -->\n"
