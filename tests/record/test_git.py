import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gptshake.record import git as git_module
from gptshake.record.git import Code, checkout_root, read_code, read_workspace, without_credentials


def git(root: Path, *command: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *command], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed checkout that the package believes it runs from."""
    root = tmp_path / "checkout"
    file = root / "src/gptshake/record/git.py"
    file.parent.mkdir(parents=True)
    file.write_text("one\n")
    for name in ("pyproject.toml", "README.md", "conf/model/tiny.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    monkeypatch.setattr(git_module, "__file__", str(file))
    return root


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_clean_checkout_is_its_commit(checkout: Path, tmp_path: Path) -> None:
    code = read_code()
    assert checkout_root() == checkout and code.files == []
    assert code.git == {
        "commit": git(checkout, "rev-parse", "HEAD"),
        "branch": "main",
        "remote": None,
        "dirty": False,
        "diff_sha256": None,
        "untracked": {},
        "left_out": [],
        "redacted": [],
    }
    before = sorted(tmp_path.iterdir())
    code.save(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_changed_added_renamed_removed_and_untracked_files_are_listed_but_only_where_they_decide_numbers(checkout: Path) -> None:
    (checkout / "README.md").write_text("changed\n")
    (checkout / "notes.txt").write_text("untracked\n")
    assert read_code().files == []
    (checkout / "src/gptshake/record/git.py").write_text("two\n")
    (checkout / "conf/é t.yaml").write_text("new\n")
    git(checkout, "mv", "conf/model/tiny.yaml", "conf/model/small.yaml")
    (checkout / "pyproject.toml").unlink()
    assert read_code().files == [
        "conf/model/small.yaml",
        "conf/model/tiny.yaml",
        "conf/é t.yaml",
        "pyproject.toml",
        "src/gptshake/record/git.py",
    ]


def restored(checkout: Path, code: Code, folder: Path) -> Path:
    """The code made again from its commit and what was saved of the rest, in a clone."""
    run_dir, copy = folder / "run", folder / "copy"
    run_dir.mkdir()
    code.save(run_dir)
    git(folder, "clone", "-q", str(checkout), str(copy))
    git(copy, "checkout", "-q", str(code.git["commit"]))
    if (run_dir / "diff.patch").exists():
        git(copy, "apply", str(run_dir / "diff.patch"))
    if (run_dir / "untracked").exists():
        shutil.copytree(run_dir / "untracked", copy, dirs_exist_ok=True)
    return copy


def test_patch_and_copies_make_the_code_again(checkout: Path, tmp_path: Path) -> None:
    (checkout / "src/gptshake/record/git.py").write_text("two\n")
    (checkout / "conf/model/tiny.yaml").unlink()
    (checkout / "src/gptshake/new é.py").write_text("new\n")
    (checkout / "src/gptshake/binary").write_bytes(bytes(range(256)))
    code = read_code()
    (checkout / "src/gptshake/record/git.py").write_text("three: edited while the data was read\n")
    copy = restored(checkout, code, tmp_path)
    assert (copy / "src/gptshake/record/git.py").read_text() == "two\n"
    assert (copy / "src/gptshake/new é.py").read_text() == "new\n"
    assert (copy / "src/gptshake/binary").read_bytes() == bytes(range(256))
    assert not (copy / "conf/model/tiny.yaml").exists()
    assert code.git["untracked"]["src/gptshake/new é.py"] == sha256("new\n") and code.git["left_out"] == []


def test_what_is_large_or_a_link_is_hashed_and_not_copied(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_module, "MAX_COPY", 1000)
    monkeypatch.setattr(git_module, "MAX_COPIES", 1500)
    (tmp_path / "outside.txt").write_text("not the checkout's\n")
    sources = checkout / "src/gptshake"
    (sources / "large.bin").write_text("x" * 1001)
    (sources / "link").symlink_to(tmp_path / "outside.txt")
    (sources / "one.txt").write_text("1" * 1000)
    (sources / "two.txt").write_text("2" * 1000)
    git(checkout, "init", "-q", "src/gptshake/other")
    code = read_code()
    assert sorted(code.untracked) == ["src/gptshake/one.txt"]
    assert code.git["untracked"] == {
        "src/gptshake/large.bin": sha256("x" * 1001),
        "src/gptshake/link": sha256(str(tmp_path / "outside.txt")),
        "src/gptshake/one.txt": sha256("1" * 1000),
        "src/gptshake/other/": None,
        "src/gptshake/two.txt": sha256("2" * 1000),
    }
    assert code.git["left_out"] == ["src/gptshake/large.bin", "src/gptshake/link", "src/gptshake/other/", "src/gptshake/two.txt"]


def test_secrets_in_changes_are_hidden_and_their_files_named(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_API_KEY", "planted-in-environment")
    (checkout / "src/gptshake/data.db").write_bytes(b"\0\1\2")
    git(checkout, "add", "-f", "src/gptshake/data.db")
    git(checkout, "commit", "-q", "-m", "second")
    (checkout / "src/gptshake/data.db").write_bytes(b"\0\1\2 planted-in-environment \3")
    (checkout / "src/gptshake/record/git.py").write_text("one\nurl = 'https://me:planted-in-url@host.org/x'\nthree\n")
    (checkout / "src/gptshake/new.py").write_text("KEY = 'planted-in-environment'\npassword: Sequence[str] = ('a',)\n")
    (checkout / "conf/mine.yaml").write_text("lr: 1\npassword: planted-in-yaml\n")
    (checkout / "src/gptshake/fine.py").write_text("x = 1\n")
    (checkout / "src/gptshake/.env").write_text("LOGIN=planted-in-dotenv\n")
    code = read_code()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    code.save(run_dir)
    kept = b"".join(file.read_bytes() for file in run_dir.rglob("*") if file.is_file())
    assert b"planted" not in kept and b"data.db" not in kept and b"+url = 'https://<secret>@host.org/x'\n+three" in kept
    assert (run_dir / "untracked/src/gptshake/new.py").read_text() == "KEY = '<secret>'\npassword: Sequence[str] = ('a',)\n"
    assert code.git["redacted"] == ["conf/mine.yaml", "src/gptshake/data.db", "src/gptshake/new.py", "src/gptshake/record/git.py"]
    assert code.git["untracked"]["conf/mine.yaml"] == sha256("lr: 1\npassword: <secret>\n")
    assert code.git["left_out"] == ["src/gptshake/.env"] and "src/gptshake/.env" not in code.git["untracked"]


def test_a_dotenv_that_is_committed_is_in_no_patch(checkout: Path) -> None:
    (checkout / "conf/.env.local").write_text("a=1\n")
    git(checkout, "add", "-f", "conf/.env.local")
    git(checkout, "commit", "-q", "-m", "second")
    (checkout / "conf/.env.local").write_text("LOGIN=planted\n")
    (checkout / "conf/model/tiny.yaml").write_text("y\n")
    code = read_code()
    assert b"planted" not in code.patch and b"tiny.yaml" in code.patch and code.git["left_out"] == ["conf/.env.local"]


def test_the_hash_of_the_changes_tells_them_apart(checkout: Path) -> None:
    hashes = []
    for name, text in (("src/gptshake/a.py", "1"), ("src/gptshake/a.py", "2"), ("conf/model/tiny.yaml", "3")):
        (checkout / name).write_text(text)
        state = read_code().git
        assert state["dirty"] is True
        hashes.append(state["diff_sha256"])
    assert len(set(hashes)) == 3
    assert read_code().git["diff_sha256"] == hashes[-1]


def test_a_checkout_without_a_commit_is_all_change(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "add", "pyproject.toml")
    code, state = read_code(), read_code().git
    assert (state["commit"], state["branch"], state["dirty"]) == (None, "main", True)
    assert code.files == ["conf/model/tiny.yaml", "pyproject.toml", "src/gptshake/record/git.py"]
    assert b"pyproject.toml" in code.patch and sorted(code.untracked) == ["conf/model/tiny.yaml", "src/gptshake/record/git.py"]


def test_a_detached_head_has_no_branch(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "--detach")
    assert read_code().git["branch"] is None and read_code().git["commit"]


def test_a_hooks_environment_does_not_point_elsewhere(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert checkout_root() == checkout


def unversioned() -> str:
    code = read_code()
    assert checkout_root() is None and (code.files, code.patch, code.unread) == ([], b"", "")
    return str(code.git["unversioned"])


def test_without_git_the_code_is_unversioned(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unversioned() == "git is not installed"


def test_where_git_refuses_the_code_is_unversioned_and_says_why(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "bin/git"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho \"fatal: detected dubious ownership in repository at '/x'\" >&2\nexit 128\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refusing.parent}:{os.environ['PATH']}")
    assert unversioned().startswith("git refused: fatal: detected dubious ownership")


def test_a_wheel_inside_somebodys_repository_is_not_that_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / ".venv/lib/python3.11/site-packages/gptshake/record/provenance.py"
    monkeypatch.setattr(git_module, "__file__", str(installed))
    assert "wheel" in unversioned()


def test_sources_copied_into_another_repository_are_not_that_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(checkout / "src", checkout / "vendor/src")
    shutil.copy(checkout / "pyproject.toml", checkout / "vendor")
    monkeypatch.setattr(git_module, "__file__", str(checkout / "vendor/src/gptshake/record/git.py"))
    assert "not a git checkout of its own" in unversioned()


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
    assert read_code().git["remote"] == "https://host.org/me/x.git"


def test_a_checkout_that_git_cannot_look_through_is_not_taken_for_clean(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("git")
    broken = tmp_path / "bin/git"
    broken.parent.mkdir()
    broken.write_text(f'#!/bin/sh\ncase "$*" in *status*) echo "fatal: index file corrupt" >&2; exit 128;; esac\nexec {real} "$@"\n')
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    code = read_code()
    assert code.unread == code.git["unversioned"] == "git refused: fatal: index file corrupt"


@pytest.mark.parametrize("flag", ["assume-unchanged", "skip-worktree"])
def test_a_file_that_git_was_told_not_to_look_at_is_not_taken_for_clean(checkout: Path, flag: str) -> None:
    tracked = git(checkout, "ls-files", "src").split()[0]
    git(checkout, "update-index", f"--{flag}", tracked)
    (checkout / tracked).write_text("changed = True\n")
    assert read_code().unread == f"git does not look at {tracked}, until `git update-index --no-{flag} {tracked}`"
    git(checkout, "update-index", f"--no-{flag}", tracked)
    assert read_code().files == [tracked]


def test_the_users_own_repository_is_named_where_a_command_is_typed(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    assert read_workspace() is None  # the package's own, which ``git`` tells of
    monkeypatch.chdir(tmp_path)
    assert read_workspace() is None
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (own / "net.py").write_text("x = 1\n")
    git(own, "init", "-q", "-b", "work")
    git(own, "add", ".")
    git(own, "commit", "-q", "-m", "first")
    git(own, "remote", "add", "origin", "https://me:secret@example.org/own.git")
    monkeypatch.chdir(own / "sub")
    known = {"commit": git(own, "rev-parse", "HEAD"), "branch": "work", "remote": "https://example.org/own.git", "dirty": False}
    assert read_workspace() == known
    (own / "net.py").write_text("x = 2\n")
    assert read_workspace() == known | {"dirty": True}


def test_a_repository_of_somebody_else_runs_none_of_its_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text("* filter=evil\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    for key in ("filter.evil.clean", "core.fsmonitor", "diff.external"):
        git(tmp_path, "config", key, f"touch {tmp_path / 'marker'}; cat")
    (tmp_path / ".gitattributes").write_text("* filter=evil\n\n")
    monkeypatch.chdir(tmp_path)
    found = read_workspace()
    assert found is not None and found["dirty"] is None and not (tmp_path / "marker").exists()
