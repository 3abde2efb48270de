"""Trained tokenizers, kept in ``tokenizers/<key>`` of the cache; or one that another run has saved, in a trainer's place.

The key is a hash of what identifies the text and of the trainer's settings; what does not match its note of the digest is trained again.
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


def cached_tokenizer(
    trainer: TokenizerTrainer, about: dict[str, Any], documents: Callable[[], Iterable[str]], cache: Path, say: Callable[[str], None]
) -> Tokenizer:
    """The tokenizer that ``trainer`` makes of these documents, trained only if it is not yet in ``cache``, or was damaged there.

    ``about``, which is JSON-able, decides the documents: such as their source's fingerprint and the split.
    """
    settings = trainer.settings()
    kind, asked = settings["kind"], settings.get("vocab_size")
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
        fewer = f" (of {asked:,}: the text has no more to learn)" if isinstance(asked, int) and tokenizer.vocab_size < asked else ""
        say(f"the {kind} tokenizer has {tokenizer.vocab_size:,} ids{fewer}, {time.monotonic() - start:.1f} s")

    build_once(folder, is_whole, build, lambda: say(f"another process is making the {kind} tokenizer; waiting ..."))
    return load_tokenizer(folder, trainer)


class SavedTrainer:
    """A saved tokenizer in the place of a trainer, for any text: ``tokenizer.path=``, a run directory, its ``tokenizer`` folder, or the file.

    Raises:
        DataError: if there is no readable tokenizer.
        ConfigError: if it is not of the trainer's kind.
    """

    def __init__(self, path: Path, trainer: TokenizerTrainer) -> None:
        inner, self.kind, self.origin = path / "tokenizer", trainer.settings()["kind"], trainer
        self._tokenizer = load_tokenizer(inner if (inner / FILE_NAME).exists() else path, trainer)
        if self._tokenizer.name != self.kind:
            raise ConfigError(
                f"tokenizer.path={path} holds the kind {self._tokenizer.name}, not {self.kind}: use tokenizer={self._tokenizer.name}."
            )

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "saved": self._tokenizer.digest}

    def train(self, documents: Iterable[str]) -> Tokenizer:
        del documents
        return self._tokenizer
