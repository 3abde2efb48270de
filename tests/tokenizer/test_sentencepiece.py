"""SentencePiece: the library's own ids, and the settings that keep a text as it is."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.protocol import load_tokenizer
from gptshake.tokenizer.sentencepiece import SentencePieceTrainer

from .conftest import LANGUAGES, TEXTS, tokenizer_of


@pytest.mark.parametrize("kind", ["unigram", "sentencepiece-bpe"])
def test_the_ids_are_those_of_the_library_and_the_saved_model(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    tokenizer.save(tmp_path)
    model = base64.b64decode(json.loads((tmp_path / "tokenizer.json").read_text())["model"])
    peer: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in LANGUAGES.values():
        assert tokenizer.encode(text).tolist() == peer.encode(text)
        assert peer.decode(peer.encode(text)) == text
    assert (peer.unk_id(), peer.eos_id(), peer.bos_id(), peer.pad_id()) == (0, 1, -1, -1)


def test_the_sign_for_a_blank_is_not_a_blank() -> None:
    tokenizer = tokenizer_of("unigram")
    assert tokenizer.decode(tokenizer.encode("a\u2581b \u2581")) == "a\u2581b \u2581"
    assert tokenizer.encode("\u2581").tolist() == [2 + value for value in "\u2581".encode()]


def test_long_lines_and_long_texts_are_learned_from_whole() -> None:
    line = " ".join(TEXTS)
    assert SentencePieceTrainer(700, "bpe").train([line * 20]).vocab_size == 700


def test_learning_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    SentencePieceTrainer(700).train(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_characters_that_need_more_ids_than_there_are_are_a_sentence() -> None:
    with pytest.raises(DataError, match=r"cannot make 300 ids of this text: .*tokenizer\.vocab_size"):
        SentencePieceTrainer(300).train(TEXTS)


@pytest.mark.parametrize(
    "options",
    [{"vocab_size": 258}, {"vocab_size": None}, {"model_type": "word"}, {"coverage": 0.97}, {"coverage": 1.1}, {"max_characters": -1}],
)
def test_settings_out_of_sense_are_sentences(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"tokenizer\.{next(iter(options))} is "):
        SentencePieceTrainer(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [None, "", "x", "AAAA", base64.b64encode(b"x" * 1000).decode()])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, model: Any) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"kind": "sentencepiece", "model": model}))
    with pytest.raises(DataError):
        load_tokenizer(tmp_path)


def test_a_model_that_is_laid_out_differently_is_refused(tmp_path: Path) -> None:
    import io

    foreign = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=foreign, vocab_size=500, minloglevel=3, hard_vocab_limit=False
    )
    content = {"kind": "sentencepiece", "model": base64.b64encode(foreign.getvalue()).decode()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no end of text"):
        load_tokenizer(tmp_path)
