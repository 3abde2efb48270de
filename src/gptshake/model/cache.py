"""Keys and values of tokens already read, so that generating a token costs one token's work instead of a context's.

One buffer of ``block_size`` positions per layer, allocated on first use in the dtype and on the device of the keys; memory is
the price: 2 x n_layer x n_embd values per position and sequence.
"""

import torch
from torch import Tensor


class LayerCache:
    """The keys and values of one attention layer."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.length = 0  # positions held
        self._buffer: Tensor | None = None  # (2, B, n_head, block_size, d_head)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add T new positions; gives the keys and values of all positions so far.

        Args:
            keys: (B, n_head, T, d_head).
            values: of the same shape.
        Returns:
            Two views of shape (B, n_head, length, d_head).
        """
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
