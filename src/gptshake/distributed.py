"""The processes that train one run together: how the others are started, what they exchange, what happens when one is lost.

Rank 0 is the command that was typed; it alone composes, decides, writes and prints. It starts the others, or torchrun or Slurm's srun
starts all (``torchrun``); they learn everything else from rank 0.
Numbers go through torch.distributed: gradients as the device likes it, the few that steer the loop through gloo, so no GPU is waited for.
"""

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from subprocess import PIPE
from typing import TYPE_CHECKING, TypeVar

from gptshake.errors import ConfigError, GptshakeError, Stop, TrainingError, first_line
from gptshake.signals import SIGNALS
from gptshake.torchrun import VARIABLES, launched, speaker

if TYPE_CHECKING:
    from torch import Tensor

    from gptshake.processes import Command

T = TypeVar("T")
THREADS = "OMP_NUM_THREADS"
FOLLOWS = "GPTSHAKE_FOLLOWS"  # set where rank 0 has started this process, and holds its standard input
DEVICE = "GPTSHAKE_DEVICE"  # of the processes that rank 0 starts: whether they need NCCL
FINDING = timedelta(minutes=5)  # until all ranks have found each other
MEETING = timedelta(days=1)  # that the others then wait for rank 0, which may build a corpus first; one that is gone is noticed at once
PATIENCE = timedelta(minutes=30)  # from the first step on; rank 0 may write a large checkpoint meanwhile
HELLO = 5.0  # seconds that a process which connects has to say which rank it is
GRACE = 20.0  # seconds from a rank's end until those that hang without noticing are ended, too
SAVING = 300.0  # the same while this rank writes a checkpoint, which needs no other unless the weights are sharded
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # a machine that is gone is noticed after a minute


class Ranks:
    """This process among those that train together; alone, everything here is for free.

    Args:
        rank: of this process, from 0.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def all_reduce_max(self, *flags: int) -> list[int]:
        """The largest that any rank says, flag by flag, so that all go the same way; all ranks must ask."""
        return [int(value) for value in self._all_reduce("MAX", flags)]

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Sums over all ranks, in fp64."""
        return self._all_reduce("SUM", values)

    def _all_reduce(self, operation: str, values: Sequence[float]) -> list[float]:
        if self.size == 1:
            return list(values)
        import torch
        from torch import distributed

        reduced = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(reduced, getattr(distributed.ReduceOp, operation))
        return [float(value) for value in reduced.tolist()]

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

    def gather(self, value: T | GptshakeError) -> list[T]:
        """What all ranks say, in their order; all must. An error is raised on all of them."""
        from torch import distributed

        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        for error in values:
            if isinstance(error, GptshakeError):
                error.is_shared = True
                raise error
        return values  # type: ignore[return-value]


ALONE = Ranks()


@contextmanager
def together(size: int, threads: int, device: str = "cuda", received: Callable[[], int | None] = lambda: None) -> Iterator[Ranks]:
    """The group of ``size`` processes, seen from rank 0, which starts the others unless they are there; they end with this block.

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
    threading.Thread(target=_watch, args=(lambda: _lost(others), ended), daemon=True).start()
    try:
        yield join()
        leave()
    except Exception as error:
        is_shared = isinstance(error, GptshakeError) and error.is_shared
        lost = "" if is_shared else _lost(others, patience=2.0) or connection_ended(error)
        stopped = (end.value - 128 for process in others if (end := process.wait(0)) and end.status == "stopped")
        if lost and (signum := received() or next(stopped, 0)):
            raise Stop(signum) from error
        if lost:
            raise TrainingError(lost) from error
        raise
    finally:
        for process in others:  # they write nothing, so there is nothing to wait for
            process.kill()
        leave(well=False)
        ended.set()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def join() -> Ranks:
    """Form the group, if it is not there; waits for the other ranks.

    Raises:
        TrainingError: not all are there within ``FINDING``.
        ConfigError: on rank 0, if the nodes have not equally many processes, or not the same code or command.
    """
    global _liveness
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    backend = "cpu:gloo,cuda:nccl" if os.environ.get(DEVICE, "cuda") == "cuda" and torch.cuda.is_available() else "gloo"
    size, place = launched(), f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    waits = threading.Timer(10.0, print, [f"waiting for all {size} processes to meet at {place} ..."], {"flush": True})
    waits.daemon = True
    waits.start()
    try:
        distributed.init_process_group(backend, timeout=FINDING)
        ranks = Ranks(distributed.get_rank(), size)
        if DEVICE not in os.environ:
            _liveness = Liveness(_lines(ranks), size)
    except (RuntimeError, OSError) as error:
        raise TrainingError(
            f"The {size} processes of this run did not all meet at {place} within {FINDING.total_seconds() / 60:.0f} minutes ({first_line(error)}). "
            "If all were started, with the same MASTER_PORT, set MASTER_ADDR to an address of the first node that the others reach, and "
            "GLOO_SOCKET_IFNAME to the network interface between them."
        ) from error
    finally:
        waits.cancel()
    assert distributed.group.WORLD is not None
    distributed.group.WORLD.set_timeout(MEETING)
    if DEVICE not in os.environ:
        _check_nodes(ranks)
    return ranks


def _check_nodes(ranks: Ranks) -> None:
    """On rank 0, refuse nodes that cannot train one run together; all ranks must ask."""
    from torch import __version__ as torch_version

    from gptshake.record.git import code_sha256  # only here, as every command imports this module
    from gptshake.redaction import redact

    here, words = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size)), {word: redact(word) for word in sys.argv[1:]}  # by its own secrets
    counts, codes, names, commands = zip(*ranks.gather((here, (code_sha256(), torch_version), socket.gethostname(), words)), strict=True)
    if ranks.rank:
        return
    if min(counts) != max(counts) or ranks.size % here:
        raise ConfigError(
            f"The nodes have {min(counts)} to {max(counts)} of the {ranks.size} processes: start equally many on each node, with "
            "--nproc_per_node of torchrun or --ntasks-per-node of srun."
        )
    if other := next((rank for rank, code in enumerate(codes) if code != codes[0]), 0):
        raise ConfigError(
            f"Rank {other} on {names[other]} runs other code than rank 0 on {names[0]}: install the same gptshake and torch on all nodes."
        )
    if other := next((rank for rank, typed in enumerate(commands) if typed.keys() != words.keys()), 0):
        shown = words | commands[other]
        raise ConfigError(
            f"Rank {other} on {names[other]} has another command than rank 0 on {names[0]}, and rank 0 alone decides: type the same on all nodes. "
            f"They differ in {' '.join(shown[word] for word in sorted(commands[other].keys() ^ words.keys()))}"
        )


def limit_waits() -> None:
    """From now on the others do not wait for a rank for longer than ``PATIENCE``."""
    from torch import distributed

    if distributed.group.WORLD is not None:  # else there is no group
        distributed.group.WORLD.set_timeout(PATIENCE)


def leave(*, well: bool = True) -> None:
    """Leave the group; unless it is ``well``, this rank counts as lost."""
    global _liveness
    from torch import distributed

    if _liveness:
        _liveness.close(well=well)
        _liveness = None
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Liveness:
    """A connection of every rank to rank 0 that ends with the process or its machine: the sign of a loss where a wait does not end by itself.

    Rank 0 sees any other that is lost, and ends; the others see rank 0.

    Args:
        lines: the connections of this rank, and which rank is at the other end.
        size: of the group.
    """

    def __init__(self, lines: Mapping[socket.socket, int], size: int) -> None:
        self._lines, self._size, self._ended = lines, size, threading.Event()
        for line in lines:
            line.setblocking(False)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name in KEEPALIVE.keys() & vars(socket).keys():  # else the system's, of two hours
                line.setsockopt(socket.IPPROTO_TCP, vars(socket)[name], KEEPALIVE[name])
        threading.Thread(target=_watch, args=(self.lost, self._ended), daemon=True).start()

    def lost(self) -> str:
        """A sentence about a rank that has not left well; empty if there is none."""
        for line, rank in self._lines.items():
            try:
                well = line.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                well = b""
            if not well:
                return f"Rank {rank} of {self._size} ended early, and the others cannot continue without it; the last checkpoint is kept."
        return ""

    def close(self, *, well: bool) -> None:
        self._ended.set()
        for line in self._lines:
            with suppress(OSError), line:
                line.sendall(b"." if well else b"")


def _lines(ranks: Ranks) -> dict[socket.socket, int]:
    """Connect this rank: rank 0 with all others, the others with rank 0."""
    seconds, dual = FINDING.total_seconds(), socket.has_dualstack_ipv6()
    if ranks.rank:
        address: tuple[int, bytes] = ranks.broadcast()
        port, secret = address
        line = socket.create_connection((os.environ["MASTER_ADDR"], port), seconds)
        line.sendall(secret + ranks.rank.to_bytes(4, "big"))
        return {line: 0}
    lines, secret, until = dict[socket.socket, int](), secrets.token_bytes(16), time.monotonic() + seconds
    with socket.create_server(("", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual) as server:
        ranks.broadcast((server.getsockname()[1], secret))
        while len(lines) < ranks.size - 1:
            server.settimeout(max(0.1, until - time.monotonic()))
            line, said = server.accept()[0], b""
            line.settimeout(HELLO)
            with suppress(OSError), line.makefile("rb") as stream:
                said = stream.read(len(secret) + 4)
            if secrets.compare_digest(said[:-4], secret):
                lines[line] = int.from_bytes(said[-4:], "big")
            else:  # a stranger, such as a port scan
                line.close()
    return lines


_liveness: Liveness | None = None


def connection_ended(error: BaseException) -> str:
    """A sentence about a rank that is gone or hangs, where an error comes from that; empty for any other error."""
    if not (isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "TCPStore"))):
        return ""
    if lost := _liveness.lost() if _liveness else "":
        return lost
    if "timed out" in str(error).lower():
        return f"Another rank has not answered for {PATIENCE.total_seconds() / 60:.0f} minutes; the last checkpoint is kept."
    return "Another rank ended early, and this one cannot continue without it; the last checkpoint is kept."


def quiet() -> None:
    """Let a process that follows print nothing but errors, and end at a signal or when the rank 0 that has started it is gone."""

    def end_with_rank_0() -> None:
        os.read(0, 1)  # of a pipe whose other end is there, where nobody writes
        os._exit(1)

    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # which does not run while torch waits for rank 0
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if FOLLOWS in os.environ:
        threading.Thread(target=end_with_rank_0, daemon=True).start()


def _begin(rank: int) -> "Command":
    from gptshake.processes import Command  # only here, as every command imports this module

    return Command([sys.executable, "-m", "gptshake"], {"RANK": str(rank), "LOCAL_RANK": str(rank), FOLLOWS: "1"}, stdin=PIPE)


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


def _watch(find_lost: Callable[[], str], ended: threading.Event) -> None:
    """End this process if another rank is gone and the wait for it does not end by itself, as in a GPU's kernel."""
    while not ended.wait(0.5):
        if lost := find_lost():
            if not ended.wait(SAVING if SIGNALS.is_saving else GRACE):
                print(f"error: {speaker()}{lost}", file=sys.stderr, flush=True)
                os._exit(1)
            return
