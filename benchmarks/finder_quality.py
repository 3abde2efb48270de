"""Is the learning rate finder right, and is it cheap? Its answer on measured landscapes, beside what costs no run.

Each landscape of ``benchmarks/landscapes`` is a grid of rates run to the end with two seeds. The finder runs for real, with the landscape's own
command, from the best rate times 1/4, 1 and 4, and a range test beside it. Scored is the landscape's smoothed loss at each rate, in
percent above its best; the tokens are compared with those of a sweep of eight whole runs. ``--replay`` takes seconds: the finder's search
on the grid of short runs that a landscape holds under ``short`` (one seed, with the warm-up of the whole run), from the best rate times 1/8 to 8.

    python benchmarks/finder_quality.py --replay [NAME ...]
    python benchmarks/finder_quality.py [NAME ...] [--off X ...] [--folder DIR] [--json FILE]
"""

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sweep_quality import BEYOND, LANDSCAPES, LR, OFF, Landscape, as_study, curve, judged, search, truth_of

from gptshake.estimate.lr_fit import middle_of_ties
from gptshake.report import study_stats
from gptshake.tasks.find_lr import fall

GOAL, SHARE = 0.02, 1 / 3
SWEEP = 8  # whole runs of a sweep: six of the search and two of a second seed


def find(folder: Path, land: Landscape, start: float) -> dict[str, Any]:
    """Run the finder, or read what it found in ``folder`` before."""
    known = [json.loads(file.read_text()) for file in folder.glob("runs/*/run.json")]
    if not any(info["status"] == "ok" for info in known):
        folder.mkdir(parents=True, exist_ok=True)
        words = [*shlex.split(land["command"])[2:], "task=find_lr", "task.range_test=true", "task.repeats=1", f"{LR}={start:.3g}"]
        subprocess.run(
            [sys.executable, "-m", "gptshake", *words],
            cwd=folder,
            env=os.environ | {"GPTSHAKE_DIRTY": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        known = [json.loads(file.read_text()) for file in folder.glob("runs/*/run.json")]
    found: dict[str, Any] = next(info["find_lr"] for info in known if info["status"] == "ok")
    return found


def best_of(land: Landscape) -> float:
    """The best rate of complete runs, inside the landscape's range."""
    low, high = land.get("range") or (land["rates"][0], land["rates"][-1])
    return min(map(float, np.geomspace(max(low, land["rates"][0]), min(high, land["rates"][-1]), 400)), key=truth_of(land))


def replay(land: Landscape) -> list[dict[str, float]]:
    """The finder's search on the landscape's short runs, from every start."""
    short, truth, best = land["short"], truth_of(land), best_of(land)
    results = []
    least, most = land.get("range") or (0.0, float("inf"))
    for start in (min(max(best * off, least), most) for off in OFF):
        low, high = max(start / BEYOND, least), min(start * BEYOND, most)
        points = search(curve(short["rates"], short["losses"]), float(f"{start:.3g}"), low, high)
        share = len(points) * short["steps"] / (SWEEP * land["steps"])
        rows = as_study(points, low, high, None)
        answer = middle_of_ties(study_stats.best_curve(rows, study_stats.scales(rows)[0]))
        results.append({"runs": len(points), "share": share} | judged(rows, truth, best) | {"above": truth(answer) / truth(best) - 1})
    return results


def replay_table(lands: list[Landscape]) -> str:
    """Loss at the answer above the best, tokens and interval, for each landscape and all; how far a short run's loss fell, where its curve is kept."""
    found = {land["name"]: replay(land) for land in lands if "short" in land}
    lines = [
        f"{'landscape':<26}{'runs (most)':>12}{'of a sweep':>12}{'above: median':>15}{'worst':>9}{'within 2 %':>12}{'holds':>8}{'fell':>8}"
    ]
    fell = {land["name"]: f"{100 * (fall(land['short']['curve']) or 0):>6.0f} %" for land in lands if "curve" in land.get("short", {})}
    for name, rows in [*found.items(), ("all", list(itertools.chain(*found.values())))]:
        above, runs, share = ([row[key] for row in rows] for key in ("above", "runs", "share"))
        within, holds = statistics.fmean(value <= GOAL for value in above), statistics.fmean(row["holds"] for row in rows)
        figures = f"{statistics.median(runs):>6.0f} ({max(runs):.0f}){100 * statistics.median(share):>11.0f} %"
        figures += f"{100 * statistics.median(above):>13.2f} %{100 * max(above):>7.2f} %{100 * within:>10.0f} %{100 * holds:>6.0f} %"
        lines.append(f"{name:<28}{figures}{fell.get(name, '')}")
    return "\n".join(lines)


def score(folder: Path, land: Landscape, off: float) -> dict[str, Any]:
    """One start of one landscape."""
    truth, rates = truth_of(land), land["rates"]
    best = best_of(land)
    found = find(folder / f"{land['name']}-{off:g}", land, best * off)
    named = {"finder": found["lr"], "range test": found["rules"].get("middle"), "laws": found["law"]}
    above = {who: truth(min(max(rate, rates[0]), rates[-1])) / truth(best) - 1 for who, rate in named.items() if rate}
    share = len(found["confirm"]) * found["steps"] / (SWEEP * found["of_steps"])
    return {"case": land["name"], "off": off, "rates": named, "above": above, "runs": len(found["confirm"]), "share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="landscapes; all without")
    parser.add_argument("--replay", action="store_true", help="on the grids of short runs, in seconds")
    parser.add_argument("--off", type=float, nargs="+", default=[0.25, 1.0, 4.0], metavar="X", help="starts, as multiples of the best rate")
    parser.add_argument("--folder", type=Path, default=Path("finder-quality"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lands = [json.loads(path.read_text()) for path in sorted(LANDSCAPES.glob("*.json"))]
    if options.replay:
        print(replay_table([land for land in lands if not options.names or land["name"] in options.names]))
        return
    results = []
    for land in (land for land in lands if not options.names or land["name"] in options.names):
        for off in options.off:
            result = score(options.folder, land, off)
            shown = ", ".join(f"{who} {100 * value:.2f} %" for who, value in result["above"].items())
            print(
                f"{result['case']:<20} from {off:g}x: {shown}; {result['runs']} runs, {100 * result['share']:.0f} % of a sweep", flush=True
            )
            results.append(result)
    worst, share = max(result["above"]["finder"] for result in results), statistics.median(result["share"] for result in results)
    print(
        f"finder: {100 * worst:.2f} % at worst (goal: {100 * GOAL:.0f} %), {100 * share:.0f} % of a sweep's tokens (goal: {100 * SHARE:.0f} %)"
    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
