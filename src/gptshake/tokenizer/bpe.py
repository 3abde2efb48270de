"""Byte-pair encoding from scratch: how it is learned, and how a word is encoded, in code to read.

A word is first a row of bytes, ids 0 to 255. Learning joins the most frequent pair of neighbours into a new id, again and
again; of equally frequent pairs the smallest (left id, right id), so equal text gives equal merges in any order of the
documents (the rule of rustbpe, whose merges these are). ``encode_word`` shows what the merges then make of a word; texts are
encoded by tiktoken, which gives the same ids 50 times faster (``byte_pairs.py``). 16,000 merges of 6 MB take 2 s.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

from gptshake.tokenizer import byte_pairs
from gptshake.tokenizer.byte_pairs import BYTES, BytePairTokenizer, check_size
from gptshake.tokenizer.protocol import beginning
from gptshake.tokenizer.utf8 import well_formed
from gptshake.tokenizer.words import BETWEEN_WORDS, parts, pattern_of, words

load = byte_pairs.load


class BPETrainer:
    """Learns merges from the words of the training text.

    Args:
        vocab_size: number of ids: 256 bytes, the merges, and the end of text; fewer if the text has no more pairs.
        pattern: how a text is cut into words: ``gpt4`` or ``gpt2``.
        max_characters: of the training text, from its beginning; bounds time (0.2 s for a million) and memory; None: all.
    Raises:
        ConfigError: if a value is none of these.
    """

    boundary = BETWEEN_WORDS

    def __init__(self, vocab_size: int = 4096, pattern: str = "gpt4", max_characters: int | None = 100_000_000) -> None:
        check_size(vocab_size, BYTES + 1, max_characters)
        self._regex = pattern_of(pattern)
        self._vocab_size, self._pattern, self._max_characters = vocab_size, pattern, max_characters

    def settings(self) -> dict[str, Any]:
        """What decides the merges besides the text."""
        return {"kind": "bpe", "vocab_size": self._vocab_size, "pattern": self._pattern, "max_characters": self._max_characters}

    def train(self, documents: Iterable[str]) -> BytePairTokenizer:
        """The tokenizer that these documents teach."""
        counts = count_words(beginning(documents, self._max_characters), self._regex)
        return BytePairTokenizer("bpe", self._regex, learn(counts, self._vocab_size - BYTES - 1))


def count_words(documents: Iterable[str], pattern: str) -> Counter[bytes]:
    """How often each word occurs, as UTF-8. Memory: the distinct words."""
    counts: Counter[str] = Counter()
    for document in documents:
        for part in parts(well_formed(document)):
            counts.update(words(part, pattern))
    return Counter({word.encode(): count for word, count in counts.items()})


def learn(counts: Mapping[bytes, int], n_merges: int) -> list[tuple[int, int]]:
    """The first ``n_merges`` merges of words that occur so often, each as (left id, right id); merge i makes the id 256 + i.

    A symbol with the id i is the character ``chr(i)``, a word is a string of symbols and a pair a string of two: so joining a
    pair everywhere in a word is ``str.replace``, from left to right as it must be, and pairs compare as their ids do.
    Nothing is ever scanned twice: a merge looks at the words that have its pair, and changes the counts of the neighbours.

    Args:
        counts: distinct words and how often each occurs.
        n_merges: how many to learn at most; fewer if every word has become one symbol.
    """
    texts = [word.decode("latin-1") for word in counts]
    weights = list(counts.values())
    pairs, places = _pairs(texts, weights)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapify(queue)
    merges: list[tuple[int, int]] = []
    while queue and len(merges) < n_merges:
        negative, pair = heappop(queue)
        if -negative != pairs[pair]:  # its count has fallen since it was put here (it never rises): back with it, if it is left
            if pairs[pair] > 0:
                heappush(queue, (-pairs[pair], pair))
            continue
        symbol = chr(BYTES + len(merges))
        merges.append((ord(pair[0]), ord(pair[1])))
        found: set[str] = set()
        for place in set(places.pop(pair)):
            texts[place] = joined = texts[place].replace(pair, symbol)
            for changed, by in _changes(joined, pair, symbol):
                pairs[changed] += by * weights[place]
                if by > 0:
                    places[changed].append(place)
                    found.add(changed)
        for changed in found:
            if pairs[changed] > 0:
                heappush(queue, (-pairs[changed], changed))
    return merges


def _pairs(texts: list[str], weights: list[int]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """How often each pair of neighbours occurs, and in which words (some named twice, or no longer having it: that harms nothing)."""
    counts: dict[str, int] = defaultdict(int)
    places: dict[str, list[int]] = defaultdict(list)
    for place, (text, weight) in enumerate(zip(texts, weights, strict=True)):
        for left, right in pairwise(text):
            counts[left + right] += weight
            places[left + right].append(place)
    return counts, places


def _changes(joined: str, pair: str, symbol: str) -> Iterable[tuple[str, int]]:
    """Which pairs a word lost (-1) and won (+1) when ``pair`` became ``symbol`` in it."""
    at = joined.find(symbol)
    while at >= 0:
        yield pair, -1
        if at:
            before = joined[at - 1]
            yield (pair[1] if before == symbol else before) + pair[0], -1
            yield before + symbol, 1
        following = joined[at + 1 : at + 2]
        if following and following != symbol:  # else it is told as what is before the next one
            yield pair[1] + following, -1
            yield symbol + following, 1
        at = joined.find(symbol, at + 1)


def encode_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Ids of one word: of all neighbours the two whose union has the smallest id are joined, until no union has one.

    The readable reference of what tiktoken does; its time grows with the square of the word's length.

    Args:
        word: UTF-8 bytes of one of ``words(text, pattern)``.
        ranks: id of every token, by its bytes; all 256 single bytes are among them.
    """
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([value]) for value in word]
    while unions := [(ranks[left + right], at) for at, (left, right) in enumerate(pairwise(parts)) if left + right in ranks]:
        _, at = min(unions)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]
