"""SGD: its update, its groups, and the schedule that moves its momentum."""

import pytest
import torch

from gptshake.errors import ConfigError
from gptshake.optim.sgd import sgd


@pytest.mark.parametrize("fused", [True, False])
def test_two_steps_are_the_formula(fused: bool) -> None:
    """v = m v + g, w = w - lr v (Sutskever et al. 2013, as torch has it); decay is added to the gradient."""
    weight = torch.nn.Parameter(torch.tensor([[2.0, -3.0]]))
    optimizer = sgd([("w", weight)], lr=0.1, momentum=0.5, weight_decay=0.2, fused=fused)
    expected, velocity = torch.tensor([2.0, -3.0]), torch.zeros(2)
    for gradient in ([1.5, -0.5], [0.5, 1.0]):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        velocity = 0.5 * velocity + torch.tensor(gradient) + 0.2 * expected
        expected = expected - 0.1 * velocity
    assert weight[0].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_vectors_do_not_decay() -> None:
    groups = sgd([("w", torch.nn.Parameter(torch.ones(2, 2))), ("b", torch.nn.Parameter(torch.ones(2)))], lr=0.1, weight_decay=0.3)
    assert [group["weight_decay"] for group in groups.param_groups] == [0.3, 0.0]


@pytest.mark.parametrize(("change", "word"), [({"momentum": -0.5}, "momentum"), ({"fused": "yes"}, "fused=yes")])
def test_values_out_of_sense_are_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        sgd([("w", torch.nn.Parameter(torch.ones(2, 2)))], **{"lr": 0.1, **change})  # type: ignore[arg-type]
