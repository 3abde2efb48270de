"""Is the answer of a sweep right? The search of one range against measured landscapes: fine grids of learning rates, two seeds each.

Without options the present rule is replayed in seconds on ``benchmarks/landscapes/*.json`` and on synthetic bowls. A seed's losses are
interpolated in log rate (monotone cubic, Fritsch and Butland 1984); the search sees one seed, the other one is its second seed; it begins
at the best rate times 1/8 to 8. An answer is judged by the mean over seeds, smoothed by a local quadratic among rates within 5 % of the
best, because the bare minimum of a grid is seed noise, and a cliff is no noise. The table: runs of the search, then two more of a second
seed; how far the loss at the answer lies above the smoothed best; how often the stated interval holds the best.

    python benchmarks/sweep_quality.py [NAME ...]
    python benchmarks/sweep_quality.py --keep multirun/<study>   make a landscape of a study (optimizer.lr=<list> repeats=2 pruner=none)
    python benchmarks/sweep_quality.py --real NAME [--folder DIR]   real sweeps from three starts
    python benchmarks/sweep_quality.py --surfaces SLOTS ...   rate and batch together, on 720 surfaces in closed form and on measured ones
"""

import argparse
import itertools
import json
import math
import os
import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptshake.estimate.lr_fit import on_a_cliff, seed_sd
from gptshake.report import study_stats
from gptshake.sweep.rows import NOISE_FOLDER
from gptshake.sweep.search import LineSearch, second_seeds
from gptshake.sweep.space import Axis, Point
from gptshake.sweep.surrogate import SurrogateSearch

LANDSCAPES, SURFACES = Path(__file__).parent / "landscapes", Path(__file__).parent / "surfaces"
LR = "optimizer.lr"
OFF = [2.0**power for power in (-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3)]
WIDTH = 0.6  # of the smoothing kernel, in factors of two
BEYOND = 64  # factor by which the range of the search is wider than the grid
PLATEAU, SLOPE = 0.03, -0.02  # of the loss for a factor of two: what is assumed above the grid, and at least below it
Landscape = dict[str, Any]  # name, command, commit, steps, tokens, rates, losses (a list for each seed, null: diverged), perhaps range
Loss = Callable[[float], float]


@dataclass(frozen=True)
class Surface:
    """Loss over rate and batch."""

    above: Callable[[float, float], float]  # of a rate and a batch, relative to the best of all
    ridge: Callable[[float], float]  # best rate of a batch
    noise: float  # between seeds, of the loss
    start: tuple[float, float] = (2e-3, 32)  # configured rate and batch
    batches: tuple[int, int] = (1, 512)  # range
    off: float = 0.0  # log2 of how far the configured rate is from the best one of a batch


def curve(rates: Sequence[float], losses: Sequence[float | None]) -> Loss:
    """Loss at any rate; a rate nearest to one that diverged diverges."""
    x, y = zip(*((math.log2(rate), loss) for rate, loss in zip(rates, losses, strict=True) if loss is not None), strict=True)
    slopes = np.diff(y) / np.diff(x)
    inner = [0.0 if left * right <= 0 else 2 * left * right / (left + right) for left, right in itertools.pairwise(slopes)]
    tangents = [slopes[0], *inner, slopes[-1]]

    def loss(rate: float) -> float:
        at = math.log2(rate)
        if losses[min(range(len(rates)), key=lambda index: abs(math.log2(rates[index] / rate)))] is None:
            return math.inf
        if at <= x[0]:
            return min(y[0] + min(slopes[0], SLOPE * y[0]) * (at - x[0]), 2 * y[0])
        if at >= x[-1]:
            return y[-1] * (1 + PLATEAU * (at - x[-1]))
        i = int(np.searchsorted(x, at)) - 1
        h = x[i + 1] - x[i]
        t = (at - x[i]) / h
        ends = (1 + 2 * t) * (1 - t) ** 2 * y[i] + t * t * (3 - 2 * t) * y[i + 1]
        return float(ends + h * (t * (1 - t) ** 2 * tangents[i] + t * t * (t - 1) * tangents[i + 1]))

    return loss


def smoothed(points: Sequence[tuple[float, float]], rate: float) -> float:
    """Local quadratic regression of the loss at a rate."""
    x, y = np.array([math.log2(other / rate) for other, _ in points]), np.array([loss for _, loss in points])
    weight = np.exp(-((x / WIDTH) ** 2) / 2)
    columns = np.stack([np.ones_like(x), x, x**2], axis=1)[:, : min(3, len(points) - 1) or 1] * weight[:, None]
    return float(np.linalg.lstsq(columns, y * weight, rcond=None)[0][0])


def truth_of(land: Landscape) -> Loss:
    """Mean over seeds, smoothed among rates within 5 % of the best."""
    means = [None if None in column else statistics.fmean(column) for column in zip(*land["losses"], strict=True)]
    lowest = min(mean for mean in means if mean is not None)
    near = [(rate, mean) for rate, mean in zip(land["rates"], means, strict=True) if mean is not None and mean < 1.05 * lowest]
    inside = {rate for rate, _ in near}
    return curve(land["rates"], [smoothed(near, rate) if rate in inside else mean for rate, mean in zip(land["rates"], means, strict=True)])


def search(loss: Loss, start: float, low: float, high: float) -> list[Point]:
    """The points that the default search tries."""
    line = LineSearch(Axis(LR, low, high, log=True, declared=start), n_trials=None, slots=1)
    points: list[Point] = []
    while (params := line.propose(points)) is not None:
        value = loss(float(params[LR]))
        points.append(Point(len(points), params, value, "ok") if math.isfinite(value) else Point(len(points), params, None, "diverged"))
    return points


def as_study(points: Sequence[Point], low: float, high: float, again: Loss | None) -> study_stats.Json:
    """Rows of study.json, with a second seed of the best and of its better neighbour."""

    def row(number: int, params: Any, value: float | None, state: str, folder: str = "") -> dict[str, Any]:
        run = {"state": state, "value": value, "repeat": 0, "path": f"{folder}{number}"}
        return {"number": number, "params": params, "value": value, "state": state, "runs": [run]}

    first = {float(point.params[LR]): point for point in points if point.value is not None}
    seconds: dict[float, float] = {}
    while again and (wanted := second_seeds([(rate, point.value or 0.0) for rate, point in first.items()], seconds)):
        seconds |= {rate: again(rate) for rate in wanted}
    confirm = [
        row(first[rate].number, first[rate].params, value, "ok" if math.isfinite(value) else "diverged", NOISE_FOLDER)
        for rate, value in seconds.items()
    ]
    axis = {"key": LR, "low": low, "high": high, "log": True, "powers": False, "choices": [], "declared": None}
    trials = [row(point.number, point.params, point.value, point.state) for point in points]
    return {"direction": "minimize", "axes": [axis], "trials": trials, "confirm": confirm, "repeats": 1}


def replay(land: Landscape) -> list[dict[str, float]]:
    """Every start with every seed."""
    rates, truth = land["rates"], truth_of(land)
    low, high = land.get("range") or (rates[0] / BEYOND, rates[-1] * BEYOND)
    fine = [float(rate) for rate in np.geomspace(max(rates[0], low), min(rates[-1], high), 400)]
    best = min(fine, key=truth)
    seeds = [curve(rates, losses) for losses in land["losses"]]
    results = []
    for index, loss in enumerate(seeds):
        again = seeds[(index + 1) % len(seeds)] if len(seeds) > 1 else None
        for start in (min(max(best * off, low), high) for off in OFF):
            points = search(loss, float(f"{start:.3g}"), low, high)
            rows = as_study(points, low, high, again)
            results.append({"runs": len(points), "more": len(rows["confirm"]), **judged(rows, truth, best)})
    return results


def judged(rows: study_stats.Json, truth: Loss, best: float) -> dict[str, float]:
    """How far the answer lies above the best, and whether the interval holds it; without an interval it does not."""
    winner, found = study_stats.best(rows), study_stats.near_optimal(rows, study_stats.scales(rows)[0])
    if winner is None:
        return {"above": math.inf, "holds": 0.0}
    above = truth(float(winner.trial["params"][LR])) / truth(best) - 1
    return {"above": above, "holds": float(found is not None and found.low <= best * 1.01 and best <= found.high * 1.01)}


def synthetic(seed: int) -> list[Landscape]:
    """Bowls with seed noise of 0.1 to 1 %: round, steep on the right, with a cliff and a plateau, a double bottom, the best at the edge."""
    rates = [float(f"{2.5e-4 * 2 ** (number / 2):.3g}") for number in range(19)]
    draw = random.Random(seed)

    def land(name: str, shape: Loss, **more: Any) -> Landscape:
        sd = draw.choice([0.001, 0.003, 0.005, 0.01])
        losses = [[2.5 * (1 + shape(math.log2(rate / 8e-3))) * (1 + draw.gauss(0, sd)) for rate in rates] for _ in range(2)]
        return {"name": f"synthetic {name}", "rates": rates, "losses": losses} | more

    bend = draw.choice([0.004, 0.008, 0.015, 0.025])
    cliffs = [(f"cliff at {at}x", at) for at in (1.2, 2, 4)]
    return [
        land("round", lambda x: bend * x * x),
        land("steep", lambda x: bend * x * x * (5 if x > 0 else 1)),
        *(land(name, lambda x, at=at: 0.2 + 0.02 * x if x > math.log2(at) else bend * x * x) for name, at in cliffs),
        land("double bottom", lambda x: min(bend * x * x + 0.008, bend * (x + 3) ** 2)),
        land("edge", lambda x: bend * x * x, range=(2.5e-4, 4e-3)),
    ]


def keep(folder: Path) -> Landscape:
    """A study of listed rates as a landscape; its folder's name is the landscape's."""
    rows = json.loads((folder / "study.json").read_text())
    trials = sorted(rows["trials"], key=lambda trial: trial["params"][LR])
    runs = [[run["value"] if run["state"] == "ok" else None for run in trial["runs"]] for trial in trials]
    whole = [(trial, values) for trial, values in zip(trials, runs, strict=True) if len(values) == rows["repeats"]]
    return {
        "name": folder.resolve().name,
        "command": shlex.join(["gptshake", "-m", *rows["fixed"]]),
        "commit": rows["code"].get("commit"),
        "steps": next((int(text.partition("=")[2]) for text in rows["fixed"] if text.startswith("trainer.max_steps=")), None),
        "tokens": rows["tokens"],
        "rates": [trial["params"][LR] for trial, _ in whole],
        "losses": [list(losses) for losses in zip(*(values for _, values in whole), strict=True)],
    }


def study(folder: Path, name: str, *words: str, model: Sequence[str] = ()) -> dict[str, Any]:
    """Run a study in ``folder``, or go on with it; its rows."""
    command = [sys.executable, "-m", "gptshake", "-m", *model, *words, f"study={name}"]
    subprocess.run(command, cwd=folder, env=os.environ | {"GPTSHAKE_DIRTY": "1"}, check=True, stdout=subprocess.DEVNULL)
    rows: dict[str, Any] = json.loads((folder / "multirun" / name / "study.json").read_text())
    return rows


def real(land: Landscape, folder: Path) -> list[dict[str, float]]:
    """Sweeps that really run, from the best rate, and from four times less and more."""
    truth = truth_of(land)
    best = min(map(float, np.geomspace(land["rates"][0], land["rates"][-1], 400)), key=truth)
    results = []
    for off in (1.0, 0.25, 4.0):
        name = f"{land['name']}-from-{off:g}"
        words = [*shlex.split(land["command"])[2:], f"{LR}={best * off:.3g}", f"{LR}=range"]
        rows = study(folder, name, *words)
        results.append({"runs": len(rows["trials"]), "more": len(rows["confirm"]), **judged(rows, truth, best)})
    return results


def surfaces() -> list[Surface]:
    """In closed form: c; log2 of how far the best rate at batch 32, and the best batch, are from the declared ones; bend; where a cliff is, and how high."""
    cliffs = [(math.inf, 0.0), (0.5, 0.2), (0.5, math.inf), (1.0, math.inf)]
    parts = itertools.product((0.0, 0.5, 1.0), (-2, -1, 0, 1, 2), (-4, -2, 0, 2), (0.005, 0.01, 0.02), cliffs)
    return [in_closed_form(c, off, batch, bend, *cliff) for c, off, batch, bend, cliff in parts]


def in_closed_form(c: float, off: float, best: float, bend: float, cliff: float, height: float) -> Surface:
    def ridge(batch: float) -> float:
        return 2e-3 * 2 ** (off + c * math.log2(batch / 32))

    def above(rate: float, batch: float) -> float:
        u, v = math.log2(rate / ridge(batch)), math.log2(batch / 32) - best
        return bend * u * u * (1.6 if u > 0 else 1) + 0.004 * v * v + (height if u > cliff else 0)

    return Surface(above, ridge, 0.003, off=abs(off))


def on_grid(grid: Landscape) -> list[Surface]:
    """A measured one, smoothed as a landscape at each batch; from every batch, and its best rate times 1/4 to 4, with five draws of noise."""
    cells, rates = ({int(batch): column[key] for batch, column in grid["batches"].items()} for key in ("losses", "rates"))
    truths = {
        batch: truth_of({"rates": rates[batch], "losses": [[statistics.fmean(seeds) for seeds in column]]})
        for batch, column in cells.items()
    }
    bests = {batch: min(map(float, np.geomspace(rates[batch][0], rates[batch][-1], 400)), key=truth) for batch, truth in truths.items()}
    lowest = min(truths[batch](rate) for batch, rate in bests.items())
    noise = seed_sd([[math.log(loss) for loss in seeds] for column in cells.values() for seeds in column if not on_a_cliff(seeds)]) or 0.0
    surface = Surface(lambda rate, batch: truths[int(batch)](rate) / lowest - 1, lambda batch: bests[int(batch)], noise)
    starts = itertools.product(bests, (-2, -1, 0, 1, 2), range(5))
    return [
        replace(surface, start=(bests[batch] * 2.0**off, batch), batches=(min(bests), max(bests)), off=abs(off)) for batch, off, _ in starts
    ]


def search_surface(surface: Surface, slots: int, draw: random.Random) -> dict[str, float]:
    """One study; runs take 0.8 to 1.2 units of time."""
    rates = Axis(LR, 1e-5, 6e-2, log=True, declared=surface.start[0])
    sizes = Axis("data.batch_size", *surface.batches, log=True, integer=True, powers=True, declared=surface.start[1])
    line = SurrogateSearch(rates, sizes, n_trials=None, slots=slots, deterministic=False)

    def at(point: Point) -> tuple[float, float]:
        return float(point.params[LR]), float(point.params["data.batch_size"])

    points, ends, now = list[Point](), dict[int, float](), 0.0
    while True:
        params = line.propose(points) if sum(point.state == "running" for point in points) < slots else None
        if params is not None:
            ends[len(points)] = now + draw.uniform(0.8, 1.2)
            points.append(Point(len(points), params, None, "running"))
        elif any(point.state == "running" for point in points):
            done = min((point for point in points if point.state == "running"), key=lambda point: ends[point.number])
            now, loss = ends[done.number], 2.5 * (1 + surface.above(*at(done))) * (1 + draw.gauss(0, surface.noise))
            points[done.number] = Point(done.number, done.params, *((loss, "ok") if math.isfinite(loss) else (None, "diverged")))
        else:
            break

    def answer(most: int) -> float:
        ended = sorted((point for point in points if point.value is not None), key=lambda point: ends[point.number])[:most]
        return surface.above(*at(min(ended, key=lambda point: point.value or 0.0))) if ended else math.inf

    far = max(abs(math.log2(rate / surface.ridge(batch))) for rate, batch in map(at, points))
    return {"runs": len(points), "ten": answer(10), "all": answer(len(points)), "far": far, "time": now, "off": surface.off}


def surface_table(slots: Sequence[int]) -> str:
    found = {"in closed form": surfaces()} | {path.stem: on_grid(json.loads(path.read_text())) for path in sorted(SURFACES.glob("*.json"))}
    lines = ["surfaces         slots  runs  time   ten: mean  above 1 %    2 %  all: above 1 %  beyond 8 x  off <= 2"]
    for name, number in itertools.product(found, slots):
        rows = [search_surface(surface, number, random.Random(seed)) for seed, surface in enumerate(found[name])]

        def share(key: str, over: float, rows: list[dict[str, float]] = rows) -> float:
            return 100 * statistics.fmean(row[key] > over for row in rows)

        runs, time, ten = (statistics.fmean(row[key] for row in rows) for key in ("runs", "time", "ten"))
        near = share("far", 3.01, [row for row in rows if row["off"] <= 1])
        figures = f"{runs:>6.1f}{time:>6.1f}{100 * ten:>10.2f} %{share('ten', 0.01):>9.1f} %{share('ten', 0.02):>5.1f} %"
        lines.append(f"{name:<16}{number:>6}{figures}{share('all', 0.01):>14.1f} %{share('far', 3.01):>10.1f} %{near:>8.1f} %")
    return "\n".join(lines)


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    lines = [f"{'landscape':<28}{'runs':>5}{'most':>6}{'more':>6}{'above, median':>15}{'p95':>8}{'worst':>8}{'holds':>8}"]
    for name, results in rows.items():
        runs, above = [result["runs"] for result in results], sorted(100 * result["above"] for result in results)
        holds, p95 = 100 * statistics.fmean(result["holds"] for result in results), above[int(0.95 * (len(above) - 1))]
        figures = f"{statistics.median(above):>13.2f} %{p95:>6.2f} %{above[-1]:>6.2f} %{holds:>6.0f} %"
        lines.append(
            f"{name:<28}{statistics.median(runs):>5.0f}{max(runs):>6.0f}{statistics.fmean(r['more'] for r in results):>6.1f}{figures}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="landscapes; all without")
    parser.add_argument("--keep", type=Path, metavar="STUDY")
    parser.add_argument("--real", metavar="NAME")
    parser.add_argument("--surfaces", type=int, nargs="+", metavar="SLOTS")
    parser.add_argument("--folder", type=Path, default=Path("sweep-quality"))
    parser.add_argument("--landscapes", type=Path, default=LANDSCAPES)
    options = parser.parse_args()
    if options.surfaces:
        print(surface_table(options.surfaces))
        return
    if options.keep:
        options.landscapes.mkdir(exist_ok=True)
        land = keep(options.keep)
        (options.landscapes / f"{land['name']}.json").write_text(json.dumps(land) + "\n")
        return
    lands = [json.loads(path.read_text()) for path in sorted(options.landscapes.glob("*.json"))]
    if options.real:
        options.folder.mkdir(parents=True, exist_ok=True)
        print(table({land["name"]: real(land, options.folder) for land in lands if land["name"] == options.real}))
        return
    rows = {land["name"]: replay(land) for land in lands}
    for seed in range(20):
        for land in synthetic(seed):
            rows.setdefault(land["name"], []).extend(replay(land))
    chosen = {name: results for name, results in rows.items() if not options.names or name in options.names}
    measured = [result for land in lands for result in chosen.get(land["name"], [])]
    made = [result for name, results in chosen.items() if name.startswith("synthetic") for result in results]
    print(table(chosen | ({"all measured": measured} if measured else {}) | ({"all synthetic": made} if made else {})))


if __name__ == "__main__":
    main()
