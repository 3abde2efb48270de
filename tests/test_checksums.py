"""Checksums in pieces: of the content alone, and every byte belongs to one."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake import files
from gptshake.files import checksums, damage


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", 10)
    monkeypatch.setattr(files, "CHEAP_BYTES", 20)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=45), place=st.integers(0, 44), bit=st.integers(0, 7))
def test_the_full_check_finds_every_flipped_bit(content: bytes, place: int, bit: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    found = {"a": checksums(tmp_path / "a")}
    assert found["a"] == {
        "size": len(content),
        "sha256": [sha256(content[start : start + 10]).hexdigest() for start in range(0, len(content), 10)],
    }
    assert damage(tmp_path, found, everything=True) is None and damage(tmp_path, found, everything=False) is None
    if place < len(content):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        (tmp_path / "a").write_bytes(changed)
        assert damage(tmp_path, found, everything=True) == "the content of a was changed"
        if len(content) <= 20 or place >= (len(content) - 1) // 10 * 10:
            assert damage(tmp_path, found, everything=False) == "the content of a was changed"


def test_a_sample_that_is_drawn_finds_damage_in_the_middle_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    found = {"a": checksums(tmp_path / "a")}
    (tmp_path / "a").write_bytes(bytes(45) + b"x" + bytes(54))
    assert any(damage(tmp_path, found, everything=False) for _ in range(500))
