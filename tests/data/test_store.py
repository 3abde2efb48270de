"""The token store: exact content, found again, never trusted when damaged, whole or not there."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake import files
from gptshake.data.source.files import TextFiles
from gptshake.data.source.wiki import Wiki
from gptshake.data.split import by_documents, by_rank, has_text, id_hash
from gptshake.data.store import TokenStore
from gptshake.errors import DataError
from gptshake.tokenizer.bpe import BPETrainer
from gptshake.tokenizer.char import CharTrainer

BOOK = "Call me Ishmael. Some years ago - never mind how long precisely.\n" * 40
MANY = {f"d{number}": f"Document {number}: " + chr(ord("a") + number % 26) * (number % 17) for number in range(200)}
ANY_TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=30)


def text_of(store: TokenStore, name: str) -> str:
    split = getattr(store, name)
    return store.tokenizer.decode(split.tokens())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9) | st.integers(1000, 3000), min_size=20, max_size=45),
    fractions=st.sampled_from([(0.05, 0.05), (0.1, 0.0), (1e-6, 0.0), (0.5, 0.49), (0.01, 0.01)]),
    name=st.text("abc", min_size=1, max_size=3),
)
def test_no_split_of_twenty_documents_or_more_is_without_text(
    tmp_path_factory: pytest.TempPathFactory, opener: Any, memory: Any, lengths: list[int], fractions: tuple[float, float], name: str
) -> None:
    texts = {f"{name}{number}": chr(ord("a") + number % 26) * length for number, length in enumerate(lengths)}
    opener.cache = tmp_path_factory.mktemp("cache")
    store = opener(memory(texts), val_fraction=fractions[0], test_fraction=fractions[1])
    assert sum(split.n_documents for split in store.splits) == len(texts) and len(store.splits) == (3 if fractions[1] else 2)
    assert all(split.n_tokens >= 2 for split in store.splits)
    by_hash = by_documents(*table(texts), *fractions)
    if all(has_text(by_hash[split.name]) for split in store.splits):  # then nothing is moved
        assert [split.n_documents for split in store.splits] == [len(by_hash[split.name]) for split in store.splits]
    else:
        assert any("the hash leaves a split empty" in line for line in opener.said)


def test_the_same_text_read_from_elsewhere_has_the_label_of_where_it_is_read_from_now(opener: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "book.txt").write_text(BOOK)
    stores = [opener(TextFiles(str(tmp_path / name))) for name in ("first", "second", "first")]
    assert [store.label for store in stores] == ["first", "second", "first"] and len({store.key for store in stores}) == 1


def table(texts: dict[str, str]) -> tuple[Any, Any]:
    return np.array([id_hash(name) for name in texts], np.uint64), np.array([len(text) for text in texts.values()])


def test_a_cut_by_rank_has_the_shares_does_not_depend_on_the_order_and_trains_on_the_longest() -> None:
    lengths, places = np.full(40, 100), np.arange(40, dtype=np.uint64) << np.uint64(56)
    lengths[0] = 10_000  # the first by its place
    cut = by_rank(places, lengths, 0.05, 0.1)
    assert [len(cut[name]) for name in ("train", "val", "test")] == [34, 2, 4]
    assert 0 in cut["train"][:, 0]
    backwards = by_rank(places[::-1], lengths[::-1], 0.05, 0.1)
    assert {name: set(39 - rows[:, 0]) for name, rows in backwards.items()} == {name: set(rows[:, 0]) for name, rows in cut.items()}


def test_a_single_text_is_cut_as_nanogpt_cuts_it(opener: Any, memory: Any) -> None:
    store = opener(memory({"book": BOOK}))
    cut = int(len(BOOK) * 0.9)
    assert (text_of(store, "train"), text_of(store, "val"), store.test) == (BOOK[:cut], BOOK[cut:], None)
    assert "1 document: split by position 90/10" in opener.said


def test_three_shares_of_one_text_are_said_and_made(opener: Any, memory: Any) -> None:
    store = opener(memory({"book": BOOK}), val_fraction=0.05, test_fraction=0.05)
    assert "".join(text_of(store, name) for name in ("train", "val", "test")) == BOOK
    assert "1 document: split by position 90/5/5" in opener.said


def test_many_documents_stay_whole_with_an_end_of_text_between_them(opener: Any, memory: Any) -> None:
    store = opener(memory(MANY), val_fraction=0.2, test_fraction=0.2)
    found: list[str] = []
    for name in ("train", "val", "test"):
        split = getattr(store, name)
        ids = split.tokens()
        starts = np.load(store.path / f"{name}.documents.npy")
        parts = np.split(ids, np.flatnonzero(ids == store.tokenizer.eot_id))
        documents = [store.tokenizer.decode(part[1:] if number else part) for number, part in enumerate(parts)]
        assert len(documents) == split.n_documents == len(starts)
        assert [int(store.tokenizer.encode(text)[0]) for text in documents] == ids[starts].tolist()
        found += documents
    known = {character for text in found for character in text}
    assert sorted(found) == sorted("".join(c if c in known else "\ufffd" for c in text) for text in MANY.values())


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_bytes_are_those_under_every_target(opener: Any, memory: Any, texts: list[str]) -> None:
    whole = "".join(texts)
    if len(whole) < 8:
        return
    store = opener(memory({str(number): text for number, text in enumerate(texts)}), val_fraction=0.4)
    cut = int(len(whole) * 0.6)
    for split, text in ((store.train, whole[:cut]), (store.val, whole[cut:])):
        assert split.n_bytes == len(text[1:].encode("utf-8", "surrogatepass"))
        assert split.n_tokens == len(text) + split.n_documents - 1
    assert store.bytes_per_token == store.train.n_bytes / (store.train.n_tokens - 1)


def test_the_tokenizer_has_seen_the_training_split_alone(opener: Any, memory: Any) -> None:
    store = opener(memory({"book": "ab" * 45 + "xyz水" + "ab" * 3}))
    assert store.tokenizer.vocab_size == 4
    assert text_of(store, "val") == "\ufffd" * 4 + "ab" * 3
    assert store.val.n_bytes == len("yz水".encode()) + 6


def test_entropies_are_those_of_the_training_split(opener: Any, memory: Any) -> None:
    store = opener(memory({"book": "ab" * 500}))
    assert store.entropy == pytest.approx({"uniform": np.log(4), "unigram": np.log(2), "bigram": 0}, abs=1e-6)


def test_a_store_is_built_once_and_opens_in_silence(opener: Any, memory: Any) -> None:
    source = memory(MANY)
    first = opener(source)
    assert opener.said[:2] == ["building the token store of memory ...", "the text of memory: public domain"]
    assert opener.said[2:][0].startswith("making the char tokenizer") and len(opener.said) == 4
    again = opener(source)
    assert opener.said == []
    assert source.reads == 1
    assert again.fingerprint == first.fingerprint and again.path == first.path


def test_another_tokenizer_or_split_reads_the_source_no_second_time(opener: Any, memory: Any) -> None:
    source = memory(MANY)
    stores = [
        opener(source),
        opener(source, CharTrainer(vocab_size=20)),
        opener(source, split="position"),
        opener(source, val_fraction=0.3),
    ]
    assert source.reads == 1
    assert len({store.key for store in stores}) == len({store.fingerprint for store in stores}) == 4
    assert opener(source, val_fraction=0.3, test_fraction=0).key == stores[-1].key


def test_another_text_is_another_store(opener: Any, memory: Any) -> None:
    assert opener(memory({"a": BOOK})).key != opener(memory({"a": BOOK + "."})).key


def test_keys_and_fingerprints_are_those_of_every_version(opener: Any, memory: Any) -> None:
    """Records and caches of old runs hold them: they never move."""
    store = opener(memory(MANY), CharTrainer(), test_fraction=0.1)
    assert (store.key, store.fingerprint) == ("74269621fad3ad35", "49cf31e5aa7f1dea46e7b48ded8f3602f6e4ca0c65e28284f3ed9b6a9ae62c19")
    store = opener(memory(MANY), BPETrainer(300), test_fraction=0.1)
    assert (store.key, store.fingerprint) == ("13e9f630c98fcea5", "c682a3055b3f548b61803679967a2586ac0f2e9435499e369742d1a1b531157f")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (lambda folder: flip(folder / "val.bin"), r"the content of val\.bin was changed"),
    "cut file": (lambda folder: os.truncate(folder / "train.bin", 100), r"train\.bin has 100 bytes instead of"),
    "flipped byte of the places": (
        lambda folder: flip(folder / "train.documents.npy"),
        r"the content of train\.documents\.npy was changed",
    ),
    "missing places": (lambda folder: (folder / "val.documents.npy").unlink(), r"val\.documents\.npy is missing"),
    "fewer checksums": (
        lambda folder: edit(folder / "manifest.json", files={"val.bin": {"size": (folder / "val.bin").stat().st_size, "sha256": []}}),
        r"its folder is damaged \(IndexError\)",
    ),
    "longer file": (lambda folder: (folder / "val.bin").open("ab").write(b"xx"), r"val\.bin has .* bytes instead of"),
    "missing file": (lambda folder: (folder / "train.bin").unlink(), r"train\.bin is missing"),
    "missing manifest": (lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json is missing"),
    "empty manifest": (lambda folder: (folder / "manifest.json").write_text(""), r"its folder is damaged \(JSONDecodeError\)"),
    "manifest without keys": (lambda folder: (folder / "manifest.json").write_text("{}"), r"its folder is damaged \(KeyError\)"),
    "manifest that is a list": (lambda folder: (folder / "manifest.json").write_text("[]"), r"its folder is damaged \(TypeError\)"),
    "old format": (lambda folder: edit(folder / "manifest.json", format=0), "its manifest belongs to another store"),
    "other store": (lambda folder: edit(folder / "manifest.json", key="0" * 16), "its manifest belongs to another store"),
    "other tokenizer": (lambda folder: edit(folder / "tokenizer.json", characters=["a"]), r"tokenizer\.json was changed"),
    "missing tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_rebuilt_with_the_reason(opener: Any, memory: Any, damage: str) -> None:
    source = memory({"book": BOOK})
    before = opener(source)
    content = {file.name: file.read_bytes() for file in before.path.iterdir()}
    break_it, reason = DAMAGES[damage]
    break_it(before.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "documents", lambda: pytest.fail("the source was read again"))
        after = opener(source)
    assert any(re.search(f"rebuilding the token store of memory: {reason}", line) for line in opener.said), opener.said
    assert {file.name: file.read_bytes() for file in after.path.iterdir()} == content


@pytest.mark.parametrize("name", ["text.bin", "documents.npy", "corpus.json"])
def test_a_damaged_corpus_is_read_again(opener: Any, memory: Any, name: str) -> None:
    source = memory({"book": BOOK})
    opener(source)
    file = next((opener.cache / "corpora").glob(f"*/{name}"))
    flip(file) if name != "corpus.json" else file.unlink()
    store = opener(source, CharTrainer(vocab_size=30))
    assert source.reads == 2
    assert any("reading memory again" in line for line in opener.said)
    assert store.val.n_tokens == len(BOOK) - int(len(BOOK) * 0.9)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of a kilobyte count as large: four pieces of their dozens are looked at."""
    monkeypatch.setattr(files, "PIECE", 64)
    monkeypatch.setattr(files, "CHEAP_BYTES", 256)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", ["train.bin", "val.bin", "train.documents.npy"])
def test_any_damage_of_a_large_store_is_found_by_verify(name: str, opener: Any, memory: Any) -> None:
    source = memory({"book": BOOK})
    store = opener(source)
    content = (store.path / name).read_bytes()
    flip(store.path / name)
    assert opener(source, verify=True).key == store.key
    assert opener.said[0] == f"rebuilding the token store of memory: the content of {name} was changed"
    assert (store.path / name).read_bytes() == content
    assert opener(source, verify=True).key == store.key and opener.said == []


@pytest.mark.usefixtures("large")
def test_a_large_store_that_lost_its_end_or_much_is_noticed_without(opener: Any, memory: Any) -> None:
    source = memory({"book": BOOK})
    store = opener(source)
    size = (store.path / "train.bin").stat().st_size
    for damage in (size - 10, size // 4):  # the last bytes; three quarters of it
        os.truncate(store.path / "train.bin", damage)
        os.truncate(store.path / "train.bin", size)  # zeros, as after a power cut
        opener(source)
        assert "the content of train.bin was changed" in opener.said[0]


@pytest.mark.usefixtures("large")
def test_the_cheap_check_reads_little_and_never_refuses_what_is_whole(opener: Any, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = memory({"book": BOOK})
    opener(source)
    read: list[int] = []
    hashed = files._hashed
    monkeypatch.setattr(files, "_hashed", lambda path, numbers: read.append(len(numbers)) or hashed(path, numbers))
    for _ in range(20):
        opener(source)
        assert opener.said == [] and sum(read) == 4
        read.clear()


def test_a_killed_builder_leaves_nothing_that_is_taken_for_a_store(tmp_path: Path, opener: Any) -> None:
    book = tmp_path / "book.txt"
    book.write_text(BOOK)
    code = """
import os, signal, sys
from pathlib import Path
from gptshake.data import store
from gptshake.data.source.files import TextFiles
from gptshake.tokenizer.char import CharTrainer
store.entropies = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # everything is written but the manifest
store.open_store(TextFiles(sys.argv[1]), CharTrainer(), store.SplitRule("documents", 0.1, 0.0), cache=Path(sys.argv[2]), say=print)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(book), str(opener.cache)], capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = list((opener.cache / "stores").iterdir())
    assert any(path.is_dir() for path in left) and all(path.name.startswith(".") for path in left)
    store = opener(TextFiles(str(book)))
    assert text_of(store, "train") + text_of(store, "val") == BOOK
    assert [path.name for path in (opener.cache / "stores").iterdir() if path.is_dir()] == [store.key]


def test_builders_that_start_together_build_once(opener: Any, memory: Any) -> None:
    source = memory(MANY)
    found: list[TokenStore] = []
    threads = [threading.Thread(target=lambda: found.append(opener(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.reads == 1
    assert len({store.fingerprint for store in found}) == 1 and len(found) == 4


@pytest.mark.parametrize("texts", [{}, {"empty.txt": ""}, {"a.txt": "", "b.txt": ""}])
def test_no_text_is_a_sentence(opener: Any, memory: Any, texts: dict[str, str]) -> None:
    with pytest.raises(DataError, match="There is no text in memory") as raised:
        opener(memory(texts))
    assert all(name in str(raised.value) for name in texts)
    assert not [path for path in opener.cache.glob("*/*") if path.is_dir()]


def test_empty_documents_are_skipped_with_a_note(opener: Any, memory: Any) -> None:
    store = opener(memory({"a": BOOK, "b": "", "c": BOOK}), val_fraction=0.5)
    assert "skipped as empty: 1 of 3 documents (b)" in opener.said
    assert (text_of(store, "train"), text_of(store, "val")) == (BOOK, BOOK)


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ({"a": "abcd"}, {}, r"split val got 1 tokens of 1 documents.*raise data\.val_fraction"),
        ({"a": "ab"}, {"val_fraction": 0.9}, r"split train got 0 tokens.*smaller data\.val_fraction"),
        ({"a": BOOK}, {"test_fraction": 0.0001}, r"split test got .* data\.test_fraction=0"),
    ],
)  # fmt: skip
def test_a_split_without_tokens_is_a_sentence_with_a_way_out(
    opener: Any, memory: Any, texts: dict[str, str], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        opener(memory(texts), **options)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe" + BOOK.encode("utf-16-le"), BOOK.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + BOOK.encode()]
)
def test_odd_files_reach_the_model_as_the_same_text(tmp_path: Path, opener: Any, content: bytes) -> None:
    (tmp_path / "book.txt").write_bytes(content)
    store = opener(TextFiles(str(tmp_path / "book.txt")))
    assert store.label == "book"
    assert text_of(store, "train") + text_of(store, "val") == BOOK


@pytest.mark.usefixtures("excerpt_here")
def test_the_excerpt_builds_quickly_with_numpy_alone(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from gptshake.data.source.wiki import Wiki
from gptshake.data.store import SplitRule, open_store
from gptshake.tokenizer.char import CharTrainer
def opened():
    start = time.process_time()
    store = open_store(Wiki(), CharTrainer(), SplitRule("documents", 0.05, 0.05), cache=Path(sys.argv[1]), say=lambda line: None)
    return store, time.process_time() - start
store, cold = opened()
_, warm = opened()
heavy = [name for name in ("torch", "gensim", "datasets", "pytorch_lightning", "omegaconf") if name in sys.modules]
print(cold, warm, store.train.n_documents + store.val.n_documents + store.test.n_documents, len(heavy))
"""
    printed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    cold, warm, n_documents, heavy = (float(word) for word in printed.split())
    assert (n_documents, heavy) == (106, 0)
    assert cold < 4 and warm < 0.2  # 1.2 s and 0.01 s where nothing else runs


@pytest.mark.usefixtures("excerpt_here")
def test_the_excerpts_entropies_are_those_of_english(tmp_path: Path, opener: Any) -> None:
    store = opener(Wiki(), val_fraction=0.05, test_fraction=0.05)
    assert 3.0 < store.entropy["unigram"] < 3.3 and 2.4 < store.entropy["bigram"] < 2.6
    assert np.mean(store.val.tokens() == store.tokenizer.unk_id) < 1e-3
    assert 1 <= store.bytes_per_token < 1.02


def test_a_nodes_copy_is_the_store_and_a_damaged_or_half_one_is_never_used(opener: Any, memory: Any, tmp_path: Path) -> None:
    store, said = opener(memory({"book": BOOK})), list[str]()
    folder = tmp_path / "node" / "stores" / store.key
    folder.with_name(f".{store.key}.partial").mkdir(parents=True)
    (folder.with_name(f".{store.key}.partial") / "train.bin").write_bytes(b"half")  # of a process that was killed
    copy = store.copied(folder, verify=False, say=said.append)
    assert said == [f"copying the token store of memory to {folder} ..."]
    assert {split.path.parent for split in copy.splits} == {folder} and copy.fingerprint == store.fingerprint
    assert copy.train.tokens().tolist() == store.train.tokens().tolist()
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [store.key]
    store.copied(folder, verify=False, say=said.append)
    assert len(said) == 1  # it is there
    flip(folder / "train.bin")
    store.copied(folder, verify=False, say=said.append)
    assert len(said) == 2 and copy.problem(verify=True) is None


def test_a_copy_of_a_damaged_store_is_refused(opener: Any, memory: Any, tmp_path: Path) -> None:
    store, folder = opener(memory({"book": BOOK})), tmp_path / "node" / "stores" / "copy"
    flip(store.path / "val.bin")
    with pytest.raises(DataError, match=r"cannot be copied to .*: the content of val\.bin was changed. .* data\.verify=true"):
        store.copied(folder, verify=False, say=print)
    with pytest.raises(DataError, match=r"cannot be copied to .*: manifest\.json is missing"):
        store.at(tmp_path / "not mounted").copied(folder, verify=False, say=print)
    assert not folder.exists()


def test_a_store_of_other_tokens_is_not_taken_for_this_one(opener: Any, memory: Any) -> None:
    store = opener(memory({"book": BOOK}))
    assert (
        replace(store, fingerprint="0" * 64).problem() == f"it holds other tokens (fingerprint {store.fingerprint[:8]} instead of 00000000)"
    )
