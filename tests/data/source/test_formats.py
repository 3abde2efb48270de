"""Formats of the user's files: what each gives, packed in any way, and that nothing odd is ever passed over in silence."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from gptshake.data.source import formats, streams
from gptshake.data.source.files import TextFiles
from gptshake.data.source.protocol import START, Document, Position
from gptshake.errors import DataError

PAGE = "<page><title>{t}</title><ns>{ns}</ns><id>{i}</id>{r}<revision><id>9</id><text>{x}</text></revision></page>"
HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">'
DUMP = (
    HEAD
    + PAGE.format(t="A", ns=0, i=12, r="", x="'''A''' &amp; b")
    + PAGE.format(t="R", ns=0, i=13, r='<redirect title="A"/>', x="#REDIRECT")
    + PAGE.format(t="Talk:A", ns=1, i=14, r="", x="talk")
    + PAGE.format(t="B", ns=0, i=15, r="", x="[[B]]")
    + "</mediawiki>"
).encode()
ROWS = [{"text": f"Row {number}: Bär, 水.\n"} for number in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zst(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def table(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, row_group_size=2)
    return bytes(sink.getvalue())


PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}
FILES = {
    "a.txt": b"One.\r\nTwo.",
    "a.md": b"# One",
    "a.jsonl": LINES,
    "a.ndjson": LINES,
    "a.json": json.dumps(ROWS, ensure_ascii=False).encode(),
    "a.parquet": table(text=[row["text"] for row in ROWS]),
    "a.xml": DUMP,
}


def source_of(path: Path, content: bytes, **options: Any) -> TextFiles:
    path.write_bytes(content)
    return TextFiles(str(path), **options)


def read(source: TextFiles, start: Position = START) -> list[tuple[str, str]]:
    return [(document.id, document.text) for document in source.documents(start)]


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_documents_however_it_is_packed(tmp_path: Path, name: str, packing: str) -> None:
    whole = f"{name}{packing}"
    expected = {
        "a.txt": [(whole, "One.\nTwo.")],
        "a.md": [(whole, "# One")],
        "a.xml": [("12", "A & b"), ("15", "B")],
    }.get(name, [(f"{whole}:{number}", row["text"]) for number, row in enumerate(ROWS, 1)])
    source = source_of(tmp_path / whole, PACKED[packing](FILES[name]))
    assert read(source) == expected
    for stop in range(len(expected) + 1):
        assert read(source, Position(inside=stop)) == expected[stop:]


def test_every_format_is_known_by_its_suffix() -> None:
    assert set(formats.READERS) == {Path(name).suffix for name in FILES}


def archive(kind: str, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of one file, all of whose bytes are ASCII."""
    packed = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=packed, mode="w", format=format) as tar:
            tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    else:
        with zipfile.ZipFile(packed, "w") as zipped:
            zipped.writestr("a.txt", "")
    return packed.getvalue()


BINARY = {
    "a tar archive": archive("tar"),
    "a zip archive": archive("zip"),
    "a PDF": b"%PDF-1.4\n1 0 obj\n",
    "RTF": b"{\\rtf1 One.}",
    "packed with bzip2": bz2.compress(b"One."),
    "packed with gzip": gzip.compress(b"One."),
    "Parquet": FILES["a.parquet"],
}


@pytest.mark.parametrize("suffix", [".txt", ".zip", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("kind", BINARY)
def test_what_is_no_text_is_refused_by_how_it_begins(tmp_path: Path, kind: str, encoding: str, suffix: str) -> None:
    with pytest.raises(DataError, match=f"is {kind}.*no plain text. Unpack or convert it"):
        read(source_of(tmp_path / f"a{suffix}", BINARY[kind], encoding=encoding))


@pytest.mark.parametrize(
    ("kind", "content"),
    [("a tar archive", archive("tar", tarfile.GNU_FORMAT)), ("packed with bzip2", bz2.compress(b"One.", 1))],
    ids=["tar of GNU", "bzip2 -1"],
)
def test_every_kind_of_a_format_is_known(tmp_path: Path, kind: str, content: bytes) -> None:
    with pytest.raises(DataError, match=f"is {kind}"):
        read(source_of(tmp_path / "a", content))


@pytest.mark.parametrize("text", ["PAR1 is a receptor.", "A spoon of m".rjust(257) + "ustard"], ids=["PAR1", "ustar"])
def test_a_text_that_happens_to_hold_the_letters_of_a_format_is_read(tmp_path: Path, text: str) -> None:
    assert read(source_of(tmp_path / "a.txt", text.encode())) == [("a.txt", text)]


def test_a_parquet_file_with_checksums_is_held_against_them(tmp_path: Path) -> None:
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    parquet.write_table(pa.table({"text": ["One.", "Two."]}), tmp_path / "whole.parquet", **options)
    content = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        read(source_of(tmp_path / "a.parquet", content.replace(b"Two.", b"Too.")))


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_frames_one_after_the_other_are_read_whole(tmp_path: Path, packing: str) -> None:
    two = PACKED[packing](LINES) + PACKED[packing](LINES.replace(b"Row", b"More"))
    texts = [text for _, text in read(source_of(tmp_path / f"a.jsonl{packing}", two))]
    assert texts == [row["text"] for row in ROWS] + [row["text"].replace("Row", "More") for row in ROWS]


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.xml", "a.parquet"])
def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path, name: str, packing: str) -> None:
    content = PACKED[packing](FILES[name] * 3)
    with pytest.raises(DataError, match=rf"{name}{packing} is (cut off|damaged).*"):
        read(source_of(tmp_path / f"{name}{packing}", content[: len(content) * 2 // 3]))


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("content", [b"no such stream at all", b"\x1f\x8b\x08\0garbage garbage", b"BZh9garbagegarbage"])
def test_what_is_not_packed_as_its_name_says_is_refused(tmp_path: Path, packing: str, content: bytes) -> None:
    with pytest.raises(DataError, match=rf"a\.txt{packing} is (damaged|cut off)"):
        read(source_of(tmp_path / f"a.txt{packing}", content))


def test_a_flipped_bit_in_a_gz_file_is_noticed(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(LINES))
    content[-6] ^= 1  # of the checksum
    with pytest.raises(DataError, match=r"is damaged: CRC check failed"):
        read(source_of(tmp_path / "a.jsonl.gz", bytes(content)))


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.xml", "a.parquet"])
def test_a_bomb_is_refused_before_it_fills_memory_or_disk(tmp_path: Path, name: str, packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_FREE", 1 << 20)
    with pytest.raises(DataError, match=rf"{name}{packing} unpacks to more than 250 times its size"):
        read(source_of(tmp_path / f"{name}{packing}", PACKED[packing](b" " * (1 << 23))))


def test_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    text = "All work and no play makes Jack a dull boy.\n" * 400_000
    source = source_of(tmp_path / "a.txt.gz", gzip.compress(text.encode()))
    assert "".join(document.text for document in source.documents()) == text


LIST_FAULTS: dict[str, tuple[str, str]] = {
    "object": ('{"data": [{"text": "a"}]}', r"a\.json is not a list of objects.*\.jsonl or \.ndjson"),
    "lines": ('{"text": "a"}\n{"text": "b"}\n', r"not a list of objects"),
    "words": ("some prose", r"not a list of objects"),
    "empty": (" ", r"not a list of objects"),
    "list of texts": ('["a", "b"]', r'object 1 is none: "a", "b"\]'),
    "a number later": ('[{"text": "a"}, 7]', r"object 2 is none: 7\]"),
    "cut off": ('[{"text": "a"}, {"text": "b', r"object 2 is not JSON: Unterminated string"),
    "cut off between": ('[{"text": "a"},', r"object 2 is none: the file ends"),
    "no comma": ('[{"text": "a"} {"text": "b"}]', r'object 1 is followed by \{"text": "b"\}\]'),
    "two lists": ('[{"text": "a"}]\n[{"text": "b"}]', r"continues after its list"),
    "no such field": ('[{"content": "a"}]', r"object 1 has no field text, but content"),
    "a text that is none": ('[{"text": 3.5}]', r"object 1 has float in text"),
    "nesting without end": ('[{"a": ' + "[" * 200_000, r"object 1 is not JSON"),
}


@pytest.mark.parametrize("fault", LIST_FAULTS)
def test_a_json_file_that_is_no_list_of_objects_is_refused_with_the_place(tmp_path: Path, fault: str) -> None:
    content, sentence = LIST_FAULTS[fault]
    with pytest.raises(DataError, match=sentence):
        read(source_of(tmp_path / "a.json", content.encode()))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({"text": st.text(max_size=40), "meta": st.recursive(st.none() | st.floats(), st.lists, max_leaves=4)})
    ),
    chunk=st.integers(1, 30),
    indent=st.sampled_from([None, 1]),
)
def test_a_list_of_objects_is_read_in_chunks_of_any_size(tmp_path: Path, rows: list[Any], chunk: int, indent: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        found = read(source_of(tmp_path / "a.json", json.dumps(rows, indent=indent).encode()))
    assert found == [(f"a.json:{number}", row["text"]) for number, row in enumerate(rows, 1)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text("ab\r\n水", max_size=30), chunk=st.integers(1, 9))
def test_a_plain_text_is_the_same_document_in_however_many_chunks_it_is_read(tmp_path: Path, text: str, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        found = list(source_of(tmp_path / "a.txt", text.encode()).documents())
    assert "".join(document.text for document in found) == text.replace("\r\n", "\n")
    assert [document.more for document in found] == [True] * (len(found) - 1) + [False]
    assert {document.id for document in found} == {"a.txt"}


@pytest.mark.parametrize("column", ["text", "id"])
def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path, column: str) -> None:
    names = ["text", "id", column]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=names), sink)
    with pytest.raises(DataError, match=rf"a\.parquet has 2 columns named {column}"):
        read(source_of(tmp_path / "a.parquet", bytes(sink.getvalue())))


LINE_FAULTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"text": "a"}\n{"text": \n', r"a\.jsonl, line 2 is not JSON: Expecting value at character 11"),
    "two objects on a line": (b'{"text": "a"} {"text": "b"}\n', r"line 1 is not JSON: Extra data at character 15"),
    "array": (b'[{"text": "a"}]\n', r"line 1 is a list, not an object"),
    "number": (b'{"text": "a"}\n\n7\n', r"line 3 is a int, not an object"),
    "word": (b'"a text"\n', r"line 1 is a str, not an object"),
    "null": (b"null\n", r"line 1 is a NoneType, not an object"),
    "nested text": (b'{"text": {"body": "a"}}\n', r"line 1 has dict in text, not text.*data\.text_key"),
    "list of texts": (b'{"text": ["a", "b"]}\n', r"line 1 has list in text"),
    "text that is a number": (b'{"text": 3.5}\n', r"line 1 has float in text"),
    "no such field": (b'{"content": "a", "url": "b"}\n', r"line 1 has no field text, but content, url\..*data\.text_key"),
    "no field": (b"{}\n", r"line 1 has no field text, but none at all"),
    "invalid UTF-8": (b'{"text": "abc"}\n{"text": "\xff"}\n', r"a\.jsonl, line 2, is not utf-8 text: byte 26 \(0xff\)"),
    "NUL": (b'{"text": "a"}\n\0\0\0\n', r"line 2 is not JSON"),
    "nesting without end": (b"[" * 200_000 + b"\n", r"line 1 is not JSON"),
    "a number too long for Python": (b'{"text": ' + b"1" * 10_000 + b"}\n", r"line 1 is not JSON"),
    "binary": (bytes(range(256)), r"a\.jsonl, line 1 is not JSON|is not utf-8 text"),
    "UTF-16 that ends in the middle": ('{"text": "a"}\n'.encode("utf-16")[:-1], r"not utf-16-le text"),
}


@pytest.mark.parametrize("fault", LINE_FAULTS)
def test_a_line_that_does_not_fit_is_named_with_its_place(tmp_path: Path, fault: str) -> None:
    content, sentence = LINE_FAULTS[fault]
    with pytest.raises(DataError, match=sentence):
        read(source_of(tmp_path / "a.jsonl", content))


LINE_ODDITIES: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "blank lines": (b'\n{"text": "a"}\n  \n\r\n{"text": "b"}', [("a.jsonl:2", "a"), ("a.jsonl:5", "b")]),
    "CR LF between lines, kept inside": (b'{"text": "a\\r\\nb"}\r\n{"text": "c"}\r\n', [("a.jsonl:1", "a\r\nb"), ("a.jsonl:2", "c")]),
    "mark of UTF-8": (codecs.BOM_UTF8 + b'{"text": "a"}\n', [("a.jsonl:1", "a")]),
    "UTF-16": ('{"text": "Bär"}\n{"text": "水"}\n'.encode("utf-16"), [("a.jsonl:1", "Bär"), ("a.jsonl:2", "水")]),
    "ids": (b'{"text": "a", "id": "x"}\n{"text": "b", "id": 7}\n{"text": "c", "id": null}\n', [("x", "a"), ("7", "b"), ("a.jsonl:3", "c")]),
    "ids that are odd": (b'{"text": "a", "id": [1]}\n{"text": "b", "id": ""}\n', [("a.jsonl:1", "a"), ("a.jsonl:2", "b")]),
    "equal ids": (b'{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}\n', [("x", "a"), ("x", "b")]),
    "null": (b'{"text": null}\n{"text": "b"}\n', [("a.jsonl:1", ""), ("a.jsonl:2", "b")]),
    "a field twice": (b'{"text": "a", "text": "b"}\n', [("a.jsonl:1", "b")]),
    "escapes, also half of a pair": (b'{"text": "\\u00e4\\ud83d\\ude00\\ud800\\u0000"}\n', [("a.jsonl:1", "ä😀\ud800\0")]),
    "line separators of Unicode": ('{"text": "a\u2028b\x85c"}\n'.encode(), [("a.jsonl:1", "a\u2028b\x85c")]),
}


@pytest.mark.parametrize("oddity", LINE_ODDITIES)
def test_odd_lines_give_what_they_say(tmp_path: Path, oddity: str) -> None:
    content, expected = LINE_ODDITIES[oddity]
    assert read(source_of(tmp_path / "a.jsonl", content)) == expected


def test_another_field_and_another_encoding_can_be_named(tmp_path: Path) -> None:
    source = source_of(tmp_path / "a.jsonl", '{"body": "Bär"}\n'.encode("latin-1"), text_key="body", encoding="latin-1")
    assert read(source) == [("a.jsonl:1", "Bär")]


def test_a_line_of_50_mb_is_a_document(tmp_path: Path) -> None:
    long = "word " * 10_000_000
    assert read(source_of(tmp_path / "a.jsonl", json.dumps({"text": long}).encode())) == [("a.jsonl:1", long)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=6), st.booleans(), st.integers(0, 6))
def test_any_texts_come_back_from_json_lines_and_parquet(tmp_path: Path, texts: list[str], ascii: bool, stop: int) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    assert [text for _, text in read(source_of(tmp_path / "a.jsonl", lines), Position(inside=stop))] == texts[stop:]
    valid = [text.encode("utf-8", "replace").decode() for text in texts]
    assert [text for _, text in read(source_of(tmp_path / "a.parquet", table(text=valid)), Position(inside=stop))] == valid[stop:]


TEXTS = ["a", "b", "c"]
COLUMNS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "nulls": ({"text": ["a", None, "c"]}, [("a.parquet:1", "a"), ("a.parquet:2", ""), ("a.parquet:3", "c")]),
    "large_string": ({"text": pa.array(TEXTS, pa.large_string())}, [(f"a.parquet:{n}", t) for n, t in enumerate(TEXTS, 1)]),
    "dictionary": ({"text": pa.array(TEXTS).dictionary_encode()}, [(f"a.parquet:{n}", t) for n, t in enumerate(TEXTS, 1)]),
    "ids": ({"text": TEXTS, "id": ["x", None, "x"]}, [("x", "a"), ("a.parquet:2", "b"), ("x", "c")]),
    "ids that are numbers": ({"text": TEXTS, "id": [7, 8, 9]}, [("7", "a"), ("8", "b"), ("9", "c")]),
    "ids that are lists": ({"text": ["a"], "id": [[1]]}, [("a.parquet:1", "a")]),
    "no rows": ({"text": pa.array([], pa.string())}, []),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_odd_columns_give_what_they_say(tmp_path: Path, kind: str) -> None:
    columns, expected = COLUMNS[kind]
    assert read(source_of(tmp_path / "a.parquet", table(**columns))) == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (table(body=["a"], url=["b"]), r"a\.parquet has no column text, but body, url\..*data\.text_key"),
        (table(text=[["a", "b"]]), r"The column text of .*a\.parquet is list<.*string>, not text"),
        (table(text=[1, 2]), "is int64, not text"),
        (table(text=[b"a"]), "is binary, not text"),
        (b"", "is damaged or no Parquet file|is damaged"),
        (b"PAR1 and then nothing of it PAR1", "damaged"),
        (FILES["a.parquet"][:-20], "damaged"),
        (FILES["a.parquet"][:40] + b"\xff" * 40 + FILES["a.parquet"][80:], "damaged"),
    ],
)
def test_a_parquet_file_that_cannot_be_read_is_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read(source_of(tmp_path / "a.parquet", content))


@pytest.mark.parametrize("content", [DUMP[:-30], DUMP[:100], b"", b"plain text", b"<html/>", HEAD.encode() + b"&unknown;</mediawiki>"])
def test_a_dump_that_is_none_or_cut_off_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.xml is "):
        read(source_of(tmp_path / "a.xml", content))


def test_a_large_dump_is_cleaned_by_several_processes_to_the_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = "".join(PAGE.format(t=n, ns=0, i=n, r="", x=f"'''Page''' [[{n}]] " + "word " * 50_000) for n in range(30))
    source = source_of(tmp_path / "a.xml", (HEAD + pages + "</mediawiki>").encode())
    one = list(source.documents())
    monkeypatch.setattr(formats, "LARGE_DUMP", 0)
    assert list(source.documents()) == one and len(one) == 30
    assert list(source.documents(Position(inside=11))) == one[11:]


FOLDER = {
    "a.jsonl": LINES,
    "b.txt": b"b",
    "c.parquet": FILES["a.parquet"],
    "d/e.xml": DUMP,
    "d/f.txt.gz": gzip.compress(b"f"),
    "g.md": b"g",
}


def test_a_folder_of_all_formats_goes_on_in_the_file_where_it_was_stopped(tmp_path: Path) -> None:
    for name, content in FOLDER.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    source = TextFiles(str(tmp_path))
    whole: list[Document] = list(source.documents())
    assert [document.part for document in whole] == [0] * 5 + [1] + [2] * 5 + [3] * 2 + [4, 5]
    for stop, document in enumerate(whole):
        inside = sum(earlier.part == document.part for earlier in whole[:stop])
        assert list(source.documents(Position(document.part, inside))) == whole[stop:]
    shares = [document.share or 0 for document in whole]
    assert shares == sorted(shares) and shares[-1] == 1.0


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.xml.bz2"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    texts = [os.urandom(5_000).hex() for _ in range(3_000)]  # 30 MB, hardly packable
    kind = Path(name).suffixes[0]
    lines = lambda: "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()  # noqa: E731
    pages = lambda: (HEAD + "".join(PAGE.format(t=1, ns=0, i=1, r="", x=text) for text in texts) + "</mediawiki>").encode()  # noqa: E731
    content = {".jsonl": lines, ".parquet": lambda: table(text=texts), ".xml": pages}[kind]()
    source = source_of(tmp_path / name, PACKED[Path(name).suffix if len(Path(name).suffixes) > 1 else ""](content))
    del content
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    most = 0
    for number, document in enumerate(source.documents()):
        assert document.text == texts[number]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most + tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()
