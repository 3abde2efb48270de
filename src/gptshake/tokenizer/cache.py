"""Trained tokenizers, kept: the same text and the same settings are learned from once; or one that another run has saved.

Folder ``tokenizers/<key>`` of the cache, key: hash of what identifies the text, and of the trainer's settings. Holds the saved
tokenizer and a note of its digest; what does not match the note is trained again. Processes that start together train once.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.files import build_once, sha256, sha256_text, write_atomic
from gptshake.tokenizer.protocol import FILE_NAME, Tokenizer, TokenizerTrainer, load_tokenizer

FORMAT = 1
NOTE = "about.json"


def cached(
    trainer: TokenizerTrainer, about: dict[str, Any], documents: Callable[[], Iterable[str]], cache: Path, say: Callable[[str], None]
) -> Tokenizer:
    """The tokenizer that ``trainer`` makes of these documents, trained only if it is not yet in ``cache``, or was damaged there.

    Args:
        trainer: makes it.
        about: all that decides the documents, such as their source's fingerprint and the split; JSON-able.
        documents: gives the training text; called only for training.
        cache: folder of all caches.
        say: prints a line; called only for training.
    """
    settings = trainer.settings()
    kind = settings["kind"]
    recipe = {"format": FORMAT, "about": about, "tokenizer": settings}
    folder = cache / "tokenizers" / sha256_text(json.dumps(recipe, sort_keys=True))[:16]

    def is_whole(path: Path) -> bool:
        try:
            return bool(json.loads((path / NOTE).read_bytes())["digest"] == sha256(path / FILE_NAME))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def build(path: Path) -> None:
        if folder.exists():
            say(f"the {kind} tokenizer in {folder} was changed or is incomplete")
        say(f"making the {kind} tokenizer ...")
        start = time.monotonic()
        tokenizer = trainer.train(documents())
        tokenizer.save(path)
        write_atomic(path / NOTE, json.dumps({**recipe, "digest": tokenizer.digest}, indent=1) + "\n")
        asked = settings.get("vocab_size")
        fewer = f" (of {asked:,}: the text has no more to learn)" if isinstance(asked, int) and tokenizer.vocab_size < asked else ""
        say(f"the {kind} tokenizer has {tokenizer.vocab_size:,} ids{fewer}, {time.monotonic() - start:.1f} s")

    build_once(folder, is_whole, build, lambda: say(f"another process is making the {kind} tokenizer; waiting ..."))
    return load_tokenizer(folder, trainer)


class SavedTrainer:
    """A saved tokenizer in the place of a trainer, for any text: ``tokenizer.path=``.

    Args:
        path: a run directory, its ``tokenizer`` folder, or the file.
        trainer: of the kind that it must be.
    Raises:
        DataError: if there is no readable tokenizer.
        ConfigError: if it is of another kind.
    """

    def __init__(self, path: Path, trainer: TokenizerTrainer) -> None:
        inner, kind, self.origin = path / "tokenizer", trainer.settings()["kind"], trainer
        self._tokenizer = load_tokenizer(inner if (inner / FILE_NAME).exists() else path, trainer)
        self._kind = kind
        if self._tokenizer.name != kind:
            raise ConfigError(
                f"tokenizer.path={path} holds the kind {self._tokenizer.name}, not {kind}: use tokenizer={self._tokenizer.name}."
            )

    def settings(self) -> dict[str, Any]:
        return {"kind": self._kind, "saved": self._tokenizer.digest}

    def train(self, documents: Iterable[str]) -> Tokenizer:
        del documents
        return self._tokenizer
