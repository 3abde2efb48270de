"""A saved tokenizer in the place of a trainer: ``tokenizer.path=`` uses again what another run has learned."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.tokenizer.protocol import FILE_NAME, Tokenizer, TokenizerTrainer, load_tokenizer


class SavedTrainer:
    """Gives the saved tokenizer for any text.

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
                f"tokenizer.path={path} holds the kind {self._tokenizer.name}, not {kind}: say tokenizer={self._tokenizer.name}."
            )

    def settings(self) -> dict[str, Any]:
        """The tokenizer's digest, which says all."""
        return {"kind": self._kind, "saved": self._tokenizer.digest}

    def train(self, documents: Iterable[str]) -> Tokenizer:
        """The saved tokenizer; the documents are not read."""
        del documents
        return self._tokenizer
