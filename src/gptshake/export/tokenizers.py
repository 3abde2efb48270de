"""A tokenizer as the library tokenizers (Hugging Face) has it, with the same ids for every text.

A text that spells a special token, such as ``<|endoftext|>``, becomes that token there, and plain text here; with
``split_special_tokens=True`` it is plain text there too.
"""

import json
from functools import singledispatch
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from gptshake.errors import ConfigError, DataError, first_line
from gptshake.files import read_text
from gptshake.tokenizer import char, sentencepiece
from gptshake.tokenizer.bpe import EOT, BytePairTokenizer
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.tokenizer.char import CharTokenizer
from gptshake.tokenizer.exchange import CHARACTER, from_hf, library_tokenizer
from gptshake.tokenizer.protocol import MOST_BYTES
from gptshake.tokenizer.protocol import Tokenizer as Tokenized
from gptshake.tokenizer.sentencepiece import BLANK, SentencePieceTokenizer

UNK = "<|unk|>"
_N_NAMES = sentencepiece.FIRST_BYTE + 256  # pieces of SentencePiece that stand for bytes and special tokens come first
# With these tokenizers go wrong.
TEXTS = ("The quick  brown fox\r\n\tjumps; 1234567.89 it's", "\u2581 a\u2581b", "<|endoftext|><unk><0x41>", "Würde 水曜日 👍🏽 e\u0301\x00")


@singledispatch
def to_tokenizers(tokenizer: Any) -> Tokenizer:
    """The library's tokenizer with the ids of ours. One of a user's own brings it as its method ``to_tokenizers()``.

    Raises:
        ConfigError: it has no such method.
    """
    if not hasattr(tokenizer, "to_tokenizers"):
        raise ConfigError(
            f"A tokenizer of the kind {tokenizer.name!r} cannot be written as a tokenizer.json: give its class a method to_tokenizers() "
            "that returns a tokenizers.Tokenizer with the same ids."
        )
    found: Tokenizer = tokenizer.to_tokenizers()
    return found


@to_tokenizers.register
def _(tokenizer: BytePairTokenizer) -> Tokenizer:
    found: Tokenizer = library_tokenizer(tokenizer)
    return found


@to_tokenizers.register
def _(tokenizer: ByteTokenizer) -> Tokenizer:
    exported = Tokenizer(models.BPE({letter: value for value, letter in CHARACTER.items()}, []))
    exported.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    exported.decoder = decoders.ByteLevel()
    return _with_special(exported, EOT)


@to_tokenizers.register
def _(tokenizer: CharTokenizer) -> Tokenizer:
    # A lone surrogate cannot be written in a file of UTF-8, nor can a text there hold one: its id gets a name that no text has.
    names = [f"<|{ord(letter):04x}|>" if "\ud800" <= letter <= "\udfff" else letter for letter in tokenizer.characters]
    vocabulary = {EOT: char.EOT, UNK: char.UNK} | {name: token for token, name in enumerate(names, char.SPECIALS)}
    exported = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    exported.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    exported.decoder = decoders.Fuse()
    return _with_special(exported, EOT, UNK)


@to_tokenizers.register
def _(tokenizer: SentencePieceTokenizer) -> Tokenizer:
    model = parsed(tokenizer)
    # Pieces hold blanks, not U+2581, and no normalizer turns one into the other: so U+2581 in a text stays what it is.
    pieces = [(piece.piece.replace(BLANK, " ") if piece.type == piece.NORMAL else piece.piece, piece.score) for piece in model.pieces]
    if model.trainer_spec.model_type == model.trainer_spec.UNIGRAM:
        exported = Tokenizer(models.Unigram(_names_unlikely(pieces), unk_id=sentencepiece.UNK, byte_fallback=True))
        if unknown := {character for name, _ in pieces[:_N_NAMES] for character in name} - {name for name, _ in pieces}:
            exported.pre_tokenizer = pre_tokenizers.Split(Regex(f"[{''.join(sorted(unknown))}]"), "isolated")
    else:
        ids = {name: token for token, (name, _) in enumerate(pieces)}
        exported = Tokenizer(models.BPE(ids, _merges(pieces, ids), unk_token=pieces[0][0], fuse_unk=False, byte_fallback=True))
    exported.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _with_special(exported, EOT)


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write ``folder/tokenizer.json``; errors as in ``to_tokenizers``."""
    (folder / "tokenizer.json").write_text(to_tokenizers(tokenizer).to_str(pretty=True), encoding="utf-8")


def read_tokenizer(file: Path) -> Tokenized:
    """The tokenizer of a ``tokenizer.json``, if it is byte-level byte-pair encoding, as GPT-2's own, or what was written of bytes or characters.

    Raises:
        DataError: it is another, missing or damaged.
    """
    found: Tokenized
    try:
        data = json.loads(read_text(file, MOST_BYTES))
        words, model = data["added_tokens"], data["model"]
        if model["type"] == "WordLevel" and [word["content"] for word in words] == [EOT, UNK]:
            found = CharTokenizer(sorted(model["vocab"], key=model["vocab"].__getitem__)[char.SPECIALS :])
        else:
            found = from_hf("bpe", data) if model.get("merges") else ByteTokenizer()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError) as error:
        raise DataError(f"{file} cannot be used ({first_line(error)}).") from error
    if not gives_same_ids(found, file):
        raise DataError(
            f"{file} cannot be used: it is no byte-level byte-pair encoding, nor one of bytes or characters that was exported here."
        )
    return found


def gives_same_ids(tokenizer: Any, file: Path) -> bool:
    """Whether a ``tokenizer.json`` gives the ids of this tokenizer for texts with which tokenizers go wrong; nothing is compared without one.

    Raises:
        DataError: it is damaged.
    """
    if not file.is_file():
        return True
    try:
        theirs = Tokenizer.from_file(str(file))
        theirs.encode_special_tokens = True
        ids = [theirs.encode(text, add_special_tokens=False).ids for text in TEXTS]
    except BaseException as error:  # the library raises Exception itself; a panic of its Rust code is none, and neither is Ctrl-C
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{file} cannot be read ({first_line(error)}). Restore it, or remove it: then the ids are not compared.") from error
    return ids == [tokenizer.encode(text).tolist() for text in TEXTS]


def same_ids(tokenizer: Any, theirs: list[int], text: str) -> bool:
    """Whether these are the tokenizer's ids of a text. Pieces of a unigram model in another order are as likely but for rounding."""
    ours: list[int] = tokenizer.encode(text).tolist()
    if theirs == ours or not isinstance(tokenizer, SentencePieceTokenizer):
        return theirs == ours
    spec = parsed(tokenizer).trainer_spec
    return bool(spec.model_type == spec.UNIGRAM) and sorted(theirs) == sorted(ours)


def parsed(tokenizer: SentencePieceTokenizer) -> Any:
    """The library's ``ModelProto``: pieces with score and type, and ``trainer_spec``."""
    from sentencepiece import sentencepiece_model_pb2

    protobuf: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    return protobuf.ModelProto.FromString(tokenizer.model)


def _names_unlikely(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The pieces with a score for names, of bytes and special tokens, below that of their characters one by one: in a text they are no names.

    A name with a character that is no piece needs a cut there, because the library takes an unknown one for less likely than any piece.
    """
    never = (len(EOT) + 1) * min(score for _, score in pieces[_N_NAMES:]) - 1
    return [(name, never) for name, _ in pieces[:_N_NAMES]] + pieces[_N_NAMES:]


def _merges(pieces: list[tuple[str, float]], ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that make the pieces: every cut of a piece into two pieces, the best score first."""
    found = []
    for name, score in pieces[_N_NAMES:]:
        cuts = ((name[:place], name[place:]) for place in range(1, len(name)))
        found += [(-score, ids[left], ids[right], left, right) for left, right in cuts if left in ids and right in ids]
    return [(left, right) for *_, left, right in sorted(found)]


def _with_special(exported: Tokenizer, *names: str) -> Tokenizer:
    exported.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return exported
