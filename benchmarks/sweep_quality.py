"""Is the answer of a sweep right? The default search against a smoothed fine grid of learning rates, all run to the end.

The grid (16 rates, several seeds) is a study, too, so it can be interrupted. Its means over seeds are smoothed by a local quadratic in log
rate, because the bare minimum of a fine grid is seed noise. 2,500 steps are enough for every good rate to have learned more than pairs of
letters: while some seeds have and others have not, seeds differ by percents and no curve is smooth. Then the default search runs once for
every seed, from declared values that are off by up to a factor of four. Reported: tokens as a share of the grid's, how far the smoothed
loss at the answer lies above the smoothed best, and how often the stated interval holds the smoothed best rate.

    python benchmarks/sweep_quality.py [--seeds N] [--steps N] [--folder DIR] [--json FILE]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptshake.estimate.basin import basin

RATES = [float(f"{5e-4 * (6e-2 / 5e-4) ** (number / 15):.3g}") for number in range(16)]
MODEL = [
    "model=tiny",
    "model.n_layer=2",
    "model.n_embd=64",
    "data=shakespeare_char",
    "scheduler=cosine",
    "scheduler.warmup=0.1",
    "scheduler.floor=0",
]
REST = ["data.batch_size=16", "trainer.limit_val_batches=200", "callbacks=none", "logger=none"]
DECLARED = (2e-3, 8e-3, 5e-4)  # what the search is told: the preset, and four times more and less
BATCHES = (8, 16, 32, 64)
WIDTH = 0.6  # of the smoothing kernel, in factors of two: about the distance between two rates of the grid


def study(folder: Path, name: str, *words: str, model: Sequence[str] = (*MODEL, *REST)) -> dict[str, Any]:
    """Run a study in ``folder``, or go on with it; its rows."""
    command = [sys.executable, "-m", "gptshake", "-m", *model, *words, f"study={name}"]
    subprocess.run(command, cwd=folder, env=os.environ | {"GPTSHAKE_DIRTY": "1"}, check=True, stdout=subprocess.DEVNULL)
    rows: dict[str, Any] = json.loads((folder / "multirun" / name / "study.json").read_text())
    return rows


def smoothed(points: list[tuple[float, float]], rate: float) -> float:
    """Local quadratic regression of the loss at a rate."""
    x = np.array([math.log2(value / rate) for value, _ in points])
    y = np.array([loss for _, loss in points])
    weight = np.exp(-((x / WIDTH) ** 2) / 2)
    columns = np.stack([np.ones_like(x), x, x**2], axis=1) * weight[:, None]
    return float(np.linalg.lstsq(columns, y * weight, rcond=None)[0][0])


def plane(folder: Path, length: list[str]) -> dict[str, float]:
    """Learning rate and batch size together: nine trials against a grid of 12 rates and 4 batch sizes at equal tokens."""
    rates = [float(f"{1e-3 * 60 ** (number / 11):.3g}") for number in range(12)]
    lists = [f"optimizer.lr={','.join(map(str, rates))}", f"data.batch_size={','.join(map(str, BATCHES))}"]
    grid = study(folder, "plane", *length, *lists, "pruner=none", "seed=1")
    finished = [trial for trial in grid["trials"] if trial["value"] is not None]
    by_batch = {
        batch: [(t["params"]["optimizer.lr"], t["value"]) for t in finished if t["params"]["data.batch_size"] == batch] for batch in BATCHES
    }
    best = min(smoothed(points, rate) for points in by_batch.values() for rate in np.geomspace(rates[0], rates[-1], 200))
    ranges = ["optimizer.lr=range", f"data.batch_size=tag(powers_of_two,interval({BATCHES[0]},{BATCHES[-1]}))"]
    above, share = [], []
    for proposals in range(2):
        rows = study(
            folder, f"plane-search-{proposals}", *length, *ranges, "hydra.sweeper.n_trials=9", f"hydra.sweeper.seed={proposals}", "seed=1"
        )
        answer = min((t for t in rows["trials"] if t["value"] is not None), key=lambda trial: trial["value"])["params"]
        above.append(smoothed(by_batch[answer["data.batch_size"]], answer["optimizer.lr"]) / best - 1)
        share.append(tokens(rows) / tokens(grid))
        print(json.dumps(answer | {"above": above[-1], "tokens": share[-1]}), flush=True)
    return {
        "rate x batch: tokens, share of the grid's (mean)": statistics.mean(share),
        "rate x batch: loss at the answer above the best (mean)": statistics.mean(above),
    }


def tokens(rows: dict[str, Any]) -> int:
    return sum(run["tokens"] or 0 for trial in rows["trials"] for run in trial["runs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--folder", type=Path, default=Path("sweep-quality"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    length = [f"trainer.max_steps={options.steps}", f"trainer.val_check_interval={options.steps // 5}"]
    grid = study(
        options.folder, "grid", *length, f"optimizer.lr={','.join(map(str, RATES))}", f"repeats={options.seeds}", "pruner=none", "seed=1"
    )
    finished = [trial for trial in grid["trials"] if trial["value"] is not None]
    points = [(trial["params"]["optimizer.lr"], trial["value"]) for trial in finished]
    fine = np.geomspace(RATES[0], RATES[-1], 400)
    losses = [smoothed(points, rate) for rate in fine]
    best, best_rate = min(losses), float(fine[int(np.argmin(losses))])
    noise = [statistics.stdev(run["value"] for run in trial["runs"]) / trial["value"] for trial in finished if options.seeds > 1]
    per_seed = tokens(grid) / options.seeds
    print(f"grid: best {best:.4f} at {best_rate:.2e}; sd between seeds {100 * statistics.median(noise or [0]):.2f} %", flush=True)
    answers = []
    for seed in range(1, options.seeds + 1):
        for declared in DECLARED:
            rows = study(
                options.folder, f"search-{declared:g}-{seed}", *length, f"optimizer.lr={declared}", "optimizer.lr=range", f"seed={seed}"
            )
            tried = [(t["params"]["optimizer.lr"], math.inf if t["value"] is None else t["value"]) for t in rows["trials"]]
            answer = min(tried, key=lambda point: point[1])[0]
            found = basin(tried, log=True, sd=None)
            answers.append(
                {
                    "declared": declared,
                    "seed": seed,
                    "answer": answer,
                    "runs": len(tried),
                    "tokens": tokens(rows) / per_seed,
                    "above": smoothed(points, answer) / best - 1,
                    "holds": found is not None and found.low <= best_rate <= found.high,
                }
            )
            print(json.dumps(answers[-1]), flush=True)
    figures = {
        "tokens, share of the grid's (mean)": statistics.mean(answer["tokens"] for answer in answers),
        "loss at the answer above the best (mean)": statistics.mean(answer["above"] for answer in answers),
        "loss at the answer above the best (worst)": max(answer["above"] for answer in answers),
        "interval holds the best": statistics.mean(answer["holds"] for answer in answers),
    } | plane(options.folder, length)
    for name, value in figures.items():
        print(f"{name:<60}{100 * value:.2f} %")
    if options.json:
        options.json.write_text(json.dumps({"grid": points, "best": [best_rate, best], "answers": answers} | figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
