import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import RecordError
from gptshake.files import lock_file, sha256
from gptshake.record import git as git_module
from gptshake.record.git import restored
from gptshake.redaction import redact

Info = dict[str, Any]


def git(root: Path, *command: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *command], cwd=root, check=True, capture_output=True, text=True).stdout


def state(root: Path) -> tuple[str, ...]:
    """All that must not change in a user's checkout."""
    content = [file.read_text() for file in sorted(root.rglob("*")) if file.is_file() and ".git" not in file.parts]
    return (
        git(root, "status", "--porcelain"),
        git(root, "worktree", "list"),
        git(root, "branch"),
        git(root, "rev-parse", "HEAD"),
        *content,
    )


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that the package believes it runs from."""
    root = tmp_path / "checkout"
    for name in ("src/model.py", "conf/tiny.yaml"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("one\ntwo\nthree\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(git_module, "checkout_root", lambda: root)
    return root


@pytest.fixture
def record(checkout: Path, tmp_path: Path) -> tuple[Path, Info]:
    """The record of a dirty run; since then its code was thrown away, another commit made and other changes begun."""
    run_dir = tmp_path / "run"
    (run_dir / "untracked/conf").mkdir(parents=True)
    (run_dir / "untracked/conf/mine.yaml").write_text("mine\n")
    (checkout / "src/model.py").write_text("one\n2\nthree\n")
    patch = git(checkout, "diff", "--binary", "HEAD", "--", "src", "conf")
    (run_dir / "diff.patch").write_text(patch)
    mine = sha256(run_dir / "untracked/conf/mine.yaml")
    known = {"commit": git(checkout, "rev-parse", "HEAD").strip(), "dirty": True, "untracked": {"conf/mine.yaml": mine}}
    known["diff_sha256"] = hashlib.sha256(patch.encode() + f"\0conf/mine.yaml\0{mine}".encode()).hexdigest()
    (checkout / "src/model.py").write_text("later\n")
    git(checkout, "commit", "-q", "-a", "-m", "second")
    (checkout / "src/model.py").write_text("being edited\n")
    return run_dir, {"id": "x3k9a2pq", "version": "0.1.0", "git": known}


def test_commit_patch_and_untracked_files_come_back_and_the_users_checkout_stays_as_it_is(
    record: tuple[Path, Info], checkout: Path
) -> None:
    before = state(checkout)
    with restored(*record) as code:
        assert code.source is not None and code.commit == record[1]["git"]["commit"]
        assert (code.source / "model.py").read_text() == "one\n2\nthree\n"
        assert (code.source.parent / "conf/mine.yaml").read_text() == "mine\n"
        assert code.about == f"commit {code.commit[:10]} with diff.patch and 1 untracked file" and code.notes == ()
        assert git(code.source, "rev-parse", "HEAD").strip() == code.commit  # so that its own record names it
    assert not code.source.parent.exists() and state(checkout) == before


def test_nothing_is_left_behind_when_the_repetition_fails(record: tuple[Path, Info], checkout: Path) -> None:
    before = state(checkout)
    with pytest.raises(KeyboardInterrupt), restored(*record) as code:
        raise KeyboardInterrupt
    assert code.source is not None and not code.source.parent.exists() and state(checkout) == before


def test_no_hook_of_the_users_runs(record: tuple[Path, Info], checkout: Path) -> None:
    hook = checkout / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    with restored(*record) as code:
        assert code.source is not None and not (code.source.parent / "ran").exists()


def refusal(record: tuple[Path, Info]) -> str:
    with pytest.raises(RecordError) as caught, restored(*record):
        pass
    return str(caught.value)


def test_what_is_no_commit_is_refused_before_git_reads_it(record: tuple[Path, Info], checkout: Path) -> None:
    run, info = record
    info["git"]["commit"] = "--output=/tmp/x"
    with pytest.raises(RecordError, match="names '--output=/tmp/x' as its commit, which is none"), restored(run, info):
        pass


def test_a_commit_of_another_repository_is_told_with_its_remote(record: tuple[Path, Info], checkout: Path) -> None:
    record[1]["git"] |= {"commit": "12" * 20, "remote": "https://example.org/gpts.git"}
    told = refusal(record)
    assert "12" * 20 in told and str(checkout) in told and "git fetch https://example.org/gpts.git" in told
    assert redact(told) == told  # a commit is as long as a key of W&B


def test_a_patch_that_does_not_apply_is_told_with_gits_reason(record: tuple[Path, Info], checkout: Path) -> None:
    before = state(checkout)
    record[1]["git"]["commit"] = git(checkout, "rev-parse", "HEAD").strip()
    told = refusal(record)
    assert "diff.patch does not apply" in told and "src/model.py: patch does not apply" in told
    assert state(checkout) == before


def test_changes_that_were_not_kept_are_told(record: tuple[Path, Info], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    record[1]["git"]["untracked"] = {}
    assert "they are lost" in refusal((empty, record[1]))


def test_a_record_that_was_edited_since_is_told_and_run_all_the_same(record: tuple[Path, Info]) -> None:
    (record[0] / "untracked/conf/mine.yaml").write_text("not mine\n")
    with restored(*record) as code:
        assert [note for note in code.notes if "do not have the hash that the run began with" in note]


def test_a_hidden_secret_is_told(record: tuple[Path, Info]) -> None:
    record[1]["git"]["redacted"] = ["conf/mine.yaml"]
    with restored(*record) as code:
        assert "hides a secret in conf/mine.yaml" in code.notes[0]


def test_a_file_too_large_for_the_record_is_taken_from_the_checkout_if_it_is_the_same(record: tuple[Path, Info], checkout: Path) -> None:
    large = checkout / "src/large.bin"
    large.write_text("large")
    record[1]["git"]["untracked"]["src/large.bin"] = sha256(large)
    record[1]["git"]["diff_sha256"] = None
    with restored(*record) as code:
        assert code.source is not None and (code.source / "large.bin").read_text() == "large"
    large.write_text("another")
    assert f"src/large.bin (SHA-256 {record[1]['git']['untracked']['src/large.bin'][:16]})" in refusal(record)


def test_a_record_cannot_write_outside_of_the_restored_code(record: tuple[Path, Info], checkout: Path) -> None:
    (checkout.parent / "outside").write_text("x")
    record[1]["git"]["untracked"]["../outside"] = sha256(checkout.parent / "outside")
    assert "would leave the restored code" in refusal(record)


def test_unversioned_code_is_that_of_today_only_if_its_hash_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_module, "code_sha256", lambda: "ab" * 32)
    known = {"unversioned": "installed from a wheel, not run from a checkout", "code_sha256": "ab" * 32}
    with restored(tmp_path, {"id": "x", "version": "0.1.0", "git": known}) as code:
        assert code.source is None and code.commit is None
    told = refusal((tmp_path, {"id": "x", "version": "0.1.0", "git": known | {"code_sha256": "cd" * 32}}))
    assert "cd" * 8 in told and "ab" * 8 in told and "install gptshake 0.1.0" in told
    assert "kept no hash" in refusal((tmp_path, {"id": "x", "version": "0.1.0", "git": {"unversioned": "no git"}}))


def test_a_wheel_cannot_restore_a_commit_and_says_what_can(record: tuple[Path, Info], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_module, "checkout_root", lambda: None)
    assert "clone its repository" in refusal(record)


def test_what_a_killed_reproduction_left_is_removed_by_the_next_but_not_what_is_at_work(
    record: tuple[Path, Info], checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living, other = (tmp_path / f"gptshake-code-{name}" for name in ("dead", "living", "other"))
    for folder in (dead, living):
        folder.mkdir()
        git(checkout, "worktree", "add", "-q", "--detach", str(folder / "code"), "HEAD")
    (dead / "lock").touch()
    other.mkdir()
    lock = lock_file(living / "lock")
    with restored(*record) as code:
        assert code.source is not None and sorted(tmp_path.glob("gptshake-code-*")) == sorted([living, other, code.source.parents[1]])
        assert len(git(checkout, "worktree", "list").splitlines()) == 3
        with pytest.raises(BlockingIOError):
            lock_file(code.source.parents[1] / "lock")
    os.close(lock)
    with restored(*record):
        assert not living.exists() and other.exists()
