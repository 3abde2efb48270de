import time

import pytest

from gptshake.data.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_speaks_at_most_as_often_as_asked(clock: list[float]) -> None:
    said: list[str] = []
    progress = Progress(said.append, "train", every=5)
    for second in range(13):
        clock[0] = float(second)
        progress(second * 2_000_000)
    assert said == ["  train: 10 MB | 2.0 MB/s", "  train: 20 MB | 2.0 MB/s"]


def test_what_an_earlier_process_did_counts_as_done_but_not_for_the_speed(clock: list[float]) -> None:
    said: list[str] = []
    progress = Progress(said.append, "train", 1_000_000_000, done=500_000_000)
    clock[0] = 10.0
    progress(600_000_000, "7 documents")
    assert said == ["  train: 600 of 1,000 MB | 10.0 MB/s | 40 s left | 7 documents"]
