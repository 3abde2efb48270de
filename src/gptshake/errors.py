"""Every error a user can meet, as one small tree; each class knows the exit code of the process.

Messages are whole sentences: what was written, why it cannot work, what to do. Only ``gptshake.__main__`` prints them.
"""

import difflib
from collections.abc import Iterable, Iterator


def closest(word: str, names: Iterable[str], most: int = 1) -> str:
    """The names closest to a word, as in ``a or b``; a dotted name is found by its last part, too. Empty if none is close."""
    names = list(names)
    ends = {name.rpartition(".")[2]: name for name in reversed(names)}
    if word in ends:
        return ends[word]
    near = difflib.get_close_matches(word, names, most, 0.6) or [ends[end] for end in difflib.get_close_matches(word, ends, 1, 0.7)]
    return " or ".join(near)


def did_you_mean(text: str | None) -> str:
    """The end of a sentence: ``"; did you mean X?"``, or a full stop where there is nothing to propose."""
    return f"; did you mean {text}?" if text else "."


def nearest(word: str, names: Iterable[str]) -> str:
    """The same with the closest of the names."""
    return did_you_mean(closest(word, names))


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without a full stop; the name of its class if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, each once: one that is raised anew out of what wrapped it makes a ring."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


class GptshakeError(Exception):
    """Base of all errors that are shown to people as one sentence, without a traceback."""

    exit_code = 1
    is_shared = False  # whether all ranks raise it together, so that rank 0 alone reports it


class UserError(GptshakeError):
    """What was asked for cannot be done as written."""

    exit_code = 2


class ConfigError(UserError):
    """An option, a key, a value or a combination of them."""


class DataError(UserError):
    """A corpus, a document, a tokenizer or a token store."""


class RecordError(UserError):
    """A run directory that is missing, in use, or not what is expected."""


class Unreachable(GptshakeError):
    """A hub or a server that did not answer; the sentence gives the ways out."""


class StorageError(GptshakeError):
    """A disk that is full, or a place that cannot be written to."""


class DiskFull(StorageError):
    """A disk, or the user's share of it, that is full."""


class TrainingError(GptshakeError):
    """The training itself broke, as with a loss that is not finite."""


class CheckpointError(GptshakeError):
    """A checkpoint that is damaged or belongs to another model."""


class Stop(BaseException):
    """A signal asked the run to end; it was checkpointed first. Not an ``Exception``: no ``except Exception`` may hold it back.

    Args:
        signum: the signal's number; the process exits with ``128 + signum``.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.exit_code = 128 + signum


class Pruned(BaseException):
    """The sweep that a run belongs to asked it to end, for ``reason``. Like ``Stop`` it passes every ``except Exception``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
