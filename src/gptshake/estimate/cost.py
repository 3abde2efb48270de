"""What a network costs, in closed form: parameters, FLOPs, memory, disk. Pure arithmetic on its shape.

Parameters and FLOPs are exact (a test compares them with the real network); memory is an estimate that says so.
Shapes come as anything with GPT's sizes, such as ``GPTConfig``.
"""

from dataclasses import dataclass, replace
from typing import Protocol

# Values that a block keeps for the backward pass, per token and channel: two of the residual stream, which stay in fp32, and 15 in the
# precision of the products (two norms, q, k, v, attention's sum, 4 + 4 of the MLP). Held against measured peaks in tests/estimate/test_cost.py.
STREAM_VALUES, PRODUCT_VALUES = 2, 15
BACKWARD_VALUES = 10  # of one block, once, in fp32: gradients on their way
LOGIT_BYTES = 12  # per token and entry of the vocabulary: logits, log-probabilities and their gradient
DROPOUT_VALUES = 7  # more of a block on a CPU: masks of its activations' dtype, and q, k, v copied
DROPOUT_SQUARES = (
    3  # T x T matrices of each head likewise, in fp32, where attention with dropout is not fused; in bf16 half of one, in bytes
)
HEAP = 1.15  # what the C library's heap holds over what is in use, when a step's tensors come and go
LIBRARIES = 50 << 20  # buffers of the products' libraries, W&B and the plot at the end
MEMORY_SHARE = 0.8  # of a device's memory that a plan may fill: the rest is for the allocator, the libraries and other programs


class Shape(Protocol):
    """The sizes that a cost depends on; ``vocab_size`` is given apart, as it is the tokenizer's."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float
    bias: bool


@dataclass(frozen=True)
class Memory:
    """Peak of a training process by part, in bytes."""

    base: int  # the process, its libraries and, on a GPU, the driver
    weights: int
    gradients: int
    optimizer: int  # Adam's two moments
    activations: int  # what the backward pass needs; logits included
    saving: int  # copies while a checkpoint is written, when no activations are held

    @property
    def total(self) -> int:
        """The peak: activations and a checkpoint's copies are never held at once."""
        return self.base + self.weights + self.gradients + self.optimizer + max(self.activations, self.saving)

    def holding(self, measured: int) -> "Memory":
        """The same with activations from a measured peak, given without the base."""
        return replace(self, activations=max(0, measured - self.weights - self.gradients - self.optimizer))


def n_parameters(shape: Shape, vocab_size: int) -> int:
    """All trained values; the head is the token embedding and counts once."""
    width, bias = shape.n_embd, int(shape.bias)
    embeddings = (vocab_size + shape.block_size) * width
    matrices = 12 * width * width  # qkv 3, attention's projection 1, MLP 4 + 4
    biases = bias * 9 * width  # of the same: 3 + 1 + 4 + 1
    norm = (1 + bias) * width
    return embeddings + shape.n_layer * (matrices + biases + 2 * norm) + norm


def parameters_by_part(shape: Shape, vocab_size: int) -> dict[str, int]:
    """``n_parameters``, told apart: embedding (the head too), positions, attention, MLP, norms."""
    layers, width, bias = shape.n_layer, shape.n_embd, int(shape.bias)
    return {
        "token embedding and head": vocab_size * width,
        "positions": shape.block_size * width,
        "attention": layers * (4 * width * width + bias * 4 * width),
        "MLP": layers * (8 * width * width + bias * 5 * width),
        "norms": (2 * layers + 1) * (1 + bias) * width,
    }


def n_matmul_parameters(shape: Shape, vocab_size: int) -> int:
    """Values that a token is multiplied with: the matrices and the head, not the look-ups, biases and norms."""
    return 12 * shape.n_layer * shape.n_embd**2 + vocab_size * shape.n_embd


def flops_per_token(shape: Shape, vocab_size: int) -> int:
    """Floating-point operations per training token, forward and backward, at full context.

    6 per matmul parameter and 12 n_layer n_embd T for attention, T = block_size counted without the causal half.
    Source: Chowdhery et al. 2022 (PaLM), appendix B.
    """
    return 6 * n_matmul_parameters(shape, vocab_size) + 12 * shape.n_layer * shape.n_embd * shape.block_size


def mfu(tokens_per_s: float, flops_per_token: float, peak_flops: float) -> float:
    """Model FLOPs utilisation: the share of ``peak_flops`` (per second, all devices) that training makes use of."""
    return tokens_per_s * flops_per_token / peak_flops


def train_memory(
    shape: Shape, vocab_size: int, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False, base: int = 0
) -> Memory:
    """The peak of a training, estimated: weights, gradients and Adam's moments in fp32, activations, and what is around.

    Attention is taken to be fused (no T x T matrix is kept), but on a CPU not with dropout in fp32.

    Args:
        shape: of the network.
        vocab_size: of the tokenizer.
        micro_batch_size: sequences in one forward pass.
        value_bytes: of one activation: 2 under bf16 autocast, 4 in fp32.
        on_cpu: whether main memory is what is meant, in which the heap is never tight and checkpoints are made ready.
        base: bytes that the process holds before there is a network, or that a GPU's driver takes.
    """
    values, tokens = n_parameters(shape, vocab_size), micro_batch_size * shape.block_size
    width = STREAM_VALUES * 4 + PRODUCT_VALUES * value_bytes
    squares = 0.0
    if shape.dropout and on_cpu:
        square = DROPOUT_SQUARES * 4 if value_bytes == 4 else 0.5
        width, squares = width + DROPOUT_VALUES * value_bytes, square * shape.n_head * shape.block_size
    elif shape.dropout:
        width += 2  # two masks of a byte
    per_token = shape.n_layer * (shape.n_embd * width + squares) + 4 * BACKWARD_VALUES * shape.n_embd + LOGIT_BYTES * vocab_size
    cast = 2 * values if value_bytes < 4 else 0  # autocast keeps a copy of the weights for the backward pass
    activations = int((tokens * per_token + cast) * (HEAP if on_cpu else 1))
    return Memory(base + (LIBRARIES if on_cpu else 0), 4 * values, 4 * values, 8 * values, activations, saving=8 * values if on_cpu else 0)


def checkpoint_bytes(shape: Shape, vocab_size: int) -> int:
    """Disk that one checkpoint takes: weights and Adam's two moments in fp32."""
    return 12 * n_parameters(shape, vocab_size)


def micro_batch_wish(
    shape: Shape, vocab_size: int, *, memory_bytes: int, max_flops: float, value_bytes: int = 2, on_cpu: bool = False
) -> int:
    """The most sequences that one forward and backward pass should hold: what memory allows, and no more work than ``max_flops``.

    The bound on work keeps a pass short, so that a slow machine shows progress and answers Ctrl-C. A device saturates well below it.
    Never less than 1: whether a single sequence fits is found out by running.

    Args:
        shape: of the network.
        vocab_size: of the tokenizer.
        memory_bytes: of the device, of which ``MEMORY_SHARE`` is used.
        max_flops: FLOPs of one pass; a constant, not a measurement, so that equal commands make equal plans.
        value_bytes, on_cpu: as in ``train_memory``.
    """
    none, one = (train_memory(shape, vocab_size, size, value_bytes=value_bytes, on_cpu=on_cpu) for size in (0, 1))
    fixed = none.base + none.weights + none.gradients + none.optimizer + none.activations
    by_memory = int(MEMORY_SHARE * memory_bytes - fixed) // (one.activations - none.activations)
    by_work = int(max_flops // (flops_per_token(shape, vocab_size) * shape.block_size))
    return max(1, min(by_memory, by_work))
