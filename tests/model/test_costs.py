"""What networks cost: closed forms against the real network, published numbers, and counting on the meta device."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gptshake.model.config import GPTConfig
from gptshake.model.gpt import GPT
from gptshake.model.measured import MeasuredCosts, costs_of

CONF = Path(__file__).parents[2] / "conf" / "model"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml"))
GPT2_VOCABULARY = 50257


def preset(name: str, vocab_size: int = GPT2_VOCABULARY) -> GPTConfig:
    return GPTConfig(**OmegaConf.load(CONF / f"{name}.yaml").model, vocab_size=vocab_size)


def build(config: GPTConfig) -> GPT:
    assert config.vocab_size is not None
    sizes = {key: getattr(config, key) for key in ("n_layer", "n_head", "n_embd", "block_size", "bias")}
    return GPT(**sizes, vocab_size=config.vocab_size)


def on_meta(config: GPTConfig) -> GPT:
    with torch.device("meta"):
        return build(config)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_the_real_networks(name: str, bias: bool) -> None:
    config = replace(preset(name), bias=bias)
    assert config.num_params() == count(on_meta(config)) == sum(config.params_by_part().values())


@pytest.mark.parametrize(
    ("name", "millions", "rel"),
    [
        ("gpt3_small", 125.2, 1e-3),
        ("gpt3_medium", 350, 0.02),
        ("gpt3_large", 760, 0.01),
        ("gpt3_xl", 1315.7, 1e-4),
        ("gpt3_2_7b", 2700, 0.02),
        ("gpt3_6_7b", 6700, 0.01),
        ("gpt3_13b", 13000, 0.02),
        ("gpt3_175b", 175000, 0.01),
    ],
)
def test_gpt3_sizes_have_the_papers_totals(name: str, millions: float, rel: float) -> None:
    assert preset(name).num_params() / 1e6 == pytest.approx(millions, rel=rel)


def test_gpt3_small_without_its_embeddings_has_84_9_million() -> None:
    matrices_of_blocks = 12 * 12 * 768**2  # the paper's count leaves out biases and norms
    non_embedding = preset("gpt3_small").num_params(non_embedding=True)
    assert matrices_of_blocks / 1e6 == pytest.approx(84.9, abs=0.05)
    assert non_embedding == pytest.approx(matrices_of_blocks, rel=2e-3)


@settings(deadline=None, max_examples=25)
@given(
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 4),
    d_head=st.integers(1, 8),
    block_size=st.integers(1, 40),
    vocab_size=st.integers(1, 99),
    bias=st.booleans(),
)
def test_costs_of_any_shape_are_those_counted_on_the_meta_device(
    n_layer: int, n_head: int, d_head: int, block_size: int, vocab_size: int, bias: bool
) -> None:
    config = GPTConfig(n_layer, n_head, n_head * d_head, block_size, vocab_size, bias=bias)
    measured = MeasuredCosts(on_meta(config), block_size)
    assert config.num_params() == measured.num_params()
    assert config.num_params(non_embedding=True) == measured.num_params(non_embedding=True)
    assert measured.flops_per_token() in (config.flops_per_token(), None)  # None: biases outweigh the matrices of a tiny network


@pytest.mark.parametrize("name", ["tiny", "baby", "gpt3_small", "gpt3_175b"])
def test_flops_are_those_that_torch_counts(name: str) -> None:
    """Forward only, a third of the whole; torch counts attention in full as well."""
    config = preset(name, 100)
    with FlopCounterMode(display=False) as counter:
        on_meta(config)(torch.zeros(1, config.block_size, dtype=torch.int64, device="meta"))
    assert counter.get_total_flops() * 3 == config.flops_per_token() * config.block_size


class Recurrent(nn.Module):
    """Two layers of GRU between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.rnn, self.head = nn.Embedding(100, 64), nn.GRU(64, 64, 2, batch_first=True), nn.Linear(64, 100)

    def forward(self, idx: Tensor) -> Tensor:
        return self.head(self.rnn(self.wte(idx))[0])  # type: ignore[no-any-return]


class AsksForAValue(Recurrent):
    def forward(self, idx: Tensor) -> Tensor:
        return super().forward(idx) * float(idx.sum().item())


def test_another_network_is_counted_and_what_cannot_be_counted_is_not_known() -> None:
    costs = costs_of(Recurrent, block_size=32)
    assert costs.num_params() == count(Recurrent())
    assert costs.flops_per_token() == 6 * (2 * 6 * 64 * 64 + 64 * 100)  # six square matrices a layer, and the head
    assert costs.activation_bytes(1) is None
    assert costs_of(AsksForAValue, block_size=32).flops_per_token() is None


def test_the_config_of_another_network_says_its_costs_but_the_shape_of_a_gpt_does_not_speak_for_it() -> None:
    own = SimpleNamespace(block_size=32, num_params=lambda non_embedding=False: 7, flops_per_token=lambda: 42)

    def with_config(config: object) -> nn.Module:
        network = Recurrent()
        network.config = config
        return network

    assert costs_of(lambda: with_config(own), 32) is own
    assert costs_of(lambda: with_config(GPTConfig(9, 1, 64, 32, 100)), 32).num_params() == count(Recurrent())


def test_memory_is_near_what_autograd_keeps() -> None:
    """Bytes that the backward pass holds, without the weights themselves, against the estimate for one more sequence."""
    vocab_size, size = 65, 32
    config = GPTConfig(4, 4, 128, 64, vocab_size)
    torch.manual_seed(0)
    model = GPT(n_layer=4, n_head=4, n_embd=128, block_size=64, vocab_size=vocab_size)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    idx = torch.zeros(size, 64, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.loss(idx, idx)
    estimate = config.activation_bytes(size, value_bytes=4)
    assert loss.requires_grad
    assert 0.7 < estimate / sum(kept.values()) < 1.5
