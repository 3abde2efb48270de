"""Optuna's side of a study: where it is kept, and an axis in Optuna's words."""

import os
from math import ceil, floor, log2
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from gptshake.errors import RecordError
from gptshake.sweep.space import Axis, Value

JOURNAL = "journal.log"


def open_storage(folder: Path, *, begun: bool) -> BaseStorage:
    """The journal file in the study's folder, mended first.

    Raises:
        RecordError: the study has begun, and its journal is not there.
    """
    path = folder / JOURNAL
    if begun and not path.exists():
        raise RecordError(
            f"The study {folder.name} has no {JOURNAL}: it was kept in another storage (hydra.sweeper.storage, which is no longer there), "
            f"or the file was removed. Its results stay in {folder}; start a new study with study=<name>."
        )
    _mend(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def _mend(journal: Path) -> None:
    """Take away what a killed controller left: a lock that would stall us for 30 s, a torn last line that would spoil the next one."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        content = journal.read_bytes()
        os.truncate(journal, content.rfind(b"\n") + 1)


def name_of(axis: Axis) -> str:
    """The axis' name for Optuna: powers of two are searched by their exponent, so that doubling is one step everywhere."""
    return f"{axis.key}:log2" if axis.powers else axis.key


def distribution(axis: Axis, value: Value | None = None) -> BaseDistribution:
    """What Optuna may choose from; a point of the user's own outside of the range widens it for this trial."""
    if not axis.numeric:
        return CategoricalDistribution(axis.choices)
    low, high = axis.bounds
    if isinstance(value, (int, float)):
        low, high = min(low, value), max(high, value)
    if axis.powers:
        return IntDistribution(ceil(log2(low)), floor(log2(high)))
    if axis.integer:
        return IntDistribution(ceil(low), floor(high), log=axis.log)
    return FloatDistribution(low, high, log=axis.log)


def encode(axis: Axis, value: Value) -> Value:
    """A value as Optuna keeps it."""
    return round(log2(float(value))) if axis.powers else value


def decode(axis: Axis, value: Any) -> Value:
    """What Optuna keeps, as the value that it means."""
    plain: Value = 2**value if axis.powers else value
    return plain
