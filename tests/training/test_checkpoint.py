"""A checkpoint folder is whole or refused, and gives back exactly what was put in."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gptshake.errors import CheckpointError, ConfigError
from gptshake.files import sha256
from gptshake.record.run import steps_saved
from gptshake.training.checkpoint import (
    best_checkpoint,
    best_until,
    checkpoints_chosen,
    drop_after,
    folder_of,
    keep_only,
    newest,
    our_state,
    verify,
)
from gptshake.training.trainer import FolderCheckpointIO

FILES = ("model.safetensors", "state.safetensors", "state.json")


def content(step: int, best: int | None = None) -> dict[str, Any]:
    return {
        "state_dict": {"model.a": torch.full((3,), float(step)), "model.b.weight": torch.arange(4.0).reshape(2, 2).T},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(2.0), "exp_avg": torch.randn(3)}}, "param_groups": [{"params": [0, 1]}]}],
        "loops": {"fit_loop": {"done": step, "none": None, "flag": True, "text": "ä"}},
        "gptshake": {"steps": step, "tokens": 8 * step, "best_step": best},
    }


def save(run_dir: Path, step: int, best: int | None = None) -> Path:
    folder = folder_of(run_dir, step)
    FolderCheckpointIO().save_checkpoint(content(step, best), folder)
    return folder


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = content(3)
    torch.manual_seed(0)
    folder = save(tmp_path, 3)
    assert same(FolderCheckpointIO().load_checkpoint(folder), saved)
    assert {file.name for file in folder.iterdir()} == {*FILES, "checksums.json"}


def test_a_state_of_more_than_values_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"callback cannot be saved .*state_dict\(\) gives may hold numbers"):
        FolderCheckpointIO().save_checkpoint(content(3) | {"callbacks": {"Mine": {"when": Path("x")}}}, folder_of(tmp_path, 3))
    assert steps_saved(tmp_path) == []


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "a flipped bit": flip,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "empty": lambda file: file.write_bytes(b""),
    "missing": Path.unlink,
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "a FIFO": lambda file: (file.unlink(), os.mkfifo(file)),
    "deep": lambda file: file.write_bytes(100_000 * b"["),
}


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_before_torch_reads_and_the_one_before_is_taken(tmp_path: Path, name: str, damage: str) -> None:
    earlier, folder = save(tmp_path, 2), save(tmp_path, 4)
    DAMAGE[damage](folder / name)
    if name == "checksums.json" and damage == "longer":
        (folder / name).write_text("[]")
    with pytest.raises(CheckpointError, match=r"^The checkpoint step-00000004 is (damaged|not whole)"):
        FolderCheckpointIO().load_checkpoint(folder)
    found, complaints = newest(tmp_path)
    assert found == earlier and len(complaints) == 1 and complaints[0].endswith("Going back to the one before.")


def test_a_file_that_no_checksum_covers_is_not_trusted(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    for sums in ("{}", '{"model.safetensors": 3}', "null"):
        (folder / "checksums.json").write_text(sums)
        with pytest.raises(CheckpointError):
            verify(folder)


@pytest.mark.parametrize(
    "name, content",
    [("state.json", b"{}"), ("state.json", 100_000 * b"["), ("state.json", b'{"a": {"__tensor__": "b"}}'), (FILES[1], b"x" * 9)],
)
def test_files_that_gptshake_did_not_write_are_refused_whatever_their_checksums(name: str, content: bytes, tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    (folder / name).write_bytes(content)
    (folder / "checksums.json").write_text(json.dumps({file: sha256(folder / file) for file in FILES}))
    with pytest.raises(CheckpointError):
        FolderCheckpointIO().load_checkpoint(folder)
        our_state(folder)


def test_without_a_whole_checkpoint_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path} has no checkpoint that .* of a sweep only the best trials keep theirs"):
        newest(tmp_path)
    flip(save(tmp_path, 1) / "state.json")
    with pytest.raises(CheckpointError, match=r"step-00000001 is damaged: state\.json does not match its checksum"):
        newest(tmp_path)


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 10):
        save(tmp_path, step)
    keep_only(tmp_path, best_step=2)
    assert steps_saved(tmp_path) == [2, 4, 10]
    keep_only(tmp_path, best_step=None)
    assert steps_saved(tmp_path) == [4, 10]


def test_going_back_removes_what_came_later_and_what_a_kill_left(tmp_path: Path) -> None:
    save(tmp_path, 2), save(tmp_path, 4)
    (tmp_path / "checkpoints" / ".step-00000006.0a1b2c3d").mkdir()
    assert steps_saved(tmp_path) == [2, 4]
    drop_after(tmp_path, 2)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_the_best_weights_are_those_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    save(tmp_path, 2), save(tmp_path, 4, best=2)
    path, state = best_checkpoint(tmp_path)
    assert path == folder_of(tmp_path, 2) and state["steps"] == 2


def test_a_validation_after_its_checkpoint_counts_for_the_best_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1, best=None), save(tmp_path, 2, best=1), save(tmp_path, 3, best=1)
    (tmp_path / "metrics.csv").write_text("step,val/loss\n1,2.5\n2,2.25\n3,nan\n4,1.0\n")
    assert best_checkpoint(tmp_path)[0] == folder_of(tmp_path, 2)
    (folder_of(tmp_path, 2) / "model.safetensors").unlink()
    assert best_until(folder_of(tmp_path, 3), tmp_path) == folder_of(tmp_path, 2)  # nothing large is read to choose it


def test_a_folder_that_somebody_copied_is_no_checkpoint(tmp_path: Path) -> None:
    shutil.copytree(save(tmp_path, 3), tmp_path / "checkpoints" / "step-00000003 copy")
    assert steps_saved(tmp_path) == [3]
    drop_after(tmp_path, 0)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-00000003 copy"]


def test_the_files_of_a_checkpoint_have_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = save(tmp_path, 1)
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == dict.fromkeys((*FILES, "checksums.json"), "0o640")


def test_without_a_validation_the_newest_weights_are_the_best(tmp_path: Path) -> None:
    save(tmp_path, 2), save(tmp_path, 4)
    assert best_checkpoint(tmp_path)[1]["steps"] == 4


def test_a_checkpoint_holds_plain_values_only(tmp_path: Path) -> None:
    """Nothing that an unpickler or an importer could be tricked with."""
    folder = save(tmp_path, 1)
    for name in ("state.json", "checksums.json"):
        json.loads((folder / name).read_text())
    for name in ("model.safetensors", "state.safetensors"):
        header = (folder / name).read_bytes()[8:9]
        assert header == b"{"


def test_weights_are_chosen_by_name_or_step_and_a_trial_that_kept_none_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no checkpoint; of a sweep only the best trials keep theirs"):
        checkpoints_chosen(tmp_path, "best")
    for step in (4, 8):
        save(tmp_path, step, best=4)
    assert [[folder.name for folder in checkpoints_chosen(tmp_path, wanted)] for wanted in ("last", "4", "all")] == [
        ["step-00000008"],
        ["step-00000004"],
        ["step-00000004", "step-00000008"],
    ]
    with pytest.raises(ConfigError, match="no checkpoint 5: it has those of the steps 4, 8"):
        checkpoints_chosen(tmp_path, "5")
