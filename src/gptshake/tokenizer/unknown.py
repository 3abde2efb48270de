"""What unknown tokens hide: the characters that encoding loses, and what they cost in bits per byte.

A model that is scored on ``<|unk|>`` alone has not predicted the text. As if it had to spell out what is hidden, each hidden character
costs ln U nats, U being the number of distinct characters that unknown tokens hide in the training text, plus one; a character that
they do not hide there costs ln 1,114,112, a choice among all code points. So no vocabulary scores below the entropy of the text.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gptshake.tokenizer.protocol import Ids, Tokenizer

CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Unknown:
    """Unknown tokens among the targets of a split.

    Attributes:
        tokens: how many there are.
        seen: characters under them that unknown tokens hide in the training text too; a larger vocabulary would have these.
        unseen: the other characters under them.
        kinds: distinct characters that unknown tokens hide in the training text.
    """

    tokens: int
    seen: int
    unseen: int
    kinds: int

    @classmethod
    def of(cls, tokens: int, characters: Mapping[str, int], of_training: Mapping[str, int]) -> "Unknown":
        """Those of a split, from what ``hidden_characters`` found in it and in the training text."""
        seen = sum(count for character, count in characters.items() if character in of_training)
        return cls(tokens, seen, sum(characters.values()) - seen, len(of_training))

    @property
    def nats(self) -> float:
        return self.seen * math.log(self.kinds + 1) + self.unseen * math.log(CODE_POINTS)


def hidden_characters(tokenizer: Tokenizer, ids: Ids, text: str) -> Counter[str]:
    """The characters of a text that are hidden under the unknown tokens among its ids, and how often each is."""
    if tokenizer.unk_id is None or not (unknown := ids == tokenizer.unk_id).any():
        return Counter()
    if len(ids) == len(text):  # one id per character
        return Counter(map(text.__getitem__, np.flatnonzero(unknown).tolist()))
    return Counter(text) - Counter(tokenizer.decode(ids[~unknown]))


def under_first_id(tokenizer: Tokenizer, ids: Ids, text: str) -> tuple[bytes, str]:
    """What the first id of a text covers, which is no target where a stream begins with it: its UTF-8 bytes, and the character it hides."""
    if len(ids) and ids[0] == tokenizer.unk_id:
        return text[0].encode("utf-8", "surrogatepass"), text[0]
    return tokenizer.token_bytes(int(ids[0])) if len(ids) else b"", ""


def prompt_note(tokenizer: Tokenizer, prompt: str) -> str:
    """What a model reads instead of a prompt, as a sentence; empty if nothing of it is lost, or nothing but blanks."""
    ids = tokenizer.encode(prompt)
    read = tokenizer.decode(ids)
    if read == prompt or not prompt.strip():
        return ""
    lost = hidden_characters(tokenizer, ids, prompt)
    unknown = f"the tokenizer does not know {', '.join(map(repr, lost))}, so " if lost else ""
    return f"{unknown}the model reads {read!r} instead of the prompt {prompt!r}"
