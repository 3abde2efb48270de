"""Pictures that can be read: no label over another, no point cut off, every line named, every letter drawn or written as an escape."""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gptshake.report import figure as figure_module
from gptshake.report.figure import FAMILY, _characters_of, _fallbacks, drawn, findfont, fontManager, plot_style
from gptshake.report.plots_study import curves_figure, fit_figure, map_figure
from gptshake.report.plots_tasks import evaluation_figure, inspection_figure

RATES = {
    "even": [2.5e-4 * 2**n for n in range(8)],
    "close": [1e-3, 1.01e-3, 1.02e-3, 1.03e-3, 1e-1],
    "two": [1e-4, 1.1e-4],
    "many": [1e-6 * 1.3**n for n in range(60)],
    "clusters": [1e-4, 1.05e-4, 1.1e-4, 9.9e-3, 1e-2, 1.01e-2],
}


def labels(figure: Figure, axes: Axes) -> list[Any]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [label.get_window_extent(canvas.get_renderer()) for label in axes.get_xticklabels() if label.get_text()]


def picture(line: Callable[..., dict[str, Any]], rows: Any, rates: list[float], **fields: Any) -> Figure:
    study = line(**fields)
    study["trials"] = [rows.trial(n, {"optimizer.lr": rate}, [2 + 0.1 * (n - len(rates) / 2) ** 2]) for n, rate in enumerate(rates)]
    figure = fit_figure(study)
    assert figure is not None
    return figure


@pytest.mark.parametrize("kind", RATES)
def test_no_label_of_a_tick_lies_over_another(line: Any, rows: Any, kind: str) -> None:
    with plot_style():
        figure = picture(line, rows, RATES[kind])
        boxes = sorted(labels(figure, figure.axes[0]), key=lambda box: box.x0)
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_points_are_whole_at_the_edge_and_the_parabola_has_its_name(line: Any, rows: Any) -> None:
    with plot_style():
        figure = picture(line, rows, RATES["even"])
        (axes,) = figure.axes
        assert "parabola" in axes.get_legend_handles_labels()[1]
        marked = [drawing for drawing in axes.lines if drawing.get_marker() in ("o", "*")]
        assert len(marked) >= 2 and not any(drawing.get_clip_on() for drawing in marked)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batches", [1, 3, 8])
def test_the_legend_names_the_best_and_lies_over_no_run(rows: Any, batches: int, seed: int) -> None:
    chance, rates = np.random.default_rng(seed), [1e-4, 1e-3, 1e-2]
    points = [{"optimizer.lr": rate, "data.batch_size": 3**n} for n in range(batches) for rate in rates]
    trials = [rows.trial(n, point, [float(chance.normal(3, 0.1))]) for n, point in enumerate(points)]
    study = rows.study([rows.LR, rows.axis("data.batch_size", low=1, high=3**batches, integer=True)], trials)
    with plot_style():
        figure = fit_figure(study)
        assert figure is not None
        FigureCanvasAgg(figure).draw()
        (axes,) = figure.axes
        legend = axes.get_legend()
        assert legend is not None and any(text.get_text().startswith("best: lr ") for text in legend.get_texts())
        box = legend.get_window_extent()
    assert box.y0 >= axes.get_window_extent().y1 and box.x0 >= 0 and box.y1 <= figure.bbox.y1


def test_a_short_legend_is_one_line_and_a_circle_has_one_number(grid: Any, rows: Any) -> None:
    study = grid()
    again = [rows.trial(50 + row["number"], row["params"] | {"optimizer.beta1": 0.8}, [row["value"] + 0.5]) for row in study["trials"]]
    with plot_style():
        basin, circles = fit_figure(study), map_figure(study | {"trials": [*study["trials"], *again]})
        assert basin is not None and circles is not None
        FigureCanvasAgg(basin).draw()
        legend = basin.axes[0].get_legend()
        assert legend is not None and len({round(text.get_window_extent().y0) for text in legend.get_texts()}) <= 1
    numbers = [text.get_text() for text in circles.axes[0].texts]
    assert len(numbers) == len(study["trials"]) + 1 and not any(number.startswith("3") for number in numbers)


def test_the_long_path_of_a_model_leaves_the_curves_their_room() -> None:
    about = {"step": None, "context": 32, "stride": None, "rolling": False, "text": "book", "split": "val", "documents": 1}
    sizes = {"tokens": 32, "unknown": 0, "bytes": 32, "bpb": 5.6, "bpb_error": 0.1, "by_context": {"tokens": [1] * 32, "nats": [4.0] * 32}}
    with plot_style():
        figure = evaluation_figure([{"run": f"hf:/home/$x_{'/folder' * 20}/$end", **about, **sizes}])
        FigureCanvasAgg(figure).draw()
        legend = figure.axes[0].get_legend()
        assert legend is not None and "/$end: 5.6000 ± 0.1000" in legend.get_texts()[0].get_text()
    inside = figure.axes[0].get_window_extent()
    assert inside.width > 0.8 * figure.bbox.width and legend.get_window_extent().x0 >= inside.x0


@pytest.mark.parametrize("unknown", [0, 8])
def test_the_loss_by_context_has_the_bits_per_byte_of_the_table_as_mean(unknown: int) -> None:
    about = {"run": "r", "step": 1, "context": 2, "stride": None, "rolling": False, "text": "book", "split": "val", "documents": 2}
    by_context = {"tokens": [8, 8], "nats": [16.0, 8.0]}
    known = {"tokens": 16, "bytes": 20, "unknown": 0, "bpb": 24 / 20 / math.log(2), "bpb_error": None, "each": {"hidden": [0.0, 0.0]}}
    other = known | {"unknown": unknown, "bpb": (24 + unknown * 5) / 20 / math.log(2), "each": {"hidden": [unknown * 5.0, 0.0]}}
    with plot_style():
        figure = evaluation_figure([{**about, **sizes, "by_context": by_context} for sizes in (known, other)])
    means = [float(np.mean(line.get_ydata())) for line in figure.axes[0].lines]
    assert means == pytest.approx([known["bpb"], other["bpb"]] if unknown else [1.5, 1.5])  # without unknown characters in nats per token


def test_a_parabola_whose_minimum_lies_far_below_all_runs_is_not_drawn(line: Any) -> None:
    losses = dict(zip((1e-3, 3e-3, 1e-2), (5.91, 4.648, 4.582), strict=True))
    with plot_style():
        figure = fit_figure(line(list(losses), losses.__getitem__))
    assert figure is not None and "parabola" not in figure.axes[0].get_legend_handles_labels()[1]


@pytest.mark.parametrize("text", ["日本語のテキスト · 한국어", "العربية हिन्दी", "🙂\ud800\t\x1b", "Ünïcode ± ·"])
@pytest.mark.parametrize("kind", ["fit", "map"])
def test_no_letter_is_a_box_or_a_warning(line: Any, grid: Any, rows: Any, kind: str, text: str) -> None:
    with warnings.catch_warnings(), plot_style():
        warnings.simplefilter("error")
        figure = map_figure(grid(label=text)) if kind == "map" else picture(line, rows, RATES["even"], label=text)
        assert figure and drawn(figure, "png") and drawn(figure, "svg")
        shown = figure.texts[0].get_text()
    found, still = _fallbacks(frozenset(text) - _characters_of(findfont(FAMILY)))
    assert not any(letter in shown for letter in still) and all(letter in shown for letter in set(text) - still)
    assert not any("Last Resort" in name for name in found)


def test_a_long_title_that_no_font_can_write_stays_large_enough_to_be_read(line: Any, rows: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(figure_module, "_fallbacks", lambda lacking: ([], lacking))  # a system without fonts
    with plot_style():
        figure = picture(line, rows, RATES["even"], label="日" * 40)
        assert figure and drawn(figure, "png")
    title = figure.texts[0]
    assert title.get_text().startswith("\\u65e5" * 3) and title.get_text().endswith("...") and title.get_fontsize() >= 8


def test_a_font_of_the_system_that_has_the_letters_is_used() -> None:
    own = _characters_of(findfont(FAMILY))
    (path,) = {font.fname for font in fontManager.ttflist if font.name == "STIXGeneral" and font.style == "normal" and font.weight == 400}
    lacking = frozenset(sorted(_characters_of(path) - own)[:5])
    found, still = _fallbacks(lacking)
    assert lacking and found and not still


@pytest.mark.parametrize("seed", range(4))
def test_the_legend_covers_no_bar(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = {
        name: [int(n) for n in random.lognormal(random.uniform(1, 9), random.uniform(0, 2), 50)] for name in ("train", "val", "test")
    }
    facts = {
        **{"label": "text", "tokenizer": "char", "vocab_size": 60, "frequencies": [9.0, 3.0, 1.0], "lengths": lengths},
        **{"splits": [{"n_tokens": 1e6, "n_documents": 100, "bytes_per_token": 1.0}], "most": [{"text": "e", "share": 0.7}]},
    }
    with plot_style():
        figure = inspection_figure(facts)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        axes = figure.axes[1]
        legend = axes.get_legend()
        assert legend is not None
        bottom = legend.get_window_extent().y0
        tops = [axes.transData.transform(patch.get_path().vertices)[:, 1].max() for patch in axes.patches]
    assert max(tops) < bottom


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["ok", "ok"], "val/bpb of every trial"),
        (["ok", "pruned"], "val/bpb of every trial; grey: not run to the end"),
        (["ok", "running"], "val/bpb of every trial; green: running"),
        (["running", "diverged"], "val/bpb of every trial; grey: not run to the end, green: running"),
    ],
)
def test_the_caption_of_curves_names_the_colours_that_are_there(line: Any, rows: Any, states: list[str], said: str) -> None:
    study = line()
    study["trials"] = [rows.trial(n, {"optimizer.lr": 1e-3 * (n + 1)}, [2.0], state) for n, state in enumerate(states)]
    with plot_style():
        figure = curves_figure(study, {n: [[(100.0, 3.0), (200.0, 2.0)]] for n in range(2)})
        assert figure is not None and figure.axes[0].get_title("left") == said
