"""Is the learning rate finder right, and is it cheap? Its answer on measured landscapes, beside what costs no run.

Each landscape of ``benchmarks/landscapes`` is a grid of rates run to the end with two seeds. The finder runs for real, with the landscape's own
command, from the best rate times 1/4, 1 and 4, and a range test beside it. Scored is the landscape's smoothed loss at each rate, in
percent above its best; the tokens are compared with those of a sweep of eight whole runs.

    python benchmarks/finder_quality.py [NAME ...] [--off X ...] [--folder DIR] [--json FILE]
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sweep_quality import LANDSCAPES, LR, Landscape, truth_of

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


def score(folder: Path, land: Landscape, off: float) -> dict[str, Any]:
    """One start of one landscape."""
    truth, rates = truth_of(land), land["rates"]
    best = min(map(float, np.geomspace(rates[0], rates[-1], 400)), key=truth)
    found = find(folder / f"{land['name']}-{off:g}", land, best * off)
    named = {"finder": found["lr"], "range test": found["rules"].get("middle"), "laws": found["law"]}
    above = {who: truth(min(max(rate, rates[0]), rates[-1])) / truth(best) - 1 for who, rate in named.items() if rate}
    share = len(found["confirm"]) * found["steps"] / (SWEEP * found["of_steps"])
    return {"case": land["name"], "off": off, "rates": named, "above": above, "runs": len(found["confirm"]), "share": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="landscapes; all without")
    parser.add_argument("--off", type=float, nargs="+", default=[0.25, 1.0, 4.0], metavar="X", help="starts, as multiples of the best rate")
    parser.add_argument("--folder", type=Path, default=Path("finder-quality"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lands = [json.loads(path.read_text()) for path in sorted(LANDSCAPES.glob("*.json"))]
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
