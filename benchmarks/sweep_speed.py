"""How little a sweep adds to its trials: slots that never wait, trials that cost no imports, a controller that costs nothing.

Trials sleep where cores do not matter, so the figures are the sweeper's own. ``--peer PYTHON`` names an interpreter that has
hydra-optuna-sweeper and hydra-joblib-launcher; both sides then take turns.

    python benchmarks/sweep_speed.py [--repeats N] [--peer PYTHON] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SLOTS = 4
SECONDS = [0.25 * (1 + (7 * number) % 8) for number in range(24)]  # 1:8, in no order
APP = """
import time
import hydra

SECONDS = {seconds}

@hydra.main(config_path=".", config_name="config", version_base="1.1")
def main(cfg):
    begin = time.time()
    time.sleep(SECONDS[cfg.i] if cfg.s is None else cfg.s)
    with open(cfg.times, "a") as file:
        file.write(f"{{begin}} {{time.time()}}\\n")
    return float(cfg.i)

if __name__ == "__main__":
    main()
"""
OURS = """
defaults:
  - _self_
  - override hydra/sweeper: gptshake
i: 0
s: null
times: ???
hydra:
  sweep: {dir: study}
  sweeper:
    executor: {_target_: gptshake.sweep.executor.local.LocalSlots, slots: 4}
"""
PEER = """
defaults:
  - _self_
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: random
  - override hydra/launcher: joblib
i: 0
s: null
times: ???
hydra:
  sweep: {dir: study}
  sweeper: {n_trials: 24, n_jobs: 4, direction: minimize, params: {i: "range(0,23)"}} # its range holds its end
  launcher: {n_jobs: 4}
"""


def best_schedule(seconds: list[float]) -> float:
    """No schedule on the slots is shorter than this."""
    return max(sum(seconds) / SLOTS, max(seconds))


def sleeping(python: str, config: str, *words: str) -> tuple[float, float, float]:
    """Seconds from the first trial's start to the last one's end, the best possible for what ran, and CPU of the controller per second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP.format(seconds=SECONDS))
        (folder / "config.yaml").write_text(config)
        times = folder / "times"
        command = [python, "app.py", "-m", f"times={times}", *words]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        samples: list[tuple[float, float]] = []
        while process.poll() is None:
            if times.exists():
                samples.append((time.time(), cpu_seconds(process.pid)))
            time.sleep(0.2)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{process.stderr.read() if process.stderr else ''}")
        spans = [tuple(map(float, line.split())) for line in times.read_text().splitlines()]
    last = max(end for _, end in spans)
    during = [(at, used) for at, used in samples if at <= last]
    share = (during[-1][1] - during[0][1]) / (during[-1][0] - during[0][0]) if len(during) > 1 else float("nan")
    return last - min(begin for begin, _ in spans), best_schedule([end - begin for begin, end in spans]), share


def cpu_seconds(pid: int) -> float:
    """CPU time of one process, its children not counted."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def trial_overhead() -> tuple[float, float]:
    """Median seconds from a trial's start to its first finished step, and the same work in one process that has imported everything."""
    small = ["model=tiny", "data=text_char", "data.path=book.txt", "model.n_layer=1", "model.n_embd=32", "data.batch_size=8", "trainer=cpu"]
    rest = ["trainer.threads=1", "trainer.max_steps=10", "callbacks=none", "logger=none"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "book.txt").write_text("To be, or not to be, that is the question. " * 800)
        env = os.environ | {"GPTSHAKE_DIRTY": "1", "GPTSHAKE_CACHE": str(folder / "cache")}
        seeds = f"seed={','.join(map(str, range(1, 13)))}"
        gptshake = [sys.executable, "-m", "gptshake", "-m", *small, *rest, seeds]
        one_by_one = ["executor=local", "hydra.sweeper.executor.slots=1"]
        subprocess.run([*gptshake, *one_by_one], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*gptshake, "hydra/sweeper=basic"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        study = json.loads(next((folder / "multirun").glob("*/study.json")).read_text())
        root = next(file.parent for file in (folder / "multirun").glob("*/study.json"))
        ours = [first_row(root / run["path"]) - run["started"] for trial in study["trials"] for run in trial["runs"]]
        plain = sorted(path.parent for path in (folder / "multirun").glob("*/*/run.json") if path.parent.parent != root)
        ends = [json.loads((path / "run.json").read_text()) for path in plain]
        begins = [record["started"] for record in ends]
        inside = [first_row(path) - begin for path, begin in zip(plain, begins, strict=True)][1:]  # the first one imports
    return statistics.median(ours), statistics.median(inside)


def first_row(run: Path) -> float:
    header, row = (run / "metrics.csv").read_text().splitlines()[:2]
    return float(row.split(",")[header.split(",").index("time")])


def ask_and_tell(trials: int = 1000, measured: int = 20) -> float:
    """Median milliseconds to begin and to end a trial of a study that holds so many."""
    from gptshake.sweep.config import SweeperConfig
    from gptshake.sweep.options import sampler_for
    from gptshake.sweep.rows import Header, TrialRow
    from gptshake.sweep.space import Axis
    from gptshake.sweep.study import Study

    axes = [Axis("lr", 1e-5, 1e-2, log=True), Axis("dropout", 0.0, 0.3)]
    plain = [axis.plain() for axis in axes]
    facts: dict[str, Any] = {
        "name": "speed",
        "program": "x",
        "objective": "value",
        "direction": "minimize",
        "label": "",
        "fixed": [],
        "axes": plain,
    }
    facts |= {
        "search": "sampled",
        "n_trials": None,
        "repeats": 1,
        "tokens": None,
        "slots": 4,
        "device": "",
        "seconds": None,
        "ablate": None,
    }
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), Header(**facts, seed_key="seed", frozen=[], code={}), axes)
        for number in range(trials + measured):
            known = {"lr": 1e-5 * 1.006**number, "dropout": 0.3 * (number % 97) / 97} if number < trials else {}
            start = time.perf_counter()
            index, params = study.ask(known, None if known else sampler_for(SweeperConfig(), number))
            row = TrialRow(index, params, [], [])
            study.begin(row)
            row.state, row.value = "ok", float(number % 31)
            study.tell(row)
            taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken[-measured:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", help="interpreter with hydra-optuna-sweeper and hydra-joblib-launcher")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(options.repeats):
        wall, best, _ = sleeping(sys.executable, OURS, "i=range(0,24)")
        ratios["ours"].append(wall / best)
        if options.peer:
            wall, best, _ = sleeping(options.peer, PEER)
            ratios["peer"].append(wall / best)
    _, _, controller = sleeping(sys.executable, OURS, "i=range(0,100)", "s=1")
    ours, inside = trial_overhead()
    figures = {
        "24 trials of 1:8 on 4 slots, wall over the best schedule": statistics.median(ratios["ours"]),
        "the same, hydra-optuna-sweeper with joblib": statistics.median(ratios["peer"]) if ratios["peer"] else None,
        "controller, cores while 100 trials run": controller,
        "trial, start to first step, s": ours,
        "the same work in one process, s": inside,
        "trial overhead, s": ours - inside,
        "ask and tell at 1,000 trials, ms": ask_and_tell(),
    }
    for name, value in figures.items():
        print(f"{name:<60}{'not measured' if value is None else f'{value:.3f}'}")
    if options.json:
        options.json.write_text(json.dumps(figures | {"ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
