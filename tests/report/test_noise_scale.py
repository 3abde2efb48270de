"""The picture of the noise scale: whatever was measured, it is drawn, the same every time, and hides what cannot be estimated."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from gptshake.estimate.noise_scale import Estimate, Measurement, running_estimates
from gptshake.record.metrics import NoiseScaleWriter
from gptshake.report.plots_run import Batch, batch_of, draw_noise_scale, noise_figure, plot_noise_scale

INFO: dict[str, Any] = {
    "id": "x1234567",
    "name": "20260101-0000-tiny-wiki_char-excerpt106-x1234567",
    "status": "running",
    "resolved": {"data.batch_size": 8},
    "budget": {"tokens_per_step": 512},
}


def estimates(n: int, noise: float = 20.0) -> list[Estimate]:
    """Measurements whose signal falls from 2 to 1."""
    signals = [2 - step / n + 0.3 * (-1) ** step for step in range(n)]
    return running_estimates(
        Measurement(step + 1, 512 * (step + 1), 2, 8, one + noise / 2, one + noise / 8) for step, one in enumerate(signals)
    )


def texts(picture: Figure) -> str:
    return "\n".join(text.get_text() for axes in picture.axes for text in axes.texts) + "\n".join(text.get_text() for text in picture.texts)


def test_the_picture_names_the_noise_scale_the_batch_and_what_they_mean() -> None:
    picture = noise_figure(estimates(300), Batch(8, 64), "a run")
    last = estimates(300)[-1]
    assert f"noise scale {last.scale:.0f} sequences ({last.low:.0f} to {last.high:.0f})" in texts(picture)
    assert "batch 8" in texts(picture) and "lower bound of the critical batch" in texts(picture)


def test_what_cannot_be_told_is_not_drawn() -> None:
    hidden = [Estimate(step, 512 * step, step, 0.1, 1.0, 20.0) for step in range(1, 30)]
    picture = noise_figure(hidden, Batch(8, 64), "a run")
    assert "it cannot be estimated yet" in texts(picture) and "cannot be estimated at the end" in texts(picture)
    (band,) = picture.axes[0].collections
    assert not any(len(path.vertices) for path in band.get_paths())


@pytest.mark.parametrize("n", [1, 2, 5, 9, 2000])
def test_any_number_of_estimates_is_drawn(n: int, tmp_path: Path) -> None:
    files = draw_noise_scale(estimates(n), Batch(8, 64), "a run", tmp_path)
    assert [file.name for file in files] == ["noise_scale.png", "noise_scale.svg"] and files[1].stat().st_size < 120_000


def test_the_band_that_has_no_end_does_not_squeeze_the_rest() -> None:
    wild = [*estimates(100), Estimate(101, 512 * 101, 101, 1.0, 0.49, 20.0, 9.0, 1e9)]
    assert picture_top(wild) < 1000


def picture_top(shown: list[Estimate]) -> float:
    return float(noise_figure(shown, Batch(8, 64), "a run").axes[0].get_ylim()[1])


def test_a_run_with_measurements_gets_its_picture_and_one_without_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(INFO))
    assert plot_noise_scale(tmp_path) == []
    writer = NoiseScaleWriter(tmp_path)
    for step in range(1, 4):
        writer.add(Measurement(step, 512 * step, 2, 8, 11.0, 3.5))
    one, two = (plot_noise_scale(tmp_path)[1].read_bytes() for _ in range(2))
    assert one == two and batch_of(INFO) == (8, 64)
