"""Token store to batches for Lightning: training without end in an order that resumes exactly, evaluation of every token once.

A batch is one int64 tensor of ``block_size + 1`` columns: inputs are [:, :-1], targets [:, 1:]. Training batches are a pure
function of the number of the micro-batch, so the whole state of the order is that one number, whoever fetches them. By default this
process does: a batch costs 0.02 to 0.03 ms, getting it from a worker 1 ms. Workers are for a slow disk.
"""

import platform
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from mmap import mmap
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from gptshake.data.blocks import block_starts, gather, n_blocks
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError, GptshakeError

_WINDOW = 64  # micro-batches whose order is computed at once: one call costs 0.2 ms however few the blocks
Ids = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(eq=False)
class TrainBatches(Dataset[torch.Tensor]):
    """Micro-batches without end, each of shape (micro_batch_size, block_size + 1).

    Micro-batch g of rank r reads the positions from (g * world_size + r) * micro_batch_size on (see ``block_ids``): with
    accumulation a step reads the same blocks whatever the micro-batch size and the number of ranks.

    Raises:
        DataError: if not one block fits.
    """

    tokens: Ids  # the training stream, shape (n_tokens,)
    block_size: int  # context length, in tokens
    micro_batch_size: int  # rows of one batch
    seed: int
    rank: int = 0  # this process among those that train together
    world_size: int = 1
    random_offset: bool = field(default=False, kw_only=True)  # every epoch cuts the stream elsewhere (see ``block_starts``)
    limit_blocks: int | None = field(default=None, kw_only=True)  # an epoch is the first so many blocks; None: all
    workers: int = field(default=0, kw_only=True)  # processes that fetch the same batches ahead; 0: this one, when it is asked

    def __post_init__(self) -> None:
        self._n = n_blocks(len(self.tokens), self.block_size, random_offset=self.random_offset, limit=self.limit_blocks)
        self._given = 0
        self._window, self._starts = -1, np.empty((0, self.micro_batch_size), np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is not forked: a map of a file is opened again there, not sent."""
        state, tokens = self.__dict__.copy(), self.tokens
        if isinstance(tokens, np.memmap) and isinstance(tokens.base, mmap):  # of a whole file
            state["tokens"] = (tokens.filename, tokens.dtype, tokens.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if isinstance(state["tokens"], tuple):
            path, dtype, shape = state["tokens"]
            self.tokens = np.memmap(path, dtype, "r", shape=shape)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """The batches after those handed out so far, or after those of a loaded state; GptshakeError: a worker was killed."""
        while True:
            for number, batch in zip(count(self._given), self._from(self._given), strict=False):
                if number != self._given:
                    break  # a state was loaded meanwhile
                self._given += 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        """The number of micro-batches that this rank has handed out."""
        return {"micro_batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after that many; a running iterator does so too."""
        self._given = state["micro_batches"]

    def __getitem__(self, number: int) -> torch.Tensor:
        """Micro-batch ``number`` of this rank, shape (micro_batch_size, block_size + 1)."""
        window, inside = divmod(number, _WINDOW)
        if window != self._window:
            size = _WINDOW * self.world_size * self.micro_batch_size
            starts = block_starts(window * size, size, self._n, self.seed, self.block_size, random_offset=self.random_offset)
            self._window, self._starts = window, starts.reshape(_WINDOW, self.world_size, self.micro_batch_size)[:, self.rank]
        return torch.from_numpy(gather(self.tokens, self._starts[inside], self.block_size))

    def _from(self, first: int) -> Iterator[torch.Tensor]:
        if not self.workers:
            yield from map(self.__getitem__, count(first))
            return
        # ``fork`` shares everything with the workers at once, but not from a process in which a GPU's driver may be at work.
        started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=count(first),
            num_workers=self.workers,
            worker_init_fn=_leave_signals,
            multiprocessing_context="forkserver" if started or platform.system() == "Darwin" else "fork",
        )
        handler = signal.getsignal(signal.SIGCHLD)
        try:
            batches = iter(loader)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, handler)  # a worker's death is raised where a batch is fetched, not by torch at any moment
            yield from batches
        except RuntimeError as error:
            raise GptshakeError(
                f"One of the processes of data.workers={self.workers} ended early ({error}). data.workers=0 needs none."
            ) from error


def _leave_signals(worker: int) -> None:
    """A worker ends when its parent says so, or is gone; signals that ask the run to stop are the parent's to answer."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # which the fork server of ``processes`` has blocked


class EvalBatches(Sequence[torch.Tensor]):
    """A whole split in order: full blocks in batches of at most ``rows``, then the short rest of the stream as one row.

    Every token but the first is a target exactly once. A batch is made when it is asked for, so that ranks can share the split.
    ``tokens`` has the shape (n_tokens,), n_tokens >= 2.
    """

    def __init__(self, tokens: Ids, block_size: int, rows: int) -> None:
        self._tokens, self._block_size, self._rows = tokens, block_size, rows
        self._n_full, self._rest = divmod(len(tokens) - 1, block_size)

    def __len__(self) -> int:
        return -(-self._n_full // self._rows) + (self._rest > 0)

    def __getitem__(self, number: int) -> torch.Tensor:  # type: ignore[override]  # no slices
        first = number * self._rows
        if 0 <= first < self._n_full:
            ids = np.arange(first, min(first + self._rows, self._n_full))
            return torch.from_numpy(gather(self._tokens, ids * self._block_size, self._block_size))
        if number != len(self) - 1:
            raise IndexError(number)
        return torch.from_numpy(np.asarray(self._tokens[-self._rest - 1 :]).astype(np.int64)[None])


class TokenDataModule(pl.LightningDataModule):
    """Batches of an opened store; the parameters are those of ``TrainBatches``, and keys of ``data``.

    Raises:
        ConfigError: ``micro_batch_size`` times ``world_size`` does not divide ``batch_size``.
        DataError: the training split has not one block.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        block_size: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        offset: str = "none",
        limit_blocks: int | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size % (micro_batch_size * world_size):
            raise ConfigError(
                f"data.batch_size={batch_size} cannot be made of micro-batches of {micro_batch_size} on {world_size} device(s); "
                f"it must be a multiple of {micro_batch_size * world_size}."
            )
        self.store, self._block_size, self._micro_batch_size = store, block_size, micro_batch_size
        self._tokens = {split.name: split.tokens() for split in store.splits}  # now: the cache may be removed during a run
        self._order: dict[str, Any] = {"seed": seed, "random_offset": offset == "random"}
        self._training: dict[str, Any] = {"rank": rank, "world_size": world_size, "limit_blocks": limit_blocks, "workers": workers}
        self.n_blocks = n_blocks(store.train.n_tokens, block_size, random_offset=offset == "random", limit=limit_blocks)

    def train_dataloader(self) -> TrainBatches:
        return TrainBatches(self._tokens["train"], self._block_size, self._micro_batch_size, **self._order, **self._training)

    def val_dataloader(self) -> EvalBatches:
        return EvalBatches(self._tokens["val"], self._block_size, self._micro_batch_size)

    def test_dataloader(self) -> EvalBatches:
        """The whole test split; ConfigError if the store has none."""
        if self.store.test is None:
            raise ConfigError("This text has no test split; give it one with data.test_fraction=0.05.")
        return EvalBatches(self._tokens["test"], self._block_size, self._micro_batch_size)

    def sample_block(self, i: int = 0) -> npt.NDArray[np.int64]:
        """The i-th training block that the model will read, shape (block_size + 1,)."""
        starts = block_starts(i, 1, self.n_blocks, block_size=self._block_size, **self._order)
        block: npt.NDArray[np.int64] = gather(self._tokens["train"], starts, self._block_size)[0]
        return block
