"""The network: its layout, its start, its causality, its loss and its gradients."""

from math import log, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptshake.errors import ConfigError
from gptshake.model.attention import Cache
from gptshake.model.gpt import GPT

SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16, "vocab_size": 50}


def network(seed: int = 0, **changes: object) -> GPT:
    torch.manual_seed(seed)
    return GPT(**{**SHAPE, **changes})  # type: ignore[arg-type]


def tokens(*shape: int, seed: int = 0, vocab_size: int = 50) -> Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def test_state_dict_has_the_names_of_gpt2() -> None:
    block = [
        f"{part}.{kind}" for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")
    ]
    gpt2 = ["wte.weight", "wpe.weight", *(f"h.{layer}.{name}" for layer in range(2) for name in block), "ln_f.weight", "ln_f.bias"]
    assert [name.replace("blocks.", "h.") for name in network().state_dict()] == gpt2


def test_without_bias_only_weights_are_left() -> None:
    assert all(name.endswith("weight") for name, _ in network(bias=False).named_parameters())


def reference_logits(weights: dict[str, Tensor], idx: Tensor, n_layer: int, n_head: int) -> Tensor:
    """GPT-2 written out once more, one sequence at a time, with the attention matrix in full."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    rows = []
    for row in idx:
        x = weights["wte.weight"][row] + weights["wpe.weight"][: len(row)]
        future = torch.ones(len(row), len(row), dtype=torch.bool).triu(1)
        for b in (f"blocks.{layer}" for layer in range(n_layer)):
            heads = []
            q, k, v = linear(norm(x, f"{b}.ln_1"), f"{b}.attn.c_attn").chunk(3, dim=-1)
            for qh, kh, vh in zip(q.chunk(n_head, -1), k.chunk(n_head, -1), v.chunk(n_head, -1), strict=True):
                scores = (qh @ kh.T / sqrt(qh.shape[-1])).masked_fill(future, -torch.inf)
                heads.append(scores.softmax(-1) @ vh)
            x = x + linear(torch.cat(heads, -1), f"{b}.attn.c_proj")
            h = linear(norm(x, f"{b}.ln_2"), f"{b}.mlp.c_fc")
            gelu = 0.5 * h * (1 + torch.tanh(sqrt(2 / torch.pi) * (h + 0.044715 * h**3)))
            x = x + linear(gelu, f"{b}.mlp.c_proj")
        rows.append(norm(x, "ln_f") @ weights["wte.weight"].T)
    return torch.stack(rows)


def test_logits_equal_the_formulas_written_out() -> None:
    model = network().double()
    for parameter in model.parameters():  # away from the start, where biases and gains would not show
        parameter.data += 0.1 * torch.randn_like(parameter)
    idx = tokens(3, 16)
    assert torch.allclose(model(idx), reference_logits(model.state_dict(), idx, n_layer=2, n_head=4), rtol=0, atol=1e-12)


def test_a_later_token_does_not_change_earlier_logits() -> None:
    model, idx = network(), tokens(1, 16)
    before = model(idx)
    for position in (1, 7, 15):
        changed = idx.clone()
        changed[0, position] = (changed[0, position] + 1) % 50
        after = model(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.allclose(after[:, position:], before[:, position:])


def test_loss_at_the_start_is_about_the_uniform_one() -> None:
    model = network(vocab_size=1000, n_embd=128)
    idx = tokens(8, 17, vocab_size=1000)
    assert model.loss(idx[:, :-1], idx[:, 1:]).item() == pytest.approx(log(1000), abs=0.1)


def test_init_is_gpt2s() -> None:
    model = network(n_layer=8, n_embd=128)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.ndim == 1:
            assert (parameter == 1).all()
        else:
            std = 0.02 / sqrt(16) if "c_proj" in name else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name


def test_same_seed_same_weights() -> None:
    first, second, other = network(1), network(1), network(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.wte.weight, other.wte.weight)


def gradients(model: GPT, idx: Tensor, parts: int) -> list[Tensor]:
    model.zero_grad()
    for part in idx.chunk(parts):
        (model.loss(part[:, :-1], part[:, 1:]) / parts).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_batch_64_has_the_gradients_of_4_times_16() -> None:
    model, idx = network(), tokens(64, 17)
    whole, accumulated = gradients(model, idx, 1), gradients(model, idx, 4)
    assert len(whole) == len(list(model.parameters()))
    for one, four in zip(whole, accumulated, strict=True):
        assert (one - four).abs().max().item() <= 1e-6
    assert max(one.abs().max().item() for one in whole) > 1e-3  # the bound means something


def test_it_learns_one_batch_by_heart() -> None:
    model, idx = network(), tokens(4, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = model.loss(idx[:, :-1], idx[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_summed_loss_is_the_mean_times_the_targets() -> None:
    model, idx = network(), tokens(3, 11)
    mean, total = (model.loss(idx[:, :-1], idx[:, 1:], reduction) for reduction in ("mean", "sum"))
    assert total.item() == pytest.approx(30 * mean.item())


def test_loss_is_fp32_under_autocast_and_with_bf16_weights() -> None:
    model, idx = network(), tokens(2, 17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(idx[:, :-1]).dtype == torch.bfloat16
        loss = model.loss(idx[:, :-1], idx[:, 1:])
        expected = F.cross_entropy(model(idx[:, :-1]).float().flatten(0, 1), idx[:, 1:].flatten())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert model.bfloat16().loss(idx[:, :-1], idx[:, 1:]).dtype == torch.float32


def test_dropout_works_in_training_only() -> None:
    model, idx = network(dropout=0.5), tokens(2, 8)
    assert not torch.equal(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))
    plain = network(dropout=0.0)
    assert torch.equal(plain.train()(idx), plain.eval()(idx))


@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 7, 3], [15, 1]])
def test_logits_with_a_cache_are_those_without(pieces: list[int]) -> None:
    model, idx = network().double(), tokens(3, 16)
    cache = Cache(n_layer=2, block_size=16)
    logits = torch.cat([model(piece, cache) for piece in idx.split(pieces, dim=1)], dim=1)
    assert cache.length == 16
    assert torch.allclose(logits, model(idx), rtol=0, atol=1e-12)


def test_a_context_longer_than_the_block_is_refused() -> None:
    model, cache = network(), Cache(n_layer=2, block_size=16)
    with pytest.raises(ValueError, match="17 tokens"):
        model(tokens(1, 17))
    model(tokens(1, 16), cache)
    with pytest.raises(ValueError, match="17 tokens"):
        model(tokens(1, 1), cache)


def test_config_says_the_shape_and_a_wrong_one_is_refused() -> None:
    config = network(dropout=0.25, bias=False).config
    assert (config.n_layer, config.n_head, config.n_embd, config.block_size, config.vocab_size) == (2, 4, 32, 16, 50)
    assert (config.dropout, config.bias) == (0.25, False)
    with pytest.raises(ConfigError, match="n_head"):
        network(n_head=5)
