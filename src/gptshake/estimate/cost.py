"""What a network costs, in closed form: parameters, FLOPs, memory, disk, time. Pure arithmetic on its shape.

Parameters and FLOPs are exact (a test compares them with the real network); memory and time are estimates that say so.
Shapes come as anything with GPT's sizes, such as ``GPTConfig``.
"""

from typing import Protocol

GEMM_SHARE = 0.35  # of a machine's matrix-product speed that a step reaches: 0.33 to 0.38 measured from 4/4/128 to 12/12/768 on 2 cores
ACTIVATION_BYTES = 34  # per token, block and channel at 2 bytes a value (Korthikanti et al. 2022, table 2, without the attention matrix)
MEMORY_SHARE = 0.8  # of a device's memory that a plan may fill: the rest is for the allocator, the libraries and other programs


class Shape(Protocol):
    """The sizes that a cost depends on; ``vocab_size`` is given apart, as it is the tokenizer's."""

    n_layer: int
    n_embd: int
    block_size: int
    bias: bool


def n_parameters(shape: Shape, vocab_size: int) -> int:
    """All trained values; the head is the token embedding and counts once."""
    width, bias = shape.n_embd, int(shape.bias)
    embeddings = (vocab_size + shape.block_size) * width
    matrices = 12 * width * width  # qkv 3, attention's projection 1, MLP 4 + 4
    biases = bias * 9 * width  # of the same: 3 + 1 + 4 + 1
    norm = (1 + bias) * width
    return embeddings + shape.n_layer * (matrices + biases + 2 * norm) + norm


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


def train_seconds(tokens: int, flops_per_token: float, gemm_flops: float) -> float:
    """Rough duration of a training on a machine that multiplies matrices at ``gemm_flops`` FLOPs per second; good to a factor of two."""
    return tokens * flops_per_token / (gemm_flops * GEMM_SHARE)


def train_memory(shape: Shape, vocab_size: int, micro_batch_size: int, value_bytes: int = 2) -> int:
    """Rough peak of a training step, in bytes: weights, gradients and Adam's two moments in fp32, activations and logits.

    Attention is taken to be fused (no T x T matrix is kept); libraries and the allocator come on top.

    Args:
        shape: of the network.
        vocab_size: of the tokenizer.
        micro_batch_size: sequences in one forward pass.
        value_bytes: of one activation: 2 under bf16 autocast, 4 in fp32.
    """
    weights = n_parameters(shape, vocab_size)
    copies = 16 + (value_bytes if value_bytes < 4 else 0)  # weight, gradient, two moments; autocast keeps a cast copy of the weights
    blocks = shape.n_layer * shape.n_embd * ACTIVATION_BYTES * value_bytes // 2
    logits = vocab_size * (value_bytes + 4 + 4)  # as computed, in fp32 for the loss, and their gradient
    return copies * weights + micro_batch_size * shape.block_size * (blocks + logits)


def checkpoint_bytes(shape: Shape, vocab_size: int) -> int:
    """Disk that one checkpoint takes: weights and Adam's two moments in fp32."""
    return 12 * n_parameters(shape, vocab_size)


def micro_batch_wish(shape: Shape, vocab_size: int, *, memory_bytes: int, max_flops: float, value_bytes: int = 2) -> int:
    """The most sequences that one forward and backward pass should hold: what memory allows, and no more work than ``max_flops``.

    The bound on work keeps a pass short, so that a slow machine shows progress and answers Ctrl-C. A device saturates well below it.
    Never less than 1: whether a single sequence fits is found out by running.

    Args:
        shape: of the network.
        vocab_size: of the tokenizer.
        memory_bytes: of the device, of which ``MEMORY_SHARE`` is used.
        max_flops: FLOPs of one pass; a constant, not a measurement, so that equal commands make equal plans.
        value_bytes: as in ``train_memory``.
    """
    fixed = train_memory(shape, vocab_size, 0, value_bytes)
    each = train_memory(shape, vocab_size, 1, value_bytes) - fixed
    by_memory = int(MEMORY_SHARE * memory_bytes - fixed) // each
    by_work = int(max_flops // (flops_per_token(shape, vocab_size) * shape.block_size))
    return max(1, min(by_memory, by_work))
