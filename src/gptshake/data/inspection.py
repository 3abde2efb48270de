"""What a model will see of a store, as plain rows: counts, first blocks, frequencies, lengths, and what looks wrong.

Takes an opened store; gives a dictionary for ``report.tasks_text`` to print and draw. Meant to take seconds on a store of any
size, so it looks at ``TOKENS`` ids spread evenly over each split and at the first ``DOCUMENTS`` documents; the result names what
was left out. numpy and the tokenizer only.
"""

import re
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.blocks import block_starts, n_blocks
from gptshake.data.entropy import counts
from gptshake.data.store import Split, TokenStore, unknown_warnings
from gptshake.tokenizer.protocol import Tokenizer

TOKENS = 1 << 26  # 0.3 s
DOCUMENTS = 200_000  # compared with each other; 0.3 s
SEARCHED, STRETCH = 400, 5000  # stretches of the training split that are searched for markup, and ids of each
EDGE = 32  # ids at each end of a document that, with its length, identify it

MARKUP = re.compile(
    r"</?[a-zA-Z][^<>\n]{0,200}>"  # tags
    r"|&(?:[a-zA-Z]{2,8}|#\d{1,7}|#x[0-9a-fA-F]{1,6});"  # entities
    r"|\{\{|\}\}|\[\[|\]\]|\{\||\|\}"  # MediaWiki
)


def inspect(
    store: TokenStore, block_size: int, *, n_shown: int = 3, seed: int = 0, offset: str = "none", n_listed: int = 12
) -> dict[str, Any]:
    """Everything that is shown of a store, JSON-able; DataError if the training split has not one block.

    Names ``n_listed`` of the most and of the least frequent tokens, and decodes the first ``n_shown`` blocks of the training order.
    """
    tokenizer, random_offset = store.tokenizer, offset == "random"
    blocks = n_blocks(store.train.n_tokens, block_size, random_offset=random_offset)
    starts = block_starts(0, min(n_shown, blocks), blocks, seed, block_size, random_offset=random_offset)
    train = counts(store.train, tokenizer.vocab_size, TOKENS)
    order = np.argsort(-train, kind="stable")
    seen = order[: np.count_nonzero(train)]
    total = int(train.sum())
    special, ours = {tokenizer.eot_id, tokenizer.unk_id} - {None}, _document_hashes(store.train)

    def listed(numbers: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        found = [(number, int(train[number])) for number in numbers[:n_listed].tolist()]
        return [{"id": number, "text": token_text(number, tokenizer), "n": n, "share": n / total} for number, n in found]

    facts: dict[str, Any] = {
        "label": store.label,
        "licence": store.licence,
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "path": str(store.path),
        "key": store.key,
        "entropy": store.entropy,
        "splits": [
            {key: getattr(split, key) for key in ("name", "n_documents", "n_tokens", "n_characters", "n_bytes")}
            | {"bytes_per_token": split.bytes_per_target, "unknown": split.unknown_share}
            for split in store.splits
        ],
        "sampled": TOKENS if store.train.n_tokens > TOKENS else None,
        "block_size": block_size,
        "n_blocks": blocks,
        "blocks": [readable(store.train[start : start + block_size + 1], tokenizer) for start in starts.tolist()],
        "most": listed(seen),
        "least": listed(seen[::-1]),
        "unused": int((train == 0).sum()) - sum(train[number] == 0 for number in special),
        "frequencies": train[seen].tolist(),
        "lengths": {split.name: _documents(split)[1].tolist() for split in store.splits},
        "repeated": len(ours) - len(np.unique(ours)),  # documents within training
        "leaked": int(np.isin(_document_hashes(store.val), ours).sum()),  # documents of validation in training
        "compared": DOCUMENTS if store.train.n_documents > DOCUMENTS else None,
        **_search(store.train, tokenizer),
    }
    return facts | {"warnings": unknown_warnings(store) + warnings(facts)}


def readable(ids: npt.NDArray[np.unsignedinteger[Any]], tokenizer: Tokenizer) -> str:
    """Ids as text, with ``│`` between tokens that are not single characters; bytes that are no text alone as ``\\\\xe6``."""
    texts = [token_text(number, tokenizer) for number in ids.tolist()]
    special = {tokenizer.eot_id, tokenizer.unk_id}
    longer = any(len(text) > 1 and number not in special for text, number in zip(texts, ids.tolist(), strict=True))
    return ("│" if longer else "").join(texts)


def token_text(number: int, tokenizer: Tokenizer) -> str:
    """One id as text; special ones by name."""
    if number in (tokenizer.eot_id, tokenizer.unk_id):
        return "<|endoftext|>" if number == tokenizer.eot_id else "<|unk|>"
    return tokenizer.token_bytes(number).decode("utf-8", "backslashreplace") or f"<{number}>"


def warnings(facts: dict[str, Any]) -> list[str]:
    """What looks wrong beside unknown tokens, as sentences."""
    top = facts["most"][0]
    first = f" (the first {facts['compared']:,} were compared)" if facts["compared"] else ""
    sentences = [
        (top["share"] > 0.3, f"One token, {top['text']!r}, is {top['share']:.0%} of the training split."),
        (
            facts["markup"] > 1e-4,
            f"Markup is left in the text, about {1e4 * facts['markup']:.1f} pieces per 10,000 characters, such as {', '.join(facts['pieces'])}.",
        ),
        (facts["packed"] > 10, f"The text repeats itself: zlib packs it {facts['packed']:.0f} times smaller, prose 2 to 4 times."),
        (
            facts["replaced"],
            f"There are {facts['replaced']:,} replacement characters (U+FFFD) in {facts['characters']:,} characters that were searched: "
            "the text was once read with a wrong encoding.",
        ),
        (facts["repeated"], f"{facts['repeated']:,} training documents are repetitions of others{first}."),
        (
            facts["leaked"],
            f"{facts['leaked']:,} validation documents occur in training, too{first}: the validation loss is better than it should be.",
        ),
    ]
    return [sentence for applies, sentence in sentences if applies]


def _documents(split: Split) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each of the first documents begins, and its length in tokens; a document's end-of-text id is not counted."""
    starts = np.asarray(split.starts()[: DOCUMENTS + 1]).astype(np.int64)
    ends = np.append(starts[1:] - 1, split.n_tokens)[:DOCUMENTS]
    return starts[: len(ends)], ends - starts[: len(ends)]


def _document_hashes(split: Split) -> npt.NDArray[np.int64]:
    """A number for each of the first documents, equal in this process for equal documents: of length, beginning and end."""
    (starts, lengths), tokens = _documents(split), split.tokens()
    inside = np.concatenate([np.arange(EDGE), np.arange(-EDGE, 0)])[None]
    hashes: list[int] = []
    for first in range(0, len(lengths), 4096):
        length, start = lengths[first : first + 4096, None], starts[first : first + 4096, None]
        positions = start + np.where(inside < 0, np.maximum(length + inside, 0), np.minimum(inside, np.maximum(length - 1, 0)))
        ids = np.concatenate([length, tokens[np.minimum(positions, split.n_tokens - 1)]], axis=1)
        hashes += [hash(row.tobytes()) for row in ids]
    return np.array(hashes, np.int64)


def _search(split: Split, tokenizer: Tokenizer) -> dict[str, Any]:
    """Markup, replacement characters and repetition in stretches that are spread over the split."""
    pieces, characters, replaced, n_bytes, packed = list[str](), 0, 0, 0, 0
    for first in range(0, split.n_tokens, max(STRETCH, split.n_tokens // SEARCHED)):
        ids = split[first : first + STRETCH]  # read: of a mapped file every page that was looked at would count as memory
        text = tokenizer.decode(ids[ids != tokenizer.unk_id] if tokenizer.unk_id is not None else ids).strip("\ufffd")  # cut characters
        characters += len(text)
        replaced += text.count("\ufffd")
        pieces += MARKUP.findall(text)
        data = text.encode("utf-8", "surrogatepass")
        n_bytes, packed = n_bytes + len(data), packed + len(zlib.compress(data, 1))
    return {
        "characters": characters,
        "replaced": replaced,
        "markup": len(pieces) / max(characters, 1),
        "pieces": list(dict.fromkeys(piece[:40] for piece in pieces))[:3],
        "packed": n_bytes / max(packed, 1),
    }
