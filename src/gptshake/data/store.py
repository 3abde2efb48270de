"""The token store: one flat file of ids per split, memory-mapped, checked, and found by what it was made from.

Takes a source, a tokenizer trainer and a split rule; gives ``TokenStore``. The folder ``stores/<key>`` is named by a hash
of all that decides its content, so a cache never serves tokens of another text, tokenizer or split; it is built beside
its place and renamed, so it is whole or not there; what does not match its manifest is built again, with the reason.
Contents are checked by SHA-256 up to 64 MB (0.08 s), above by size only. The tokenizer sees the training split alone.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256 as new_sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus, open_corpus
from gptshake.data.entropy import entropies
from gptshake.data.progress import Progress, Say
from gptshake.data.source.protocol import Source
from gptshake.data.split import FEWEST_DOCUMENTS, NAMES, Pieces, by_documents, by_position, check
from gptshake.errors import DataError
from gptshake.files import build_once, sha256, sha256_text
from gptshake.tokenizer.protocol import FILE_NAME, Tokenizer, TokenizerTrainer, load_tokenizer

FORMAT = 2
MANIFEST = "manifest.json"
HASHED_BYTES = 64 << 20
EXCERPT = 500  # characters of a document kept as text


@dataclass(frozen=True)
class Split:
    """One split of a store.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        path: file of little-endian ids, without a head.
        dtype: of an id in it, ``<u2`` or ``<u4``.
        n_tokens: ids in the file; end-of-text ids between documents included.
        n_bytes: UTF-8 bytes of the text which the targets, that is all tokens but the first, cover; an end of text covers none.
        n_documents: documents of which it holds at least a part.
    """

    name: str
    path: Path
    dtype: str
    n_tokens: int
    n_bytes: int
    n_documents: int

    def tokens(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """The ids as a read-only memory map, shape (n_tokens,)."""
        return np.memmap(self.path, self.dtype, "r", shape=(self.n_tokens,))


@dataclass(frozen=True)
class TokenStore:
    """An opened store.

    Attributes:
        path: its folder.
        key: the folder's name, 16 hexadecimal digits.
        label, licence: of the source.
        tokenizer: the one that made the ids.
        train, val, test: the splits; no test if its fraction is 0.
        excerpts: how the first three training documents begin, as text: what the tokenizer must give back.
        entropy: of the training split in nats per token: ``uniform`` ln V, ``unigram`` and ``bigram`` (see ``entropies``).
        fingerprint: hash of the ids and the tokenizer: equal for equal content, however it came about.
        manifest: everything above and the source's fingerprint, as stored.
    """

    path: Path
    key: str
    label: str
    licence: str
    tokenizer: Tokenizer
    train: Split
    val: Split
    test: Split | None
    excerpts: tuple[str, ...]
    entropy: dict[str, float]
    fingerprint: str
    manifest: dict[str, Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an id on disk."""
        return np.dtype(self.train.dtype)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of training text per target token."""
        return self.train.n_bytes / (self.train.n_tokens - 1)


def open_store(
    source: Source,
    trainer: TokenizerTrainer,
    *,
    cache: Path,
    split: str = "documents",
    val_fraction: float,
    test_fraction: float,
    say: Say,
) -> TokenStore:
    """The token store of a source, built if it is not yet in ``cache`` or does not match its manifest any more.

    Args:
        source: where the documents come from.
        trainer: makes the tokenizer from the training split.
        cache: folder of all stores and corpora.
        split: ``documents`` (by the hash of the id; fewer than 20 documents: by position) or ``position``.
        val_fraction: share of the text for validation, above 0.
        test_fraction: share for the test; 0: no test split.
        say: prints a line; called while building, never for a store that is there.
    Raises:
        ConfigError: for a split rule or fractions without sense.
        DataError: if there is no text, or too little for a split.
        OutOfReach: if the source is on a hub that does not answer.
    """
    check(split, val_fraction, test_fraction)
    rule = {"split": split, "val_fraction": float(val_fraction), "test_fraction": float(test_fraction)}
    recipe = {"format": FORMAT, "source": source.fingerprint(), "tokenizer": trainer.settings(), **rule}
    key = sha256_text(json.dumps(recipe, sort_keys=True))[:16]
    folder = cache / "stores" / key
    if folder.exists():
        reason = _problem(folder)
        if reason is None:
            return _open(folder)
        say(f"rebuilding the token store of {source.label}: {reason}")

    def build(path: Path) -> None:
        say(f"building the token store of {source.label} ...")
        corpus = open_corpus(source, cache, say)
        _write(path, corpus, trainer, {"key": key, "label": source.label, "licence": source.licence, "recipe": recipe}, say)

    build_once(folder, lambda path: _problem(path) is None, build, lambda: say(f"another process is building {source.label}; waiting ..."))
    return _open(folder)


def _open(folder: Path) -> TokenStore:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    splits = {
        name: Split(name, folder / f"{name}.bin", manifest["dtype"], found["n_tokens"], found["n_bytes"], found["n_documents"])
        for name, found in manifest["splits"].items()
    }
    return TokenStore(
        path=folder,
        key=manifest["key"],
        label=manifest["label"],
        licence=manifest["licence"],
        tokenizer=load_tokenizer(folder),
        train=splits["train"],
        val=splits["val"],
        test=splits.get("test"),
        entropy=manifest["entropy"],
        excerpts=tuple(manifest["excerpts"]),
        fingerprint=manifest["fingerprint"],
        manifest=manifest,
    )


def _problem(folder: Path) -> str | None:
    """Why the folder cannot be used, in words; None if it can."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT or manifest["key"] != folder.name:
            return "its manifest belongs to another store"
        if sha256(folder / FILE_NAME) != manifest["tokenizer"]:
            return f"{FILE_NAME} was changed"
        splits = manifest["splits"]
        sizes = {name: (folder / f"{name}.bin").stat().st_size for name in splits}
        for name, size in sizes.items():
            if size != splits[name]["size"]:
                return f"{name}.bin has {size:,} bytes instead of {splits[name]['size']:,}"
        if sum(sizes.values()) <= HASHED_BYTES:
            for name in sizes:
                if sha256(folder / f"{name}.bin") != splits[name]["sha256"]:
                    return f"the content of {name}.bin was changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"its folder is damaged ({type(error).__name__})"
    return None


def _write(folder: Path, corpus: Corpus, trainer: TokenizerTrainer, head: dict[str, Any], say: Say) -> None:
    recipe = head["recipe"]
    pieces = _cut(corpus, recipe["split"], recipe["val_fraction"], recipe["test_fraction"], say)
    tokenizer = trainer.train(corpus.texts(pieces["train"]))
    tokenizer.save(folder)
    wanted = [name for name in NAMES if name != "test" or recipe["test_fraction"] > 0]
    splits = {name: _write_split(folder, name, corpus, pieces[name], tokenizer, say) for name in wanted}
    dtype = tokenizer.encode("").dtype.newbyteorder("<").str
    manifest = {
        **head,
        "format": FORMAT,
        "tokenizer": tokenizer.digest,
        "fingerprint": sha256_text(" ".join([tokenizer.digest, *(splits[name]["sha256"] for name in wanted)])),
        "dtype": dtype,
        "vocab_size": tokenizer.vocab_size,
        "splits": splits,
        "excerpts": [text[:EXCERPT] for text in islice(corpus.texts(pieces["train"]), 3)],
        "entropy": entropies(np.memmap(folder / "train.bin", dtype, "r"), tokenizer.vocab_size),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _cut(corpus: Corpus, rule: str, val_fraction: float, test_fraction: float, say: Say) -> dict[str, Pieces]:
    few = corpus.n_documents < FEWEST_DOCUMENTS
    if rule == "documents" and not few:
        return by_documents(corpus.places, corpus.characters, val_fraction, test_fraction)
    shares = [100 * share for share in (1 - (val_fraction + test_fraction), val_fraction, test_fraction) if share]
    documents = "1 document" if corpus.n_documents == 1 else f"{corpus.n_documents} documents"
    say(f"{documents}: split by position {'/'.join(f'{share:.3g}' for share in shares)}")
    return by_position(corpus.characters, val_fraction, test_fraction)


def _write_split(folder: Path, name: str, corpus: Corpus, pieces: Pieces, tokenizer: Tokenizer, say: Say) -> dict[str, Any]:
    """Write ``<name>.bin`` and the position of each document in it; gives the split's part of the manifest."""
    progress = Progress(say, f"tokenizing {name}")
    digest, n_tokens, n_bytes = new_sha256(), 0, 0
    starts = np.zeros(len(pieces), "<u8")
    end_of_text = np.array([tokenizer.eot_id], tokenizer.encode("").dtype)
    with (folder / f"{name}.bin").open("wb") as file:
        for number, text in enumerate(corpus.texts(pieces)):
            ids = tokenizer.encode(text)
            n_bytes += len(text.encode("utf-8", "surrogatepass")) - (_first_bytes(tokenizer, ids, text) if number == 0 else 0)
            between: Iterable[npt.NDArray[Any]] = (end_of_text, ids) if number else (ids,)
            for part in between:
                data = part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes()
                file.write(data)
                digest.update(data)
                n_tokens += len(part)
            starts[number] = n_tokens - len(ids)
            progress(n_bytes, f"{n_tokens / 1e6:,.1f} million tokens, {(number + 1) / len(pieces):.0%}")
    np.save(folder / f"{name}.documents.npy", starts)
    if n_tokens < 2:
        raise DataError(_too_little(name, n_tokens, corpus.n_documents))
    size = n_tokens * end_of_text.itemsize
    return {"n_tokens": n_tokens, "n_bytes": n_bytes, "n_documents": len(pieces), "size": size, "sha256": digest.hexdigest()}


def _first_bytes(tokenizer: Tokenizer, ids: npt.NDArray[Any], text: str) -> int:
    """UTF-8 bytes of the text under the first token, which is no target."""
    shown = text[:1] if ids[0] == tokenizer.unk_id else tokenizer.decode(ids[:1])
    return len(shown.encode("utf-8", "surrogatepass"))


def _too_little(name: str, n_tokens: int, n_documents: int) -> str:
    key = "data.val_fraction" if name == "val" else "data.test_fraction"
    wish = "give more text, or a smaller data.val_fraction" if name == "train" else f"raise {key}, or give more text"
    if name == "test":
        wish += ", or do without with data.test_fraction=0"
    position = " Or cut the text by position: data.split=position." if n_documents >= FEWEST_DOCUMENTS else ""
    return f"The split {name} got {n_tokens} tokens of {n_documents:,} documents, but at least 2 are needed: {wish}.{position}"
