"""AdamW: its groups, its update, and where it is fused."""

import pytest
import torch

from gptshake.errors import ConfigError
from gptshake.model.gpt import GPT
from gptshake.optim.adamw import adamw


def network() -> GPT:
    torch.manual_seed(0)
    return GPT(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11)


def test_every_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    model = network()
    decayed, others = adamw(model.named_parameters(), lr=1e-3).param_groups
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    members = [id(parameter) for group in (decayed, others) for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    assert any(parameter is model.wte.weight for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in others["params"])


def test_settings_arrive_in_every_group() -> None:
    for group in adamw(network().named_parameters(), lr=2e-3, beta1=0.8, beta2=0.9, eps=1e-6).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (2e-3, (0.8, 0.9), 1e-6)


def test_one_step_is_the_papers_formula() -> None:
    """After one step the debiased moments are g and g^2, so the update is lr (g / (|g| + eps) + wd w)."""
    weight = torch.nn.Parameter(torch.tensor([[2.0, -3.0]]))
    optimizer = adamw([("w", weight)], lr=0.1, eps=0.5, weight_decay=0.2)
    weight.grad = torch.tensor([[1.5, -0.5]])
    optimizer.step()
    expected = [2 - 0.1 * (1.5 / 2.0 + 0.2 * 2), -3 - 0.1 * (-0.5 / 1.0 + 0.2 * -3)]
    assert weight[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_fused_where_the_device_has_it() -> None:
    assert adamw(network().named_parameters(), lr=1e-3).param_groups[0]["fused"] is True
    assert adamw(network().named_parameters(), lr=1e-3, fused=False).param_groups[0]["fused"] is False
    assert adamw(network().to("meta").named_parameters(), lr=1e-3).param_groups[0]["fused"] is False


def test_fused_and_plain_learn_the_same() -> None:
    losses = []
    for fused in (True, False):
        model, idx = network(), torch.arange(9)[None] % 11
        optimizer = adamw(model.named_parameters(), lr=1e-2, fused=fused)
        for _ in range(5):
            loss = model.loss(idx[:, :-1], idx[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(("change", "word"), [({"fused": "yes"}, "fused=yes"), ({"lr": -1.0}, "learning rate"), ({"beta2": 1.0}, "beta")])
def test_values_out_of_sense_are_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        adamw(network().named_parameters(), **{"lr": 1e-3, **change})  # type: ignore[arg-type]
