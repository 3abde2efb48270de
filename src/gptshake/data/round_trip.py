"""What the tokenizer of a store makes of real text: garbage tokens are noticed before a run, not in its samples."""

from gptshake.data.store import TokenStore
from gptshake.errors import DataError
from gptshake.tokenizer.utf8 import well_formed


def round_trip(store: TokenStore) -> str:
    """decode(encode(text)) on the beginnings of three documents, as a sentence.

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
    share = f", {unknown / total:.2%} of them unknown" if unknown else ", exactly" if exact else ", lone surrogates as �"
    return f"decode(encode(text)) of {len(store.excerpts)} document{'s' * (len(store.excerpts) != 1)}: {total:,} tokens{share}"
