import subprocess
from pathlib import Path

import pytest

from gptshake.record import git as git_module
from gptshake.record.git import commits_between


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A checkout with a side branch, instead of ours; subject -> commit."""

    def git(*command: str) -> str:
        about = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        return subprocess.run(["git", *about, *command], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    for subject in ("one", "two\twith a tab"):
        git("commit", "-q", "--allow-empty", "-m", subject)
    git("checkout", "-q", "-b", "side", "HEAD~1")
    git("commit", "-q", "--allow-empty", "-m", "aside")
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "joined", "side")
    monkeypatch.setattr(git_module, "checkout_root", lambda: tmp_path)
    return {line[41:]: line[:40] for line in git("log", "--format=%H %s").splitlines()}


def between(old: str, new: str) -> list[str]:
    return commits_between(old, new, "%s", ()) or []


def test_subjects_between_two_commits_follow_the_graph(checkout: dict[str, str]) -> None:
    assert between(checkout["one"], checkout["two\twith a tab"]) == ["two\twith a tab"]
    assert set(between(checkout["two\twith a tab"], checkout["joined"])) == {"aside", "joined"}
    assert between(checkout["joined"], checkout["one"]) == []


@pytest.mark.parametrize("strange", ["f" * 40, "--output=stolen", "HEAD", "", "1;rm"])
def test_a_commit_that_is_not_known_counts_for_nothing(checkout: dict[str, str], tmp_path: Path, strange: str) -> None:
    assert between(strange, checkout["joined"]) == between(checkout["one"], strange) == []
    assert len(between(checkout["one"], checkout["joined"])) == 3
    assert not (tmp_path / "stolen").exists()


def test_without_a_checkout_there_is_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_module, "checkout_root", lambda: None)
    assert commits_between("a" * 40, "b" * 40) is None
