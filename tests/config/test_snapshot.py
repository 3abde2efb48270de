"""The copy of the config folders that a sweep on other machines leaves beside its studies."""

import os
from pathlib import Path

import pytest

from gptshake.config.compose import COPIES, snapshot
from gptshake.errors import ConfigError, Stop
from gptshake.files import lock_file


def test_a_copy_is_removed_once_its_command_and_all_jobs_that_compose_from_it_have_ended(tmp_path: Path) -> None:
    unused, named, held, new = (tmp_path / f"{COPIES}{name}" for name in ("unused", "named", "held", "new"))
    for folder in (unused, named, held, new):
        (folder / "packaged").mkdir(parents=True)
    lock = lock_file(held / "lock")
    for folder in (unused, named, held):
        os.utime(folder, (0, 0))
    (tmp_path / "s/3").mkdir(parents=True)
    (tmp_path / "s/3/task.json").write_text(f'{{"conf": "{named}/packaged"}}')
    with pytest.raises(Stop), snapshot(tmp_path) as packaged:  # a job goes on that the engine could not be asked to end
        (tmp_path / "s/4").mkdir()
        (tmp_path / "s/4/task.json").write_text(f'{{"conf": "{packaged}"}}')
        raise Stop(15)
    left = packaged.parent
    assert packaged.exists()
    with snapshot(tmp_path) as packaged:
        assert (packaged / "config.yaml").exists()
        own = packaged.parent
        os.utime(own, (0, 0))
        with snapshot(tmp_path):
            assert own.exists()
    os.close(lock)
    assert {folder.name for folder in tmp_path.glob(f"{COPIES}*")} == {folder.name for folder in (named, held, new, left)}


def test_a_sweep_that_is_refused_leaves_no_empty_folder_of_sweeps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), snapshot(tmp_path / "multirun"):
        raise ConfigError("executor=ray needs Ray, which is not installed")
    assert not (tmp_path / "multirun").exists()
