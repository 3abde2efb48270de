"""Text from a trained network: a prompt and its continuation, in parts, as soon as they are certain."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from gptshake.errors import ConfigError
from gptshake.model.generate import stream
from gptshake.model.gpt import GPT
from gptshake.tokenizer.protocol import Tokenizer, decode_stream


def continuation(
    model: GPT, tokenizer: Tokenizer, prompt: str, *, stop: Sequence[str] = (), echo: bool = True, **options: Any
) -> Iterator[str]:
    """The prompt as the model reads it, unless ``echo`` is false, and what it writes on up to the first of the texts ``stop``; together one text.

    An empty prompt begins a new text; ``options`` are those of ``model.generate.stream``.

    Raises:
        ConfigError: a prompt or a stop that is no text, or a stop without a character.
    """
    if not isinstance(prompt, str):
        raise ConfigError(f"The prompt is {type(prompt).__name__}, and must be a text (str).")
    if not all(isinstance(text, str) and text for text in stop):
        raise ConfigError("stop is a text, or a list of texts, none of them empty.")
    ids = [int(token) for token in tokenizer.encode(prompt)] or [tokenizer.eot_id]
    start = torch.as_tensor(ids, device=next(model.parameters()).device)[None]
    drawn = stream(model, start, **options)
    parts, before = decode_stream(tokenizer, (int(token) for part in (ids, drawn) for token in part)), len(tokenizer.decode(ids))
    if stop:
        parts = until_stop(parts, stop, before)
    return parts if echo else skip_characters(parts, before)


def skip_characters(parts: Iterator[str], n: int) -> Iterator[str]:
    """What comes after the first n characters."""
    for part in parts:
        if rest := part[n:]:
            yield rest
        n = max(0, n - len(part))


def until_stop(parts: Iterator[str], stop: Sequence[str], after: int = 0) -> Iterator[str]:
    """The parts up to the first of the texts ``stop`` that begins after so many characters; what may be its beginning is held back."""
    held = ""
    for part in parts:
        held += part
        ends = [place for text in stop if (place := held.find(text, max(after, 0))) >= 0]
        if ends:
            if min(ends):
                yield held[: min(ends)]
            return
        kept = max(size for text in stop for size in range(len(text)) if held.endswith(text[:size]))
        certain = held[: len(held) - kept]
        if certain:
            yield certain
        held, after = held[len(certain) :], after - len(certain)
    if held:
        yield held
