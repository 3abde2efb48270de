"""``task=clean`` as people type it: it lists, asks, and removes only what was named."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.lock import RunLock
from gptshake.record.run import Run
from gptshake.tasks.clean import items


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for id in ("xaaaaaaa", "xbbbbbbb"):
        run = Run.create(tmp_path / "runs" / id, id=id, name=id, task="train", config_yaml="seed: 1\n", overrides=[])
        run.finish("ok")
        (run.path / "checkpoints/step-1").mkdir(parents=True)
        (run.path / "checkpoints/step-1/model.safetensors").write_bytes(b"x" * 70_000)
    return tmp_path


def weights(folder: Path) -> list[str]:
    return sorted(path.parts[-4] for path in folder.glob("runs/*/checkpoints/*/*"))


def test_it_lists_and_removes_only_what_is_named_and_agreed_to(light_commands: Any, folder: Path) -> None:
    cache = f"paths.cache={folder / 'cache'}"
    listed = light_commands(folder, "task=clean", cache)
    assert listed.code == 0 and "checkpoints/xaaaaaaa" in listed.out and listed.out.startswith("checkpoints 1"), listed.err
    assert sorted(path.name for path in folder.iterdir()) == ["runs"]  # nothing is written
    unasked = light_commands(folder, "task=clean", cache, "task.remove=checkpoints/xaaaaaaa")
    assert unasked.code == 0 and "task.yes=true" in unasked.out and weights(folder) == ["xaaaaaaa", "xbbbbbbb"]
    for mistake in ("checkpoints/xaaaaaab", "nothing", "stores/*"):
        refused = light_commands(folder, "task=clean", cache, f"task.remove={mistake}", "task.yes=true")
        assert refused.code == 2 and "nothing on the disk has this name" in refused.error
    lease = RunLock(folder / "runs/xbbbbbbb")
    done = light_commands(folder, "task=clean", cache, "task.remove=[checkpoints/*]", "task.yes=true")
    lease.release()
    assert done.code == 0 and "in use: xbbbbbbb is running" in done.out and weights(folder) == ["xbbbbbbb"], done.err
    assert (folder / "runs/xaaaaaaa/run.json").exists() and "freed" in done.out


def test_copies_of_token_stores_on_a_node_are_listed_beside_the_stores(tmp_path: Path) -> None:
    shared, node = tmp_path / "cache", tmp_path / "node"
    for cache in (shared, node):
        (cache / "stores/abc").mkdir(parents=True)
    assert sorted(item.name for item in items(tmp_path, tmp_path, shared, node)) == ["copies/abc", "stores/abc"]
    assert [item.path for item in items(tmp_path, tmp_path, shared, shared)] == [shared / "stores/abc"]


@pytest.mark.parametrize(("answer", "left"), [("n", ["xaaaaaaa", "xbbbbbbb"]), ("", ["xaaaaaaa", "xbbbbbbb"]), ("y", ["xbbbbbbb"])])
def test_at_a_terminal_it_asks(folder: Path, answer: str, left: list[str]) -> None:
    master, slave = pty.openpty()
    words = ["task=clean", f"paths.cache={folder / 'cache'}", "task.remove=xaaaaaaa"]
    process = subprocess.Popen([sys.executable, "-m", "gptshake", *words], cwd=folder, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(master, 1024)
    os.write(master, answer.encode() + b"\n")
    assert process.wait(60) == 0 and weights(folder) == left
    os.close(master)
