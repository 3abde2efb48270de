"""Byte-pair encoding: how merges are learned, how a word is encoded, and the tokenizer that merges make, whoever learned them.

Learning joins the most frequent pair of neighbours into a new id, again and again; of equally frequent pairs the smallest
(left id, right id), so equal text gives equal merges in any order of the documents (the rule of rustbpe, whose merges these are). Ids:
the 256 single bytes, the merges, the end of text. ``encode_word`` is the readable reference; texts are encoded by tiktoken, which
gives the same ids at 20 to 30 MB/s per thread. Lone surrogates become U+FFFD; plain text never becomes the end of text.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.config import BPEConfig
from gptshake.tokenizer.pretokenizer import BETWEEN_WORDS, PATTERNS, split_words
from gptshake.tokenizer.protocol import ByteLevel, Ids, first_characters, id_type, well_formed

BYTES = 256
MAX_IDS = 1_000_000  # a symbol is one character while learning, and there are 1,114,112 of these
EOT = "<|endoftext|>"
LONG = 1 << 18  # characters; tiktoken's patterns can backtrack 1,000,000 steps and no more; ours backtrack over white space only
LONG_RUN = re.compile(rf"\s{{{LONG}}}")

Merge = tuple[int, int]


class BytePairTokenizer(ByteLevel):
    """Byte-pair encoding with given merges.

    Args:
        name: the kind, such as ``bpe``.
        pattern: regular expression that cuts a text into words.
        merges: pairs (left id, right id); merge i makes the id 256 + i of ids below it.
        alphabet: the byte value of each of the ids 0 to 255.
    """

    def __init__(self, name: str, pattern: str, merges: Sequence[Merge], alphabet: Sequence[int] = range(BYTES)) -> None:
        if sorted(alphabet) != list(range(BYTES)):
            raise DataError("The first 256 tokens of byte-pair encoding must be the 256 single bytes.")
        self.name, self.pattern, self.merges, self.alphabet = name, pattern, list(merges), list(alphabet)
        pieces = [bytes([value]) for value in alphabet]
        for left, right in self.merges:
            if not (0 <= left < len(pieces) and 0 <= right < len(pieces)):
                raise DataError(f"The merge ({left}, {right}) for the id {len(pieces)} joins ids that do not exist yet.")
            pieces.append(pieces[left] + pieces[right])
        self.eot_id = len(pieces)
        self.pieces = [*pieces, b""]
        self.vocab_size = len(self.pieces)
        self.boundary = BETWEEN_WORDS if pattern in PATTERNS.values() else None

    @cached_property
    def ranks(self) -> dict[bytes, int]:
        """The id of every token but the end of text, by its bytes; of two with equal bytes the first, as the other never arises."""
        return {piece: token for token, piece in reversed([*enumerate(self.pieces[:-1])])}

    @cached_property
    def encoding(self) -> Any:
        return self._encoding(self.pattern)

    @cached_property
    def _of_one_word(self) -> Any:
        """The same for a text that is one word, however long."""
        return self._encoding(r"[\s\S]+")

    def _encoding(self, pattern: str) -> Any:
        import tiktoken

        return tiktoken.Encoding(self.name, pat_str=pattern, mergeable_ranks=self.ranks, special_tokens={EOT: self.eot_id})

    def encode(self, text: str) -> Ids:
        if len(text) > LONG and (self.boundary is None or LONG_RUN.search(text)):  # tiktoken fails on a million blanks in a row
            ids = [token for word in split_words(well_formed(text), self.pattern) for token in self._of_one_word.encode_ordinary(word)]
            return np.array(ids, id_type(self.vocab_size))
        try:
            found: npt.NDArray[np.uint32] = self.encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:  # a lone surrogate
            found = self.encoding.encode_to_numpy(well_formed(text), disallowed_special=())
        return found.astype(id_type(self.vocab_size))

    def content(self) -> dict[str, Any]:
        return {"kind": self.name, "pattern": self.pattern, "alphabet": self.alphabet, "merges": self.merges}


def load(data: dict[str, Any]) -> BytePairTokenizer:
    try:
        merges = [(int(left), int(right)) for left, right in data["merges"]]
        return BytePairTokenizer(str(data["kind"]), str(data["pattern"]), merges, [int(value) for value in data["alphabet"]])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"A saved byte-pair tokenizer must hold a pattern, an alphabet and merges ({error}).") from error


def check_size(vocab_size: Any, least: int, max_characters: Any) -> None:
    """ConfigError for a number of ids, or an amount of text to learn from, that is impossible."""
    if type(vocab_size) is not int or not least <= vocab_size <= MAX_IDS:
        raise ConfigError(f"tokenizer.vocab_size is {vocab_size!r}; it must be a whole number from {least} to {MAX_IDS:,}.")
    if max_characters is not None and (type(max_characters) is not int or max_characters < 1):
        raise ConfigError(f"tokenizer.max_characters is {max_characters!r}; it must be a whole number from 1 up, or null for all.")


@dataclass
class BPETrainer(BPEConfig):
    """Learns merges from the words of the training text.

    Args:
        vocab_size: number of ids: 256 bytes, the merges, and the end of text; fewer if the text has no more pairs.
        pattern: how a text is cut into words: ``gpt4`` or ``gpt2``.
        max_characters: of the training text, from its beginning; bounds time (0.2 s for a million) and memory; None: all.
    Raises:
        ConfigError: if a value is none of these.
    """

    kind = "bpe"
    boundary: ClassVar[re.Pattern[str] | None] = BETWEEN_WORDS

    def __post_init__(self) -> None:
        check_size(self.vocab_size, BYTES + 1, self.max_characters)
        if self.pattern not in PATTERNS:
            raise ConfigError(f"tokenizer.pattern is {self.pattern!r}; it must be one of {', '.join(PATTERNS)}.")
        self._regex = PATTERNS[self.pattern]

    def train(self, documents: Iterable[str]) -> BytePairTokenizer:
        counts = count_words(first_characters(documents, self.max_characters), self._regex)
        return BytePairTokenizer("bpe", self._regex, learn(counts, self.vocab_size - BYTES - 1))


def count_words(documents: Iterable[str], pattern: str) -> Counter[bytes]:
    """How often each word occurs, as UTF-8. Memory: the distinct words, and the words of one document."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(split_words(well_formed(document), pattern))
    return Counter({word.encode(): count for word, count in counts.items()})


def learn(counts: Mapping[bytes, int], n_merges: int) -> list[Merge]:
    """The first ``n_merges`` merges, each as (left id, right id); merge i makes the id 256 + i.

    A symbol with the id i is the character ``chr(i)``, a word is a string of symbols and a pair a string of two: so joining a
    pair everywhere in a word is ``str.replace``, from left to right as it must be, and pairs compare as their ids do.
    Nothing is ever scanned twice: a merge looks at the words that have its pair, and changes the counts of the neighbours.

    There are fewer if every word of ``counts``, which says how often each occurs, has become one symbol.
    """
    texts = [word.decode("latin-1") for word in counts]
    weights = list(counts.values())
    pairs: dict[str, int] = defaultdict(int)  # pair of neighbours -> how often it occurs
    words_with: dict[str, list[int]] = defaultdict(list)  # -> words that have it; some twice, or no longer: that harms nothing
    for word, (text, weight) in enumerate(zip(texts, weights, strict=True)):
        for left, right in pairwise(text):
            pairs[left + right] += weight
            words_with[left + right].append(word)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapify(queue)
    merges: list[Merge] = []
    while queue and len(merges) < n_merges:
        negative, pair = heappop(queue)
        if -negative != pairs[pair]:  # its count has fallen since it was put here (it never rises): back with it, if it is left
            if pairs[pair] > 0:
                heappush(queue, (-pairs[pair], pair))
            continue
        symbol = chr(BYTES + len(merges))
        merges.append((ord(pair[0]), ord(pair[1])))
        found: set[str] = set()
        for word in set(words_with.pop(pair)):
            texts[word] = joined = texts[word].replace(pair, symbol)
            for changed, by in _changes(joined, pair, symbol):
                pairs[changed] += by * weights[word]
                if by > 0:
                    words_with[changed].append(word)
                    found.add(changed)
        for changed in found:
            if pairs[changed] > 0:
                heappush(queue, (-pairs[changed], changed))
    return merges


def _changes(joined: str, pair: str, symbol: str) -> Iterator[tuple[str, int]]:
    """Which pairs a word lost (-1) and gained (+1) when ``pair`` became ``symbol`` in it."""
    at = joined.find(symbol)
    while at >= 0:
        yield pair, -1
        if at:
            before = joined[at - 1]
            yield (pair[1] if before == symbol else before) + pair[0], -1
            yield before + symbol, 1
        following = joined[at + 1 : at + 2]
        if following and following != symbol:  # else it is counted as what is before the next one
            yield pair[1] + following, -1
            yield symbol + following, 1
        at = joined.find(symbol, at + 1)


def encode_word(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Ids of one word: of all neighbours the two whose union has the smallest id are joined, until no union has one.

    The readable reference of what tiktoken does, by the id of every token, single bytes among them; its time grows with the square of
    the word's length.
    """
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([value]) for value in word]
    while unions := [(ranks[left + right], at) for at, (left, right) in enumerate(pairwise(parts)) if left + right in ranks]:
        _, at = min(unions)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]
