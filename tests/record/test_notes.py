import json
import threading
from pathlib import Path

import pytest

from gptshake.record.texts import add_note, read_notes


def texts(path: Path) -> list[str]:
    return [note.text for note in read_notes(path)]


def test_notes_come_back_in_order(tmp_path: Path) -> None:
    for text in ("too hot", "it's #1, (really)!", "two\nlines \u2028 and\r more", "Ünïcode 🎲"):
        add_note(tmp_path, text)
    assert texts(tmp_path) == ["too hot", "it's #1, (really)!", "two\nlines \u2028 and\r more", "Ünïcode 🎲"]
    assert texts(tmp_path / "nowhere") == []


def test_a_note_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    add_note(tmp_path, "first")
    with (tmp_path / "notes.jsonl").open("ab") as file:
        file.write(b'{"time": 1.0, "te')
    add_note(tmp_path, "second")
    assert texts(tmp_path) == ["first", "second"]


@pytest.mark.parametrize("line", [b"{}", b"3", b'{"time": "x", "text": "y"}', b'{"time": null, "text": 1}', b"\xff\xfe", b""])
def test_a_line_that_is_no_note_is_left_out(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "notes.jsonl").write_bytes(line + b"\n")
    add_note(tmp_path, "whole")
    assert texts(tmp_path) == ["whole"]


def test_a_byte_that_is_no_text_does_not_lose_a_note(tmp_path: Path) -> None:
    add_note(tmp_path, "caf\udce9")  # as a shell of another encoding gives it
    assert texts(tmp_path) == ["caf?"]


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    threads = [threading.Thread(target=lambda n=n: [add_note(tmp_path, f"{n} {k}") for k in range(10)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(tmp_path)) == sorted(f"{n} {k}" for n in range(4) for k in range(10))
    assert all(json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines())


def test_a_secret_in_a_note_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-0123456789")
    add_note(tmp_path, "works with s3cr3t-0123456789 only")
    assert texts(tmp_path) == ["works with <secret> only"]
