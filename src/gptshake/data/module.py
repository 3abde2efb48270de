"""Token store to batches for Lightning: training without end in an order that resumes exactly, evaluation of every token once.

A batch is one int64 tensor of ``block_size + 1`` columns: inputs are [:, :-1], targets [:, 1:]. No worker processes: a
batch costs 0.02 to 0.03 ms, a worker's hand-over 1 ms. Training batches are a pure function of the
number of the micro-batch, so the whole state of the order is that one number.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from gptshake.data.blocks import block_ids, gather, n_blocks
from gptshake.data.store import Split, TokenStore
from gptshake.errors import ConfigError

_WINDOW = 64  # micro-batches whose order is computed at once: one call costs 0.2 ms however few the blocks
Tokens = npt.NDArray[np.unsignedinteger[Any]]


class TrainBatches:
    """Micro-batches without end, each of shape (micro_batch_size, block_size + 1).

    Micro-batch g of rank r reads the positions from (g * world_size + r) * micro_batch_size on (see ``block_ids``): with
    accumulation a step reads the same blocks whatever the micro-batch size and the number of ranks.

    Args:
        tokens: the training stream, shape (n_tokens,).
        block_size: context length, in tokens.
        micro_batch_size: rows of one batch.
        seed: of the order.
        rank, world_size: this process among those that train together.
    Raises:
        DataError: if not one block fits.
    """

    def __init__(self, tokens: Tokens, block_size: int, micro_batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._tokens = tokens
        self._n = n_blocks(len(tokens), block_size)
        self._block_size, self._rows, self._seed = block_size, micro_batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._given = 0
        self._window, self._ids = -1, np.empty((0, micro_batch_size), np.int64)
        self._pin = torch.cuda.is_available()

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Goes on after the batches handed out so far, or after those of a loaded state."""
        while True:
            batch = self._batch(self._given)
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many micro-batches this rank has handed out."""
        return {"micro_batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next ``__iter__`` go on after that many; a running iterator goes on there too."""
        self._given = state["micro_batches"]

    def _batch(self, number: int) -> torch.Tensor:
        window, inside = divmod(number, _WINDOW)
        if window != self._window:
            count = _WINDOW * self._world_size * self._rows
            ids = block_ids(window * count, count, self._n, self._seed)
            self._window, self._ids = window, ids.reshape(_WINDOW, self._world_size, self._rows)[:, self._rank]
        ids = self._ids[inside]
        batch = torch.from_numpy(gather(self._tokens, ids, self._block_size))
        return batch.pin_memory() if self._pin else batch


class EvalBatches:
    """A whole split in order: full blocks in batches of at most ``rows``, then the short rest of the stream as one row.

    Every token but the first is a target exactly once. Every rank reads the whole split.

    Args:
        tokens: the stream, shape (n_tokens,), n_tokens >= 2.
        block_size: context length, in tokens.
        rows: most rows of a batch.
    """

    def __init__(self, tokens: Tokens, block_size: int, rows: int) -> None:
        self._tokens, self._block_size, self._rows = tokens, block_size, rows
        self._n_full, self._rest = divmod(len(tokens) - 1, block_size)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self._n_full // self._rows) + (self._rest > 0)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """From the start, every time."""
        for first in range(0, self._n_full, self._rows):
            ids = np.arange(first, min(first + self._rows, self._n_full))
            yield torch.from_numpy(gather(self._tokens, ids, self._block_size))
        if self._rest:
            last = np.asarray(self._tokens[-self._rest - 1 :]).astype(np.int64)
            yield torch.from_numpy(last[None])


class TokenDataModule(pl.LightningDataModule):
    """Batches of an opened store.

    Args:
        store: the token store.
        block_size: context length, in tokens.
        batch_size: sequences per optimizer step over all ranks.
        micro_batch_size: sequences per forward pass on one rank; a divisor of ``batch_size / world_size``.
        seed: of the training order.
        rank, world_size: this process among those that train together.
    Raises:
        ConfigError: if the batch cannot be divided like that.
        DataError: if the training split has not one block.
    """

    def __init__(
        self, store: TokenStore, *, block_size: int, batch_size: int, micro_batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__()
        if batch_size % (micro_batch_size * world_size):
            raise ConfigError(
                f"data.batch_size={batch_size} cannot be made of micro-batches of {micro_batch_size} on {world_size} device(s); "
                f"it must be a multiple of {micro_batch_size * world_size}."
            )
        self.store = store
        self.n_blocks = n_blocks(store.train.n_tokens, block_size)
        self._block_size, self._micro_batch_size, self._seed = block_size, micro_batch_size, seed
        self._rank, self._world_size = rank, world_size

    def train_dataloader(self) -> TrainBatches:
        """Training batches from the first one; their state is loaded by Lightning."""
        tokens = self.store.train.tokens()
        return TrainBatches(tokens, self._block_size, self._micro_batch_size, self._seed, self._rank, self._world_size)

    def val_dataloader(self) -> EvalBatches:
        """The whole validation split."""
        return self._evaluate(self.store.val)

    def test_dataloader(self) -> EvalBatches:
        """The whole test split.

        Raises:
            ConfigError: if the store has none.
        """
        if self.store.test is None:
            raise ConfigError("This text has no test split; give it one with data.test_fraction=0.05.")
        return self._evaluate(self.store.test)

    def sample_block(self, i: int = 0) -> npt.NDArray[np.int64]:
        """The i-th training block that the model will read, shape (block_size + 1,)."""
        ids = block_ids(i, 1, self.n_blocks, self._seed)
        block: npt.NDArray[np.int64] = gather(self.store.train.tokens(), ids, self._block_size)[0]
        return block

    def _evaluate(self, split: Split) -> EvalBatches:
        return EvalBatches(split.tokens(), self._block_size, self._micro_batch_size)
