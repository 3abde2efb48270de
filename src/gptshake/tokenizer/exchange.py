"""Byte-pair tokenizers in the formats of others, with identical ids: tiktoken's rank files and Hugging Face's ``tokenizer.json``.

Takes and gives ``BytePairTokenizer``; the tokenizer of a run is ``load_tokenizer(run / "tokenizer")``. A rank file does not hold
the pattern, so it is given apart. Only what can be read without changing an id is accepted: 256 single bytes, then the
merges in their order, then at most the end of text; anything else is refused with a sentence.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptshake.errors import DataError
from gptshake.files import write_atomic
from gptshake.tokenizer.bpe import BYTES, EOT, BytePairTokenizer, encode_word
from gptshake.tokenizer.pretokenizer import PATTERNS

# GPT-2 writes bytes as letters: printable ones as themselves, the others as the letters from U+0100 on, in their order.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [value for value in range(BYTES) if value not in _PRINTABLE]
CHARACTER = {value: chr(value) for value in _PRINTABLE} | {value: chr(BYTES + place) for place, value in enumerate(_OTHERS)}
BYTE = {letter: value for value, letter in CHARACTER.items()}


def export_tiktoken(tokenizer: BytePairTokenizer, file: Path) -> None:
    """Write a rank file: one line per token but the end of text, its bytes in base64 and its id.

    ``tiktoken.load.load_tiktoken_bpe`` reads it; the pattern is ``tokenizer.pattern``.
    """
    lines = [f"{base64.b64encode(piece).decode()} {token}\n" for piece, token in tokenizer.ranks.items()]
    write_atomic(file, "".join(lines))


def import_tiktoken(file: Path, pattern: str = "gpt4") -> BytePairTokenizer:
    """The tokenizer of a rank file.

    Args:
        file: as ``export_tiktoken`` writes it.
        pattern: ``gpt4``, ``gpt2``, or a regular expression.
    Raises:
        DataError: if it is no such file, or its tokens are not made by merges.
    """
    try:
        pairs = [line.split() for line in file.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(piece): int(rank) for piece, rank in pairs}
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not a file of tiktoken's ranks ({error}).") from error
    return from_ranks("bpe", PATTERNS.get(pattern, pattern), ranks)


def from_ranks(name: str, pattern: str, ranks: Mapping[bytes, int]) -> BytePairTokenizer:
    """The tokenizer of tiktoken's ranks, its merges found again: a token's parts are what the smaller ids make of its bytes."""
    pieces = sorted(ranks, key=ranks.__getitem__)
    if [ranks[piece] for piece in pieces] != list(range(len(ranks))) or any(len(piece) != 1 for piece in pieces[:BYTES]):
        raise DataError("These ranks do not begin with the 256 single bytes, or leave out an id.")
    smaller: dict[bytes, int] = {piece: rank for rank, piece in enumerate(pieces[:BYTES])}
    merges = []
    for piece in pieces[BYTES:]:
        parts = encode_word(piece, smaller)
        if len(parts) != 2:
            raise DataError(f"The token {piece!r} is not made of two tokens with smaller ids.")
        merges.append((parts[0], parts[1]))
        smaller[piece] = len(smaller)
    return BytePairTokenizer(name, pattern, merges, [piece[0] for piece in pieces[:BYTES]])


def word_splitter(pattern: str) -> Any:
    """The pre-tokenizer of the library tokenizers that cuts a text into these words, then into bytes."""
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def export_hf(tokenizer: BytePairTokenizer, file: Path) -> None:
    """Write a ``tokenizer.json`` of the library tokenizers, for ``PreTrainedTokenizerFast(tokenizer_file=...)`` too.

    There, unlike here, the text ``<|endoftext|>`` becomes the end of text.
    """
    write_atomic(file, library_tokenizer(tokenizer).to_str(pretty=True))


def library_tokenizer(tokenizer: BytePairTokenizer) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    named = ["".join(CHARACTER[value] for value in piece) for piece in tokenizer.pieces[:-1]]
    vocabulary = {name: token for token, name in reversed([*enumerate(named)])}
    exported = Tokenizer(models.BPE(vocabulary, [(named[left], named[right]) for left, right in tokenizer.merges]))
    exported.pre_tokenizer = word_splitter(tokenizer.pattern)
    exported.decoder = decoders.ByteLevel()
    exported.add_special_tokens([AddedToken(EOT, special=True, normalized=False)])
    return exported


def import_hf(file: Path) -> BytePairTokenizer:
    """The tokenizer of a ``tokenizer.json``, if it is byte-level byte-pair encoding with ids in our order (GPT-2's own is).

    Raises:
        DataError: if it is not; says what is different.
    """
    try:
        return from_hf("bpe", json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a tokenizer.json of byte-pair encoding ({type(error).__name__}: {error}).") from error


def from_hf(name: str, data: dict[str, Any]) -> BytePairTokenizer:
    """The tokenizer of a ``tokenizer.json``'s content; DataError if ids would change."""
    model = data["model"]
    if model["type"] != "BPE":
        raise DataError(f"This tokenizer is of the kind {model['type']}; only byte-level byte-pair encoding can be imported.")
    if data.get("normalizer") is not None:
        raise DataError("This tokenizer changes a text before it encodes it, as Llama's do, so not every text would come back unchanged.")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    tokenizer = from_byte_characters(name, _pattern(data["pre_tokenizer"]), model["vocab"], pairs)
    if any(added["id"] != tokenizer.eot_id for added in data["added_tokens"]):
        raise DataError("This tokenizer has other special tokens than one behind the merges: its ids would change.")
    return tokenizer


def from_byte_characters(name: str, pattern: str, vocabulary: Mapping[str, int], pairs: Sequence[Sequence[str]]) -> BytePairTokenizer:
    """The tokenizer of a vocabulary and merges in which bytes are written as GPT-2's characters for them; DataError if its ids are not in our order."""
    first = sorted(vocabulary, key=vocabulary.__getitem__)[:BYTES]
    merges = [(vocabulary[left], vocabulary[right]) for left, right in pairs]
    made = [vocabulary[left + right] for left, right in pairs]
    if made != list(range(BYTES, BYTES + len(made))) or not set(first) <= set(BYTE):
        raise DataError("The ids of this vocabulary are not the 256 bytes and then the merges in their order.")
    return BytePairTokenizer(name, pattern, merges, [BYTE[letter] for letter in first])


def _pattern(node: dict[str, Any]) -> str:
    """The regular expression by which a pre-tokenizer cuts a text into words."""
    *splits, last = node["pretokenizers"] if node["type"] == "Sequence" else [node]
    if last["type"] == "ByteLevel" and not last["add_prefix_space"]:
        if not splits and last.get("use_regex", True):
            return PATTERNS["gpt2"]
        if len(splits) == 1 and splits[0]["type"] == "Split" and splits[0]["behavior"] == "Isolated" and not last["use_regex"]:
            return str(splits[0]["pattern"]["Regex"])
    raise DataError("This tokenizer cuts its text in a way that is not one regular expression and then bytes.")
