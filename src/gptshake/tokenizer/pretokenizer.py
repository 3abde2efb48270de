"""How byte-pair encoding cuts a text into words before it learns or encodes, so that no token reaches across two words.

Two published patterns, ``gpt2`` and ``gpt4`` (Radford et al. 2019; OpenAI's cl100k). Encoding leaves the cutting to tiktoken;
learning and the readable encoder use the package regex, three times as fast as ``re``. The two may know different versions of
Unicode: a character that only one of them takes for a letter or a digit is replaced, before regex sees it, by one of the class that
it has for tiktoken, so that both cut the same text into the same words.
"""

import re
from functools import cache
from typing import Any

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
}
# Both patterns begin a word at a single blank between two characters that are none, and end one at a single line end between two,
# whatever stands around them.
BETWEEN_WORDS = re.compile(r"\S(?= \S)|\S\n(?=\S)")
_STAND_INS = {r"\p{L}": "λ", r"\p{N}": "½"}  # a letter, and a number, that no pattern treats specially
_NEITHER = "\ue000"


def split_words(text: str, pattern: str) -> list[str]:
    """The text, cut into words as tiktoken cuts it; joined they are the text again (our patterns leave nothing out)."""
    may_differ, stand_ins = _disputed()
    if not may_differ.search(text) or stand_ins.keys().isdisjoint(map(ord, set(text))):
        return list(_compiled(pattern).findall(text))
    replaced = text.translate(stand_ins)  # as many characters as before
    return [text[match.start() : match.end()] for match in _compiled(pattern).finditer(replaced)]


@cache
def _compiled(pattern: str) -> Any:
    import regex

    return regex.compile(pattern)


@cache
def _disputed() -> tuple[re.Pattern[str], dict[int, str]]:
    """A coarse, quick filter for texts with characters whose class differs between regex and tiktoken, and the stand-in of each. 0.5 s, once."""
    import tiktoken

    single_bytes = {bytes([value]): value for value in range(256)}
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    replaced: dict[int, str] = {}
    for name, stand_in in _STAND_INS.items():
        # tiktoken drops what its pattern does not match, so its ids are the bytes of all matches.
        encoding = tiktoken.Encoding("classes", pat_str=f"{name}+", mergeable_ranks=single_bytes, special_tokens={})
        theirs = set(bytes(encoding.encode_ordinary(characters)).decode())
        ours = set("".join(_compiled(f"{name}+").findall(characters)))
        replaced |= {ord(character): stand_in for character in theirs - ours}
        replaced |= {ord(character): replaced.get(ord(character), _NEITHER) for character in ours - theirs}
    near = "".join(chr(code) for code in sorted(replaced) if code < 0x10000)
    return re.compile(f"[{re.escape(near)}\U00010000-\U0010ffff]"), replaced
