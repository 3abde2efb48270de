"""Memory of a training, held against measured peaks."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gptshake.estimate.memory import LIBRARIES, Memory, checkpoint_bytes, largest_micro_batch, train_memory
from gptshake.model.config import Costs, GPTConfig

CONF = Path(__file__).parents[2] / "conf" / "model"


def preset(name: str, vocab_size: int = 281) -> GPTConfig:
    return GPTConfig(**OmegaConf.load(CONF / f"{name}.yaml").model, vocab_size=vocab_size)


class Unknown:
    """A network that says only how many parameters it has."""

    block_size = 64

    def num_params(self, non_embedding: bool = False) -> int:
        return 1000

    def flops_per_token(self) -> int | None:
        return None

    def activation_bytes(self, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False) -> int | None:
        return None


class Embeddings(Unknown):
    """A network that says what a sequence takes, and nothing of blocks."""

    def num_params(self, non_embedding: bool = False) -> int:
        return 600 if non_embedding else 1000

    def activation_bytes(self, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False) -> int | None:
        return 7 * micro_batch_size


def total(memory: Memory) -> int:
    assert memory.total is not None
    return memory.total


def test_memory_counts_sixteen_bytes_a_parameter_and_grows_with_the_batch() -> None:
    model = preset("baby", 65)
    n = model.num_params()
    none, one, two = (train_memory(model, size, value_bytes=4) for size in (0, 1, 2))
    assert total(none) == 16 * n and none.activations == 0
    assert one.activations and two.activations == pytest.approx(2 * one.activations)
    assert checkpoint_bytes(model) == 12 * n


def test_sharding_divides_weights_gradients_and_moments_and_leaves_activations() -> None:
    model = preset("baby", 65)
    tables = (65 + model.block_size) * model.n_embd
    block = (model.num_params() - tables) // model.n_layer
    for value_bytes, cast, gathered in ((4, 0, 8 * tables + 12 * block), (2, 2, 10 * tables + 8 * block)):
        whole = train_memory(model, 2, value_bytes=value_bytes, base=1000)
        assert whole.activations and total(whole) == 1000 + (16 + cast) * model.num_params() + whole.activations
        each = whole.sharded(4)
        assert total(each) == pytest.approx(1000 + 4 * model.num_params() + whole.activations + gathered, abs=20)
        assert whole.sharded(1) == whole
        assert total(whole.holding(1 << 40)) == 1000 + (1 << 40)
    assert total(train_memory(Embeddings(), 1).sharded(2)) == 8 * 1000 + 10 * 400 + 7
    assert train_memory(model, 2, on_cpu=True).sharded(4).saving == 2 * model.num_params()  # each saves its shard


def test_weights_that_32_gpus_share_need_the_memory_of_shards_alone() -> None:
    model = replace(preset("gpt3_13b", 50257), n_layer=124)
    assert model.num_params() == pytest.approx(39.3e9, rel=0.01)
    memory = train_memory(model, 1)
    assert memory.activations and total(memory.sharded(32)) - memory.activations == pytest.approx(25e9, rel=0.1)  # shards alone: 19.7e9


def test_a_checkpoint_can_be_the_peak_on_a_cpu_but_not_on_a_gpu() -> None:
    model = replace(preset("gpt3_small"), block_size=16)
    cpu = train_memory(model, 1, value_bytes=4, on_cpu=True, base=1000)
    assert cpu.activations is not None and cpu.saving > cpu.activations
    assert cpu.total == cpu.least == 1000 + LIBRARIES + 24 * model.num_params()
    assert train_memory(model, 1, value_bytes=4).saving == 0


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
    model = replace(preset(name, vocab_size), block_size=block_size)
    estimate = total(train_memory(model, rows, value_bytes=4, on_cpu=True, base=base << 20))
    assert estimate / 2**20 == pytest.approx(peak, rel=0.10)


def test_a_measured_peak_takes_the_place_of_the_estimate() -> None:
    for model in (preset("tiny"), Unknown()):
        memory = train_memory(model, 32, value_bytes=4, on_cpu=True, base=1 << 28)
        assert memory.holding(1 << 30).total == memory.base + (1 << 30)
        assert memory.holding(0).total == memory.base + memory.weights + memory.gradients + memory.optimizer + memory.saving


def test_what_a_model_does_not_say_is_not_known() -> None:
    unknown: Costs = Unknown()
    memory = train_memory(unknown, 32)
    assert memory.total is None and memory.least == 16 * 1000
    assert largest_micro_batch(unknown, memory_bytes=2**40, max_flops=1e18) == 1


def test_the_largest_micro_batch_keeps_to_memory_and_to_work() -> None:
    model = preset("baby", 65)
    work = model.flops_per_token() * model.block_size
    assert largest_micro_batch(model, memory_bytes=2**40, max_flops=10.5 * work) == 10
    fitting = largest_micro_batch(model, memory_bytes=2**33, max_flops=1e18)
    assert total(train_memory(model, fitting)) <= 0.8 * 2**33 < total(train_memory(model, fitting + 1))
    shared = largest_micro_batch(model, memory_bytes=2**33, max_flops=1e18, shards=4)
    assert (
        total(train_memory(model, shared).sharded(4)) <= 0.8 * 2**33 < total(train_memory(model, shared + 1).sharded(4))
        and shared > fitting
    )
    assert largest_micro_batch(preset("gpt3_175b", 65), memory_bytes=2**33, max_flops=1e9) == 1


def test_gpt_mini_fills_an_rtx_3090_with_the_batch_of_mini_v1() -> None:
    assert 0.85 < total(train_memory(preset("mini_v1", 75), 256, value_bytes=4)) / (24 * 2**30) < 1
