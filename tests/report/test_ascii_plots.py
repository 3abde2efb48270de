import numpy as np

from gptshake.report.ascii_plots import ascii_curves


def test_curves_in_characters_begin_and_end_where_their_values_are() -> None:
    falling = np.array([0.0, 10.0]), np.array([3.0, 1.0])
    rising = np.array([0.0, 5.0]), np.array([1.0, 3.0])
    lines = ascii_curves({"a": falling, "b": rising}, width=11, height=5)
    assert [line[11:] for line in lines[:5]] == ["a    b", "", "", "", "b         a"]
    assert [line[:9].strip() for line in lines[:5]] == ["3.000", "", "2.000", "", "1.000"]
    assert lines[6].split() == ["0", "10", "tokens"]


def test_the_steep_beginning_of_a_curve_does_not_flatten_the_rest() -> None:
    steps = np.arange(100.0)
    lines = ascii_curves({"a": (steps, np.where(steps < 5, 100.0, 2.0 - steps / 100))}, width=50, height=6)
    assert "^" in lines[0] and float(lines[0].split()[0]) < 3
    assert ascii_curves({}, 50, 6) == ascii_curves({"a": (steps[:0], steps[:0])}, 50, 6) == []
