"""The processes that train one run together: which one this is, how the others are started, what they exchange.

Rank 0 is the command that was typed; it alone composes, decides, writes and prints. It starts the others, or torchrun starts all, in
either case with torch's own variables in the environment; they learn everything else from rank 0. Numbers go through
torch.distributed: gradients as the device likes it, the few that steer the loop through gloo, so no GPU is waited for.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from subprocess import PIPE
from typing import TYPE_CHECKING, TypeVar

from gptshake.errors import Stop, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from gptshake.processes import Command

T = TypeVar("T")
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
THREADS = "OMP_NUM_THREADS"
OURS = "GPTSHAKE_FOLLOWS"  # set where rank 0 has started this process, and holds its standard input
DEVICE = "GPTSHAKE_DEVICE"  # of the processes that rank 0 starts: whether they need NCCL
MEETING = timedelta(days=1)  # that ranks of torchrun's wait for rank 0, which may build a corpus first; one that is gone is noticed at once
PATIENCE = timedelta(minutes=30)  # from then on; rank 0 may write a large checkpoint meanwhile
GRACE = 20.0  # seconds from a rank's end until those that hang without noticing are ended, too


def launched() -> int:
    """How many processes torchrun, or its like, has started for this run; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in VARIABLES) else 1


def follows() -> bool:
    """Whether this process takes its orders from rank 0."""
    return launched() > 1 and int(os.environ["RANK"]) > 0


class Ranks:
    """This process among those that train together; alone, everything here is for free.

    Args:
        rank: of this process, from 0.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def all_reduce_max(self, *flags: int) -> list[int]:
        """The largest that any rank says, flag by flag, so that all go the same way; all ranks must ask."""
        if self.size == 1:
            return [int(flag) for flag in flags]
        import torch
        from torch import distributed

        values = torch.tensor([int(flag) for flag in flags])
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return [int(value) for value in values.tolist()]

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Sums over all ranks, in fp64."""
        if self.size == 1:
            return list(values)
        import torch
        from torch import distributed

        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def all_reduce_mean(self, value: "Tensor") -> "Tensor":
        """Mean over all ranks of a tensor, which is changed; nobody waits for its device."""
        if self.size == 1:
            return value
        from torch import distributed

        distributed.all_reduce(value)
        return value.div_(self.size)

    def shard(self, items: Iterable[T], most: int | None = None) -> Iterator[tuple[T, bool]]:
        """This rank's part of the first ``most`` of ``items``, each with whether it counts; of a sequence no other item is made.

        Every rank gets equally many, as those must that exchange parts of a network to look at one: where the last round lacks
        some, the others do its first one, too, and throw the result away.
        """
        if isinstance(items, Sequence):
            n = len(items) if most is None else min(most, len(items))
            for first in range(0, n, self.size):
                counts = first + self.rank < n
                yield items[first + self.rank if counts else first], counts
            return
        source = islice(items, most)
        while group := list(islice(source, self.size)):
            counts = self.rank < len(group)
            yield group[self.rank if counts else 0], counts

    def broadcast(self, order: T | None = None) -> T:
        """What rank 0 says: it gives ``order``, the others wait for it."""
        from torch import distributed

        box = [order]
        if self.size > 1:
            distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]


ALONE = Ranks()


@contextmanager
def together(size: int, threads: int, device: str = "cuda", received: Callable[[], int | None] = lambda: None) -> Iterator[Ranks]:
    """The group of ``size`` processes, seen from rank 0, which starts the others unless torchrun has; they end with this block.

    Args:
        size: of the group; 1: nothing is done.
        device: on which they train.
        received: gives the signal that came to this process, if one did.
    Raises:
        TrainingError: another rank ended early.
        Stop: a signal ended it, as one of the terminal's does that reaches all ranks while some have not begun to train.
    """
    if size == 1:
        yield ALONE
        return
    before = {name: os.environ.get(name) for name in (*VARIABLES, THREADS, DEVICE)}
    os.environ[THREADS] = str(threads)  # else Lightning sets a number of its own
    others = []
    if launched() == 1:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        os.environ |= dict(zip((*VARIABLES, DEVICE), ("0", "0", str(size), "127.0.0.1", port, device), strict=True))
        others = [_begin(rank) for rank in range(1, size)]
    ended = threading.Event()
    threading.Thread(target=_watch, args=(others, ended), daemon=True).start()
    try:
        yield join()
        leave()
    except Exception as error:
        lost = _lost(others, patience=2.0) or connection_ended(error)
        stopped = (end.value - 128 for process in others if (end := process.wait(0)) and end.status == "stopped")
        if lost and (signum := received() or next(stopped, 0)):
            raise Stop(signum) from error
        if lost:
            raise TrainingError(lost) from error
        raise
    finally:
        for process in others:  # they write nothing, so there is nothing to wait for
            process.kill()
        leave()
        ended.set()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def join() -> Ranks:
    """Form the group; waits for the other ranks."""
    import torch
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if os.environ.get(DEVICE, "cuda") == "cuda" and torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=MEETING)
    distributed.distributed_c10d._set_pg_timeout(PATIENCE)
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def connection_ended(error: BaseException) -> str:
    """A sentence about a rank that is gone or hangs, where an error comes from that; empty for any other error."""
    if not (isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "TCPStore"))):
        return ""
    if "timed out" in str(error).lower():
        return f"Another rank has not answered for {PATIENCE.total_seconds() / 60:.0f} minutes; the last checkpoint is kept."
    return "Another rank ended early, and this one cannot continue without it; the last checkpoint is kept."


def quiet() -> None:
    """Let a process that follows print nothing but errors, and end when the rank 0 that has started it is gone."""

    def end_with_rank_0() -> None:
        os.read(0, 1)  # of a pipe whose other end is there, where nobody writes
        os._exit(1)

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if OURS in os.environ:
        threading.Thread(target=end_with_rank_0, daemon=True).start()


def _begin(rank: int) -> "Command":
    from gptshake.processes import Command  # only here, as every command imports this module

    return Command([sys.executable, "-m", "gptshake"], {"RANK": str(rank), "LOCAL_RANK": str(rank), OURS: "1"}, stdin=PIPE)


def _lost(others: "Sequence[Command]", patience: float = 0.0) -> str:
    """A sentence about a rank that ended early; empty if none did."""
    until = time.monotonic() + patience
    while True:
        for rank, process in enumerate(others, 1):
            if (end := process.wait(0)) and end.status != "ok":
                how = end.reason if end.status == "failed" else f"was {end.reason}"
                return f"Rank {rank} of {len(others) + 1} {how}, and the others cannot continue without it; the last checkpoint is kept."
        if time.monotonic() >= until:
            return ""
        time.sleep(0.05)


def _watch(others: "Sequence[Command]", ended: threading.Event) -> None:
    """End this process if another rank is gone and the wait for it does not end by itself, as in a GPU's kernel."""
    while not ended.wait(0.5):
        if lost := _lost(others):
            if not ended.wait(GRACE):
                print(f"error: {lost}", file=sys.stderr, flush=True)
                os._exit(1)
            return
