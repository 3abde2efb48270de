"""What every kind of tokenizer promises: the round trip, ids that stay, nothing that crashes, a file that is its identity."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptshake.errors import DataError
from gptshake.tokenizer.protocol import Tokenizer, load_tokenizer

from .conftest import LANGUAGES, TEXTS, TRAINERS, tokenizer_of

VALID = st.text(st.characters(exclude_categories=["Cs"]))
BLANKS = (" ", "  ", "\n", "\r\n", "\t", "\0", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000", "\u2581", "\ufeff", "\ufffd", "\u200d")
SIGNS = ("a", "'s", "'S", "ſ", "it's", "1", "12345", "½", "Ⅷ", "e\u0301", "é", "ﬁ", "Å", "İ", "水", "が", "か\u3099", "한", "🙂", "👍🏽")
NAMES = ("<|endoftext|>", "<|unk|>", "<unk>", "</s>", "<0x41>", "!!!", "…", "\U0010ffff", "\U000323b0", "\u0378")
ODD = st.lists(st.sampled_from([*BLANKS, *SIGNS, *NAMES]), max_size=30).map(
    "".join
)  # what splitters, normalizers and fallbacks stumble over
LONG = 10**6
# What a pattern backtracks over, one endless word, many short ones, characters of several bytes, and what is replaced first.
ENDLESS = [" " * LONG + "x", " \n" * (LONG // 2) + "x", "a" * LONG, "水" * (LONG // 3), "\u2581" * (LONG // 10), " " * LONG + "\ud800"]
ENCODERS = ["bpe", "bpe-gpt2", "unigram", "sentencepiece-bpe"]  # the other kinds encode as one of these, or character by character
ANY = st.text(st.characters(exclude_categories=()))  # lone surrogates too
KINDS = [kind for kind in TRAINERS if kind != "char"]  # char knows the characters of its text only: see test_char.py
few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", KINDS)
@few
@given(text=VALID | ODD)
def test_any_valid_text_survives_the_round_trip(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_texts_of_many_languages_survive(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode(tokenizer.encode(text)) for text in LANGUAGES.values()] == [*LANGUAGES.values()]


@few
@given(text=ANY)
def test_no_text_is_refused_and_lone_surrogates_become_the_replacement_character(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.eot_id not in ids
    if kind != "char":
        assert tokenizer.decode(ids) == "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)


@pytest.mark.parametrize("text", ENDLESS, ids=lambda text: f"{text[-2:]!a}")
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_million_equal_characters_are_encoded(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\ud800", "\ufffd")


def test_the_empty_text_has_no_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == ""


def test_ids_are_below_the_vocabulary_and_of_the_smallest_type(tokenizer: Tokenizer) -> None:
    for text in [*TEXTS, ""]:
        ids = tokenizer.encode(text)
        assert ids.dtype == (np.uint16 if tokenizer.vocab_size <= 65536 else np.uint32)
        assert not len(ids) or int(ids.max()) < tokenizer.vocab_size


def test_no_kind_but_char_has_an_unknown_token(tokenizer: Tokenizer) -> None:
    assert (tokenizer.unk_id is not None) == (tokenizer.name == "char")


@few
@given(text=VALID | ODD)
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    joined = b"".join(tokenizer.token_bytes(int(token)) for token in tokenizer.encode(text))
    unknown = set(text) - set("".join(TEXTS)) if kind == "char" else set()
    assert joined == "".join(letter for letter in text if letter not in unknown).encode()


def test_every_id_has_bytes_but_the_special_ones(tokenizer: Tokenizer) -> None:
    empty = {token for token in range(tokenizer.vocab_size) if not tokenizer.token_bytes(token)}
    assert tokenizer.eot_id in empty
    assert len(empty) == (2 if tokenizer.name in ("char", "sentencepiece") else 1)


@few
@given(data=st.data())
def test_any_ids_of_the_vocabulary_can_be_shown(kind: str, data: Any) -> None:
    tokenizer = tokenizer_of(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids, np.uint16)) == tokenizer.decode(np.array(ids, np.int64))
    tokenizer.decode(ids).encode()  # what is shown is a text that any file takes


def test_half_a_character_is_shown_as_the_replacement_character() -> None:
    for kind in KINDS:
        tokenizer = tokenizer_of(kind)
        half = next(token for token in range(tokenizer.vocab_size) if tokenizer.token_bytes(token) == b"\xe6")
        assert tokenizer.decode([half]) == "\ufffd"


def test_the_end_of_text_is_shown_as_a_blank_line(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("All human").tolist()
    assert tokenizer.decode([*ids, tokenizer.eot_id, *ids]) == "All human\n\nAll human"
    assert 0 <= tokenizer.eot_id < tokenizer.vocab_size


def test_ids_of_no_vocabulary_are_a_sentence(tokenizer: Tokenizer) -> None:
    bad: Any
    for bad in ([-1], [10**6], [0, 10**6], [2**70], [0.5], ["a"], [None]):
        with pytest.raises(DataError, match=r"do not belong to a vocabulary of|Ids are whole numbers"):
            tokenizer.decode(bad)


def test_saved_and_loaded_it_is_the_same_to_the_last_byte(tokenizer: Tokenizer, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    tokenizer.save(first)
    again = load_tokenizer(first)
    again.save(second)
    content = (first / "tokenizer.json").read_bytes()
    assert [file.name for file in first.iterdir()] == ["tokenizer.json"]
    assert content == (second / "tokenizer.json").read_bytes()
    assert tokenizer.digest == again.digest == sha256(content).hexdigest()
    same = ("name", "vocab_size", "eot_id", "unk_id")
    assert [getattr(again, key) for key in same] == [getattr(tokenizer, key) for key in same]
    for text in TEXTS:
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
        assert again.decode(again.encode(text)) == text


IN_ANOTHER_PROCESS = """
import hashlib, json, sys
sys.path.insert(0, {tests!r})
from tokenizer.conftest import TEXTS, TRAINERS
for kind in {kinds}:
    tokenizer = TRAINERS[kind]().train(TEXTS)
    print(tokenizer.digest, hashlib.sha256(b"".join(tokenizer.encode(text).tobytes() for text in TEXTS)).hexdigest())
"""


def test_another_process_learns_the_same_ids() -> None:
    kinds = [kind for kind in TRAINERS if kind not in ("byte", "gpt2")]  # which learn nothing
    code = IN_ANOTHER_PROCESS.format(tests=str(Path(__file__).parents[1]), kinds=kinds)
    env = dict(os.environ) | {"PYTHONHASHSEED": "12345", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    ours = [tokenizer_of(kind) for kind in kinds]
    ids = [sha256(b"".join(tokenizer.encode(text).tobytes() for text in TEXTS)).hexdigest() for tokenizer in ours]
    assert done.stdout.splitlines() == [f"{tokenizer.digest} {hash}" for tokenizer, hash in zip(ours, ids, strict=True)]


@pytest.mark.parametrize("kind", [kind for kind in TRAINERS if "sentencepiece" not in kind and kind != "unigram"])
def test_the_order_of_the_documents_does_not_matter(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert TRAINERS[kind]().train(iter(TEXTS[::-1])).digest == tokenizer.digest


def test_settings_say_everything_and_are_json(kind: str) -> None:
    trainer = TRAINERS[kind]()
    options = trainer.settings()
    assert json.loads(json.dumps(options)) == options
    assert options.pop("kind") == tokenizer_of(kind).name
    rebuilt: Callable[..., Any] = type(trainer)
    assert rebuilt(**options).settings() == trainer.settings()


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["\n"], ["\ud800"], ["a" * 10**5], [" " * 10**5 + "\n" * 10**5]])
@pytest.mark.parametrize("kind", ["char", "bpe", "hf_bpe", "unigram", "sentencepiece-bpe"])
def test_too_little_text_gives_fewer_ids_and_no_error(kind: str, texts: list[str]) -> None:
    tokenizer = TRAINERS[kind]().train(texts)
    assert tokenizer.vocab_size <= 700
    assert kind == "char" or tokenizer.decode(tokenizer.encode("über\n")) == "über\n"
