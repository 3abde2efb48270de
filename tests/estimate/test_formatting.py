"""Numbers as people say them."""

import pytest

from gptshake.errors import ConfigError
from gptshake.estimate.formatting import counted, duration, parse_bytes, percent, short_bytes, short_count, short_rate, three_digits


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (47.6, "48 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7800, "2 h 10 min")),
        *((59.7, "1 min 00 s"), (119.8, "2 min 00 s"), (3599.9, "1 h 00 min"), (7199.9, "2 h 00 min"), (820_800, "9.5 days")),
    ],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (999.9, "1k"), (12_800, "12.8k"), (3.07e6, "3.07M"), (999_999, "1M"), (2e9, "2B"), (3e11, "300B")],
)
def test_counts_are_short(value: float, text: str) -> None:
    assert short_count(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.62, "62 %"), (0.004, "0.4 %"), (0.0001, "0 %"), (0.0095, "1 %"), (0.996, "100 %"), (-0.03, "-3 %")]
)
def test_shares_are_whole_unless_small(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(0.1318, "0.132"), (4.534, "4.53"), (99.96, "100"), (4534.7, "4,535")])
def test_a_measured_figure_has_no_exponent(value: float, text: str) -> None:
    assert three_digits(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-3, "1e-3"), (6e-4, "6e-4"), (9.4e-4, "9.4e-4"), (0.02, "2e-2"), (1.0, "1e0")])
def test_rates_are_short(value: float, text: str) -> None:
    assert short_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (1007 * 2**20, "1007 MiB"), (2**30 - 1, "1 GiB"), (24 * 2**30, "24 GiB")],
)
def test_memory_is_told_as_devices_have_it(value: float, text: str) -> None:
    assert short_bytes(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1GiB", 2**30),
        ("1.5G", 3 * 2**29),
        ("800 MB", 800_000_000),
        ("512m", 2**29),
        ("64kib", 2**16),
        ("2 TiB", 2**41),
        ("100B", 100),
        ("12", 12),
    ],
)
def test_memory_is_understood_as_people_write_it(text: str, value: int) -> None:
    assert parse_bytes("task.memory", text) == value


@pytest.mark.parametrize("text", ["", "much", "1PiB", "-1GiB", "0MiB", "1e9", "GiB", "1 G i B"])
def test_what_is_no_memory_gets_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"task.memory=.* such as 800MiB or 1.5GiB"):
        parse_bytes("task.memory", text)


def test_a_number_agrees_with_its_noun() -> None:
    assert [counted(number, "step") for number in (0, 1, 2, 1000)] == ["0 steps", "1 step", "2 steps", "1,000 steps"]
    assert [counted(number, "epoch", ".2g") for number in (0.4, 0.999, 1.0, 1.5)] == ["0.4 epochs", "1 epoch", "1 epoch", "1.5 epochs"]
