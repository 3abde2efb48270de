"""Two parts of attention: a tiled kernel for bf16 on a CPU, and the cache of keys and values with which text is generated.

On a CPU torch's fused attention computes bf16 gradients several times slower than plain matrix products do (figures in
docs/benchmarks.md). As in FlashAttention (Dao et al. 2022, algorithms 1 and 4) no weight is kept between the passes: each tile
computes its own again, so memory grows with T and not with its square. Scores are rounded to the dtype of the inputs.
Shapes: N = B x H sequences, T positions, D channels of a head.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

TILE = 128  # queries; more would compute more of the masked half, fewer would make small products


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """``softmax(q k' / sqrt(D)) v`` where position t sees 0..t.

    Args:
        q, k, v: (B, H, T, D), of one floating dtype.
        dropout: probability that a weight is dropped; those that stay are scaled by 1 / (1 - dropout).
    Returns:
        (B, H, T, D).
    """
    rows = [tensor.reshape(-1, *tensor.shape[2:]) for tensor in (q, k, v)]
    y: Tensor = _CausalAttention.apply(*rows, dropout)  # type: ignore[no-untyped-call]
    return y.view(q.shape)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        y = torch.empty_like(q)
        kept: list[Tensor] = []
        for start, end in _tiles(q):
            weights = _weights(q, k, start, end)  # (N, tile, end)
            if dropout:
                kept.append(torch.rand(weights.shape, device=q.device) >= dropout)
                weights.mul_(kept[-1])
            y[:, start:end] = weights @ v[:, :end]
        y.div_(1 - dropout)
        ctx.save_for_backward(q, k, v, y, *kept)
        ctx.scale = 1 / (1 - dropout)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, y, *kept = ctx.saved_tensors
        dy = gradients[0]
        wide = torch.promote_types(q.dtype, torch.float32)  # sums over tiles lose no digits
        mean = (dy.to(wide) * y).sum(-1, keepdim=True).to(q.dtype)  # (N, T, 1): what the softmax takes off every score's gradient
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k, dtype=wide), torch.zeros_like(v, dtype=wide)
        for tile, (start, end) in enumerate(_tiles(q)):
            weights, dy_tile = _weights(q, k, start, end), dy[:, start:end]
            d_weights = (dy_tile @ v[:, :end].mT).mul_(ctx.scale)  # (N, tile, end)
            if kept:
                d_weights.mul_(kept[tile])
            d_scores = d_weights.sub_(mean[:, start:end]).mul_(weights)
            dq[:, start:end] = d_scores @ k[:, :end]
            dk[:, :end] += d_scores.mT @ q[:, start:end]
            dv[:, :end] += (weights.mul_(kept[tile]) if kept else weights).mT @ dy_tile
        root = q.shape[-1] ** -0.5
        return dq.mul_(root), dk.mul_(root).to(k.dtype), dv.mul_(ctx.scale).to(v.dtype), None


def _tiles(q: Tensor) -> Iterator[tuple[int, int]]:
    return ((start, min(start + TILE, q.shape[1])) for start in range(0, q.shape[1], TILE))


def _weights(q: Tensor, k: Tensor, start: int, end: int) -> Tensor:
    """What the queries of a tile make of the keys they see, (N, end - start, end); each row sums to 1."""
    scores = torch.baddbmm(q.new_empty(1), q[:, start:end], k[:, :end].mT, beta=0, alpha=q.shape[-1] ** -0.5)
    scores[:, :, start:] += torch.full((end - start, end - start), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
    return torch.softmax(scores, -1)


class LayerCache:
    """The keys and values of one layer for tokens already read, so that generating a token costs one token's work.

    One buffer of ``block_size`` positions, allocated on first use in the dtype and on the device of the keys: 2 x n_embd values
    per position and sequence.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.length = 0  # positions held
        self._buffer: Tensor | None = None  # (2, B, n_head, block_size, d_head)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add T new positions, (B, n_head, T, d_head) each; gives views of all so far, (B, n_head, length, d_head) each."""
        batch, n_head, time, d_head = keys.shape
        if self._buffer is None:
            self._buffer = keys.new_empty(2, batch, n_head, self.block_size, d_head)
        start, self.length = self.length, self.length + time
        self._buffer[0, :, :, start : self.length] = keys
        self._buffer[1, :, :, start : self.length] = values
        return self._buffer[0, :, :, : self.length], self._buffer[1, :, :, : self.length]

    def mask(self, time: int) -> Tensor:
        """Which of all positions each of the ``time`` newest ones may attend to: (time, length), True where it may."""
        device = None if self._buffer is None else self._buffer.device
        return torch.ones(time, self.length, dtype=torch.bool, device=device).tril(self.length - time)


class Cache:
    """One ``LayerCache`` per layer; made empty, filled by passing it to the network."""

    def __init__(self, n_layer: int, block_size: int) -> None:
        self.layers = [LayerCache(block_size) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """Tokens read so far, which is the position of the next one; 0 for a network without layers of keys."""
        return self.layers[0].length if self.layers else 0
