"""One hash over many files: it is the content's, and remembering hashes never hides a change."""

import os
import time
from pathlib import Path

import pytest

from gptshake.data.source import files as content
from gptshake.data.source.files import content_hash


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two files that count as large and as settled."""
    monkeypatch.setattr(content, "REMEMBERED_FROM", 1)
    monkeypatch.setattr(content, "_RECENT_NS", -(10**12))
    files = {name: tmp_path / name for name in ("a", "b")}
    for name, file in files.items():
        file.write_text(f"content of {name}")
    return files


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose content was read."""
    read: list[str] = []
    real = content.sha256
    monkeypatch.setattr(content, "sha256", lambda file: read.append(file.name) or real(file))  # type: ignore[func-returns-value]
    return read


def test_a_large_file_is_hashed_once(large: dict[str, Path], hashed: list[str], tmp_path: Path) -> None:
    first = content_hash(large, tmp_path / "cache")
    assert content_hash(large, tmp_path / "cache") == first == content_hash(large, None)
    assert hashed == ["a", "b", "a", "b"]  # the last two without a cache


def test_a_change_to_the_same_size_and_date_is_noticed(large: dict[str, Path], hashed: list[str], tmp_path: Path) -> None:
    first = content_hash(large, tmp_path / "cache")
    before = large["b"].stat()
    time.sleep(0.02)  # a file system's clock ticks every few milliseconds
    large["b"].write_text("CONTENT of b")
    os.utime(large["b"], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert large["b"].stat().st_mtime_ns == before.st_mtime_ns
    hashed.clear()
    assert content_hash(large, tmp_path / "cache") != first
    assert hashed == ["b"]


def test_another_file_in_its_place_is_noticed(large: dict[str, Path], tmp_path: Path) -> None:
    first = content_hash(large, tmp_path / "cache")
    other = tmp_path / "other"
    other.write_text("content of c")
    other.replace(large["b"])
    assert content_hash(large, tmp_path / "cache") != first


def test_what_was_touched_a_moment_ago_is_not_remembered(
    large: dict[str, Path], hashed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_RECENT_NS", 2 * 10**9)
    for _ in range(2):
        content_hash(large, tmp_path / "cache")
    assert hashed == ["a", "b"] * 2


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 3}', '{"a": [1, 2]}', "\0"])
def test_a_damaged_memory_costs_time_alone(large: dict[str, Path], tmp_path: Path, damage: str) -> None:
    first = content_hash(large, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "hashes").iterdir()
    memory.write_text(damage)
    assert content_hash(large, tmp_path / "cache") == first


def test_small_files_leave_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    content_hash({"a": tmp_path / "a"}, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
