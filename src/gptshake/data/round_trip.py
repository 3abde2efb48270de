"""What the tokenizer of a store makes of real text: garbage tokens are noticed before a run, not in its samples."""

from typing import Any

from gptshake.data.split import FEWEST_DOCUMENTS
from gptshake.data.store import TokenStore
from gptshake.errors import DataError
from gptshake.estimate.words import counted
from gptshake.tokenizer.utf8 import well_formed

NOTABLE = 1e-3  # share of unknown tokens from which a split is warned of


def round_trip(store: TokenStore) -> str:
    """decode(encode(text)) on the beginnings of three training documents, as a sentence.

    Raises:
        DataError: known characters came back as others.
    """
    tokenizer, unknown, total, exact = store.tokenizer, 0, 0, True
    for text in store.excerpts:
        ids = tokenizer.encode(text)
        lost = int((ids == tokenizer.unk_id).sum()) if tokenizer.unk_id is not None else 0
        unknown, total = unknown + lost, total + len(ids)
        back = tokenizer.decode(ids.tolist())
        exact = exact and back == text
        if not lost and back not in (text, well_formed(text)):
            raise DataError(
                f"The tokenizer does not give back {text[:40]!r} as it was: delete {store.path} and start again; "
                "one of your own must decode what it encodes, or give its unk_id for what it lacks."
            )
    of = counted(len(store.excerpts), "training document")
    if exact:
        return f"round trip exact ({total:,} tokens of {of})"
    return f"round trip of {of}: {total:,} tokens, " + (f"{unknown / total:.2%} of them unknown" if unknown else "lone surrogates as �")


def unknown_warnings(store: TokenStore) -> list[str]:
    """A sentence for each split with more than 0.1 % unknown tokens: how many, why, and what helps."""
    settings = store.manifest["recipe"]["tokenizer"]
    return [
        f"{split.unknown_share:.1%} of the tokens of {split.name} are unknown to the tokenizer: "
        + (_larger(settings, store) if split.unknown.seen >= split.unknown.unseen else _other_text(settings, store))
        for split in store.splits
        if split.unknown_share > NOTABLE
    ]


def _larger(settings: dict[str, Any], store: TokenStore) -> str:
    """The training text has their characters, so a tokenizer of it can have them."""
    if "saved" in settings:
        return "it was made from another text (tokenizer.path); one made from this text knows more."
    if settings["kind"] != "char":
        return "give it a larger vocabulary, or take tokenizer=byte, which knows every text."
    whole = store.tokenizer.vocab_size + store.train.unknown.kinds
    return f"raise tokenizer.vocab_size, {whole:,} has every character of the training text, or take tokenizer=byte."


def _other_text(settings: dict[str, Any], store: TokenStore) -> str:
    """The training text lacks their characters, so no size of the vocabulary can help."""
    if "saved" in settings:
        return "neither the text that it was made from nor this training text has their characters; take tokenizer=byte, which knows every text."
    cut = ", because the text is split by position and changes on the way" if _by_position(store) else ""
    return f"their characters do not occur in the training text{cut}, so no larger vocabulary has them; take tokenizer=byte, which knows every text."


def _by_position(store: TokenStore) -> bool:
    """Whether the splits are parts of one stretch of text."""
    return store.manifest["recipe"]["split"] == "position" or sum(split.n_documents for split in store.splits) < FEWEST_DOCUMENTS
