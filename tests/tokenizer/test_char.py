"""The character tokenizer: ids that stay, nothing that crashes, round trips of any text."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.char import CHUNK, CharTokenizer, CharTrainer
from gptshake.tokenizer.protocol import load_tokenizer

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)  # lone surrogates and NUL included
SEVERAL = "Ein Bär. Слово. 水は高きより低きに流る。 مرحبا שלום नमस्ते 🙂🏳️‍🌈\n\0\t\r\n"


def trained(*texts: str, **options: object) -> CharTokenizer:
    return CharTrainer(**options).train(texts)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(ANY_TEXT)
def test_any_text_survives_the_round_trip_of_its_own_vocabulary(text: str) -> None:
    tokenizer = trained(text)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


@settings(deadline=None, max_examples=60)
@given(ANY_TEXT, ANY_TEXT)
def test_a_text_with_unknown_characters_never_crashes_and_shows_them(known: str, text: str) -> None:
    tokenizer = trained(known)
    shown = tokenizer.decode(tokenizer.encode(text))
    assert shown == "".join(character if character in known else "\ufffd" for character in text)


@settings(deadline=None, max_examples=30)
@given(ANY_TEXT)
def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = trained(text)
    tokenizer.save(folder)
    again = load_tokenizer(folder)
    assert (again.digest, again.vocab_size, again.decode(again.encode(text))) == (tokenizer.digest, tokenizer.vocab_size, text)


def test_texts_of_several_languages_survive() -> None:
    assert trained(SEVERAL).decode(trained(SEVERAL).encode(SEVERAL)) == SEVERAL


def test_special_ids_come_first_and_characters_follow_in_the_order_of_code_points() -> None:
    tokenizer = trained("cab水")
    assert (tokenizer.eot_id, tokenizer.unk_id, tokenizer.vocab_size) == (0, 1, 6)
    assert tokenizer.encode("abc水x").tolist() == [2, 3, 4, 5, 1]
    assert tokenizer.decode([2, 0, 1]) == "a\n\n\ufffd"


@given(st.lists(st.text("abcdefgh", max_size=20)), st.integers(3, 9))
def test_the_cap_keeps_the_most_frequent_and_of_equals_the_smaller(texts: list[str], vocab_size: int) -> None:
    counts = Counter("".join(texts))
    expected = sorted(sorted(counts, key=lambda character: (-counts[character], character))[: vocab_size - 2])
    assert trained(*texts, vocab_size=vocab_size).characters == expected


def test_auto_keeps_a_small_alphabet_whole_however_rare_a_letter() -> None:
    letters = "".join(chr(0x100 + number) for number in range(256))
    assert trained("a" * 10**6 + letters[:255]).vocab_size == 258
    assert trained("a" * 10**6 + letters + "b").vocab_size == 258  # 258 distinct ones: two of the rare ones give way


def test_auto_covers_the_share_it_promises_and_not_more() -> None:
    text = "".join(chr(0x4E00 + number) * (2000 // (number + 1) + 1) for number in range(3000))  # Zipf's law
    tokenizer = trained(text, coverage=0.99)
    share = np.mean(tokenizer.encode(text) != tokenizer.unk_id)
    assert 256 < tokenizer.vocab_size < 3000
    assert 0.99 <= share < 0.9905


def test_no_text_gives_a_vocabulary_of_the_special_ids() -> None:
    assert trained().vocab_size == 2
    assert trained("").encode("ab").tolist() == [1, 1]


def test_ids_grow_to_32_bits_when_16_do_not_hold_them() -> None:
    characters = [chr(code) for code in range(1, 1 << 16)]
    assert CharTokenizer(characters[:65534]).encode("a").dtype == np.uint16
    assert CharTokenizer(characters).encode("\uffff").tolist() == [65536]


def test_texts_longer_than_a_chunk_are_encoded_whole() -> None:
    text = "ab🙂" * CHUNK
    tokenizer = trained(text)
    assert tokenizer.encode(text).tolist() == [2, 3, 4] * CHUNK
    assert trained(text).digest == trained("ab🙂").digest


def test_the_vocabulary_is_stable_across_processes() -> None:
    code = "from gptshake.tokenizer.char import CharTrainer; print(CharTrainer().train([chr(c) for c in range(5, 900, 7)]).digest)"
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert digests == {trained(*(chr(c) for c in range(5, 900, 7))).digest + "\n"}


@pytest.mark.parametrize("ids", [[-1], [5], [2, 99999]])
def test_ids_of_another_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(DataError, match="do not belong to a vocabulary of 5"):
        trained("abc").decode(ids)


@pytest.mark.parametrize(
    "options", [{"vocab_size": 2}, {"vocab_size": "big"}, {"vocab_size": True}, {"vocab_size": 9.5}, {"coverage": 0}, {"coverage": 1.1}]
)
def test_settings_out_of_sense_are_sentences(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"tokenizer\.{next(iter(options))} is "):
        CharTrainer(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"kind": 3}',
        '{"kind": "../../evil"}',
        '{"kind": "os.path"}',
        '{"kind": "config"}',
        '{"kind": "nosuch"}',
        '{"kind": "char"}',
        '{"kind": "char", "characters": "abc"}',
        '{"kind": "char", "characters": ["b", "a"]}',
        '{"kind": "char", "characters": ["ab"]}',
    ],
)
def test_a_file_that_is_no_tokenizer_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError):
        load_tokenizer(tmp_path)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json is not a saved tokenizer"):
        load_tokenizer(tmp_path)


def test_the_saved_file_names_its_kind(tmp_path: Path) -> None:
    trained("ba").save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == {"kind": "char", "characters": ["a", "b"]}


def test_encoding_is_quick() -> None:
    text = SEVERAL * 40000
    tokenizer = trained(text)
    start = time.process_time()
    tokenizer.encode(text)
    assert len(text.encode()) / (time.process_time() - start) > 30e6  # bytes per second; 150 to 400 MB/s where nothing else runs
