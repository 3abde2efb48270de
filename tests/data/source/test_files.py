"""The user's own files: what odd encodings and odd folders give."""

import codecs
from collections.abc import Callable
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.data.source import streams
from gptshake.data.source.files import TextFiles
from gptshake.data.source.streams import decode_part, decode_stream, known_encoding
from gptshake.errors import DataError

SEVERAL_ENCODINGS = [
    "utf-8",
    "utf-16",
    "utf-32",
    "utf-7",
    "utf-8-sig",
    "latin-1",
    "ascii",
    "cp1252",
    "gb18030",
    "shift_jis",
    "euc_kr",
    "big5",
]
SEVERAL = "Ein Bär. Слово. 水は低きに流る。 مرحبا 🙂\n"


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(path: Path, **options: Any) -> dict[str, str]:
    return {document.id: document.text for document in TextFiles(str(path), **options).documents()}


@pytest.mark.parametrize(
    "content",
    [
        SEVERAL.encode(),
        codecs.BOM_UTF8 + SEVERAL.encode(),
        SEVERAL.encode("utf-16"),
        codecs.BOM_UTF16_BE + SEVERAL.encode("utf-16-be"),
        SEVERAL.encode("utf-32"),
        SEVERAL.replace("\n", "\r\n").encode(),
    ],
)
def test_marks_and_line_ends_of_files_are_no_text(tmp_path: Path, content: bytes) -> None:
    assert texts(write(tmp_path / "book.txt", content)) == {"book.txt": SEVERAL}


def test_odd_characters_stay(tmp_path: Path) -> None:
    odd = "a\0b\x0c\x85\u2028\ufeffc\rd\t\x7f"
    assert texts(write(tmp_path / "odd.txt", odd)) == {"odd.txt": odd}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"abc\xe4def", r"byte 3 \(0xe4\)"),
        (codecs.BOM_UTF8 + b"ab\xff", r"byte 5 \(0xff\)"),
        (b"\xff\xfea\0b", r"utf-16-le text: byte 4 \(0x62\)"),
        (b"\xed\xa0\x80", "byte 0"),
    ],
)
def test_bytes_that_do_not_fit_are_named_with_the_way_out(tmp_path: Path, content: bytes, place: str) -> None:
    with pytest.raises(DataError, match=rf"bad\.txt is not .*{place}.*data\.encoding=latin-1"):
        texts(write(tmp_path / "bad.txt", content))


def test_the_named_encoding_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "old.txt", b"B\xe4r")
    assert texts(path, encoding="latin-1") == {"old.txt": "Bär"}
    assert texts(write(tmp_path / "ru.txt", "Слово".encode("cp1251")), encoding="windows-1251") == {"ru.txt": "Слово"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "UTF_32"])
def test_utf_8_is_not_read_as_wide_characters_which_without_a_mark_are(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(
        DataError, match=r"book\.txt is UTF-8 text and has no byte order mark, so it is no utf-\d.*leave data\.encoding out"
    ):
        texts(write(tmp_path / "book.txt", 20 * SEVERAL), encoding=encoding)
    for text in (20 * SEVERAL, 60 * "天地玄黄"):
        wide = text.encode(encoding)[2:] if encoding == "utf-16" else text.encode(f"{encoding}_LE" if encoding == "UTF_32" else encoding)
        assert texts(write(tmp_path / "wide.txt", wide), encoding=encoding) == {"wide.txt": text}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_characters_without_a_mark_are_not_read_as_utf_8_full_of_zeros(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "wide.txt", ("plain words " * 50).encode(encoding))
    with pytest.raises(DataError, match=r"wide\.txt is no utf-8 text: \d+ % of its first bytes are 0.*data\.encoding=utf-16-le"):
        texts(path)
    assert texts(path, encoding=encoding) == {"wide.txt": "plain words " * 50}


@given(st.binary(max_size=40))
def test_latin_1_reads_any_bytes_without_a_mark(data: bytes) -> None:
    if not data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        assert "".join(decode_stream(BufferedReader(BytesIO(data)), "latin-1", "x")).encode("latin-1") == data


def outcome(read: Callable[[], str]) -> str:
    try:
        return read()
    except DataError as error:
        return f"error: {error}"


@given(
    data=st.binary(max_size=30) | st.text(max_size=12).map(str.encode), chunk=st.integers(1, 7), encoding=st.sampled_from(SEVERAL_ENCODINGS)
)
def test_a_text_read_in_chunks_is_the_text_read_at_once_and_so_are_its_faults(data: bytes, chunk: int, encoding: str) -> None:
    length, found = streams.byte_order_mark(data[:4], encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        in_chunks = outcome(lambda: "".join(decode_stream(BufferedReader(BytesIO(data)), encoding, "x")))
    assert in_chunks == outcome(lambda: decode_part(data[length:], found, "x", length))


def test_an_encoding_that_only_the_hook_of_a_package_knows_is_refused() -> None:
    def hook(name: str) -> codecs.CodecInfo:
        return codecs.lookup("utf-8")

    codecs.register(hook)
    try:
        assert "".encode("no_such_encoding") == b""
        with pytest.raises(DataError, match=r"data\.encoding=no_such_encoding is not a text encoding"):
            known_encoding("no_such_encoding")
        assert [known_encoding(name) for name in ("UTF8", "Latin-1", "cp1252", "gb18030")] == ["utf-8", "iso8859-1", "cp1252", "gb18030"]
    finally:
        codecs.unregister(hook)


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "rot13", "", "a b", "\0", "idna", "undefined", "ütf-8"])
def test_an_unknown_encoding_is_a_sentence(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(DataError, match=r"data\.encoding=.* is not a text encoding"):
        TextFiles(str(write(tmp_path / "a.txt", "a")), encoding)


def test_a_folder_gives_its_text_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/b/c.txt", "notes.md.bak", "data.bin", ".hidden.txt", ".git/x.txt", "._b.txt"):
        write(tmp_path / name, name)
    (tmp_path / "folder.txt").mkdir()
    assert list(texts(tmp_path)) == ["a/b/c.txt", "a/z.TXT", "b.txt"]


def test_a_single_file_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "notes.md", "# x")) == {"notes.md": "# x"}


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "book.txt", "x")
    assert [document.id for document in TextFiles("~/book.txt").documents()] == ["book.txt"]


def test_missing_things_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=…"):
        TextFiles(None)
    with pytest.raises(DataError, match="does not exist"):
        TextFiles(str(tmp_path / "no.txt"))
    with pytest.raises(DataError, match=r"holds no \.txt file"):
        TextFiles(str(tmp_path))


def test_a_file_that_vanishes_is_a_sentence(tmp_path: Path) -> None:
    source = TextFiles(str(write(tmp_path / "a.txt", "a")))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt cannot be read: No such file"):
        source.fingerprint()


def test_the_fingerprint_changes_with_content_names_and_encoding_but_not_with_the_place(tmp_path: Path) -> None:
    def fingerprint(folder: str, name: str, content: str, encoding: str = "utf-8") -> str:
        write(tmp_path / folder / name, content)
        return str(TextFiles(str(tmp_path / folder), encoding).fingerprint())

    first = fingerprint("1", "a.txt", "text")
    assert fingerprint("2", "a.txt", "text") == first
    assert fingerprint("2", "a.txt", "text", "UTF8") == first
    others = [fingerprint("3", "a.txt", "Text"), fingerprint("4", "b.txt", "text"), fingerprint("5", "a.txt", "text", "latin-1")]
    assert len({first, *others}) == 4


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("my book (2).txt", "my-book-2"),
        ("Война и мир.txt", "Война-и-мир"),
        ("हिन्दी पाठ.txt", "हिन्दी-पाठ"),
        ("gro\u0308ße.txt", "größe"),
        ("()", "text"),
        ("a.b.txt", "a.b"),
        ("=x,y!.txt", "x-y"),
    ],
)
def test_the_label_keeps_the_letters_of_any_script_and_can_be_typed_in_a_shell(tmp_path: Path, name: str, label: str) -> None:
    assert TextFiles(str(write(tmp_path / name, "x"))).label == label
