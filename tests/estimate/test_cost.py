"""Closed forms against the real network, and estimates against known numbers."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from gptshake.estimate import cost
from gptshake.model.config import GPTConfig
from gptshake.model.gpt import GPT

CONF = Path(__file__).parents[2] / "conf" / "model"
PRESETS = sorted(path.stem for path in CONF.glob("*.yaml"))
GPT2_VOCABULARY = 50257


def preset(name: str) -> GPTConfig:
    return GPTConfig(**OmegaConf.load(CONF / f"{name}.yaml").model)


def on_meta(shape: GPTConfig, vocab_size: int) -> GPT:
    with torch.device("meta"):
        return GPT(
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_embd=shape.n_embd,
            block_size=shape.block_size,
            vocab_size=vocab_size,
            bias=shape.bias,
        )


def count(model: GPT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_the_real_networks(name: str, bias: bool) -> None:
    shape = preset(name)
    shape.bias = bias
    assert cost.n_parameters(shape, GPT2_VOCABULARY) == count(on_meta(shape, GPT2_VOCABULARY))


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
    assert cost.n_parameters(preset(name), GPT2_VOCABULARY) / 1e6 == pytest.approx(millions, rel=rel)


def test_gpt3_small_without_its_embeddings_has_84_9_million() -> None:
    shape = preset("gpt3_small")
    assert cost.n_matmul_parameters(shape, 0) / 1e6 == pytest.approx(84.9, abs=0.05)


@settings(deadline=None, max_examples=25)
@given(
    n_layer=st.integers(1, 3),
    n_head=st.integers(1, 4),
    d_head=st.integers(1, 8),
    block_size=st.integers(1, 40),
    vocab_size=st.integers(1, 99),
    bias=st.booleans(),
)
def test_parameters_of_any_shape(n_layer: int, n_head: int, d_head: int, block_size: int, vocab_size: int, bias: bool) -> None:
    shape = GPTConfig(n_layer, n_head, n_head * d_head, block_size, bias=bias)
    model = on_meta(shape, vocab_size)
    assert cost.n_parameters(shape, vocab_size) == count(model)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and name != "wpe.weight")
    assert cost.n_matmul_parameters(shape, vocab_size) == matrices


@pytest.mark.parametrize("name", ["tiny", "baby", "gpt3_small", "gpt3_175b"])
def test_flops_are_those_that_torch_counts(name: str) -> None:
    """Forward only, a third of the whole; torch counts attention in full as well."""
    shape = preset(name)
    model = on_meta(shape, 100)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, shape.block_size, dtype=torch.int64, device="meta"))
    assert counter.get_total_flops() * 3 == cost.flops_per_token(shape, 100) * shape.block_size


def test_mfu_of_palms_own_example() -> None:
    """PaLM 540B, appendix B: 238.3e3 tokens/s on 6144 TPU v4 of 275e12 FLOP/s are 45.7 % without attention, 46.2 % with."""
    matmul, attention = 6 * 540e9, 12 * 118 * 18432 * 2048
    peak = 6144 * 275e12
    assert cost.mfu(238.3e3, matmul, peak) == pytest.approx(0.457, abs=1e-3)
    assert cost.mfu(238.3e3, matmul + attention, peak) == pytest.approx(0.462, abs=4e-3)


def test_memory_counts_sixteen_bytes_a_parameter_and_grows_with_the_batch() -> None:
    shape = preset("baby")
    n = cost.n_parameters(shape, 65)
    assert cost.train_memory(shape, 65, 0, value_bytes=4) == 16 * n
    one, two = (cost.train_memory(shape, 65, size) - cost.train_memory(shape, 65, 0) for size in (1, 2))
    assert two == 2 * one > 0
    assert cost.checkpoint_bytes(shape, 65) == 12 * n


def test_memory_is_near_what_autograd_keeps() -> None:
    """Bytes that the backward pass holds, without the weights themselves, against the estimate for one more sequence."""
    shape, vocab_size, size = GPTConfig(4, 4, 128, 64), 65, 32
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
    estimate = cost.train_memory(shape, vocab_size, size, value_bytes=4) - cost.train_memory(shape, vocab_size, 0, value_bytes=4)
    assert loss.requires_grad
    assert 0.7 < estimate / sum(kept.values()) < 1.5


def test_micro_batch_wish_keeps_to_memory_and_to_work() -> None:
    shape = preset("baby")
    work = cost.flops_per_token(shape, 65) * shape.block_size
    assert cost.micro_batch_wish(shape, 65, memory_bytes=2**40, max_flops=10.5 * work) == 10
    fitting = cost.micro_batch_wish(shape, 65, memory_bytes=2**33, max_flops=1e18)
    assert cost.train_memory(shape, 65, fitting) <= 0.8 * 2**33 < cost.train_memory(shape, 65, fitting + 1)
    assert cost.micro_batch_wish(preset("gpt3_175b"), 65, memory_bytes=2**33, max_flops=1e9) == 1


def test_gpt_mini_fills_an_rtx_3090_with_the_batch_of_mini_v1() -> None:
    assert 0.85 < cost.train_memory(preset("mini_v1"), 75, 256, value_bytes=4) / (24 * 2**30) < 1


def test_time_is_that_of_the_measured_runs() -> None:
    """2,000 iterations of nanoGPT's CPU recipe took 35 to 53 ms each on a machine of 140 to 180 (fp32) and 400 (bf16) GFLOP/s."""
    shape = preset("tiny")
    seconds = cost.train_seconds(2000 * 12 * 64, cost.flops_per_token(shape, 65), 400e9)
    assert 0.5 < seconds / (2000 * 0.035) < 2
