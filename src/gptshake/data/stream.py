"""The documents of a text as an evaluation reads them: one stream of ids, what is in each document, and the windows of a network.

As in a token store there is an end of text between two documents, and here one in front of the first. Their ids are in memory, and of
a text a megabyte, or one document where a tokenizer must see it whole.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus
from gptshake.data.split import Spans
from gptshake.tokenizer.protocol import Ids, Tokenizer, boundary
from gptshake.tokenizer.unknown import Unknown, hidden_characters, under_first_id

BEGINNING = 100
BLANK = re.compile(r"\s+")
Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Stream:
    """Documents as a network reads them; every array but ``ids`` has the shape (n_documents,)."""

    ids: Ints  # shape (n_tokens,)
    starts: Ints  # where each document's first id is
    ends: Ints  # and the one after its last
    alone: bool  # whether each is read by itself, after an end of text; else the very first token is no target, as in training
    counts: dict[str, npt.NDArray[Any]]  # of the targets bytes, characters, words, unknown characters, and the nats of these, hidden
    beginnings: list[str]  # the first ``BEGINNING`` characters of each

    def windows(self, block_size: int, stride: int) -> Ints:
        """``scoring_windows`` of all documents in a row, or full ones of each; shape (n_windows, 3)."""
        if not self.alone:
            return scoring_windows(len(self.ids) - 2, block_size, stride) + 1
        places = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return np.concatenate([scoring_windows(end - start, block_size, block_size, full=True) + start - 1 for start, end in places])


def scoring_windows(n_targets: int, block_size: int, stride: int, *, full: bool = False) -> npt.NDArray[np.int64]:
    """Windows in which each of ``n_targets`` tokens after a first one is scored once, shape (n_windows, 3).

    A row is (begin, scored, end): the tokens begin to end - 1 are read, the tokens scored + 1 to end are scored. Windows begin ``stride``
    tokens apart and read ``block_size``; with ``full`` the last one begins earlier instead of being shorter, and scores no more by that.
    """
    begins = stride * np.arange(max(0, -(-(n_targets - block_size) // stride)) + 1)
    ends = np.minimum(begins + block_size, n_targets)
    scored = np.concatenate([[0], ends[:-1]])
    return np.column_stack([np.maximum(ends - block_size, 0) if full else begins, scored, ends])[ends > scored]


def encode_documents(
    corpus: Corpus, spans: Spans, tokenizer: Tokenizer, of_training: Callable[[], Mapping[str, int]], *, alone: bool
) -> Stream:
    """The documents of ``spans``; ``of_training``, asked if there are unknown characters, gives those of the training text."""
    eot = np.array([tokenizer.eot_id], tokenizer.encode("").dtype)
    parts, lengths, lost, counts, beginnings = list[Ints](), list[int](), list[Counter[str]](), list[Counter[str]](), list[str]()
    for number, document in groupby(corpus.texts(spans, boundary(tokenizer)), itemgetter(0)):
        ids, hides, size, beginning, blank = list[Ids](), Counter[str](), Counter(words=1), "", False
        for _, text in document:
            ids.append(tokenizer.encode(text))
            hides.update(hidden_characters(tokenizer, ids[-1], text))
            # Words as lm-evaluation-harness counts them, by the blanks between them; one blank may lie in two parts.
            n_blanks = sum(1 for _ in BLANK.finditer(text)) - (blank and text[:1].isspace())
            size.update(bytes=len(text.encode("utf-8", "surrogatepass")), characters=len(text), words=n_blanks)
            beginning, blank = beginning or text[:BEGINNING], text[-1:].isspace() or (blank and not text)
        if not (alone or number):  # the first token is no target
            first, hidden = under_first_id(tokenizer, ids[0], beginning)
            hides.subtract(hidden)
            size.subtract({"bytes": len(first), "characters": len(first.decode("utf-8", "ignore"))})
        parts += [eot, *ids]
        lengths.append(sum(map(len, ids)))
        lost.append(hides)
        counts.append(size)
        beginnings.append(beginning)
    seen = of_training() if any(one.total() for one in lost) else {}
    named = {name: np.array([size[name] for size in counts]) for name in ("bytes", "characters", "words")}
    named["unknown"] = np.array([one.total() for one in lost])
    named["hidden"] = np.array([Unknown.of(0, one, seen).nats for one in lost])
    sizes = np.array(lengths)
    ends = np.cumsum(sizes + 1)
    return Stream(np.concatenate(parts), ends - sizes, ends, alone, named, beginnings)
