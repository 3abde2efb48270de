"""What is on the disk is listed by its true size; what is in use, or behind a link, is never removed."""

import errno
import mmap
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from omegaconf import OmegaConf

from gptshake.errors import ConfigError, RecordError
from gptshake.estimate.formatting import short_bytes
from gptshake.files import lock_file
from gptshake.record.lock import RunLock
from gptshake.record.run import Run
from gptshake.tasks import clean as task
from gptshake.tasks.clean import Item, in_use, items, remove, size_of


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs, self.multirun, self.cache = folder / "runs", folder / "multirun", folder / "cache"

    def fill(self, path: Path, size: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        return path

    def run(self, where: str, id: str, store: str | None = None) -> Path:
        path = self.folder / where
        run = Run.create(path, id=id, name=id, task="train", config_yaml="seed: 1\n", overrides=[])
        run.update(data={"store": store}, started=1.0)
        self.fill(path / "checkpoints/step-1/model.safetensors", 50_000)
        return path

    def items(self) -> dict[str, Item]:
        return {item.name: item for item in items(self.runs, self.multirun, self.cache)}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.fill(place.cache / "stores/abc/train.bin", 400_000)
    place.fill(place.cache / "stores/.def.partial/train.bin", 10_000)
    place.fill(place.cache / "fits/f.json", 10)
    place.fill(place.cache / "somebody-elses/file", 999_999)
    place.run("runs/a", "aaaaaaaa", store="abc")
    place.run("multirun/night/0", "tttttttt")
    place.fill(place.multirun / "night/study.json", 10)
    place.fill(place.multirun / "notes/paper.txt", 10)
    return place


def test_the_largest_come_first_and_only_what_is_ours(place: Place) -> None:
    found = place.items()
    assert next(iter(found)) == "stores/abc" and found["stores/abc"].size >= 400_000
    assert set(found) == {
        *("stores/abc", "stores/.def.partial", "fits/f.json", "checkpoints/aaaaaaaa", "checkpoints/tttttttt", "studies/night")
    }
    assert found["studies/night"].size > found["checkpoints/tttttttt"].size >= 50_000
    assert [item.size for item in found.values()] == sorted((item.size for item in found.values()), reverse=True)


def test_what_is_named_is_removed_and_nothing_beside_it(place: Place) -> None:
    remove(place.items()["checkpoints/aaaaaaaa"])
    assert not (place.runs / "a/checkpoints").exists() and (place.runs / "a/run.json").exists()
    remove(place.items()["studies/night"])
    remove(place.items()["fits/f.json"])
    assert set(place.items()) == {"stores/abc", "stores/.def.partial"} and (place.multirun / "notes/paper.txt").exists()


def test_what_a_run_at_work_uses_is_in_use(place: Place) -> None:
    assert not any(map(in_use, place.items().values()))
    lease = RunLock(place.runs / "a")
    used = {name for name, item in place.items().items() if in_use(item)}
    assert used == {"stores/abc", "checkpoints/aaaaaaaa"}
    lease.release()
    trial = RunLock(place.multirun / "night/0")
    assert {name for name, item in place.items().items() if in_use(item)} == {"checkpoints/tttttttt", "studies/night"}
    trial.release()
    controller = RunLock(place.multirun / "night")
    assert {name for name, item in place.items().items() if in_use(item)} == {"studies/night"}
    controller.release()


def test_what_is_being_built_or_open_is_in_use(place: Place) -> None:
    builder = lock_file(place.cache / "stores/.def.lock")
    assert in_use(place.items()["stores/.def.partial"]) == "it is being built"
    os.close(builder)
    with (place.cache / "stores/abc/train.bin").open("rb") as file:
        if Path("/proc/self/fd").exists():
            assert "has it open" in str(in_use(place.items()["stores/abc"]))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if Path("/proc/self/maps").exists():
        assert "has it open" in str(in_use(place.items()["stores/abc"]))
    mapped.close()
    assert in_use(place.items()["stores/abc"]) is None


def test_links_are_not_followed(place: Place) -> None:
    outside = place.fill(place.folder / "outside/weights", 300_000).parent
    other = place.run("runs/b", "bbbbbbbb")
    (other / "checkpoints/step-1/model.safetensors").unlink()
    (other / "checkpoints/step-1").rmdir()
    (other / "checkpoints").rmdir()
    (other / "checkpoints").symlink_to(outside)
    (place.cache / "stores/link").symlink_to(outside)
    (place.multirun / "linked").symlink_to(place.runs)
    (place.runs / "a/checkpoints/step-2").symlink_to(outside)
    assert not {"checkpoints/bbbbbbbb", "stores/link", "studies/linked"} & set(place.items())
    assert size_of(place.runs / "a/checkpoints") < 100_000
    remove(place.items()["checkpoints/aaaaaaaa"])
    assert (outside / "weights").exists()


def test_what_cannot_be_removed_or_is_meant_by_two_names_is_a_sentence(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def clean(wanted: str) -> None:
        paths = {"runs": str(place.runs), "multirun": str(place.multirun), "cache": str(place.cache)}
        task.run(cast(Any, SimpleNamespace(config=OmegaConf.create({"paths": paths, "task": {"remove": wanted, "yes": True, "limit": 9}}))))

    place.fill(place.cache / "fits/night", 10)
    with pytest.raises(ConfigError, match=r"task\.remove=night names studies/night and fits/night: say which"):
        clean("night")

    def refuse(item: Item) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", "here/model.safetensors")

    with (
        monkeypatch.context() as patch,
        pytest.raises(
            RecordError,
            match=r"checkpoints/aaaaaaaa cannot be removed: Operation not permitted: here/model\.safetensors\. 0 B were freed\.",
        ),
    ):
        patch.setattr(task, "remove", refuse)
        clean("aaaaaaaa")
    sizes = {name: item.size for name, item in place.items().items()}
    clean("*")
    freed = sum(sizes.values()) - sizes["checkpoints/tttttttt"]  # which lies in studies/night
    assert capsys.readouterr().out.endswith(f"{short_bytes(freed)} freed.\n")
    with pytest.raises(ConfigError, match="nothing on the disk has this name"):
        clean("*")
