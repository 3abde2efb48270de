"""Where a long text may be cut: the ids of its parts are the ids of the whole, for every tokenizer that says so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data import corpus
from gptshake.data.corpus import cut_after
from gptshake.tokenizer.bpe import BPETrainer
from gptshake.tokenizer.byte import ByteTrainer
from gptshake.tokenizer.char import CharTrainer
from gptshake.tokenizer.hf_bpe import HFBPETrainer
from gptshake.tokenizer.pretokenizer import BETWEEN_WORDS, PATTERNS, split_words
from gptshake.tokenizer.protocol import TokenizerTrainer, boundary
from gptshake.tokenizer.sentencepiece import SentencePieceTrainer

TEXT = "the cat's hat, and the dog.\n\nthe 2024 cats  sat\n on  a mat。水は\n低きに\r\nthe end\n" * 9
TRAINERS: dict[str, TokenizerTrainer] = {
    "char": CharTrainer(12),
    "byte": ByteTrainer(),
    "bpe gpt2": BPETrainer(300, "gpt2"),
    "bpe gpt4": BPETrainer(300, "gpt4"),
    "hf_bpe": HFBPETrainer(300),
    "sentencepiece": SentencePieceTrainer(300, "bpe"),
}
ODD = st.text(st.sampled_from("ab'sé2。,  \n\n\r\t\u00a0\u2028\u3000水🙂\ud800"), max_size=60)


@pytest.fixture(scope="module", params=TRAINERS)
def trainer(request: pytest.FixtureRequest) -> TokenizerTrainer:
    return TRAINERS[request.param]


@settings(deadline=None, max_examples=60)
@given(text=ODD, least=st.integers(1, 9), size=st.integers(1, 9))
def test_ids_of_the_parts_are_those_of_the_whole(trainer: TokenizerTrainer, text: str, least: int, size: int) -> None:
    tokenizer = trainer.train([TEXT])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "LONG", least)
        texts = list(cut_after(iter([text[start : start + size] for start in range(0, len(text), size)]), boundary(tokenizer)))
    assert "".join(texts) == text
    ids = [tokenizer.encode(part) for part in texts]
    assert np.concatenate(ids).tolist() == tokenizer.encode(text).tolist()


def test_what_is_learned_from_the_parts_is_what_is_learned_from_the_whole(
    trainer: TokenizerTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "LONG", 20)
    found = list(cut_after(iter([TEXT]), boundary(trainer)))
    assert trainer.train(found).digest == trainer.train([TEXT]).digest
    assert len(found) > 5 or boundary(trainer) is None


@settings(deadline=None)
@given(
    text=ODD | st.text("ab '.1 \n\t\r\u00a0", max_size=80) | st.text(), least=st.integers(1, 20), pattern=st.sampled_from(sorted(PATTERNS))
)
def test_words_of_the_parts_are_those_of_the_whole(text: str, least: int, pattern: str) -> None:
    text = text.replace("\ud800", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "LONG", least)
        parts = list(cut_after(iter([text]), BETWEEN_WORDS))
    assert [word for part in parts for word in split_words(part, PATTERNS[pattern])] == split_words(text, PATTERNS[pattern])
    assert all(len(part) >= least for part in parts[:-1])
