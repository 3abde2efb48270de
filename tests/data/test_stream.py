"""What an evaluation reads: every token is scored once, with the context that the page promises, and the bytes are those of its text."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizer.conftest import TRAINERS, tokenizer_of

from gptshake.data.corpus import Corpus, open_corpus
from gptshake.data.split import SplitRule, whole
from gptshake.data.store import spans_of
from gptshake.data.stream import Stream, encode_documents, scoring_windows
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.tokenizer.char import CharTrainer
from gptshake.tokenizer.unknown import hidden_characters

DOCUMENTS = {f"d{number}": f"Würde {number}:  水曜日 👍🏽\n" * (1 + number % 5) + "\t" * number for number in range(40)}


def corpus_of(memory: Any, folder: Path, texts: dict[str, str]) -> Corpus:
    return open_corpus(memory(texts), folder, lambda line: None)


def stream_of(corpus: Corpus, tokenizer: Any, *, alone: bool = False) -> Stream:
    spans = whole(np.arange(corpus.n_documents), corpus.characters)
    return encode_documents(corpus, spans, tokenizer, Counter, alone=alone)


def lm_eval_windows(ids: list[int], prefix: int, length: int) -> list[tuple[list[int], list[int]]]:
    """Inputs and the targets at their end, written from the description of lm-evaluation-harness: as much new text as fits, the last window full."""
    found, done = [], 0
    while done < len(ids):
        new = min(length, len(ids) - done)
        read = ([prefix, *ids])[max(0, done + new - length) : done + new]
        found.append((read, ids[done : done + new]))
        done += new
    return found


@given(n=st.integers(0, 60), block_size=st.integers(1, 12), share=st.floats(0, 1), full=st.booleans())
def test_every_target_is_scored_once_and_has_the_context_that_its_stride_leaves(n: int, block_size: int, share: float, full: bool) -> None:
    stride = 1 + round(share * (block_size - 1))
    windows = scoring_windows(n, block_size, stride, full=full)
    scored = [target for _, first, end in windows.tolist() for target in range(first + 1, end + 1)]
    assert scored == list(range(1, n + 1))
    for begin, first, end in windows.tolist():
        assert 0 < end - begin <= block_size and begin <= first
        assert first - begin >= block_size - stride or begin == 0  # read before the first that is scored


@given(n=st.integers(1, 60), block_size=st.integers(1, 12))
def test_a_stride_of_the_whole_context_gives_blocks_that_do_not_overlap(n: int, block_size: int) -> None:
    windows = scoring_windows(n, block_size, block_size)
    assert windows[:, 0].tolist() == windows[:, 1].tolist() == list(range(0, n, block_size))


@pytest.mark.parametrize("length", [1, 5, 7, 1000])
def test_documents_by_themselves_are_read_as_by_lm_evaluation_harness(length: int, memory: Any, tmp_path: Path) -> None:
    corpus, tokenizer = corpus_of(memory, tmp_path, {"a": "abcdefghijklmnopq", "b": "x", "c": "水曜日 is Wednesday"}), ByteTokenizer()
    stream = stream_of(corpus, tokenizer, alone=True)
    ours = [(stream.ids[begin:end].tolist(), stream.ids[scored + 1 : end + 1].tolist()) for begin, scored, end in stream.windows(length, 3)]
    texts = [text for _, text in corpus.texts(whole(np.arange(3), corpus.characters))]
    assert ours == [window for text in texts for window in lm_eval_windows(tokenizer.encode(text).tolist(), tokenizer.eot_id, length)]


@pytest.mark.parametrize("kind", TRAINERS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_stream_of_a_split_and_its_bytes_are_those_of_the_token_store(
    kind: str, split: str, opener: Any, memory: Any, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(kind) if kind != "char" else CharTrainer(vocab_size=12).train(["Würde 水 0123456789"])

    class Saved:
        def settings(self) -> dict[str, Any]:
            return {"kind": tokenizer.name, "version": tokenizer.digest}

        def train(self, documents: Any) -> Any:
            return tokenizer

    store = opener(memory(DOCUMENTS), Saved(), val_fraction=0.2)
    corpus = corpus_of(memory, tmp_path / "other", DOCUMENTS)
    spans = spans_of(corpus, SplitRule("documents", 0.2, 0.0), lambda line: None)
    lost = Counter[str]()
    for _, text in corpus.texts(spans["train"]):
        lost.update(hidden_characters(tokenizer, tokenizer.encode(text), text))
    stream, stored = encode_documents(corpus, spans[split], tokenizer, lambda: lost, alone=False), getattr(store, split)
    assert np.array_equal(stream.ids[1:], stored.tokens())
    assert np.array_equal(stream.starts - 1, stored.starts())
    assert stream.counts["bytes"].sum() == stored.n_bytes
    assert stream.counts["unknown"].sum() == stored.unknown.seen + stored.unknown.unseen
    assert stream.counts["hidden"].sum() == pytest.approx(stored.unknown.nats)
    assert kind != "char" or stored.unknown.tokens > 0


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "unigram"])
def test_every_tokenizer_counts_the_bytes_characters_and_words_of_the_text(kind: str, memory: Any, tmp_path: Path) -> None:
    corpus = corpus_of(memory, tmp_path, DOCUMENTS)
    counts = stream_of(corpus, tokenizer_of(kind), alone=True).counts
    assert counts["bytes"].tolist() == [len(text.encode()) for text in DOCUMENTS.values()]
    assert counts["characters"].tolist() == [len(text) for text in DOCUMENTS.values()]
    # As lm-evaluation-harness counts: an empty word after the last blank.
    assert counts["words"].tolist() == [len(text.split()) + text[-1].isspace() for text in DOCUMENTS.values()]
    assert corpus.ids(whole(np.array([3, 5]), corpus.characters)) == ["d3", "d5"]


def test_the_first_token_of_a_text_is_no_target_and_its_bytes_do_not_count(memory: Any, tmp_path: Path) -> None:
    corpus = corpus_of(memory, tmp_path, {"a": "水ab", "b": "é"})
    as_bytes, characters = stream_of(corpus, ByteTokenizer()), stream_of(corpus, CharTrainer().train(["ab"]))
    assert as_bytes.counts["bytes"].tolist() == [4, 2] and as_bytes.counts["characters"].tolist() == [3, 1]
    assert characters.counts["bytes"].tolist() == [2, 2] and characters.counts["characters"].tolist() == [2, 1]
    assert characters.counts["unknown"].tolist() == [0, 1] and characters.counts["hidden"][0] == 0 < characters.counts["hidden"][1]
