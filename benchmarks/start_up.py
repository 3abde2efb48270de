"""How long people wait: from the command to the first optimizer step, for a token store, for --help and --cfg job.

Real processes with fresh folders, each kind in turn, medians. ``cold`` has no token store yet, ``warm`` has one. The end of
the first step is read from metrics.csv, whose rows carry the time; the run is then stopped. Python may keep its compiled
files, as it does on a user's machine; they and the disk's cache are warm after one run that is not counted.

    python benchmarks/start_up.py [--repeats N] [--json FILE]
"""

import argparse
import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = ["-m", "gptshake", "model=tiny", "data=wiki_char", "--dirty"]
STORE = """
import sys, time
from pathlib import Path
from gptshake.data.source.wiki import Wiki
from gptshake.data.store import SplitRule, open_store
from gptshake.tokenizer.char import CharTrainer
began = time.perf_counter()
open_store(Wiki(), CharTrainer(), SplitRule("documents", 0.05, 0.05), cache=Path(sys.argv[1]), say=lambda line: None)
print(time.perf_counter() - began)
"""
LIGHT = {"import hydra": ["-c", "import hydra"], "--help": [*TRAIN, "--help"], "--cfg job": [*TRAIN, "--cfg", "job"]}
TARGETS = {"first step, warm": "12 s", "first step, cold": "20 s", "store of the excerpt": "2 s", "--help": "1.8 x", "--cfg job": "1.8 x"}


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {"WANDB_MODE": "offline"}


def first_step(folder: Path, cache: Path) -> float:
    """Seconds from the command to the end of the first optimizer step of a run with all defaults."""
    runs = folder / "runs"
    began = time.time()
    process = subprocess.Popen([sys.executable, *TRAIN, f"paths.cache='{cache}'"], cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            for path in runs.glob("*/metrics.csv"):
                rows = list(csv.DictReader(path.open()))
                if rows and rows[0]["time"]:
                    return float(rows[0]["time"]) - began
            time.sleep(0.05)
        raise RuntimeError(f"the run ended with code {process.returncode} before its first step")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(runs, ignore_errors=True)


def store(folder: Path) -> float:
    """Seconds for the excerpt's token store with nothing cached, imports not counted."""
    cache = folder / "fresh"
    output = subprocess.run([sys.executable, "-c", STORE, str(cache)], env=environment(), check=True, capture_output=True, text=True)
    shutil.rmtree(cache)
    return float(output.stdout)


def light(words: list[str], folder: Path) -> float:
    """Seconds for a whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(repeats: int) -> dict[str, list[float]]:
    """Seconds of every kind, ``repeats`` times each, in turn; the short ones more often."""
    times: dict[str, list[float]] = {name: [] for name in (*TARGETS, "import hydra")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_step(folder, folder / "warm")
        for repeat in range(repeats):
            times["first step, warm"].append(first_step(folder, folder / "warm"))
            times["first step, cold"].append(first_step(folder, folder / f"cold{repeat}"))
            times["store of the excerpt"].append(store(folder))
            for _ in range(4):
                for kind, words in LIGHT.items():
                    times[kind].append(light(words, folder))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    times = measure(arguments.repeats)
    reference = statistics.median(times["import hydra"])
    print(f"{'':22} {'median':>8} {'least':>8} {'most':>8}   {'of import hydra':>15} {'target':>8}")
    for kind, seconds in times.items():
        ratio = f"{statistics.median(seconds) / reference:.2f} x" if kind in LIGHT else ""
        spread = " ".join(f"{value:6.2f} s" for value in (statistics.median(seconds), min(seconds), max(seconds)))
        print(f"{kind:22} {spread}   {ratio:>15} {TARGETS.get(kind, ''):>8}")
    if arguments.json:
        arguments.json.write_text(json.dumps(times, indent=2) + "\n")


if __name__ == "__main__":
    main()
