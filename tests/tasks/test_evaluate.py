"""``task=evaluate`` in closed form: a network that knows nothing, one that knows only the position, and texts that hide characters."""

import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gptshake.data.corpus import Corpus, open_corpus
from gptshake.data.source.files import TextFiles
from gptshake.data.split import whole
from gptshake.data.stream import Stream, encode_documents
from gptshake.errors import DataError
from gptshake.tasks.evaluate import scored
from gptshake.tokenizer.bpe import BPETrainer
from gptshake.tokenizer.byte import ByteTokenizer
from gptshake.tokenizer.char import CharTrainer

TEXT = "the cat sat on the mat, and the dog did not. " * 20
NATS = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.5])  # of each token, by its position in the context


class Uniform(nn.Module):
    """The same logit for every token."""

    def __init__(self, vocab_size: int, block_size: int = 5) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_size=block_size, vocab_size=vocab_size)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, idx: Tensor) -> Tensor:
        return self.weight.expand(*idx.shape, self.config.vocab_size)


class Position(Uniform):
    """Every token but one costs ``NATS`` of its position; that one is never in the text."""

    def forward(self, idx: Tensor) -> Tensor:
        others = self.config.vocab_size - 1
        logits = torch.zeros(*idx.shape, self.config.vocab_size)
        logits[..., -1] = torch.log(torch.exp(NATS[: idx.shape[1]]) - others)
        return logits


def corpus_of(folder: Path, *texts: str) -> Corpus:
    (folder / "texts").mkdir()
    for number, text in enumerate(texts):
        (folder / f"texts/{number}.txt").write_text(text, encoding="utf-8")
    return open_corpus(TextFiles(path=str(folder / "texts")), folder / "cache", lambda line: None)


def stream_of(corpus: Corpus, tokenizer: Any, lost: dict[str, int] | None = None, *, alone: bool = False) -> Stream:
    spans = whole(np.arange(corpus.n_documents), corpus.characters)
    return encode_documents(corpus, spans, tokenizer, lambda: lost or {}, alone=alone)


def evaluated(model: Any, stream: Stream, stride: int | None = None) -> dict[str, Any]:
    size = model.config.block_size
    return scored(model, stream, stream.windows(size, stride or size), lambda done: None)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTrainer().train([TEXT]), BPETrainer(vocab_size=300).train([TEXT])])
def test_a_network_that_knows_nothing_costs_ln_v_per_token(tokenizer: Any, alone: bool, tmp_path: Path) -> None:
    found = evaluated(Uniform(tokenizer.vocab_size), stream_of(corpus_of(tmp_path, TEXT, TEXT[3:]), tokenizer, alone=alone))
    assert found["loss"] == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-7)
    assert found["perplexity"] == pytest.approx(tokenizer.vocab_size, rel=1e-6)
    assert found["bpb"] == pytest.approx(math.log2(tokenizer.vocab_size) * found["tokens"] / found["bytes"], rel=1e-7)
    assert found["loss_error"] == pytest.approx(0, abs=1e-6) and found["bpb_error"] >= 0
    assert found["byte_perplexity"] == pytest.approx(2 ** found["bpb"])


def test_a_network_that_knows_only_the_position_has_its_losses_by_context(tmp_path: Path) -> None:
    stream = stream_of(corpus_of(tmp_path, "a" * 31), CharTrainer().train(["a"]))
    model = Position(vocab_size=4)  # <|endoftext|>, <|unk|>, a, and the one that is not there
    found = evaluated(model, stream)
    assert np.divide(found["by_context"]["nats"], found["by_context"]["tokens"]) == pytest.approx(NATS.tolist(), rel=1e-6)
    assert found["by_context"]["tokens"] == [6] * 5 and found["loss"] == pytest.approx(NATS.mean().item(), rel=1e-6)
    sliding = evaluated(model, stream, stride=1)
    assert sliding["by_context"]["tokens"] == [1, 1, 1, 1, 26]
    assert sliding["loss"] == pytest.approx((5.0 + 4.0 + 3.0 + 2.0 + 26 * 1.5) / 30, rel=1e-6)


def test_a_stride_of_the_context_is_the_same_as_none(tmp_path: Path) -> None:
    stream = stream_of(corpus_of(tmp_path, TEXT), ByteTokenizer())
    assert evaluated(Uniform(257), stream, stride=5) == evaluated(Uniform(257), stream)


def test_the_same_text_has_as_many_bytes_for_every_tokenizer_and_unknown_characters_cost_what_they_hide(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "ab水ab火ab" * 50)
    small, hidden = CharTrainer(vocab_size=4).train(["ab"]), {"水": 7}  # of the two unknown ones the training text has one
    found = [evaluated(Uniform(257), stream_of(corpus, ByteTokenizer(), alone=True))]
    found += [evaluated(Uniform(4), stream_of(corpus, small, hidden, alone=True))]
    assert found[0]["bytes"] == found[1]["bytes"] == 600 and found[0]["characters"] == found[1]["characters"] == 400
    assert found[1]["unknown"] == 100 and found[0]["bpb"] == pytest.approx(math.log2(257), rel=1e-6)
    charged = 400 * math.log2(4) + 50 * math.log2(len(hidden) + 1) + 50 * math.log2(1_114_112)
    assert found[1]["bpb"] == pytest.approx(charged / 600, rel=1e-6) and found[1]["loss"] == pytest.approx(math.log(4), rel=1e-6)


def test_a_document_that_is_read_in_parts_is_counted_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b  \n\n c\u2003d " * 40, " \n" * 30, "one"]
    corpus, tokenizer = corpus_of(tmp_path, *texts), CharTrainer(vocab_size=5).train(texts)
    expected = stream_of(corpus, tokenizer)
    monkeypatch.setattr("gptshake.data.corpus.LONG", 5)
    found = stream_of(corpus, tokenizer)
    assert found.counts["words"].tolist() == [len(re.split(r"\s+", text)) for text in texts]
    assert found.counts["unknown"].sum() > 100 and found.counts["characters"].tolist() == [len(texts[0]) - 1, *map(len, texts[1:])]
    assert all(found.counts[name].tolist() == values.tolist() for name, values in expected.counts.items())
    for one, other in ((found.ids, expected.ids), (found.starts, expected.starts), (found.ends, expected.ends)):
        assert np.array_equal(one, other)


def test_the_training_text_is_asked_only_where_something_is_unknown(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, TEXT)

    def never() -> Counter[str]:
        raise AssertionError

    encode_documents(corpus, whole(np.arange(1), corpus.characters), CharTrainer().train([TEXT]), never, alone=False)


def test_a_text_of_one_token_has_nothing_to_evaluate_but_by_itself(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "a")
    with pytest.raises(DataError, match=r"no tokens to evaluate.*task\.rolling=true"):
        evaluated(Uniform(257), stream_of(corpus, ByteTokenizer()))
    assert evaluated(Uniform(257), stream_of(corpus, ByteTokenizer(), alone=True))["tokens"] == 1
