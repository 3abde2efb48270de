"""A tokenizer is learned once for a text and its settings, is never served when it was changed, and can be used again by its path."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.bpe import BPETrainer
from gptshake.tokenizer.byte import ByteTrainer
from gptshake.tokenizer.cache import SavedTrainer, cached_tokenizer
from gptshake.tokenizer.protocol import Tokenizer

from .conftest import TEXTS

ABOUT = {"source": "memory", "split": "documents"}


class Text:
    """Training documents that count how often they were asked for."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> Iterator[str]:
        self.reads += 1
        return iter(TEXTS)


class Cache:
    """Calls ``cached_tokenizer`` in one folder and keeps what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text, self.said = folder, Text(), list[str]()

    def __call__(self, trainer: Any = None, about: dict[str, Any] = ABOUT) -> Tokenizer:
        self.said = []
        return cached_tokenizer(trainer or BPETrainer(300), about, self.text, self.folder, self.said.append)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_the_same_text_and_settings_are_learned_from_once(cache: Cache) -> None:
    first = cache()
    assert "making the bpe tokenizer ..." in cache.said
    assert cache.said[-1].startswith("the bpe tokenizer has 300 ids, ")
    again = cache()
    assert (cache.text.reads, cache.said, again.digest) == (1, [], first.digest)


@pytest.mark.parametrize(
    ("trainer", "about"),
    [(BPETrainer(301), ABOUT), (BPETrainer(300, "gpt2"), ABOUT), (ByteTrainer(), ABOUT), (BPETrainer(300), ABOUT | {"split": "position"})],
)
def test_other_settings_and_other_texts_are_learned_from_anew(cache: Cache, trainer: Any, about: dict[str, Any]) -> None:
    cache()
    cache(trainer, about)
    assert cache.text.reads == 2


def _damage(folder: Path, how: str) -> None:
    file = folder / ("about.json" if how == "no note" else "tokenizer.json")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink() if how.startswith("no") else file.write_bytes(content if how == "flipped" else content[:100])


@pytest.mark.parametrize("how", ["flipped", "cut", "no note", "no tokenizer"])
def test_what_was_damaged_is_learned_again_and_said(cache: Cache, how: str) -> None:
    good = cache()
    folder = next((cache.folder / "tokenizers").glob("[!.]*"))
    _damage(folder, how)
    assert cache().digest == good.digest
    assert cache.text.reads == 2
    assert "was changed or is incomplete" in cache.said[0]


def test_fewer_ids_than_wished_for_are_said(cache: Cache) -> None:
    tokenizer = cache(BPETrainer(100_000))
    assert tokenizer.vocab_size < 100_000
    assert f"has {tokenizer.vocab_size:,} ids (of 100,000: the text has no more to learn), " in cache.said[-1]


def test_a_failed_training_leaves_nothing(cache: Cache) -> None:
    class Broken(BPETrainer):
        def train(self, documents: Any) -> Any:
            raise DataError("no")

    with pytest.raises(DataError):
        cache(Broken(300))
    assert not [path for path in (cache.folder / "tokenizers").iterdir() if path.is_dir()]
    assert cache().vocab_size == 300


def _in_a_process(folder: Path, queue: Any) -> None:
    cache = Cache(folder)
    queue.put((cache().digest, cache.text.reads))


def test_processes_that_start_together_learn_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_in_a_process, args=(tmp_path, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len({digest for digest, _ in results}) == 1
    assert sum(reads for _, reads in results) == 1


@pytest.mark.parametrize("named", ["run", "folder", "file", "file of another name"])
def test_a_saved_tokenizer_is_used_again(tmp_path: Path, named: str) -> None:
    tokenizer = BPETrainer(300).train(TEXTS)
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    file = tmp_path / "tokenizer" / "tokenizer.json"
    (tmp_path / "mine.json").write_bytes(file.read_bytes())
    places = {"run": tmp_path, "folder": file.parent, "file": file, "file of another name": tmp_path / "mine.json"}
    saved = SavedTrainer(places[named], BPETrainer(300))
    assert saved.train(["anything"]).digest == tokenizer.digest
    assert saved.settings() == {"kind": "bpe", "saved": tokenizer.digest} == json.loads(json.dumps(saved.settings()))


def test_a_saved_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    ByteTrainer().train([]).save(tmp_path)
    with pytest.raises(ConfigError, match=r"holds the kind byte, not bpe: use tokenizer=byte\."):
        SavedTrainer(tmp_path, BPETrainer(300))


def test_nothing_saved_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a saved tokenizer"):
        SavedTrainer(tmp_path, BPETrainer(300))
