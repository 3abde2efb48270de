"""The token store: one flat file of ids per split, memory-mapped, checked, and found by what it was made from.

Takes a source, a tokenizer trainer and a split rule; gives ``TokenStore``. The folder ``stores/<key>`` is named by a hash
of all that decides its content, so a cache never serves tokens of another text, tokenizer or split; it is built beside
its place and renamed, so it is whole or not there, and a build that was killed is gone on with; what does not match its
manifest is built again, with the reason. The tokenizer sees the training split alone.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus, open_corpus
from gptshake.data.digests import damage, described, fingerprint
from gptshake.data.encode import Encoded, encode, remove_folders
from gptshake.data.entropy import entropies, windows
from gptshake.data.progress import Say
from gptshake.data.source.protocol import Source
from gptshake.data.split import FEWEST_DOCUMENTS, NAMES, Pieces, by_documents, by_position, by_rank, check, has_text
from gptshake.errors import DataError, UserError
from gptshake.files import build_once, sha256, sha256_text
from gptshake.tokenizer.cache import cached
from gptshake.tokenizer.protocol import FILE_NAME, Tokenizer, TokenizerTrainer, boundary, load_tokenizer
from gptshake.tokenizer.unknown import ALL_KNOWN, Unknown

FORMAT = 3
MANIFEST, BEGUN = "manifest.json", "begun.json"
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
        n_characters: of that text, the first token's included.
        n_documents: documents of which it holds at least a part.
        unknown: unknown tokens among its targets, and what they hide.
    """

    name: str
    path: Path
    dtype: str
    n_tokens: int
    n_bytes: int
    n_characters: int
    n_documents: int
    unknown: Unknown = ALL_KNOWN

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text per target token."""
        return self.n_bytes / (self.n_tokens - 1)

    @property
    def hidden_nats(self) -> float:
        """What the text under unknown tokens costs, in nats per target token."""
        return self.unknown.nats / (self.n_tokens - 1)

    @property
    def unknown_share(self) -> float:
        """Share of the target tokens that are unknown."""
        return self.unknown.tokens / (self.n_tokens - 1)

    def tokens(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        """The ids as a read-only memory map, shape (n_tokens,)."""
        return np.memmap(self.path, self.dtype, "r", shape=(self.n_tokens,))

    def read(self) -> "Read":
        """The same ids, read from the file slice by slice: a pass over all of them leaves no pages in this process."""
        return Read(self.path, self.dtype, self.n_tokens)

    def starts(self) -> npt.NDArray[np.uint64]:
        """Where each document begins in ``tokens``, as a read-only memory map of shape (n_documents,)."""
        found: npt.NDArray[np.uint64] = np.load(self.path.with_name(f"{self.name}.documents.npy"), mmap_mode="r")
        return found


@dataclass(frozen=True)
class Read:
    """A file of ``n`` ids that gives slices of them."""

    path: Path
    dtype: str
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, part: slice) -> npt.NDArray[np.unsignedinteger[Any]]:
        first, last, _ = part.indices(self.n)
        return np.fromfile(self.path, self.dtype, max(0, last - first), offset=first * np.dtype(self.dtype).itemsize)


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
        return self.train.bytes_per_target

    @property
    def splits(self) -> list[Split]:
        """Training, validation and, if there is one, test."""
        return [split for split in (self.train, self.val, self.test) if split is not None]


def open_store(
    source: Source,
    trainer: TokenizerTrainer,
    *,
    cache: Path,
    split: str = "documents",
    val_fraction: float,
    test_fraction: float,
    verify: bool = False,
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
        verify: compare every byte with its checksum; else all of it up to 64 MB, and of more as much (see ``digests``).
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
        reason = _problem(folder, key, trainer, verify)
        if reason is None:
            return _open(folder, trainer)
        say(f"rebuilding the token store of {source.label}: {reason}")

    def build(path: Path) -> None:
        if _problem(path, key, trainer, verify=True) is None:
            return  # a builder was killed on its last step
        say(f"building the token store of {source.label} ...")
        try:
            corpus = open_corpus(source, cache, say, verify)
            cut = _cut(corpus, split, val_fraction, test_fraction, say)
            about = {"source": recipe["source"], **rule}
            tokenizer = cached(trainer, about, lambda: corpus.texts(cut["train"], boundary(trainer)), cache, say)
            head = {"key": key, "label": source.label, "licence": source.licence, "recipe": recipe}
            _write(path, corpus, cut, tokenizer, head, say)
        except UserError:
            shutil.rmtree(path)  # there is nothing to go on with
            raise

    def waiting() -> None:
        say(f"another process is building {source.label}; waiting ...")

    build_once(folder, lambda path: _problem(path, key, trainer, verify) is None, build, waiting, resumes=True)
    return _open(folder, trainer)


def _open(folder: Path, trainer: TokenizerTrainer) -> TokenStore:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    unknown = manifest.get("unknown", {})  # a store of an earlier version has none if there are no unknown tokens
    splits = {
        name: Split(name, folder / f"{name}.bin", manifest["dtype"], **counts, unknown=Unknown(**unknown.get(name, {})))
        for name, counts in manifest["splits"].items()
    }
    return TokenStore(
        path=folder,
        key=manifest["key"],
        label=manifest["label"],
        licence=manifest["licence"],
        tokenizer=load_tokenizer(folder, trainer),
        train=splits["train"],
        val=splits["val"],
        test=splits.get("test"),
        entropy=manifest["entropy"],
        excerpts=tuple(manifest["excerpts"]),
        fingerprint=manifest["fingerprint"],
        manifest=manifest,
    )


def _problem(folder: Path, key: str, trainer: TokenizerTrainer, verify: bool) -> str | None:
    """Why the folder cannot be used, in words; None if it can."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT or manifest["key"] != key:
            return "its manifest belongs to another store"
        if sha256(folder / FILE_NAME) != manifest["tokenizer"]:
            return f"{FILE_NAME} was changed"
        if "unknown" not in manifest and _has_unknown(folder, manifest, load_tokenizer(folder, trainer).unk_id):
            return "it does not say what its unknown tokens hide"
        return damage(folder, manifest["files"], everything=verify)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return f"its folder is damaged ({type(error).__name__})"


def _has_unknown(folder: Path, manifest: dict[str, Any], unk_id: int | None) -> bool:
    if unk_id is None:
        return False
    reads = [Read(folder / f"{name}.bin", manifest["dtype"], counts["n_tokens"]) for name, counts in manifest["splits"].items()]
    return any((ids[start:stop] == unk_id).any() for ids in reads for start, stop in windows(len(ids), len(ids)))


def _write(folder: Path, corpus: Corpus, cut: dict[str, Pieces], tokenizer: Tokenizer, head: dict[str, Any], say: Say) -> None:
    _begin(folder, corpus, tokenizer)
    tokenizer.save(folder)
    splits = encode(folder, corpus, cut, tokenizer, say)
    for name, encoded in splits.items():
        if encoded.n_tokens < 2:
            raise DataError(_too_little(name, encoded.n_tokens, corpus.n_documents))
    dtype = tokenizer.encode("").dtype.newbyteorder("<").str
    files = {name: described(folder / name) for split in splits for name in (f"{split}.bin", f"{split}.documents.npy")}
    manifest = {
        **head,
        "format": FORMAT,
        "tokenizer": tokenizer.digest,
        "fingerprint": sha256_text(f"{tokenizer.digest} {fingerprint(files[f'{name}.bin'] for name in splits)}"),
        "dtype": dtype,
        "vocab_size": tokenizer.vocab_size,
        "splits": {name: _counts(encoded, len(cut[name])) for name, encoded in splits.items()},
        "unknown": {name: asdict(Unknown.of(one.n_unknown, one.hidden, splits["train"].hidden)) for name, one in splits.items()},
        "files": files,
        "excerpts": list(corpus.texts(_beginnings(cut["train"][:3]))),
        "entropy": entropies(Read(folder / "train.bin", dtype, splits["train"].n_tokens), tokenizer.vocab_size),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / BEGUN).unlink()
    remove_folders(folder)


def _begin(folder: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Forget what a killed builder left in ``folder`` unless it came from this tokenizer and this text."""
    begun = json.dumps([tokenizer.digest, corpus.n_documents, corpus.n_bytes])
    if not (folder / BEGUN).exists() or (folder / BEGUN).read_text() != begun:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (folder / BEGUN).write_text(begun)


def _beginnings(pieces: Pieces) -> Pieces:
    document, first, last = pieces.T
    return np.column_stack([document, first, np.minimum(last, first + EXCERPT)])


def _counts(encoded: Encoded, n_documents: int) -> dict[str, int]:
    return {
        "n_tokens": encoded.n_tokens,
        "n_bytes": encoded.n_bytes,
        "n_characters": encoded.n_characters,
        "n_documents": n_documents,
    }


def _cut(corpus: Corpus, rule: str, val_fraction: float, test_fraction: float, say: Say) -> dict[str, Pieces]:
    names = NAMES if test_fraction > 0 else NAMES[:2]
    lengths = corpus.characters
    documents = "1 document" if corpus.n_documents == 1 else f"{corpus.n_documents:,} documents"
    if rule == "documents" and corpus.n_documents >= FEWEST_DOCUMENTS:
        pieces = by_documents(corpus.places, lengths, val_fraction, test_fraction)
        if not all(has_text(pieces[name]) for name in names):
            pieces = by_rank(corpus.places, lengths, val_fraction, test_fraction)
            say(f"{documents}: the hash leaves a split empty; ranked by it and cut {' / '.join(str(len(pieces[name])) for name in names)}")
    else:
        shares = [100 * share for share in (1 - (val_fraction + test_fraction), val_fraction, test_fraction) if share]
        say(f"{documents}: split by position {'/'.join(f'{share:.3g}' for share in shares)}")
        pieces = by_position(lengths, val_fraction, test_fraction)
    return {name: pieces[name] for name in names}


def _too_little(name: str, n_tokens: int, n_documents: int) -> str:
    key = "data.val_fraction" if name == "val" else "data.test_fraction"
    wish = "give more text, or a smaller data.val_fraction" if name == "train" else f"raise {key}, or give more text"
    if name == "test":
        wish += ", or do without with data.test_fraction=0"
    position = " Or cut the text by position: data.split=position." if n_documents >= FEWEST_DOCUMENTS else ""
    return f"The split {name} got {n_tokens} tokens of {n_documents:,} documents, but at least 2 are needed: {wish}.{position}"
