"""From data.path to files: folders, patterns and lists, odd names and odd folders, and what is left out is said."""

import os
from pathlib import Path

import pytest

from gptshake.console import visible
from gptshake.data.source.files import TextFiles, suffixes
from gptshake.data.split import id_hash
from gptshake.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are given in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def ids(path: str | list[str]) -> list[str]:
    return [document.id for document in TextFiles(path).documents()]


@pytest.mark.parametrize(
    ("name", "known"),
    [("a.txt", (".txt", "")), ("A.JSONL.GZ", (".jsonl", ".gz")), ("a.gz", ("", ".gz")), ("a.tar.bz2", ("", ".bz2")), ("a.b", ("", ""))],
)
def test_a_name_says_format_and_packing(name: str, known: tuple[str, str]) -> None:
    assert suffixes(name) == known


def test_what_a_folder_holds_besides_text_is_counted_and_said(folder: Path) -> None:
    write("a.txt", "b.csv", "c.csv", "d/e.png", "Makefile")
    source = TextFiles(str(folder))
    assert [document.id for document in source.documents()] == ["a.txt"]
    assert source.notes == ("skipped, not a known text format: 4 files (2 .csv, 1 without a suffix, 1 .png)",)
    assert TextFiles("a.txt").notes == ()


def test_a_named_file_of_another_format_is_read_as_text_and_said(folder: Path) -> None:
    write("a.csv", "b.HTML.gz", "c.txt", "Makefile")
    assert TextFiles(["a.csv", "b.HTML.gz", "c.txt", "Makefile"]).notes == (
        "read as plain text, not a known text format: 2 files (1 .csv, 1 .html)",
    )


def test_a_pattern_takes_what_it_names_in_order(folder: Path) -> None:
    write("texts/b.txt", "texts/a.txt", "texts/c.log", "texts/.hidden.txt", "texts/deep/d.txt", "other/e.txt")
    assert ids("texts/*.txt") == ["a.txt", "b.txt"]
    assert ids("texts/*.log") == ["c.log"]
    assert ids("*/[ab].txt") == ["texts/a.txt", "texts/b.txt"]
    assert ids("texts/**/*.txt") == ["a.txt", "b.txt", "deep/d.txt"]
    assert ids(f"{folder}/texts/*.txt") == ["a.txt", "b.txt"]


def test_a_file_whose_name_is_a_pattern_is_that_file(folder: Path) -> None:
    write("a[1].txt", "a1.txt")
    assert ids("a[1].txt") == ["a[1].txt"]


def test_a_list_keeps_its_order_and_takes_no_file_twice(folder: Path) -> None:
    write("b/x.txt", "a/x.txt", "a/y.txt", "z.txt")
    assert ids(["b", "a", "z.txt"]) == ["b/x.txt", "a/x.txt", "a/y.txt", "z.txt"]
    assert ids(["a/y.txt", "a", "a/*.txt"]) == ["y.txt", "a/x.txt"]
    assert ids(["a/x.txt", "b/x.txt"]) == ["x.txt", "x.txt (2)"]
    assert TextFiles(["b", "a"]).label == "b-and-1"
    assert TextFiles(["z.txt", "z.txt"]).label == "z"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ([], "Which text"),
        ("no.txt", r"data\.path=no\.txt does not exist"),
        ("no/*.txt", r"pattern data\.path=no/\*\.txt matches no file"),
        (["a.txt", "no.txt"], r"data\.path=no\.txt does not exist"),
        ("pipe", "neither a file nor a folder"),
        ("loop.txt", "does not exist"),
        ("broken.txt", "does not exist"),
        ("line\nend", r"data\.path=line\\nend does not exist"),
    ],
)
def test_what_is_not_there_is_a_sentence(folder: Path, path: str | list[str], sentence: str) -> None:
    write("a.txt")
    os.mkfifo("pipe")
    Path("loop.txt").symlink_to("loop.txt")
    Path("broken.txt").symlink_to("gone.txt")
    with pytest.raises(DataError, match=sentence):
        TextFiles(path)


def test_links_in_a_circle_are_entered_once_and_pipes_and_broken_links_left_out(folder: Path) -> None:
    write("in/a.txt")
    Path("in/again").symlink_to(folder)
    Path("in/loop.txt").symlink_to("loop.txt")
    Path("in/broken.txt").symlink_to("gone.txt")
    os.mkfifo("in/pipe.txt")
    source = TextFiles(str(folder))
    assert [document.id for document in source.documents()] == ["in/a.txt"]
    assert source.notes[0].endswith("3 files (2 linked to nothing, 1 not regular)")


def test_a_linked_folder_is_read_too(folder: Path, tmp_path: Path) -> None:
    write("../elsewhere/a.txt", "b.txt")
    Path("link").symlink_to(tmp_path / "elsewhere")
    assert ids(".") == ["b.txt", "link/a.txt"]


def test_a_folder_named_like_a_text_is_a_folder(folder: Path) -> None:
    write("x.txt/a.txt")
    assert ids("x.txt") == ["a.txt"]
    assert ids(".") == ["x.txt/a.txt"]


@pytest.mark.parametrize("name", [b"a b.txt", b"a\nb.txt", b"-rf.txt", b"\xff\xfe.txt", "Бä水🙂.txt".encode(), b"a'\"$(x).txt", b"a:b.txt"])
def test_odd_names_are_read_and_can_be_shown_and_placed(folder: Path, name: bytes) -> None:
    Path(os.fsdecode(name)).write_text("x")
    for path in (".", os.fsdecode(name)):
        (document,) = TextFiles(path).documents()
        assert document.id == os.fsdecode(name) and 0 <= id_hash(document.id) < 1 << 64
        assert visible(document.id).isprintable() and visible(document.id).encode()
    assert TextFiles(".").fingerprint()["files"] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_sentence(folder: Path) -> None:
    write("a.txt", "secret/b.txt")
    Path("a.txt").chmod(0)
    with pytest.raises(DataError, match=r"a\.txt cannot be read: Permission denied"):
        TextFiles("a.txt").fingerprint()
    Path("secret").chmod(0)
    try:
        with pytest.raises(DataError, match=r"secret cannot be read: Permission denied"):
            TextFiles(".")
    finally:
        Path("secret").chmod(0o700)


def test_a_folder_that_may_not_be_read_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"The folder .*here cannot be read: Permission denied"):
        TextFiles(str(folder))
