import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from gptshake.errors import RecordError
from gptshake.record.metrics import COLUMNS, DRAWN, Columns
from gptshake.record.run import Run
from gptshake.report.figure import frame, plot_style, small_svg
from gptshake.report.plots_run import loss_figure, plot_run
from gptshake.report.series import smooth, spread, thin

ENTROPY = {"uniform": 4.8, "unigram": 3.05, "bigram": 2.42}
NAME = "20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-x3k9a2pq"


def rows(n: int, validations: int = 4) -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).normal(0, 0.05, n)
    made = []
    for step in range(1, n + 1):
        loss = 1.7 + 3 * math.exp(-6 * step / n)
        made.append({"step": step, "train/tokens": 768 * step, "train/loss": loss + noise[step - 1], "train/lr": 1e-3 * step / n})
        if step % max(1, n // validations) == 0:
            made[-1] |= {"val/loss": loss, "val/bpb": loss * 1.4}
    return made


def columns(these: list[dict[str, Any]]) -> Columns:
    return {name: array("d", [row.get(name, math.nan) for row in these]) for name in DRAWN}


def drawn(these: list[dict[str, Any]], **info: Any) -> Figure:
    with plot_style():
        figure = loss_figure({"name": NAME, "id": "x3k9a2pq", "data": {"entropy": ENTROPY}, **info}, columns(these))
    assert figure is not None
    return figure


def recorded(path: Path, these: list[dict[str, Any]]) -> Path:
    run = Run.create(path, id="x3k9a2pq", name=NAME, task="train", config_yaml="", overrides=[], data={"entropy": ENTROPY})
    for row in these:
        run.append_row(row)
    return run.path


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts + figure.axes[0].texts]


def test_a_run_gives_a_png_and_an_svg(tmp_path: Path) -> None:
    run_dir = recorded(tmp_path / "run", rows(300))
    assert plot_run(run_dir) == [run_dir / "plots/loss.png", run_dir / "plots/loss.svg"]
    with Image.open(run_dir / "plots/loss.png") as image:
        assert image.size == (1600, 1000)
    assert (run_dir / "plots/loss.svg").read_text().lstrip().startswith("<?xml")
    assert sorted(path.name for path in (run_dir / "plots").iterdir()) == ["loss.png", "loss.svg"]


def test_the_same_numbers_are_the_same_picture_byte_for_byte(tmp_path: Path) -> None:
    pictures = [[path.read_bytes() for path in plot_run(recorded(tmp_path / name, rows(300)))] for name in ("a", "b")]
    assert pictures[0] == pictures[1]


def test_the_three_lines_stand_at_their_entropies_and_are_named() -> None:
    figure = drawn(rows(300))
    heights = {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"}
    assert heights == set(ENTROPY.values())
    assert {"ln V 4.80", "unigram 3.05", "bigram 2.42"} <= set(texts(figure))
    bottom, top = figure.axes[0].get_ylim()
    assert all(bottom < height < top for height in heights)


@pytest.mark.parametrize("info", [{"data": None}, {"data": {}}, {"data": {"entropy": {}}}])
def test_a_run_that_knows_no_entropies_is_drawn_without_lines(info: dict[str, Any]) -> None:
    assert all(line.get_linestyle() != "--" for line in drawn(rows(30), **info).axes[0].lines)


def test_the_heading_names_the_run_and_its_last_validation() -> None:
    these = rows(400)
    heading = texts(drawn(these))
    assert "tiny · wiki_char · excerpt106 · lr3e-4" in heading
    assert any(f"val loss {these[-1]['val/loss']:.3f}" in text and "400 steps" in text and "307k tokens" in text for text in heading)


def test_validations_and_learning_rates_are_drawn_as_recorded() -> None:
    these = rows(200)
    upper, lower = drawn(these).axes
    (validation,) = [line for line in upper.lines if line.get_label() == "val"]
    assert validation.get_xydata().tolist() == [[row["train/tokens"], row["val/loss"]] for row in these if "val/loss" in row]
    assert lower.lines[0].get_ydata().tolist() == [row["train/lr"] for row in these]


@pytest.mark.parametrize(
    "bad", [[], [{"step": 0, "train/tokens": 0, "val/loss": 4.0}], [{"step": 1, "train/tokens": 9, "train/loss": math.nan}]]
)
def test_a_run_without_a_loss_has_no_picture(tmp_path: Path, bad: list[dict[str, Any]]) -> None:
    assert plot_run(recorded(tmp_path / "run", bad)) == []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_run_of_few_steps_has_a_picture(tmp_path: Path, n: int) -> None:
    assert plot_run(recorded(tmp_path / "run", rows(n)))


def test_a_loss_that_is_not_finite_does_not_spoil_the_picture() -> None:
    these = [*rows(50), {"step": 51, "train/tokens": 768 * 51, "train/loss": math.inf, "train/lr": 0.0}]
    assert all(map(math.isfinite, drawn(these).axes[0].get_ylim()))


@pytest.mark.parametrize(
    "losses", [[3.0], [4 - 0.001 * n for n in range(3000)], [3.0, math.inf, 1e30, 1e308, 1e308, 2.0], [0.0], [-1.0, 5.0]]
)
def test_every_run_with_a_finite_loss_has_a_picture(losses: list[float]) -> None:
    these = [{"step": n, "train/tokens": 100.0 * n, "train/loss": loss, "train/lr": 1e-3} for n, loss in enumerate(losses, 1)]
    info = {"name": NAME, "id": "x3k9a2pq", "data": {"entropy": ENTROPY}}
    svg = small_svg(lambda: loss_figure(info, columns(these)))
    texts = {str(node.text) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")}
    assert {"train", "unigram 3.05", "learning rate"} <= texts and "nan" not in svg


def test_no_run_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a run directory"):
        plot_run(tmp_path)


@given(st.floats(-1e3, 1e3), st.integers(1, 300))
def test_a_constant_is_smooth_already(value: float, n: int) -> None:
    assert smooth(np.full(n, value)) == pytest.approx(np.full(n, value), abs=1e-9)


def test_a_straight_line_is_kept_where_the_window_is_whole() -> None:
    line = np.arange(1000.0)
    assert smooth(line)[:980] == pytest.approx(line[:980])


def test_the_first_loss_is_drawn_as_it_was() -> None:
    assert smooth(np.array([9.0, 1.0, 1.0, 1.0]))[0] == 9.0


def test_thinning_keeps_every_spike_and_the_order() -> None:
    x, y = np.arange(100_000.0), np.zeros(100_000)
    y[[5, 777, 99_999]] = 1.0
    thin_x, thin_y = thin(x, y)
    assert len(thin_x) <= 2001 and set(thin_x[thin_y > 0]) == {5.0, 777.0, 99_999.0} and (np.diff(thin_x) > 0).all()
    assert thin(x[:2000], y[:2000])[0] is not None and len(thin(x[:2000], y[:2000])[0]) == 2000


@given(st.lists(st.floats(-1e3, 1e3), max_size=5).map(lambda heights: sorted(heights, reverse=True)), st.floats(0.01, 100))
def test_labels_never_overlap(heights: list[float], gap: float) -> None:
    placed = spread(heights, gap)
    assert all(upper - lower >= gap * (1 - 1e-6) - 1e-9 for upper, lower in itertools.pairwise(placed))
    assert all(new <= old for new, old in zip(placed, heights, strict=True))


def test_a_million_rows_are_drawn_in_little_memory(tmp_path: Path) -> None:
    line = "{step},{tokens},2.5,0.001,,0.5,1.0,0.1,1000.0,0.1,,,1800000000.0\n"
    body = "".join(line.format(step=step, tokens=64 * step) for step in range(1, 1_000_001))
    (recorded(tmp_path / "run", rows(1)) / "metrics.csv").write_text(",".join(COLUMNS) + "\n" + body)
    code = (
        "import resource, sys, pathlib\n"
        "from gptshake.report.plots_run import plot_run\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "plot_run(pathlib.Path(sys.argv[1]))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300  # MiB


def test_a_title_of_any_length_is_legible_and_within_the_picture() -> None:
    with plot_style():
        figure, _ = frame(99 * "tiny · lr 3e-4, ", 99 * "tiny · lr 3e-4, ", 4)
    for text in figure.texts:
        assert text.get_fontsize() >= 8 and text.get_text().endswith("…")
        assert text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1 <= figure.bbox.x1
