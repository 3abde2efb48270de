"""The documents of a text as an evaluation reads them: one stream of ids, what is in each document, and the windows of a network.

As in a token store there is an end of text between two documents, and here one in front of the first. A document is in memory as a whole.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus
from gptshake.data.split import Spans
from gptshake.tokenizer.protocol import Tokenizer
from gptshake.tokenizer.unknown import Unknown, hidden

BEGINNING = 100
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
    parts, lost, counts, beginnings = list[Ints](), list[Counter[str]](), list[list[int]](), list[str]()
    for number, text in corpus.texts(spans):
        ids, size = tokenizer.encode(text), len(text.encode("utf-8", "surrogatepass"))
        parts += [eot, ids]
        beginnings.append(text[:BEGINNING])
        lost.append(Counter(hidden(tokenizer, ids, text)))
        first = b""
        if not (alone or number) and len(ids):  # it is no target
            unknown = ids[0] == tokenizer.unk_id
            first = text[0].encode("utf-8", "surrogatepass") if unknown else tokenizer.token_bytes(int(ids[0]))
            lost[0].subtract(text[0] if unknown else "")
        n_words = len(re.split(r"\s+", text))  # as lm-evaluation-harness counts them
        counts.append([size - len(first), len(text) - len(first.decode("utf-8", "ignore")), n_words, lost[-1].total()])
    seen = of_training() if any(one.total() for one in lost) else {}
    named = dict(zip(("bytes", "characters", "words", "unknown"), np.array(counts).T, strict=True))
    named["hidden"] = np.array([Unknown.of(0, one, seen).nats for one in lost])
    starts, ends = np.cumsum([len(part) for part in parts]).reshape(-1, 2).T
    return Stream(np.concatenate(parts), starts, ends, alone, named, beginnings)
