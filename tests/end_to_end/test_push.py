"""``task.push``: what was exported and checked is uploaded to a hub, and nothing else is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TOKEN, FakeHub, fake_hub

NO_UPLOAD = "from gptshake.export import hub\nhub.upload = None\n"


@pytest.fixture(scope="module")
def trained(commands: Any, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    done = commands(folder, *small, "trainer.max_steps=2")
    assert done.code == 0, done.err
    return folder


def pushed(served: FakeHub, folder: Path, *words: str, token: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """``task=export`` in a process that asks this hub; torch itself checks what is written."""
    command = [sys.executable, "-m", "gptshake", "task=export", "task.run=latest", "task.to=torch_export", *words]
    return subprocess.run(command, cwd=folder, env=os.environ | served.env(token=token) | env, capture_output=True, text=True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(tmp_path / "home") as hub:
        yield hub


@pytest.mark.slow
def test_an_exported_folder_is_uploaded_to_a_private_repository_once_it_was_checked(served: FakeHub, trained: Path) -> None:
    done = pushed(served, trained, "task.folder=pushed", "task.push=me/small")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"uploaded: {served.address}/me/small"
    assert served.files["me/small"] == {file.name: file.read_bytes() for file in (trained / "pushed").iterdir()}
    assert "model.pt2" in served.files["me/small"] and served.private == {"me/small": True}
    done = pushed(served, trained, "task.folder=public", "task.push=me/public", "task.private=false")
    assert done.returncode == 0 and served.private["me/public"] is False
    done = pushed(served, trained, "task.folder=again", "task.push=me/public")  # is there already, and stays public
    assert done.returncode == 0 and served.private["me/public"] is False, done.stderr


@pytest.mark.slow
def test_without_a_token_nothing_is_written_and_a_hub_that_refuses_leaves_the_folder(served: FakeHub, trained: Path) -> None:
    done = pushed(served, trained, "task.folder=none", "task.push=me/small", token=False)
    assert done.returncode == 2 and done.stderr.startswith("error: task.push needs a token of the hub"), done.stderr
    assert not (trained / "none").exists() and served.asked == []
    done = pushed(served, trained, "task.folder=none", "task.push=me/my small")
    assert done.returncode == 2 and done.stderr.startswith("error: task.push=me/my small cannot be the name"), done.stderr
    assert not (trained / "none").exists() and served.asked == []
    done = pushed(served, trained, "task.folder=kept", "task.push=me/small", HF_TOKEN="hf_wrong")
    assert done.returncode == 1 and "hf upload --private me/small kept" in done.stderr and (trained / "kept" / "model.pt2").is_file(), (
        done.stderr
    )
    assert served.files == {} and len(done.stderr.splitlines()) == 1


def test_nothing_is_uploaded_that_differs_or_was_not_checked(commands: Any, trained: Path) -> None:
    worse = "import gptshake.export.torch_export as form\nwrite = form.write\n"
    worse += "def other(model, *rest):\n    write(model, *rest)\n    model.wpe.weight.data[0, 0] += 1\nform.write = other\n"
    words = ("task=export", "task.run=latest", "task.push=me/small")
    env = {"HF_TOKEN": TOKEN}
    done = commands(trained, *words, "task.to=torch_export", "task.folder=other", before=worse + NO_UPLOAD, **env)
    assert done.code == 1 and "its logits are up to" in done.error and not (trained / "other").exists()
    done = commands(trained, *words, "task.folder=unchecked", before=NO_UPLOAD, **env)
    assert done.code == 1 and "was not uploaded to me/small, because it was not checked: transformers is not installed" in done.error
