"""The rules of parameter groups, on names and shapes alone."""

from dataclasses import dataclass
from typing import Any

import pytest

from gptshake.errors import ConfigError
from gptshake.optim.groups import parameter_groups


@dataclass
class Fake:
    ndim: int
    requires_grad: bool = True


MATRIX, BIAS, EMBEDDING, GAIN, POSITIONS = Fake(2), Fake(1), Fake(2), Fake(1), Fake(2)
NAMED = [
    ("wte.weight", EMBEDDING),
    ("wpe.weight", POSITIONS),
    ("blocks.0.mlp.c_fc.weight", MATRIX),
    ("blocks.0.mlp.c_fc.bias", BIAS),
    ("ln_f.weight", GAIN),
]


def found(**options: Any) -> list[tuple[list[Fake], float, float]]:
    return [(group["params"], group["lr"], group["weight_decay"]) for group in parameter_groups(NAMED, 1e-3, 0.1, **options)]


def test_matrices_and_embeddings_decay_gains_and_biases_do_not() -> None:
    assert found() == [([EMBEDDING, POSITIONS, MATRIX], 1e-3, 0.1), ([BIAS, GAIN], 1e-3, 0.0)]


def test_embeddings_may_have_a_multiple_of_the_rate() -> None:
    assert found(embedding_lr_mult=5.0) == [([EMBEDDING, POSITIONS], 5e-3, 0.1), ([MATRIX], 1e-3, 0.1), ([BIAS, GAIN], 1e-3, 0.0)]


def test_the_first_rule_that_fits_wins() -> None:
    rules = [{"pattern": "wte.*", "lr_mult": 2.0}, {"pattern": "*.weight", "lr_mult": 4.0, "weight_decay": 0.2}]
    assert found(groups=rules, embedding_lr_mult=5.0) == [
        ([EMBEDDING], 2e-3, 0.1),
        ([POSITIONS, MATRIX, GAIN], 4e-3, 0.2),
        ([BIAS], 1e-3, 0.0),
    ]


def test_frozen_parameters_are_in_no_group_and_empty_groups_are_left_out() -> None:
    groups = parameter_groups([("a", MATRIX), ("b", Fake(2, False)), ("c", Fake(1, False))], 1e-3, 0.1)
    assert groups == [{"params": [MATRIX], "lr": 1e-3, "weight_decay": 0.1}]
    assert parameter_groups([], 1e-3, 0.1) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"groups": [{"pattern": "lm_head.*"}]}, "lm_head"),
        ({"groups": [{"pattern": "wte.*", "lr_mult": 0.0}]}, "lr_mult"),
        ({"groups": [{"pattern": "wte.*", "weight_decay": -1.0}]}, "weight_decay"),
        ({"embedding_lr_mult": -1.0}, "embedding_lr_mult"),
    ],
)
def test_rules_that_cannot_work_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        found(**options)


def test_a_network_without_our_names_needs_rules_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.groups"):
        parameter_groups([("layers.0", MATRIX)], 1e-3, 0.1, embedding_lr_mult=2.0)
