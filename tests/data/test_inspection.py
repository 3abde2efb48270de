"""What inspect finds in good and in bad text, and that it stays quick and readable."""

import random
import re
from typing import Any, cast

import numpy as np
import pytest

from gptshake.data import inspection
from gptshake.data.blocks import block_starts
from gptshake.data.inspection import _search, inspect, readable
from gptshake.data.store import Split
from gptshake.tokenizer.char import CharTrainer

DRAW = random.Random(4)
WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
)


def prose(n: int = 120) -> str:
    return " ".join(DRAW.choice(WORDS) for _ in range(n)) + "."


GOOD = {f"d{number}": prose() for number in range(60)}


def facts_of(opener: Any, memory: Any, texts: dict[str, str], trainer: Any = None, **options: Any) -> dict[str, Any]:
    store = opener(memory(texts), trainer, val_fraction=0.3)
    return inspect(store, 32, **options)


def test_counts_are_those_of_the_text(opener: Any, memory: Any) -> None:
    facts = facts_of(opener, memory, GOOD)
    assert facts["warnings"] == []
    assert sum(split["n_documents"] for split in facts["splits"]) == len(GOOD)
    assert sum(split["n_characters"] for split in facts["splits"]) == sum(map(len, GOOD.values()))
    train = facts["splits"][0]
    assert train["n_tokens"] == train["n_characters"] + train["n_documents"] - 1
    assert sum(facts["frequencies"]) == train["n_tokens"]
    assert facts["most"][0]["text"] == " " and facts["most"][0]["n"] == facts["frequencies"][0]
    assert facts["unused"] == 0  # the end of text and the unknown do not count
    assert facts["n_blocks"] == (train["n_tokens"] - 1) // 32
    lengths = facts["lengths"]
    assert sorted(lengths["train"] + lengths["val"]) == sorted(map(len, GOOD.values()))


def test_a_large_text_is_read_in_stretches_and_not_mapped(opener: Any, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opener(memory(GOOD), val_fraction=0.3)
    monkeypatch.setattr(Split, "tokens", None)  # a map, whose pages count as memory of the process
    found = _search(store.train, store.tokenizer)
    ends = store.train.n_documents - 1  # each is an id and two line ends
    assert (found["characters"], found["pieces"]) == (store.train.n_tokens + ends, [])


@pytest.mark.parametrize("offset", ["none", "random"])
def test_the_blocks_are_the_first_that_a_run_reads(offset: str, opener: Any, memory: Any) -> None:
    facts = facts_of(opener, memory, GOOD, seed=7, offset=offset, n_shown=2)
    store = opener(memory(GOOD), val_fraction=0.3)
    starts = block_starts(0, 2, facts["n_blocks"], 7, 32, random_offset=offset == "random")
    for block, start in zip(facts["blocks"], starts.tolist(), strict=True):
        assert block.replace("<|endoftext|>", "\n\n") == store.tokenizer.decode(store.train.tokens()[start : start + 33])


BAD = {
    "unknown": (GOOD, CharTrainer(vocab_size=12), r"tokens of train are unknown to the tokenizer: raise tokenizer\.vocab_size"),
    "one token": ({name: text + " " * 700 for name, text in GOOD.items()}, None, r"One token, ' ', is \d\d% of the training split"),
    "html": ({name: f"<p>{text}</p> &nbsp;" for name, text in GOOD.items()}, None, r"Markup is left .* such as .*&nbsp;"),
    "wiki": ({name: f"{{{{cite}}}} [[{text}]]" for name, text in GOOD.items()}, None, r"Markup is left .* \{\{"),
    "encoding": ({name: text.replace("h", "\ufffd") for name, text in GOOD.items()}, None, r"replacement characters \(U\+FFFD\)"),
    "the same again": ({"book": "All work and no play. " * 2000}, None, r"The text repeats itself: zlib packs it \d+ times"),
    "repeated": (GOOD | {f"again{n}": GOOD["d3"] for n in range(30)}, None, r"training documents are repetitions of others"),
    "leaked": (GOOD | {f"again{n}": GOOD["d3"] for n in range(30)}, None, r"validation documents occur in training, too"),
}


@pytest.mark.parametrize("name", BAD)
def test_garbage_is_named(name: str, opener: Any, memory: Any) -> None:
    texts, trainer, sentence = BAD[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "SEARCHED", 3)  # a few stretches show it already
        facts = facts_of(opener, memory, texts, trainer)
    assert [warning for warning in facts["warnings"] if re.search(sentence, warning)], facts["warnings"]


def test_repetitions_are_counted_exactly(opener: Any, memory: Any) -> None:
    texts = {f"d{number}": "x" * (number % 30) + prose(3 + number % 5) for number in range(300)}
    texts |= {f"again{number}": texts[f"d{number}"] for number in range(0, 300, 7)}
    facts = facts_of(opener, memory, texts)
    store = opener(memory(texts), val_fraction=0.3)

    def documents(split: Any) -> list[tuple[int, ...]]:
        starts = split.starts().tolist()
        ends = [start - 1 for start in starts[1:]] + [split.n_tokens]
        return [tuple(split.tokens()[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]

    train, val = documents(store.train), documents(store.val)
    assert facts["repeated"] == len(train) - len(set(train)) > 0
    assert facts["leaked"] == sum(document in set(train) for document in val) > 0


def test_what_is_too_much_to_look_at_is_said(opener: Any, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "TOKENS", 2000)
    monkeypatch.setattr(inspection, "DOCUMENTS", 20)
    facts = facts_of(opener, memory, GOOD | {f"again{n}": GOOD["d3"] for n in range(300)})
    assert facts["sampled"] == 2000 and facts["compared"] == 20
    assert len(facts["lengths"]["train"]) == 20
    assert sum(facts["frequencies"]) <= 4000


class Pairs:
    """A tokenizer of three words for tests."""

    eot_id, unk_id, vocab_size = 0, None, 4

    def token_bytes(self, token_id: int) -> bytes:
        return [b"", b"ab", "水".encode()[:2], b" c"][token_id]


def test_borders_of_longer_tokens_are_shown_and_bytes_that_are_no_text() -> None:
    assert readable(np.array([1, 3, 0, 2], np.uint16), cast(Any, Pairs())) == "ab│ c│<|endoftext|>│\\xe6\\xb0"
    tokenizer = CharTrainer().train(["abc"])
    assert readable(tokenizer.encode("abz"), tokenizer) == "ab<|unk|>"
