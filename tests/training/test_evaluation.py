"""The loss over a split: closed forms, and every target counted exactly once."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from gptshake.data.module import EvalBatches
from gptshake.data.stream import scoring_windows
from gptshake.model.gpt import GPT
from gptshake.training import evaluation
from gptshake.training.evaluation import bits_per_byte, evaluate, token_losses

TOKENS = np.random.default_rng(0).integers(0, 11, 101).astype(np.uint16)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11, dropout=0.4)


def test_a_network_that_knows_nothing_scores_the_uniform_entropy(model: GPT) -> None:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    loss, _ = evaluate(model, EvalBatches(TOKENS, 8, 4))
    assert loss == pytest.approx(math.log(11), rel=1e-6)
    assert bits_per_byte(loss, bytes_per_target=1.0) == pytest.approx(math.log2(11), rel=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("n_tokens", [2, 8, 9, 10, 17, 101])
def test_it_is_the_mean_over_every_target_computed_one_by_one(model: GPT, rows: int, n_tokens: int) -> None:
    tokens = TOKENS[:n_tokens]
    loss, scored = evaluate(model, EvalBatches(tokens, 8, rows))
    model.eval()
    losses = []
    for target in range(1, n_tokens):
        first = (target - 1) // 8 * 8  # context begins with the target's block
        ids = torch.from_numpy(tokens[first:target].astype(np.int64))[None]
        with torch.no_grad():
            losses.append(-model(ids)[0, -1].log_softmax(-1)[int(tokens[target])].item())
    assert scored == n_tokens - 1
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert bits_per_byte(loss, bytes_per_target=2.0) == pytest.approx(loss / (2 * math.log(2)))


def test_bits_per_byte_charge_what_unknown_tokens_hide() -> None:
    assert bits_per_byte(3.0, 2.0) == 3.0 / (math.log(2) * 2.0)
    assert bits_per_byte(3.0, 2.0, 1.5) == (3.0 + 1.5) / (math.log(2) * 2.0)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_comes_back_even_after_an_error(model: GPT, training: bool) -> None:
    model.train(training)
    batches = EvalBatches(TOKENS, 8, 4)
    assert evaluate(model, batches) == evaluate(model, batches)
    assert model.training is training

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, batches, between=stop)
    assert model.training is training


def test_it_draws_no_random_numbers_and_leaves_no_gradient(model: GPT) -> None:
    before = torch.get_rng_state()
    evaluate(model, EvalBatches(TOKENS, 8, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_between_is_called_after_every_batch(model: GPT) -> None:
    calls: list[None] = []
    batches = EvalBatches(TOKENS, 8, 4)
    evaluate(model, batches, between=lambda: calls.append(None))
    assert len(calls) == len(batches)


def one_by_one(model: GPT, windows: np.ndarray) -> list[tuple[int, int, float]]:
    """Position, context and loss of every scored token, each computed by itself in fp64."""
    found, double = [], copy.deepcopy(model).double().eval()
    for begin, scored, end in windows.tolist():
        for target in range(scored + 1, end + 1):
            ids = torch.from_numpy(TOKENS[begin:target].astype(np.int64))[None]
            with torch.no_grad():
                logits = double(ids)[0, -1]
            found.append((target, target - begin, -logits.log_softmax(-1)[int(TOKENS[target])].item()))
    return found


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("rows", [1, 7])
def test_the_loss_of_each_token_is_the_one_of_its_own_context(model: GPT, stride: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ROWS", rows)
    windows = scoring_windows(len(TOKENS) - 1, 8, stride)
    found = [one for part in token_losses(model.eval(), TOKENS, windows) for one in zip(*(values.tolist() for values in part), strict=True)]
    expected = one_by_one(model, windows)
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in expected], rel=1e-6)


def test_token_losses_of_blocks_add_up_to_the_loss_of_a_validation(model: GPT) -> None:
    parts = list(token_losses(model.eval(), TOKENS, scoring_windows(len(TOKENS) - 1, 8, 8)))
    assert np.concatenate([nats for *_, nats in parts]).mean() == pytest.approx(evaluate(model, EvalBatches(TOKENS, 8, 4))[0], rel=1e-6)


def test_windows_of_different_lengths_do_not_read_each_other(model: GPT) -> None:
    windows = np.array([[0, 0, 3], [40, 44, 48], [90, 90, 100]])
    model = GPT(n_layer=1, n_head=1, n_embd=8, block_size=10, vocab_size=11)
    together = [nats for *_, nats in token_losses(model.eval(), TOKENS, windows)]
    alone = [nats for window in windows for *_, nats in token_losses(model, TOKENS, window[None])]
    assert np.concatenate(together) == pytest.approx(np.concatenate(alone), rel=1e-6)
