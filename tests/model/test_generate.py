"""Generation: the cache changes nothing, the seed decides, the options cut the distribution as they say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gptshake.errors import ConfigError, TrainingError
from gptshake.model.generate import generate, next_token_probabilities, stream
from gptshake.model.gpt import GPT

BLOCK = 8


def network(block_size: int = BLOCK, dropout: float = 0.0) -> GPT:
    torch.manual_seed(0)
    model = GPT(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=20, dropout=dropout).double()
    for parameter in model.parameters():
        parameter.data *= 10  # far from uniform, so that every context has its own continuation
    return model


PROMPT = torch.tensor([[3, 1, 4], [1, 5, 9]])


def uncached(model: GPT, ids: Tensor, n_tokens: int, seed: int, **options: float) -> Tensor:
    """The stated rule without a cache: the context grows until it would pass the block, then is cut to half a block."""
    generator = torch.Generator().manual_seed(seed)
    context = ids
    for _ in range(n_tokens):
        if context.shape[1] > model.config.block_size:
            context = context[:, -max(1, model.config.block_size // 2) :]
        probabilities = next_token_probabilities(model(context)[:, -1], **options)  # type: ignore[arg-type]
        new = torch.multinomial(probabilities, 1, generator=generator)
        ids, context = torch.cat((ids, new), 1), torch.cat((context, new), 1)
    return ids


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.8}, {"top_k": 5}, {"top_p": 0.7, "temperature": 1.5}])
@pytest.mark.parametrize("block_size", [1, 2, 3, 8, 64])
def test_cached_generation_equals_uncached(block_size: int, options: dict[str, float]) -> None:
    model = network(block_size)
    expected = uncached(model, PROMPT, 30, seed=5, **options)
    assert torch.equal(generate(model, PROMPT, 30, seed=5, **options), expected)  # type: ignore[arg-type]


def test_a_network_that_fills_no_cache_writes_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    expected = generate(model, PROMPT, 30, seed=5)
    monkeypatch.setattr(model, "forward", lambda idx, cache=None: GPT.forward(model, idx))
    assert torch.equal(generate(model, PROMPT, 30, seed=5), expected)


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda idx, cache=None: torch.zeros(*idx.shape, 19), r"gave the shape \(2, 3, 19\) for ids of \(2, 3\): .* are \(2, 3, 20\)"),
        (lambda idx, cache=None: torch.zeros(2, 0, 20), r"gave the shape \(2, 0, 20\)"),
        (lambda idx, cache=None: (torch.zeros(*idx.shape, 20), None), "gave tuple for ids"),
    ],
)
def test_a_network_that_gives_no_logits_is_named_with_the_shape_that_is_asked_for(forward: Any, said: str) -> None:
    model = network()
    model.forward = forward
    with pytest.raises(ConfigError, match=said):
        generate(model, PROMPT, 1)


def test_a_prompt_longer_than_the_block_is_continued_from_its_end() -> None:
    model = network()
    prompt = torch.arange(20)[None]
    out = generate(model, prompt, 3, temperature=0)
    assert torch.equal(out[:, :20], prompt)
    assert torch.equal(out[:, 20:], generate(model, prompt[:, -BLOCK // 2 :], 3, temperature=0)[:, BLOCK // 2 :])


def test_the_seed_decides_and_the_global_numbers_are_left_alone() -> None:
    model = network()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = generate(model, PROMPT, 20, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert torch.equal(generate(model, PROMPT, 20, seed=1), first)
    assert not torch.equal(generate(model, PROMPT, 20, seed=2), first)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_and_dropout_does_not_disturb(training: bool) -> None:
    model = network(dropout=0.5).train(training)
    assert torch.equal(generate(model, PROMPT, 10), generate(model, PROMPT, 10))
    assert model.training is training
    assert all(module.training is training for module in model.modules())


def test_the_mode_comes_back_after_an_error() -> None:
    model = network().train()
    with pytest.raises(IndexError):
        generate(model, torch.full((1, 2), 99), 1)
    assert model.training


def test_temperature_zero_is_the_likeliest_token_whatever_the_seed() -> None:
    model = network()
    likeliest = model(PROMPT)[:, -1].argmax(-1)
    for seed in range(3):
        assert torch.equal(generate(model, PROMPT, 1, temperature=0, seed=seed)[:, -1], likeliest)


def test_no_token_is_the_prompt_itself() -> None:
    assert torch.equal(generate(network(), PROMPT, 0), PROMPT)


LOGITS = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.35}, [0, 1, 0, 0]),
        ({"top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),  # temperature 1/2 squares
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),  # 4/9 of what top-k left is not yet a half
    ],
)
def test_options_cut_the_distribution(options: dict[str, float], expected: list[float]) -> None:
    assert next_token_probabilities(LOGITS, **options)[0].tolist() == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_equal_logits_go_to_the_smaller_id() -> None:
    assert next_token_probabilities(torch.zeros(1, 5000), temperature=0)[0].argmax() == 0


@settings(deadline=None, max_examples=50)
@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8),
    temperature=st.just(0.0) | st.floats(0, 1e9),
    top_k=st.none() | st.integers(1, 10) | st.just(10**30),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
)
def test_it_is_always_a_distribution(logits: list[float], temperature: float, top_k: int | None, top_p: float | None) -> None:
    probabilities = next_token_probabilities(torch.tensor([logits]), temperature, top_k, top_p)[0]
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert (probabilities >= 0).all()
    assert probabilities[max(range(len(logits)), key=lambda i: (logits[i], -i))] > 0
    assert top_k is None or int((probabilities > 0).sum()) <= top_k


@pytest.mark.parametrize(
    ("options", "word"),
    [
        *(({"temperature": value}, "temperature") for value in (-1.0, float("nan"), None, "hot", True)),
        *(({"top_k": value}, "top_k") for value in (0, -3, 1.5, "few", True)),
        *(({"top_p": value}, "top_p") for value in (0.0, 1.5, float("nan"), "most", True)),
        *(({"repetition_penalty": value}, "repetition_penalty") for value in (0, -1.0, 1e-300, float("inf"), float("nan"), "some", True)),
        *(({"seed": value}, "seed") for value in (2**64, -(2**63) - 1, 1.5, "a", True)),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        generate(network(), PROMPT, 1, **options)


def test_numbers_of_numpy_are_numbers() -> None:
    options = {"temperature": 0.5, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.5, "seed": 3}
    as_numpy: Any = {name: np.asarray(value)[()] for name, value in options.items()}
    assert torch.equal(generate(network(), PROMPT, np.int64(5), **as_numpy), generate(network(), PROMPT, 5, **options))  # type: ignore[arg-type]


def test_an_empty_prompt_and_negative_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty prompt"):
        generate(network(), torch.zeros(1, 0, dtype=torch.int64), 1)
    for wrong in (-1, 1.5, None, True, "many"):
        with pytest.raises(ConfigError, match="n_tokens"):
            generate(network(), PROMPT, wrong)  # type: ignore[arg-type]


def test_tokens_come_one_by_one_and_the_mode_comes_back_when_nobody_asks_for_more() -> None:
    model = network(dropout=0.5).train()
    tokens = stream(model, PROMPT, 10, seed=3)
    assert torch.equal(torch.cat([PROMPT, next(tokens), next(tokens)], 1), generate(model, PROMPT, 2, seed=3))
    tokens.close()
    assert model.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_diverged_is_a_sentence_and_not_an_error_of_torchs(value: float) -> None:
    model = network()
    next(model.parameters()).data.fill_(value)
    with pytest.raises(TrainingError, match="not finite"):
        generate(model, PROMPT, 3)


class Bag(nn.Module):
    """Sums up what its tokens say; no layers, no cache."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_size=4, vocab_size=5)
        self.table = nn.Embedding(5, 5)

    def forward(self, idx: Tensor, cache: object = None) -> Tensor:
        return self.table(idx).cumsum(dim=1)


def test_a_network_whose_config_has_no_layers_continues_a_text_beyond_its_block() -> None:
    torch.manual_seed(0)
    assert generate(Bag(), torch.tensor([[1, 2]]), 9).shape == (1, 11)  # type: ignore[arg-type]
