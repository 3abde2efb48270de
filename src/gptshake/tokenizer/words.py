"""Words: how byte-pair encoding cuts a text before it learns or encodes, so that no token reaches across two words.

Two published patterns, ``gpt2`` and ``gpt4`` (Radford et al. 2019; OpenAI's cl100k). Encoding leaves the cutting to tiktoken;
learning and the readable encoder use the package regex, three times as fast as ``re``. The two may know different versions
of Unicode: characters that only one of them takes for a letter or a digit are shown to regex as what they are for
tiktoken, which has the last word. Both cut the same text into the same words, whatever their versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from gptshake.errors import ConfigError

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
}
STAND_INS = {r"\p{L}": "λ", r"\p{N}": "½"}  # a letter, and a number, of which no pattern makes anything special
BETWEEN_WORDS = re.compile(r"\S(?= \S)|\S\n(?=\S)")
NEITHER = "\ue000"


def pattern_of(name: str) -> str:
    """The regular expression of a name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in PATTERNS:
        raise ConfigError(f"tokenizer.pattern is {name!r}; it must be one of {', '.join(PATTERNS)}.")
    return PATTERNS[name]


def parts(text: str, least: int = 1 << 20) -> Iterator[str]:
    """A long text in parts of at least ``least`` characters whose words are the words of the text, so that a book need not be cut at once.

    Both patterns begin a word at a single blank between two characters that are none, and end one at a single line end between two,
    whatever stands around them.
    """
    start = 0
    while len(text) - start > least and (found := BETWEEN_WORDS.search(text, start + least - 1)):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]


def words(text: str, pattern: str) -> list[str]:
    """The text, cut into words as tiktoken cuts it; joined they are the text again (no pattern of ours leaves anything out)."""
    may_differ, stand_ins = _disputed()
    if not may_differ.search(text) or stand_ins.keys().isdisjoint(map(ord, set(text))):
        return list(_compiled(pattern).findall(text))
    shown = text.translate(stand_ins)  # as many characters as before
    return [text[match.start() : match.end()] for match in _compiled(pattern).finditer(shown)]


@cache
def _compiled(pattern: str) -> Any:
    import regex

    return regex.compile(pattern)


@cache
def _disputed() -> tuple[re.Pattern[str], dict[int, str]]:
    """A filter for texts with characters on whose class regex and tiktoken differ, and what each of these is replaced by. 0.5 s, once."""
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    replaced: dict[int, str] = {}
    for name, stand_in in STAND_INS.items():
        ours, theirs = set("".join(_compiled(f"{name}+").findall(characters))), set(_found_by_tiktoken(f"{name}+", characters))
        replaced |= {ord(character): stand_in for character in theirs - ours}
        replaced |= {ord(character): replaced.get(ord(character), NEITHER) for character in ours - theirs}
    near = "".join(chr(code) for code in sorted(replaced) if code < 0x10000)
    return re.compile(f"[{re.escape(near)}\U00010000-\U0010ffff]"), replaced  # a filter, quick because it is coarse


def _found_by_tiktoken(pattern: str, text: str) -> str:
    """All matches of a pattern in a text, one after the other: tiktoken drops what its pattern does not match."""
    import tiktoken

    single_bytes = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding("classes", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={})
    return bytes(encoding.encode_ordinary(text)).decode()
