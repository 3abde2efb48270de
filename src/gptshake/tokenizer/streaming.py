"""Text of ids that arrive one by one, as soon as it is certain: a character of several tokens is never shown in parts."""

from collections.abc import Iterable, Iterator

from gptshake.tokenizer.protocol import Tokenizer

WINDOW = 64  # ids that are decoded again with each new one, as some tokenizers look at neighbours


def texts(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Pieces of text that together are ``tokenizer.decode(ids)``; none is empty."""
    window: list[int] = []
    shown = 0
    for token in ids:
        window.append(token)
        text = tokenizer.decode(window)
        certain = len(text.rstrip("\ufffd"))  # the beginning of a character looks like this
        if certain > shown:
            yield text[shown:certain]
            shown = certain
        if certain == len(text) and len(window) >= WINDOW:
            window, shown = [], 0
    if rest := tokenizer.decode(window)[shown:]:
        yield rest
