"""The token store: one flat file of ids per split, memory-mapped, checked, and found by what it was made from.

Takes a source, a tokenizer trainer and a split rule; gives ``TokenStore``. The folder ``stores/<key>`` is named by a hash
of all that decides its content, so a cache never serves tokens of another text, tokenizer or split; it is built beside
its final path and renamed, so it is whole or not there, and a build that was killed is resumed; what does not match its
manifest is built again, with the reason. The tokenizer sees the training split alone, and its round trip is checked on real text.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus, Say, open_corpus
from gptshake.data.encode import SHARDS, encode
from gptshake.data.entropy import entropies
from gptshake.data.source.protocol import Source
from gptshake.data.split import FEWEST_DOCUMENTS, NAMES, Spans, SplitRule, by_documents, by_position, by_rank, has_text
from gptshake.errors import DataError, UserError
from gptshake.estimate.formatting import counted
from gptshake.files import build_once, checksums, damage, sha256, sha256_text
from gptshake.tokenizer.cache import cached_tokenizer
from gptshake.tokenizer.protocol import FILE_NAME, Tokenizer, TokenizerTrainer, boundary, load_tokenizer, well_formed
from gptshake.tokenizer.unknown import Unknown

FORMAT = 3
MANIFEST, BEGUN = "manifest.json", "begun.json"
EXCERPT = 500  # characters of a document kept as text
NOTABLE = 1e-3  # share of unknown tokens from which a split is warned of


@dataclass(frozen=True)
class Split:
    """One split of a store; a slice of it is read from the file, so that a pass over all of it leaves no pages in this process."""

    name: str  # train, val or test
    path: Path  # file of little-endian ids, without a head
    dtype: str  # of an id in it, <u2 or <u4
    n_tokens: int  # ids in the file; end-of-text ids between documents included
    n_bytes: int  # UTF-8 bytes of the text which the targets, that is all tokens but the first, cover; an end of text covers none
    n_characters: int  # of that text, the first token's included
    n_documents: int  # of which it holds at least a part
    unknown: Unknown  # unknown tokens among its targets, and what they hide

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

    def __len__(self) -> int:
        return self.n_tokens

    def __getitem__(self, part: slice) -> npt.NDArray[np.unsignedinteger[Any]]:
        first, last, _ = part.indices(self.n_tokens)
        return np.fromfile(self.path, self.dtype, max(0, last - first), offset=first * np.dtype(self.dtype).itemsize)

    def starts(self) -> npt.NDArray[np.uint64]:
        """Where each document begins in ``tokens``, as a read-only memory map of shape (n_documents,)."""
        found: npt.NDArray[np.uint64] = np.load(self.path.with_name(f"{self.name}.documents.npy"), mmap_mode="r")
        return found


@dataclass(frozen=True)
class TokenStore:
    """An opened store."""

    path: Path
    key: str  # the folder's name, 16 hexadecimal digits
    label: str  # of the source, as its licence
    licence: str
    tokenizer: Tokenizer  # the one that made the ids
    train: Split
    val: Split
    test: Split | None  # None if its fraction is 0
    excerpts: tuple[str, ...]  # how the first three training documents begin: what the tokenizer must give back
    entropy: dict[str, float]  # of the training split in nats per token: uniform, unigram and bigram (see ``entropies``)
    fingerprint: str  # hash of the ids and the tokenizer: equal for equal content, however it came about
    manifest: dict[str, Any]  # everything above and the source's fingerprint, as stored

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of training text per target token."""
        return self.train.bytes_per_target

    @property
    def splits(self) -> list[Split]:
        return [split for split in (self.train, self.val, self.test) if split is not None]

    def at(self, folder: Path) -> "TokenStore":
        """The same store in another folder."""
        splits = _splits(folder, self.manifest)
        return replace(self, path=folder, train=splits["train"], val=splits["val"], test=splits.get("test"))

    def problem(self, *, verify: bool = False) -> str | None:
        """Why its folder cannot be used, in words; None if it can. ``verify`` as of ``open_store``."""
        if problem := _problem(self.path, self.key, verify):
            return problem
        found = json.loads((self.path / MANIFEST).read_bytes())["fingerprint"]
        return None if found == self.fingerprint else f"it holds other tokens (fingerprint {found[:8]} instead of {self.fingerprint[:8]})"

    def copied(self, folder: Path, *, verify: bool, say: Say) -> "TokenStore":
        """A copy of it in ``folder``, made once by all processes that ask; DataError if it does not agree with its checksums."""
        copy = self.at(folder)

        def build(path: Path) -> None:
            say(f"copying the token store of {self.label} to {folder} ...")
            for file in self.path.glob("*"):  # none, where there is no such folder
                shutil.copyfile(file, path / file.name)
            if problem := self.at(path).problem(verify=True):
                raise DataError(
                    f"{self.path} cannot be copied to {folder}: {problem}. Run the command again with data.verify=true, which builds a "
                    "damaged store again, or put paths.cache on a file system that all nodes share."
                )

        build_once(
            folder,
            lambda path: self.at(path).problem(verify=verify) is None,
            build,
            waiting=lambda: say(f"another process is copying {self.label}; waiting ..."),
        )
        return copy


def open_store(source: Source, trainer: TokenizerTrainer, rule: SplitRule, *, cache: Path, verify: bool = False, say: Say) -> TokenStore:
    """The token store of a source, built if it is not yet in ``cache`` or does not match its manifest any more.

    The tokenizer is made from the training split. ``verify`` compares every byte with its checksum; else all of it up to 64 MB, and of more as
    much (see ``files.damage``). ``say`` is called while building, never for a store that is there.

    Raises:
        DataError: if there is no text, or too little for a split.
        Unreachable: if the source is on a hub that does not answer.
    """
    cuts = {"split": rule.split, "val_fraction": float(rule.val_fraction), "test_fraction": float(rule.test_fraction)}
    recipe = {"format": FORMAT, "source": source.fingerprint(), "tokenizer": trainer.settings(), **cuts}
    key = sha256_text(json.dumps(recipe, sort_keys=True))[:16]
    folder = cache / "stores" / key
    if folder.exists():
        reason = _problem(folder, key, verify)
        if reason is None:
            return _open(folder, trainer, source.label)
        say(f"rebuilding the token store of {source.label}: {reason}")

    def build(path: Path) -> None:
        if _problem(path, key, verify=True):  # else a builder was killed on its last step
            say(f"building the token store of {source.label} ...")
            try:
                corpus = open_corpus(source, cache, say, verify)
                cut = spans_of(corpus, rule, say)
                about = {"source": recipe["source"], **cuts}
                tokenizer = cached_tokenizer(
                    trainer, about, lambda: (text for _, text in corpus.texts(cut["train"], boundary(trainer))), cache, say
                )
                head = {"key": key, "label": source.label, "licence": source.licence, "recipe": recipe}
                _write(path, corpus, cut, tokenizer, head, say)
            except UserError:
                shutil.rmtree(path)  # there is nothing to resume from
                raise
        shutil.rmtree(path / SHARDS, ignore_errors=True)
        (path / BEGUN).unlink(missing_ok=True)

    build_once(
        folder,
        lambda path: _problem(path, key, verify) is None,
        build,
        waiting=lambda: say(f"another process is building {source.label}; waiting ..."),
        resumes=True,
    )
    return _open(folder, trainer, source.label)


def _open(folder: Path, trainer: TokenizerTrainer, label: str) -> TokenStore:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    splits = _splits(folder, manifest)
    return TokenStore(
        path=folder,
        tokenizer=load_tokenizer(folder, trainer),
        train=splits["train"],
        val=splits["val"],
        test=splits.get("test"),
        excerpts=tuple(manifest["excerpts"]),
        manifest=manifest,
        label=label,  # the same text may have been read from elsewhere first
        **{name: manifest[name] for name in ("key", "licence", "entropy", "fingerprint")},
    )


def _splits(folder: Path, manifest: dict[str, Any]) -> dict[str, Split]:
    return {
        name: Split(name, folder / f"{name}.bin", manifest["dtype"], **counts, unknown=Unknown(**manifest["unknown"][name]))
        for name, counts in manifest["splits"].items()
    }


def _problem(folder: Path, key: str, verify: bool) -> str | None:
    """Why the folder cannot be used, in words; None if it can."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT or manifest["key"] != key:
            return "its manifest belongs to another store"
        if sha256(folder / FILE_NAME) != manifest["tokenizer"]:
            return f"{FILE_NAME} was changed"
        if "unknown" not in manifest:  # an earlier version's
            return "it does not record what its unknown tokens hide"
        return damage(folder, manifest["files"], everything=verify)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return f"its folder is damaged ({type(error).__name__})"


def _write(folder: Path, corpus: Corpus, cut: dict[str, Spans], tokenizer: Tokenizer, head: dict[str, Any], say: Say) -> None:
    """Fill the folder of a store; what a killed builder left in it is kept only if it came from this tokenizer and this text."""
    begun = json.dumps([tokenizer.digest, corpus.n_documents, corpus.n_bytes])
    if not (folder / BEGUN).exists() or (folder / BEGUN).read_text() != begun:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (folder / BEGUN).write_text(begun)
    tokenizer.save(folder)
    counts = encode(folder, corpus, cut, tokenizer, say)
    for name, found in counts.items():
        if found.n_tokens < 2:
            raise DataError(_too_little(name, found.n_tokens, corpus.n_documents))
    files = {name: checksums(folder / name) for split in cut for name in (f"{split}.bin", f"{split}.documents.npy")}
    content = " ".join(digest for name in cut for digest in files[f"{name}.bin"]["sha256"])
    document, first, last = cut["train"][:3].T
    manifest = {
        **head,
        "format": FORMAT,
        "tokenizer": tokenizer.digest,
        "fingerprint": sha256_text(f"{tokenizer.digest} {sha256_text(content)}"),
        "dtype": tokenizer.encode("").dtype.newbyteorder("<").str,
        "vocab_size": tokenizer.vocab_size,
        "splits": {
            name: {key: getattr(found, key) for key in ("n_tokens", "n_bytes", "n_characters")} | {"n_documents": len(cut[name])}
            for name, found in counts.items()
        },
        "unknown": {name: asdict(Unknown.of(found.n_unknown, found.hidden, counts["train"].hidden)) for name, found in counts.items()},
        "files": files,
        "excerpts": [text for _, text in corpus.texts(np.column_stack([document, first, np.minimum(last, first + EXCERPT)]))],
    }
    manifest["entropy"] = entropies(_splits(folder, manifest)["train"], tokenizer.vocab_size)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def spans_of(corpus: Corpus, rule: SplitRule, say: Say) -> dict[str, Spans]:
    """What of each document is in which split; none of a test without a fraction."""
    val_fraction, test_fraction = rule.val_fraction, rule.test_fraction
    names = NAMES if test_fraction > 0 else NAMES[:2]
    documents = counted(corpus.n_documents, "document")
    if rule.split == "documents" and corpus.n_documents >= FEWEST_DOCUMENTS:
        spans = by_documents(corpus.hashes, corpus.characters, val_fraction, test_fraction)
        if not all(has_text(spans[name]) for name in names):
            spans = by_rank(corpus.hashes, corpus.characters, val_fraction, test_fraction)
            say(f"{documents}: the hash leaves a split empty; ranked by it and cut {' / '.join(str(len(spans[name])) for name in names)}")
    else:
        shares = [100 * share for share in (1 - (val_fraction + test_fraction), val_fraction, test_fraction) if share]
        say(f"{documents}: split by position {'/'.join(f'{share:.3g}' for share in shares)}")
        spans = by_position(corpus.characters, val_fraction, test_fraction)
    return {name: spans[name] for name in names}


def _too_little(name: str, n_tokens: int, n_documents: int) -> str:
    advice = {
        "train": "give more text, or a smaller data.val_fraction",
        "val": "raise data.val_fraction, or give more text",
        "test": "raise data.test_fraction, or give more text, or leave the test out with data.test_fraction=0",
    }
    position = " Or cut the text by position: data.split=position." if n_documents >= FEWEST_DOCUMENTS else ""
    return f"The split {name} got {n_tokens} tokens of {n_documents:,} documents, but at least 2 are needed: {advice[name]}.{position}"


def round_trip(store: TokenStore) -> str:
    """decode(encode(text)) on the beginnings of three training documents, as a sentence; DataError if known characters came back as others."""
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
    settings, rule = store.manifest["recipe"]["tokenizer"], store.manifest["recipe"]["split"]
    if "saved" in settings:
        larger = "it was made from another text (tokenizer.path); one trained on this text has more characters."
        other = "neither the text that it was made from nor this training text has their characters; take tokenizer=byte, which encodes any text."
    else:
        whole = store.tokenizer.vocab_size + store.train.unknown.kinds
        larger = "give it a larger vocabulary, or take tokenizer=byte, which encodes any text."
        if settings["kind"] == "char":
            larger = f"raise tokenizer.vocab_size, {whole:,} has every character of the training text, or take tokenizer=byte."
        by_position = rule == "position" or sum(split.n_documents for split in store.splits) < FEWEST_DOCUMENTS
        cut = ", because the text is split by position and changes on the way" if by_position else ""
        other = f"their characters do not occur in the training text{cut}, so no larger vocabulary has them; take tokenizer=byte, which encodes any text."
    return [
        f"{split.unknown_share:.1%} of the tokens of {split.name} are unknown to the tokenizer: "
        + (larger if split.unknown.seen >= split.unknown.unseen else other)
        for split in store.splits
        if split.unknown_share > NOTABLE
    ]
