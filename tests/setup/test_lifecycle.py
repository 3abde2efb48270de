"""A run has a record or leaves no directory."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptshake.cli import _refuse_used_folder
from gptshake.errors import ConfigError, RecordError
from gptshake.record.lock import RunLock
from gptshake.setup.lifecycle import nothing_half_begun, outcome


@pytest.mark.parametrize("made", [False, True])  # Hydra makes it first
@pytest.mark.parametrize("has_record", [False, True])
def test_a_disk_that_is_full_when_a_run_begins_leaves_nothing_without_a_record(has_record: bool, made: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    with pytest.raises(OSError, match="full"), nothing_half_begun(folder):
        RunLock(folder).release()
        (folder / "config.yaml").write_text("seed: 1")
        if has_record:
            (folder / "run.json").write_text("{}")
        raise OSError("full")
    assert folder.exists() is (has_record or made)
    assert has_record or not list(tmp_path.glob("run/*"))


def test_a_directory_that_another_process_began_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RecordError, match="in use"), nothing_half_begun(folder):
        others = RunLock(folder)
        RunLock(folder)
    assert folder.exists()
    others.release()


def test_a_directory_that_was_there_before_keeps_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(OSError, match="full"), nothing_half_begun(tmp_path):
        raise OSError("full")
    assert (tmp_path / "mine").exists()


def test_the_command_of_a_run_that_was_killed_before_it_had_a_record_may_be_typed_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1")
    with pytest.raises(ConfigError, match=r"neither empty nor a run: it holds config\.yaml"):
        _refuse_used_folder(tmp_path)
    RunLock(tmp_path).release()
    _refuse_used_folder(tmp_path)


def test_the_folder_of_a_study_which_has_a_heartbeat_too_is_no_place_for_a_run(tmp_path: Path) -> None:
    RunLock(tmp_path).release()
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"neither empty nor a run: it holds study\.json\."):
        _refuse_used_folder(tmp_path)


def test_the_record_says_of_a_full_disk_what_the_terminal_says() -> None:
    said = list[str]()
    run: Any = SimpleNamespace(require_directory=lambda: None, finish=lambda status, reason: said.append(f"{status}: {reason}"))
    with pytest.raises(OSError, match="No space"), outcome(run):
        raise OSError(errno.ENOSPC, "No space left on device", "/far/away")
    assert said[0].startswith("failed: The disk is full: /far/away could not be written") and "paths.runs=" in said[0]
