import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gptshake.record import git as git_module
from gptshake.record.index import Entry, read_entry
from gptshake.report.diff_text import code_differences

Make = Callable[..., Entry]
PATCH = """diff --git a/src/model.py b/src/model.py
--- a/src/model.py
+++ b/src/model.py
@@ -1 +1,2 @@
-one
+two
+{line}
"""


def git(root: Path, *command: str) -> str:
    names = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(["git", *names, *command], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commits of a checkout, oldest first; the second touches no source."""
    root = tmp_path / "checkout"
    (root / "src").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    found = []
    for file, subject in (("src/a.py", "first"), ("README.md", "words"), ("src/a.py", "Faster \x1b[31mattention")):
        (root / file).write_text(f"{subject}\n")
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", subject)
        found.append(git(root, "rev-parse", "HEAD"))
    monkeypatch.setattr(git_module, "checkout_root", lambda: root)
    return found


def with_code(entry: Entry, patch: str = "", **untracked: str) -> Entry:
    if patch:
        (entry.path / "diff.patch").write_text(PATCH.format(line=patch))
    for name, content in untracked.items():
        (entry.path / "untracked/src").mkdir(parents=True, exist_ok=True)
        (entry.path / "untracked/src" / f"{name}.py").write_bytes(content.encode("latin-1"))
    return read_entry(entry.path)


def test_the_commits_between_are_listed_with_the_files_they_touch(record: Make, checkout: list[str]) -> None:
    a, b = (record(f"{id}0000000", git={"commit": commit}) for id, commit in zip("kl", (checkout[0], checkout[2]), strict=True))
    there = code_differences(a, b)
    assert there[0] == f"{checkout[0][:8]} → {checkout[2][:8]}" and there[1] == "  1 commit more:"
    assert there[2].endswith("Faster ?[31mattention") and "words" not in "".join(there)
    assert there[3].split()[:3] == ["src/a.py", "|", "2"] and "1 file changed" in there[4]
    assert code_differences(b, a)[1] == "  and without 1:"
    assert code_differences(a, a) == [f"the same commit {checkout[0][:8]}", "nothing uncommitted"]


def test_commits_that_touch_no_source_make_no_difference(record: Make, checkout: list[str]) -> None:
    a, b = (record(f"{id}0000000", git={"commit": commit}) for id, commit in zip("kl", checkout[:2], strict=True))
    assert code_differences(a, b)[0].endswith("no commit between them touches source or config")


def test_a_commit_that_is_not_here_is_a_sentence(record: Make, checkout: list[str]) -> None:
    a, b = record("k0000000", git={"commit": checkout[0]}), record("l0000000", git={"commit": "0" * 40})
    assert "does not know both" in code_differences(a, b)[0]


def test_without_git_versions_and_hashes_are_compared(record: Make) -> None:
    a = record("k0000000", version="0.1.0", git={"unversioned": "git is not installed", "code_sha256": "a" * 64})
    b = record("l0000000", version="0.2.0", git={"unversioned": "git is not installed", "code_sha256": "b" * 64})
    why = "(git is not installed)"
    assert code_differences(a, b)[0] == f"version 0.1.0, aaaaaaaa {why} → version 0.2.0, bbbbbbbb {why}"
    assert code_differences(a, a)[0] == f"the same files: version 0.1.0, aaaaaaaa {why}"


def test_uncommitted_lines_that_only_one_run_had_are_shown(record: Make) -> None:
    a = with_code(record("k0000000"), "x = 1", new="same\n", binary="\xff\x00")
    b = with_code(record("l0000000"), "\tx = 2\x1b", new="same\n")
    assert code_differences(a, b)[1:] == [
        "uncommitted in src/binary.py:",
        "  k0000000: + a file of SHA-256 ea5dbf9596d1",
        "  l0000000: unchanged",
        "uncommitted in src/model.py:",
        "  k0000000: +x = 1",
        "  l0000000: + x = 2\\x1b",
    ]
    assert code_differences(a, a)[1] == "the same uncommitted changes in src/model.py, src/binary.py, src/new.py"


def test_a_file_too_large_to_be_kept_is_told_by_its_hash_and_long_changes_are_cut(record: Make) -> None:
    a = with_code(
        record("k0000000", git={"untracked": {"src/large.bin": "c" * 64, "src/new.py": "d" * 64}}), new="\n".join(map(str, range(40)))
    )
    lines = code_differences(a, with_code(record("l0000000")))
    assert "  k0000000: + a file of SHA-256 cccccccccccc" in lines
    assert "  k0000000: … and 28 more lines" in lines


def test_a_broken_record_says_nothing_of_its_code(record: Make) -> None:
    a = record("k0000000", git={"commit": "a" * 40})
    assert code_differences(a, Entry(a.path.parent / "nowhere", "broken")) == [
        "unknown: the record cannot be read",
        "nothing uncommitted",
    ]
