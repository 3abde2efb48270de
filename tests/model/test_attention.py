"""Attention in tiles: the same function and the same gradients as torch's, in every tile and at their borders."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptshake.model.attention import TILE, causal_attention
from gptshake.model.gpt import GPT


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v that want gradients, and the gradient of y."""
    draw = torch.Generator().manual_seed(1)
    q, k, v, dy = (2 * torch.randn(*shape, dtype=torch.float64, generator=draw) for _ in range(4))
    return (*(tensor.to(dtype).requires_grad_() for tensor in (q, k, v)), dy.to(dtype))  # type: ignore[return-value]


def results(attention: object, q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> list[Tensor]:
    y = attention(q, k, v)  # type: ignore[operator]
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), dy)]


@pytest.mark.parametrize("time", [1, 7, TILE - 1, TILE, TILE + 1, 2 * TILE + 5])
def test_values_and_gradients_are_those_of_torch(time: int) -> None:
    given = inputs(2, 3, time, 8)
    expected = results(lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True), *given)
    for ours, theirs in zip(results(causal_attention, *given), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_in_bf16_it_is_as_exact_as_torch() -> None:
    exact = results(causal_attention, *inputs(2, 3, 200, 16))
    given = inputs(2, 3, 200, 16, dtype=torch.bfloat16)
    theirs = results(lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=True), *given)
    for ours, theirs_, truth in zip(results(causal_attention, *given), theirs, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - truth).norm() < 2 * (theirs_ - truth).norm()


def test_gradients_are_those_of_the_function_that_drops_weights() -> None:
    def dropped(*qkv: Tensor) -> Tensor:
        torch.manual_seed(3)
        return causal_attention(*qkv, dropout=0.3)

    q, k, v, _ = inputs(1, 2, 9, 4)
    assert torch.autograd.gradcheck(dropped, (q, k, v))


def test_dropout_drops_its_share_of_the_weights_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    time = TILE + 20
    alike, units = torch.zeros(4, 4, time, time), torch.eye(time).expand(4, 4, time, time)
    weights = causal_attention(alike, alike, units, dropout=0.25)  # values that are unit vectors show the weights
    seen = torch.ones(time, time, dtype=torch.bool).tril()
    n_seen = torch.arange(1, time + 1).view(-1, 1)  # each sees all before it equally
    shares = (0.75 * weights * n_seen)[..., seen]
    assert set(shares.round(decimals=3).flatten().tolist()) == {0.0, 1.0}
    assert (weights[..., seen] == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_a_network_under_bf16_takes_it_and_learns_what_it_would_learn_with_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss_and_gradient() -> tuple[float, Tensor]:
        torch.manual_seed(0)
        model = GPT(n_layer=2, n_head=2, n_embd=32, block_size=150, vocab_size=40)
        ids = torch.randint(40, (3, 151))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = model.blocks[0].attn.c_attn.weight.grad  # type: ignore[union-attr]
        return loss.item(), gradient  # type: ignore[return-value]

    calls = list[int]()

    def torchs(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        calls.append(1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)

    ours, our_gradient = loss_and_gradient()
    monkeypatch.setattr("gptshake.model.gpt.causal_attention", torchs)
    theirs, their_gradient = loss_and_gradient()
    assert len(calls) == 2 and ours == pytest.approx(theirs, abs=2e-3)
    assert (our_gradient - their_gradient).norm() < 0.02 * their_gradient.norm()
