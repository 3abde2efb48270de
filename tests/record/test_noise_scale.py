"""noise_scale.csv: what goes in comes back, a torn line is nothing, a resumed run cuts what it will measure again."""

from pathlib import Path

import pytest

from gptshake.errors import RecordError
from gptshake.estimate.noise_scale import Measurement
from gptshake.record.metrics import NOISE_SCALE, NoiseScaleWriter, read_measurements


def measured(*steps: int) -> list[Measurement]:
    return [Measurement(step, 64 * step, 2, 8, 1 / 3 * step, 0.1 / step) for step in steps]


def written(folder: Path, *steps: int) -> None:
    writer = NoiseScaleWriter(folder, 10**9)
    for one in measured(*steps):
        writer.add(one)
    writer.flush()


def test_measurements_come_back_exactly(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 5)
    assert read_measurements(tmp_path) == measured(1, 2, 5)


def test_a_run_that_has_none_has_none(tmp_path: Path) -> None:
    assert read_measurements(tmp_path) == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("step", "left"), [(0, ()), (9, ()), (10, (10,)), (25, (10, 20)), (30, (10, 20, 30))])
def test_a_resumed_run_cuts_what_came_after_its_checkpoint(step: int, left: tuple[int, ...], tmp_path: Path) -> None:
    written(tmp_path, 10, 20, 30)
    NoiseScaleWriter(tmp_path, step).add(measured(40)[0])
    assert read_measurements(tmp_path) == measured(*left, 40)


def test_a_torn_last_line_and_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    with (tmp_path / NOISE_SCALE).open("a") as file:
        file.write("3,192,2,8,nan,1.0\n4,256,2,8,0.")
    assert read_measurements(tmp_path) == measured(1, 2)


def test_another_file_of_the_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / NOISE_SCALE).write_text("a,b\n1,2\n")
    with pytest.raises(RecordError):
        NoiseScaleWriter(tmp_path)


def test_an_unknown_cell_names_its_line(tmp_path: Path) -> None:
    written(tmp_path, 1)
    with (tmp_path / NOISE_SCALE).open("a") as file:
        file.write("2,128,two,8,1.0,1.0\n")
    with pytest.raises(RecordError, match="line 3"):
        read_measurements(tmp_path)
