"""Bits per byte charge what unknown tokens hide: no vocabulary scores below the entropy of the text, and the reason is named."""

import json
import math
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.data.store import Split, round_trip, unknown_warnings
from gptshake.errors import DataError
from gptshake.tokenizer.byte import ByteTrainer
from gptshake.tokenizer.char import CharTokenizer, CharTrainer
from gptshake.tokenizer.unknown import CODE_POINTS, Unknown, hidden_characters

KINDS = 2000
EVEN = "".join(random.Random(36).choices([chr(0x4E00 + number) for number in range(KINDS)], k=60_000))


def bits_per_byte(split: Split, nats: float) -> float:
    """As ``evaluate`` has it, for a model with this mean loss in nats per token."""
    return (nats + split.hidden_nats) / (math.log(2) * split.bytes_per_target)


@pytest.mark.parametrize("vocab_size", [3, 20, 75, 500, 2001, 2002, "auto"])
def test_no_vocabulary_brings_the_best_possible_model_below_the_entropy_of_the_text(vocab_size: Any, opener: Any, memory: Any) -> None:
    store = opener(memory({"signs": EVEN}), CharTrainer(vocab_size), test_fraction=0.1)
    known = len(store.tokenizer.characters)
    entropy = math.log2(KINDS) / 3  # bits per byte: evenly drawn, and three bytes each
    for split in (store.val, store.test):
        share = split.unknown_share
        loss = (1 - share) * math.log(KINDS) + (share * math.log(KINDS / (KINDS - known)) if share else 0.0)  # knows the true shares
        assert bits_per_byte(split, loss) >= entropy - 1e-9 > 3.62
        assert bits_per_byte(split, loss) < entropy + 1e-3 or known == KINDS - 1  # and hardly above it
        assert share == pytest.approx(1 - known / KINDS, abs=0.02)


def test_a_character_of_the_training_text_costs_ln_u_and_a_new_one_a_choice_among_all(opener: Any, memory: Any) -> None:
    text = "aaaabbbb" * 10 + "xyz" * 2 + "ab" * 3 + "x" + "水" + "é" + "xy"  # vocab_size=4 keeps a and b
    store = opener(memory({"text": text}), CharTrainer(vocab_size=4), val_fraction=8 / len(text) + 1e-6)
    cut = int(len(text) * (1 - (8 / len(text) + 1e-6)))
    targets = text[cut + 1 :]
    unknown = Counter(letter for letter in targets if letter not in "ab")
    assert store.train.unknown.kinds == 3  # x, y, z
    assert store.val.unknown == Unknown(sum(unknown.values()), unknown["x"] + unknown["y"], 2, 3)
    assert store.val.unknown.nats == pytest.approx((unknown["x"] + unknown["y"]) * math.log(4) + 2 * math.log(1_114_112))


@given(train=st.text(st.characters(), max_size=40), val=st.text(st.characters(), max_size=40), vocab_size=st.integers(3, 12))
def test_every_unknown_token_of_characters_is_charged_by_whether_training_has_it(train: str, val: str, vocab_size: int) -> None:
    tokenizer = CharTrainer(vocab_size).train([train])
    ids = tokenizer.encode(val)
    of_training, lost = hidden_characters(tokenizer, tokenizer.encode(train), train), hidden_characters(tokenizer, ids, val)
    found = Unknown.of(int((ids == tokenizer.unk_id).sum()), lost, of_training)
    outside = set(train) - set(tokenizer.characters)
    assert found.kinds == len(outside) and found.seen == sum(letter in outside for letter in val)
    assert found.unseen == sum(letter not in train for letter in val) and found.seen + found.unseen == found.tokens
    assert CODE_POINTS == 1_114_112


class Words:
    """A tokenizer of whole words, of which unknown ones hide several characters each; words are separated by one blank."""

    unk_id, known = 1, ("the", "cat")

    def encode(self, text: str) -> Any:
        return np.array([2 + self.known.index(word) if word in self.known else self.unk_id for word in text.split(" ")], np.uint16)

    def decode(self, ids: Any) -> str:
        return " ".join(self.known[number - 2] for number in ids)


def test_a_token_that_hides_a_word_is_charged_for_each_of_its_characters() -> None:
    text = "the zebra the cat xx"
    lost = hidden_characters(cast(Any, Words()), Words().encode(text), text)
    assert lost == Counter("zebraxx") + Counter("  ")  # the blanks beside them go with them


def test_without_unknown_tokens_nothing_is_charged(opener: Any, memory: Any) -> None:
    for trainer in (CharTrainer(), ByteTrainer()):
        store = opener(memory({"text": "abcdefgh" * 100}), trainer)
        assert [split.hidden_nats for split in store.splits] == [0.0, 0.0]
        assert unknown_warnings(store) == []


def test_a_store_of_an_earlier_version_gets_the_counts_and_keeps_its_fingerprint(opener: Any, memory: Any) -> None:
    for text in ("ab" * 450 + "zz" * 10 + "ab" * 40, "ab" * 500):
        source = memory({"text": text})
        store = opener(source, CharTrainer(vocab_size=4), val_fraction=0.2)
        manifest = store.path / "manifest.json"
        old = {key: value for key, value in json.loads(manifest.read_text()).items() if key != "unknown"}
        manifest.write_text(json.dumps(old))
        again = opener(source, CharTrainer(vocab_size=4), val_fraction=0.2)
        assert (again.fingerprint, again.key, again.val.unknown) == (store.fingerprint, store.key, store.val.unknown)
        assert any("unknown tokens hide" in line for line in opener.said)


def test_the_cause_of_unknown_tokens_is_named_and_what_helps(opener: Any, memory: Any) -> None:
    capped = opener(memory({"signs": EVEN}), CharTrainer(75))
    train, val = unknown_warnings(capped)
    assert "of the tokens of train are unknown to the tokenizer: raise tokenizer.vocab_size, 2,002 has every" in train
    assert "raise tokenizer.vocab_size" in val
    other = opener(memory({"text": "abcd " * 900 + "жзик " * 100}), CharTrainer())
    (sentence,) = unknown_warnings(other)
    assert sentence.startswith("79.9% of the tokens of val are unknown") or sentence.startswith("80.0% of the tokens of val are unknown")
    assert "do not occur in the training text, because the text is split by position" in sentence and "raise" not in sentence


def test_one_unknown_token_in_a_thousand_is_no_reason_to_warn_and_two_are() -> None:
    def store(tokens: int) -> Any:
        split = SimpleNamespace(name="val", n_documents=50, unknown_share=tokens / 1000, unknown=Unknown(tokens, tokens, 0, 2))
        recipe = {"recipe": {"tokenizer": {"kind": "char"}, "split": "documents"}}
        return SimpleNamespace(splits=[split], train=split, manifest=recipe, tokenizer=CharTokenizer(["a"]))

    assert unknown_warnings(store(1)) == [] and len(unknown_warnings(store(2))) == 1


def store_of(tokenizer: Any, *excerpts: str) -> Any:
    return cast(Any, SimpleNamespace(tokenizer=tokenizer, excerpts=excerpts, path=Path("store")))


def test_known_text_comes_back_exactly() -> None:
    assert round_trip(store_of(CharTrainer().train(["abc"]), "abc", "cab")) == "round trip exact (6 tokens of 2 training documents)"


def test_the_share_of_unknown_characters_is_said() -> None:
    assert "25.00% of them unknown" in round_trip(store_of(CharTrainer().train(["abc"]), "abcz"))


def test_a_tokenizer_that_mixes_letters_up_is_noticed() -> None:
    tokenizer = CharTrainer().train(["abc"])
    broken = SimpleNamespace(encode=tokenizer.encode, unk_id=tokenizer.unk_id, decode=lambda ids: tokenizer.decode(ids)[::-1])
    with pytest.raises(DataError, match="does not give back"):
        round_trip(store_of(broken, "abc"))


def test_a_lone_surrogate_is_no_reason_to_refuse_a_text() -> None:
    assert (
        round_trip(store_of(ByteTrainer().train([]), "a\ud800b", "c"))
        == "round trip of 2 training documents: 6 tokens, lone surrogates as \ufffd"
    )
    assert round_trip(store_of(CharTrainer().train(["a\ud800b"]), "a\ud800b")) == "round trip exact (3 tokens of 1 training document)"
