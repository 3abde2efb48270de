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
    assert cost.train_memory(shape, 65, 0, value_bytes=4).total == 16 * n
    one, two = (cost.train_memory(shape, 65, size, value_bytes=4).activations for size in (1, 2))
    assert two == pytest.approx(2 * one) and one > 0
    assert cost.checkpoint_bytes(shape, 65) == 12 * n


def test_a_checkpoint_can_be_the_peak_on_a_cpu_but_not_on_a_gpu() -> None:
    shape = preset("gpt3_small")
    shape.block_size = 16
    n = cost.n_parameters(shape, 281)
    cpu = cost.train_memory(shape, 281, 1, value_bytes=4, on_cpu=True, base=1000)
    assert cpu.saving > cpu.activations and cpu.total == 1000 + cost.LIBRARIES + 24 * n
    assert cost.train_memory(shape, 281, 1, value_bytes=4).saving == 0


# Peaks of whole runs on a CPU, in MiB: resident memory at the start of fitting without the weights, and the most of the run
# (Linux, glibc 2.36, torch 2.13, one or two threads).
MEASURED = [
    ("tiny", 64, 281, 32, 368, 508),
    ("baby", 256, 281, 8, 366, 1380),
    ("gpt_mini_v0", 256, 281, 4, 362, 1707),
    ("gpt3_small", 2048, 281, 1, 345, 3495),
    ("gpt3_small", 128, 281, 1, 345, 2382),
]


@pytest.mark.parametrize(("name", "block_size", "vocab_size", "rows", "base", "peak"), MEASURED)
def test_memory_is_that_of_the_measured_runs(name: str, block_size: int, vocab_size: int, rows: int, base: int, peak: int) -> None:
    shape = preset(name)
    shape.block_size = block_size
    estimate = cost.train_memory(shape, vocab_size, rows, value_bytes=4, on_cpu=True, base=base << 20).total
    assert estimate / 2**20 == pytest.approx(peak, rel=0.10)


def test_a_measured_peak_takes_the_place_of_the_estimate() -> None:
    memory = cost.train_memory(preset("tiny"), 281, 32, value_bytes=4, on_cpu=True, base=1 << 28)
    assert memory.holding(1 << 30).total == memory.base + (1 << 30)
    assert memory.holding(0).total == memory.base + memory.weights + memory.gradients + memory.optimizer + memory.saving


@pytest.mark.parametrize("name", PRESETS)
def test_the_parts_of_the_parameters_add_up(name: str) -> None:
    assert sum(cost.parameters_by_part(preset(name), 1000).values()) == cost.n_parameters(preset(name), 1000)


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
    estimate = cost.train_memory(shape, vocab_size, size, value_bytes=4).activations
    assert loss.requires_grad
    assert 0.7 < estimate / sum(kept.values()) < 1.5


def test_micro_batch_wish_keeps_to_memory_and_to_work() -> None:
    shape = preset("baby")
    work = cost.flops_per_token(shape, 65) * shape.block_size
    assert cost.micro_batch_wish(shape, 65, memory_bytes=2**40, max_flops=10.5 * work) == 10
    fitting = cost.micro_batch_wish(shape, 65, memory_bytes=2**33, max_flops=1e18)
    assert cost.train_memory(shape, 65, fitting).total <= 0.8 * 2**33 < cost.train_memory(shape, 65, fitting + 1).total
    assert cost.micro_batch_wish(preset("gpt3_175b"), 65, memory_bytes=2**33, max_flops=1e9) == 1


def test_gpt_mini_fills_an_rtx_3090_with_the_batch_of_mini_v1() -> None:
    assert 0.85 < cost.train_memory(preset("mini_v1"), 75, 256, value_bytes=4).total / (24 * 2**30) < 1
