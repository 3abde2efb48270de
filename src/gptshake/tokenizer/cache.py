"""Trained tokenizers, kept: the same text and the same settings are learned from once.

Folder ``tokenizers/<key>`` of the cache, key: hash of what is said about the text, and of the trainer's settings. Holds the saved
tokenizer and a note of its digest; what does not match the note is trained again. Processes that start together train once.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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

    def build(path: Path) -> None:
        if folder.exists():
            say(f"the {kind} tokenizer in {folder} was changed or is incomplete")
        say(f"making the {kind} tokenizer ...")
        start = time.monotonic()
        tokenizer = trainer.train(documents())
        tokenizer.save(path)
        write_atomic(path / NOTE, json.dumps({**recipe, "digest": tokenizer.digest}, indent=1) + "\n")
        say(f"the {kind} tokenizer has {tokenizer.vocab_size:,} ids{_fewer(settings, tokenizer)}, {time.monotonic() - start:.1f} s")

    build_once(folder, _is_whole, build, lambda: say(f"another process is making the {kind} tokenizer; waiting ..."))
    return load_tokenizer(folder, trainer)


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / NOTE).read_bytes())["digest"] == sha256(folder / FILE_NAME))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fewer(settings: dict[str, Any], tokenizer: Tokenizer) -> str:
    """Said where the text taught less than was wished for."""
    wish = settings.get("vocab_size")
    return f" (of {wish:,}: the text has no more to learn)" if isinstance(wish, int) and tokenizer.vocab_size < wish else ""
