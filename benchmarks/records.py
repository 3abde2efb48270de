"""How long people wait for what is made of records: the list, the page, the journal, a comparison, with a hundred runs there.

Whole processes, start-up included, in turn; medians. The runs are written by the record's own code: 2,000 rows and three samples each, configs of a
real composition, twenty commits. The journal is drawn once before, as it is for somebody who keeps one.

    python benchmarks/records.py [--runs N] [--rows N] [--repeats N] [--json FILE]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

from gptshake.config.compose import compose
from gptshake.record.run import Run

KINDS = {
    "task=runs": ["task=runs"],
    "the page": ["task=runs", "task.html=runs.html"],
    "task=journal": ["task=journal"],
    "task=diff": ["task=diff", "task.runs=[run00000,run00001]"],
}
TARGET = "2 s"


def write(folder: Path, number: int, rows: int, config: str) -> None:
    """One finished run."""
    run_id = f"run{number:05d}"
    name = f"20261124-0031-tiny-wiki_char-excerpt106-lr{number}e-5-{run_id}"
    about = {"version": "0.1.0", "git": {"commit": f"{number // 5:040x}"}, "choices": {"model": "tiny", "data": "wiki_char"}}
    run = Run.create(folder / name, id=run_id, name=name, task="train", config_yaml=config, overrides=["model=tiny"], **about)
    for step in range(1, rows + 1):
        loss = 2 + 2 * math.exp(-step / 300) + 0.01 * math.sin(step * (number + 1))
        row = {"step": step, "train/tokens": 2048 * step, "train/loss": loss, "train/lr": 1e-3, "train/grad_norm": 1.0}
        row |= {"perf/step_ms": 30.0, "perf/tokens_per_s": 68e3, "perf/mfu": 0.3, "time": 1.8e9 + step}
        if step % (rows // 20 or 1) == 0:
            row |= {"val/loss": loss, "val/bpb": loss / math.log(2)}
        run.append_row(row)
    for step in (1, rows // 2, rows):
        run.sample(step, 2048 * step, "The text that the model wrote.\n" * 5, "The ")
    run.update(started=1.8e9 + number, data={"label": "excerpt106", "fingerprint": "a", "tokenizer": "b", "vocab_size": 281})
    run.finish("ok", None, {"val/loss": loss, "val/bpb": loss / math.log(2), "train/tokens": 2048 * rows, "perf/tokens_per_s": 68e3})


def seconds(words: list[str], folder: Path) -> float:
    """For a whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "gptshake", *words], cwd=folder, env=dict(os.environ), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.runs):
            cfg = compose(["model=tiny", "data=wiki_char", f"optimizer.lr={number + 1}e-5", f"paths.run_dir={folder}"])
            write(folder / "runs", number, arguments.rows, OmegaConf.to_yaml(cfg, resolve=True))
        first = seconds(KINDS["task=journal"], folder)
        for _ in range(arguments.repeats):
            for kind, words in KINDS.items():
                times[kind].append(seconds(words, folder))
        size = (folder / "runs.html").stat().st_size
    print(
        f"{arguments.runs} runs of {arguments.rows:,} rows; the first journal, which draws every picture, {first:.1f} s; the page {size / 1e6:.2f} MB"
    )
    print(f"{'':14} {'median':>8} {'least':>8} {'most':>8} {'target':>8}")
    for kind, taken in times.items():
        print(f"{kind:14} {statistics.median(taken):6.2f} s {min(taken):6.2f} s {max(taken):6.2f} s {TARGET:>8}")
    if arguments.json:
        arguments.json.write_text(json.dumps(times, indent=2) + "\n")


if __name__ == "__main__":
    main()
