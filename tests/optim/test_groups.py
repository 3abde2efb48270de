"""The rule of decay, on shapes alone."""

from dataclasses import dataclass

from gptshake.optim.groups import decay_groups


@dataclass
class Fake:
    ndim: int
    requires_grad: bool = True


def test_matrices_and_embeddings_decay_gains_and_biases_do_not() -> None:
    matrix, bias, embedding, gain = Fake(2), Fake(1), Fake(2), Fake(1)
    named = [("mlp.c_fc.weight", matrix), ("mlp.c_fc.bias", bias), ("wte.weight", embedding), ("ln_f.weight", gain)]
    decayed, others = decay_groups(named, 0.1)
    assert decayed == {"params": [matrix, embedding], "weight_decay": 0.1}
    assert others == {"params": [bias, gain], "weight_decay": 0.0}


def test_frozen_parameters_are_in_no_group_and_empty_groups_are_left_out() -> None:
    matrix = Fake(2)
    assert decay_groups([("a", matrix), ("b", Fake(2, False)), ("c", Fake(1, False))], 0.1) == [{"params": [matrix], "weight_decay": 0.1}]
    assert decay_groups([], 0.1) == []
