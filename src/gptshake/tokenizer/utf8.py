"""Text as UTF-8 bytes and back, for all tokenizers that stand on bytes: no text is refused, no ids fail to be shown."""

import re
from collections.abc import Iterable, Sequence

SURROGATE = re.compile("[\ud800-\udfff]")


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which UTF-8 cannot say, replaced by U+FFFD; any other text as it is."""
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


def text_of(pieces: Sequence[bytes], ids: Iterable[int], eot_id: int) -> str:
    r"""The text of ids; the end of text reads as a blank line (``\n\n``), bytes that are not UTF-8 as U+FFFD.

    Args:
        pieces: the bytes of every id.
        ids: each below ``len(pieces)``.
        eot_id: the end of text.
    """
    return b"".join(b"\n\n" if token == eot_id else pieces[token] for token in ids).decode("utf-8", "replace")
