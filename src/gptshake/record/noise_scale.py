"""noise_scale.csv in a run directory: two squared gradient norms per measured step; everything else is computed from them.

Like metrics.csv it is appended, cut back to the checkpoint by a resumed run, and read at any time. Takes and gives measurements.
"""

from dataclasses import astuple
from math import isfinite
from pathlib import Path

from gptshake.estimate.noise_scale import Measurement
from gptshake.record.metrics import MetricsWriter, read_rows

NAME = "noise_scale.csv"
COLUMNS = ("step", "train/tokens", "micro_batch_size", "batch_size", "noise/micro_norm2", "noise/batch_norm2")  # as in Measurement


class NoiseScaleWriter:
    """Appends measurements.

    Args:
        folder: run directory; the file is made if it is not there.
        step: the last finished step; measurements of later ones are cut away, a resumed run makes them again.
    Raises:
        RecordError: the file is damaged.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._writer = MetricsWriter(folder / NAME, COLUMNS)
        self._writer.cut(sum(one.step <= step for one in read_measurements(folder)))

    def append(self, one: Measurement) -> None:
        """Write a measurement."""
        self._writer.append(dict(zip(COLUMNS, astuple(one), strict=True)))

    def flush(self) -> None:
        """Return once everything is on the disk."""
        self._writer.flush()


def read_measurements(folder: Path) -> list[Measurement]:
    """All finite measurements of a run so far, in order; none if there is no file.

    Raises:
        RecordError: a line cannot be read.
    """
    rows = ([row[name] for name in COLUMNS] for row in read_rows(folder / NAME))
    return [Measurement(*map(int, row[:4]), *row[4:]) for row in rows if all(map(isfinite, row))]
