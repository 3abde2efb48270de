import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.record.run import end_session, start_session, steady_clock, totals

GIT = {"commit": "abc", "dirty": False}


def begin(before: list[dict[str, Any]], now: float, last_seen: float | None = None, price: float | None = None) -> list[dict[str, Any]]:
    return start_session(before, now=now, last_seen=last_seen, git=GIT, price_per_hour=price)


def test_one_sitting_from_its_start_to_its_end() -> None:
    done = end_session(begin([], 100.0), now=160.0, energy_kwh=0.5)
    assert done == [{"started": 100.0, "commit": "abc", "dirty": False, "from_step": 0, "ended": 160.0, "energy_kwh": 0.5}]
    assert totals(done) == {"wall_s": 60.0, "energy_kwh": 0.5, "price": None}


def test_a_killed_sitting_ended_when_it_was_last_seen() -> None:
    sittings = end_session(begin(begin([], 0.0, price=7.2), 1000.0, last_seen=50.0, price=3.6), now=1100.0)
    assert [sitting["ended"] - sitting["started"] for sitting in sittings] == [50.0, 100.0]
    assert [sitting["from_step"] for sitting in sittings] == [0, None]
    assert totals(sittings) == {"wall_s": 150.0, "energy_kwh": None, "price": pytest.approx(0.1 + 0.1)}


def test_one_that_was_killed_before_its_first_row_took_no_time() -> None:
    assert totals(begin(begin([], 500.0), 900.0, last_seen=None))["wall_s"] == 0.0
    assert totals(begin(begin([], 500.0), 900.0, last_seen=400.0))["wall_s"] == 0.0  # the last row is of a sitting before


def test_energy_or_price_of_a_part_is_no_figure_of_the_whole() -> None:
    first = end_session(begin([], 0.0, price=1.0), now=3600.0, energy_kwh=0.25)
    both = end_session(begin(first, 4000.0), now=7600.0)
    assert totals(first) == {"wall_s": 3600.0, "energy_kwh": 0.25, "price": 1.0}
    assert totals(both) == {"wall_s": 7200.0, "energy_kwh": None, "price": None}


def test_uncommitted_changes_are_told_by_their_hash() -> None:
    (sitting,) = start_session([], now=1.0, last_seen=None, git={"commit": "abc", "dirty": True, "diff_sha256": "d"}, price_per_hour=None)
    assert (sitting["dirty"], sitting["diff_sha256"]) == (True, "d")


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=6))
def test_wall_time_is_the_sum_of_the_sittings_and_closing_twice_changes_nothing(spans: list[tuple[float, float]]) -> None:
    sittings: list[dict[str, Any]] = []
    for number, (started, seconds) in enumerate(spans):
        sittings = end_session(begin(sittings, started + number), now=started + number + seconds)
        assert end_session(sittings, now=1e12) == sittings
    assert totals(sittings)["wall_s"] == pytest.approx(sum(seconds for _, seconds in spans), abs=1e-3)


def test_a_clock_that_is_set_changes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    now = steady_clock()
    began = now()
    monkeypatch.setattr(time, "time", lambda: began + 19_200)
    assert 0 <= now() - began < 60
