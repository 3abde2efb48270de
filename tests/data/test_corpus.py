"""The corpus: the same bytes however often its building was stopped, checked when it is opened, never of a text that changed."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake.data import corpus as corpus_module
from gptshake.data.corpus import Corpus, open_corpus, progress
from gptshake.data.source.files import TextFiles
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.split import id_hash
from gptshake.errors import DataError, Unreachable

FILES = ("text.bin", "documents.npy", "ids.jsonl", "corpus.json")


class Parts:
    """A source of several parts that can break off after so many documents."""

    label, licence, notes = "parts", "public domain", ("a note",)

    def __init__(self, parts: list[list[str]], breaks_after: int = 10**9, error: BaseException | None = None) -> None:
        self.parts, self.breaks_after, self.error, self.starts = parts, breaks_after, error or Unreachable("the hub broke off"), [START]

    def fingerprint(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def resolved(self) -> dict[str, Any]:
        return {}

    def documents(self, start: Position = START) -> Iterator[Document]:
        self.starts.append(start)
        given = 0
        for part in range(start.part, len(self.parts)):
            for number, text in enumerate(self.parts[part]):
                if part > start.part or number >= start.inside:
                    if given == self.breaks_after:
                        raise self.error
                    given += 1
                    yield Document(f"{part}:{number}", text, part)


PARTS = [["a", "", "bc", "水"], [], ["d" * 50], ["", "e", "f\ud800"], ["g"] * 5]


def content(cache: Path) -> dict[str, bytes]:
    (folder,) = [path for path in (cache / "corpora").iterdir() if path.is_dir()]
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    return {name: (folder / name).read_bytes() for name in FILES}


def whole(corpus: Corpus) -> list[str]:
    rows = [[number, 0, length] for number, length in enumerate(corpus.characters.tolist())]
    return [text for _, text in corpus.texts(np.array(rows, np.int64).reshape(-1, 3))]


def test_a_corpus_holds_the_documents_with_their_lengths_and_hashes(tmp_path: Path) -> None:
    said: list[str] = []
    corpus = open_corpus(Parts(PARTS), tmp_path, said.append)
    kept = {f"{part}:{number}": text for part, texts in enumerate(PARTS) for number, text in enumerate(texts) if text}
    assert whole(corpus) == list(kept.values())
    assert corpus.hashes.tolist() == [id_hash(name) for name in kept]
    assert [json.loads(line) for line in content(tmp_path)["ids.jsonl"].splitlines()] == list(kept)
    assert said == ["the text of parts: public domain", "a note", "skipped as empty: 2 of 13 documents (0:1, 3:0)"]


class Named(Parts):
    """The same with ids of its own."""

    def __init__(self, ids: list[str], breaks_after: int = 10**9) -> None:
        super().__init__([[f"text {number}" for number in range(len(ids))]], breaks_after)
        self.ids = ids

    def documents(self, start: Position = START) -> Iterator[Document]:
        for document in super().documents(start):
            yield Document(self.ids[int(document.text.removeprefix("text "))], document.text, document.part)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(ids=st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "c"]), min_size=1, max_size=12), stop=st.integers(0, 12))
def test_a_repeated_id_is_numbered_and_so_every_document_has_one_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], stop: int
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "STEP_BYTES", 1)
        if stop < len(ids):
            with pytest.raises(Unreachable):
                open_corpus(Named(ids, stop), cache, print)
        corpus = open_corpus(Named(ids), cache, print)
    found = [json.loads(line) for line in content(cache)["ids.jsonl"].splitlines()]
    assert len(set(found)) == len(ids) and corpus.hashes.tolist() == [id_hash(id) for id in found]
    assert [new for number, (old, new) in enumerate(zip(ids, found, strict=True)) if old not in ids[:number]] == list(dict.fromkeys(ids))
    assert all(new == old or new.startswith(f"{old}#") for old, new in zip(ids, found, strict=True))


def test_rows_of_one_id_are_spread_over_the_splits_and_this_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    corpus = open_corpus(Named(["x", "y", "x", "x"]), tmp_path, said.append)
    assert [json.loads(line) for line in content(tmp_path)["ids.jsonl"].splitlines()] == ["x", "y", "x#2", "x#3"]
    assert corpus.n_documents == 4 and "2 documents with an id that came before: numbered, as in id#2" in said


@settings(deadline=None)
@given(
    texts=st.lists(st.text("ab水\ud800🙂 \n", min_size=1, max_size=20), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    long=st.integers(1, 9),
    boundary=st.sampled_from([None, "", r"\n"]),
    data=st.data(),
)
def test_texts_that_come_and_go_in_chunks_are_the_texts(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], sizes: list[int], long: int, boundary: str | None, data: Any
) -> None:
    class Chunks(Parts):
        def documents(self, start: Position = START) -> Iterator[Document]:
            for number, text in enumerate(texts[start.inside :], start.inside):
                cuts = [0, *accumulate(sizes)]
                parts = [text[a:b] for a, b in pairwise(cuts) if a < len(text)] + [text[cuts[-1] :]]
                yield from (Document(str(number), part, more=n + 1 < len(parts)) for n, part in enumerate(parts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "LONG", long)
        corpus = open_corpus(Chunks([texts]), tmp_path_factory.mktemp("cache"), print)
        assert whole(corpus) == texts and corpus.characters.tolist() == [len(text) for text in texts]
        number = data.draw(st.integers(0, len(texts) - 1))
        first = data.draw(st.integers(0, len(texts[number]) - 1))
        last = data.draw(st.integers(first + 1, len(texts[number])))
        found = list(corpus.texts(np.array([[number, first, last]]), None if boundary is None else re.compile(boundary)))
    assert "".join(text for _, text in found) == texts[number][first:last] and {row for row, _ in found} == {0}
    assert boundary is not None or len(found) == 1


def test_spans_are_cut_by_characters(tmp_path: Path) -> None:
    corpus = open_corpus(Parts([["äbc水d"]]), tmp_path, print)
    assert list(corpus.texts(np.array([[0, 1, 4], [0, 0, 1]]))) == [(0, "bc水"), (1, "ä")]


def test_an_opened_corpus_is_silent_and_not_read_again(tmp_path: Path) -> None:
    source, said = Parts(PARTS), list[str]()
    open_corpus(source, tmp_path, print)
    open_corpus(source, tmp_path, said.append)
    assert said == [] and len(source.starts) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    parts=st.lists(st.lists(st.text(max_size=4), max_size=6), max_size=6),
    stops=st.lists(st.integers(0, 9), max_size=4),
    step=st.integers(1, 9),
)
def test_a_build_that_broke_off_anywhere_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[str]], stops: list[int], step: int
) -> None:
    if not any(text for texts in parts for text in texts):
        return
    folder = tmp_path_factory.mktemp("corpora")
    open_corpus(Parts(parts), folder / "once", lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "STEP_BYTES", step)
        for stop in stops:
            try:
                open_corpus(Parts(parts, stop), folder / "often", lambda line: None)
            except Unreachable:
                continue
        open_corpus(Parts(parts), folder / "often", lambda line: None)
    assert content(folder / "often") == content(folder / "once")


def test_what_was_safe_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "STEP_BYTES", 1)
    with pytest.raises(Unreachable):
        open_corpus(Parts(PARTS, breaks_after=6), tmp_path, print)
    said: list[str] = []
    source = Parts(PARTS)
    open_corpus(source, tmp_path, said.append)
    assert source.starts[-1] == Position(part=2, inside=1, documents=4, n_bytes=6)
    assert "resuming parts after 4 documents" in said


def partial(cache: Path) -> Path:
    (folder,) = (cache / "corpora").glob(".*.partial")
    return folder


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("text.bin", lambda file: file.write_bytes(b"X" + file.read_bytes()[1:])),
        ("text.bin", lambda file: os.truncate(file, 1)),
        ("documents.bin", lambda file: os.truncate(file, 24)),
        ("ids.jsonl", lambda file: file.unlink()),
        ("state.json", lambda file: file.write_text("{")),
        ("state.json", lambda file: file.write_text("[]")),
        ("state.json", lambda file: file.unlink()),
    ],
)
def test_what_a_stopped_process_left_is_checked_before_it_is_used(
    tmp_path: Path, name: str, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "STEP_BYTES", 1)
    open_corpus(Parts(PARTS), tmp_path / "once", print)
    with pytest.raises(Unreachable):
        open_corpus(Parts(PARTS, breaks_after=6), tmp_path / "damaged", print)
    damage(partial(tmp_path / "damaged") / name)
    said: list[str] = []
    source = Parts(PARTS)
    open_corpus(source, tmp_path / "damaged", said.append)
    assert source.starts[-1] == START and not any("resuming" in line for line in said)
    assert content(tmp_path / "damaged") == content(tmp_path / "once")


BUILD = """
import sys
from pathlib import Path
from gptshake.data import corpus
from gptshake.data.corpus import open_corpus
from gptshake.data.source.files import TextFiles
corpus.STEP_BYTES = 20_000
open_corpus(TextFiles(sys.argv[1]), Path(sys.argv[2]), lambda line: print(line, flush=True))
"""


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_builds_killed_again_and_again_end_with_the_same_bytes(tmp_path: Path, packing: str) -> None:
    (tmp_path / "texts").mkdir()
    for file in range(3):
        lines = "".join(json.dumps({"text": f"Document {file}.{number}. " + "text " * (number % 97)}) + "\n" for number in range(2500))
        path = tmp_path / "texts" / f"{file}.jsonl{packing}"
        path.write_bytes(gzip.compress(lines.encode()) if packing else lines.encode())
    open_corpus(TextFiles(str(tmp_path / "texts")), tmp_path / "once", print)
    command = [sys.executable, "-c", BUILD, str(tmp_path / "texts"), str(tmp_path / "killed")]
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            process.communicate(timeout=0.45 + 0.06 * kills)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL and kills < 60
    assert content(tmp_path / "killed") == content(tmp_path / "once")


def test_a_text_that_is_changed_while_it_is_read_is_refused(tmp_path: Path) -> None:
    source = Parts([["a"], ["b"]])
    read = source.documents

    def changing(start: Position = START) -> Iterator[Document]:
        yield from read(start)
        source.parts = [["a"], ["c"]]

    source.documents = changing  # type: ignore[method-assign]
    with pytest.raises(DataError, match="was changed while it was read"):
        open_corpus(source, tmp_path, print)
    assert not [path for path in (tmp_path / "corpora").iterdir() if path.is_dir()]


def test_a_text_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_corpus(Parts(PARTS, 5, DataError("line 3 is no JSON")), tmp_path, print)
    assert not [path for path in (tmp_path / "corpora").iterdir() if path.is_dir()]


@pytest.mark.parametrize("size", [0, 1 << 40])
def test_sizes_are_always_checked_and_contents_of_small_corpora_or_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(corpus_module, "HASHED_BYTES", size)
    open_corpus(Parts(PARTS), tmp_path, print)
    (text,) = (tmp_path / "corpora").glob("*/text.bin")
    good = text.read_bytes()

    def said_by(verify: bool) -> str:
        said: list[str] = []
        open_corpus(Parts(PARTS), tmp_path, said.append, verify)
        return " ".join(said)

    text.write_bytes(b"X" + good[1:])
    assert ("text.bin was changed" in said_by(verify=False)) == (size > 0)
    text.write_bytes(b"X" + good[1:])
    assert "text.bin was changed" in said_by(verify=True)
    text.write_bytes(good[:-1])
    assert f"text.bin has {len(good) - 1} bytes instead of {len(good)}" in said_by(verify=False)
    assert text.read_bytes() == good


def test_progress_says_how_much_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "some text"}\n' * 3000)
    now = iter(range(10**9))
    monkeypatch.setattr("gptshake.data.corpus.time.monotonic", lambda: float(next(now)))
    said: list[str] = []
    open_corpus(TextFiles(str(tmp_path / "a.jsonl")), tmp_path / "cache", said.append)
    lines = [line for line in said if line.startswith("  reading a: ")]
    assert lines and all("MB/s" in line and "left" in line and "documents" in line for line in lines)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_speaks_at_most_as_often_as_asked(clock: list[float]) -> None:
    said: list[str] = []
    with progress(said.append, "train", every=5) as show:
        for second in range(13):
            clock[0] = float(second)
            show(second * 2_000_000)
    assert said == ["  train: 10 MB | 2.0 MB/s", "  train: 20 MB | 2.0 MB/s"]


def test_the_time_left_is_not_estimated_from_the_first_moments(clock: list[float]) -> None:
    said: list[str] = []
    with progress(said.append, "evaluating", 10_000_000, every=0.2) as show:
        for clock[0], done in ((1.0, 100_000), (3.0, 6_000_000)):
            show(done)
    assert said == ["  evaluating: 0 of 10 MB | 0.1 MB/s", "  evaluating: 6 of 10 MB | 2.0 MB/s | 2 s left"]


def test_what_an_earlier_process_did_counts_as_done_but_not_for_the_speed(clock: list[float]) -> None:
    said: list[str] = []
    with progress(said.append, "train", 1_000_000_000, done=500_000_000) as show:
        clock[0] = 10.0
        show(600_000_000, "7 documents")
    assert said == ["  train: 600 of 1,000 MB | 10.0 MB/s | 40 s left | 7 documents"]
