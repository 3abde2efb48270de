"""What the tokenizer of a store makes of real text: garbage tokens are noticed before a run, not in its samples."""

from gptshake.data.store import TokenStore
from gptshake.errors import DataError


def round_trip(store: TokenStore) -> str:
    """decode(encode(text)) on the beginnings of three documents, as a sentence.

    Raises:
        DataError: known characters came back as others.
    """
    tokenizer, unknown, total = store.tokenizer, 0, 0
    for text in store.excerpts:
        ids = tokenizer.encode(text)
        lost = int((ids == tokenizer.unk_id).sum()) if tokenizer.unk_id is not None else 0
        unknown, total = unknown + lost, total + len(ids)
        if not lost and tokenizer.decode(ids.tolist()) != text:
            raise DataError(f"The tokenizer does not give back {text[:40]!r} as it was: delete {store.path} and start again.")
    share = f", {unknown / total:.2%} of them unknown" if unknown else ", exactly"
    return f"decode(encode(text)) of {len(store.excerpts)} document{'s' * (len(store.excerpts) != 1)}: {total:,} tokens{share}"
