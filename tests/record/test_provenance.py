import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gptshake.record import provenance
from gptshake.record.provenance import checkout_root, collect, save_patch, uncommitted, without_credentials


def git(root: Path, *command: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *command], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed checkout that the package believes it runs from."""
    root = tmp_path / "checkout"
    file = root / "src/gptshake/record/provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("one\n")
    for name in ("pyproject.toml", "README.md", "conf/model/tiny.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(file))
    return root


def test_a_clean_checkout_is_its_commit(checkout: Path, tmp_path: Path) -> None:
    assert checkout_root() == checkout
    assert uncommitted() == []
    state = collect()["git"]
    assert state == {"commit": git(checkout, "rev-parse", "HEAD"), "branch": "main", "remote": None, "dirty": False, "diff_sha256": None}
    assert save_patch(tmp_path) == [] and not (tmp_path / "diff.patch").exists()


def test_changed_added_renamed_removed_and_untracked_files_are_listed_but_only_where_they_decide_numbers(checkout: Path) -> None:
    (checkout / "README.md").write_text("changed\n")
    (checkout / "notes.txt").write_text("untracked\n")
    assert uncommitted() == []
    (checkout / "src/gptshake/record/provenance.py").write_text("two\n")
    (checkout / "conf/é t.yaml").write_text("new\n")
    git(checkout, "mv", "conf/model/tiny.yaml", "conf/model/small.yaml")
    (checkout / "pyproject.toml").unlink()
    assert uncommitted(checkout) == [
        "conf/model/small.yaml",
        "conf/model/tiny.yaml",
        "conf/é t.yaml",
        "pyproject.toml",
        "src/gptshake/record/provenance.py",
    ]


def test_patch_and_copies_make_the_code_again(checkout: Path, tmp_path: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "src/gptshake/record/provenance.py").write_text("two\n")
    (checkout / "src/gptshake/new.py").write_text("new\n")
    (checkout / "src/gptshake/large.bin").write_bytes(b"x" * (provenance.MAX_COPY + 1))
    (checkout / "src/gptshake/link").symlink_to("/etc/hostname")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    assert save_patch(run_dir) == ["src/gptshake/large.bin", "src/gptshake/link"]
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(checkout), str(copy))
    git(copy, "checkout", "-q", commit)
    git(copy, "apply", str(run_dir / "diff.patch"))
    shutil.copytree(run_dir / "untracked", copy, dirs_exist_ok=True)
    for name in ("record/provenance.py", "new.py"):
        assert (copy / "src/gptshake" / name).read_text() == (checkout / "src/gptshake" / name).read_text()


def test_the_hash_of_the_changes_tells_them_apart(checkout: Path) -> None:
    hashes = []
    for name, text in (("src/gptshake/a.py", "1"), ("src/gptshake/a.py", "2"), ("conf/model/tiny.yaml", "3")):
        (checkout / name).write_text(text)
        state = collect()["git"]
        assert state["dirty"] is True
        hashes.append(state["diff_sha256"])
    assert len(set(hashes)) == 3
    assert collect()["git"]["diff_sha256"] == hashes[-1]


def test_a_checkout_without_a_commit_is_all_change(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "add", "pyproject.toml")
    state = collect()["git"]
    assert (state["commit"], state["branch"], state["dirty"]) == (None, "main", True)
    assert uncommitted() == ["conf/model/tiny.yaml", "pyproject.toml", "src/gptshake/record/provenance.py"]
    save_patch(tmp_path)
    assert "pyproject.toml" in (tmp_path / "diff.patch").read_text()


def test_a_detached_head_has_no_branch(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "--detach")
    assert collect()["git"]["branch"] is None and collect()["git"]["commit"]


def test_a_hooks_environment_does_not_point_elsewhere(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert checkout_root() == checkout


def unversioned() -> str:
    assert checkout_root() is None and uncommitted() == []
    return str(collect()["git"]["unversioned"])


def test_without_git_the_code_is_unversioned(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unversioned() == "git is not installed"
    assert save_patch(tmp_path) == []


def test_where_git_refuses_the_code_is_unversioned_and_says_why(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "bin/git"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho \"fatal: detected dubious ownership in repository at '/x'\" >&2\nexit 128\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refusing.parent}:{os.environ['PATH']}")
    assert unversioned().startswith("git refused: fatal: detected dubious ownership")


def test_a_wheel_inside_somebodys_repository_is_not_that_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / ".venv/lib/python3.11/site-packages/gptshake/record/provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert "wheel" in unversioned()


def test_sources_copied_into_another_repository_are_not_that_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(checkout / "src", checkout / "vendor/src")
    shutil.copy(checkout / "pyproject.toml", checkout / "vendor")
    monkeypatch.setattr(provenance, "__file__", str(checkout / "vendor/src/gptshake/record/provenance.py"))
    assert "no git checkout of its own" in unversioned()


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("https://me:secret@host.org/me/x.git", "https://host.org/me/x.git"),
        ("https://ghp_secret@host.org:8443/me/x.git", "https://host.org:8443/me/x.git"),
        ("https://me:se@cret@host.org/x", "https://host.org/x"),
        ("https://host.org/x.git?private_token=secret#secret", "https://host.org/x.git"),
        ("ssh://git:secret@host.org/x.git", "ssh://host.org/x.git"),
        ("git@host.org:me/x.git", "git@host.org:me/x.git"),
        ("secret@host.org:me/x.git", "host.org:me/x.git"),
        ("/home/me/x.git", "/home/me/x.git"),
        ("", ""),
    ],
)
def test_a_remote_is_kept_without_credentials(remote: str, shown: str) -> None:
    assert without_credentials(remote) == shown


def test_the_record_holds_no_credential_of_the_remote(checkout: Path) -> None:
    git(checkout, "remote", "add", "origin", "https://me:secret@host.org/me/x.git")
    assert collect()["git"]["remote"] == "https://host.org/me/x.git"
    assert "secret" not in json.dumps(collect())


def test_versions_are_known_without_importing_the_libraries() -> None:
    code = (
        "import sys, json; from gptshake.record.provenance import collect; d = collect(); json.dumps(d); "
        "assert d['environment']['packages']['torch'], d; "
        "print([m for m in ('torch', 'wandb', 'numpy', 'matplotlib', 'pytorch_lightning') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
