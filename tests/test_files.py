from pathlib import Path

import pytest

from gptshake.files import build_once


def holds_both(folder: Path) -> bool:
    return {file.name for file in folder.glob("*")} == {"a", "b"}


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "target", holds_both, fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_build_that_resumes_goes_on_with_what_is_there(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        if not (folder / "a").exists():
            (folder / "a").touch()
            raise RuntimeError
        (folder / "b").touch()

    target = tmp_path / "target"
    with pytest.raises(RuntimeError):
        build_once(target, holds_both, build, resumes=True)
    assert not target.exists()
    assert build_once(target, holds_both, build, resumes=True)
    assert holds_both(target)
    assert not build_once(target, holds_both, build, resumes=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["target"]
