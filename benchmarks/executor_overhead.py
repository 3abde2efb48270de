"""What a run costs on Slurm or Ray beyond the same run started by hand, and how well 24 uneven runs fill four slots of Ray.

The engine is that of the tests: two nodes on this machine (Slurm: as root; Ray: where it is installed). A run that returns at once
alternates with the same command started by hand and with an empty job of the engine, so that all is overhead.

    python benchmarks/executor_overhead.py slurm|ray [--repeats N] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
SLOTS, SLEEPS = 4, [2.0 + 8.0 * step / 23 for step in range(24)]  # seconds


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def slurm() -> tuple[Any, Any, Callable[[Path], object]]:
    """A cluster, an executor on it, and an empty job, which may leave a file."""
    from slurm_cluster import Cluster

    from gptshake.sweep.executor.slurm import SlurmJobs

    cluster = Cluster()
    os.environ["SLURM_CONF"] = str(cluster.conf)

    def empty(file: Path) -> None:
        subprocess.run(["sbatch", "--quiet", "--output=/dev/null", f"--wrap=touch {file}"], check=True)
        while not file.exists():
            time.sleep(0.01)

    return cluster, SlurmJobs(slots=1), empty


def ray() -> tuple[Any, Any, Callable[[Path], object]]:
    """The same for Ray."""
    from ray_cluster import RayCluster

    from gptshake.sweep.executor.ray import RayJobs

    cluster = RayCluster()

    def empty(file: Path) -> None:
        import ray

        ray.get(ray.remote(lambda: None).remote())

    return cluster, RayJobs(cluster.address, slots=SLOTS), empty


def measure(executor: Any, folder: Path, empty: Callable[[Path], object], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, one after the other."""
    from gptshake.outcome import write_task

    found: dict[str, list[float]] = {"executor": [], "by hand": [], "empty job": []}
    for number in range(repeats):
        job, hand, file = (folder / f"{name}-{number}" for name in ("job", "hand", "file"))

        def run(job: Path = job) -> None:
            executor.start(["give back", 1.0], job)
            while not executor.wait(0.25):
                pass

        found["executor"].append(seconds_of(run))
        write_task(hand, ["give back", 1.0])
        found["by hand"].append(seconds_of(lambda hand=hand: subprocess.run([sys.executable, "-m", "deeds", str(hand)], check=True)))
        found["empty job"].append(seconds_of(lambda file=file: empty(file)))
    return found


def fill(executor: Any, folder: Path) -> None:
    """Let 24 runs sleep, the longest first: in this order nothing is lost but what the executor loses."""
    waiting, running = list(SLEEPS), 0
    while waiting or running:
        while waiting and executor.start(["sleep", waiting[-1]], folder / f"sleep-{len(waiting)}"):
            waiting.pop()
            running += 1
        running -= len(executor.wait(0.25))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["slurm", "ray"])
    parser.add_argument("--repeats", type=int, default=15, help="runs of each way")
    parser.add_argument("--json", type=Path, help="where to write every number")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    os.environ["PYTHONPATH"] = str(TESTS)
    from deeds import deed

    cluster, executor, empty = {"slurm": slurm, "ray": ray}[options.engine]()
    try:
        with tempfile.TemporaryDirectory() as name:
            executor.open(deed, [])
            executor.allot("cpu", None, None)
            found = measure(executor, Path(name), empty, options.repeats)
            if options.engine == "ray":  # the nodes of Slurm have two slots
                found["24 runs"] = [seconds_of(lambda: fill(executor, Path(name)))]
            executor.close()
    finally:
        cluster.close()
    for name, values in found.items():
        print(f"{name:10} median {statistics.median(values):5.2f} s, from {min(values):.2f} to {max(values):.2f} s")
    added = statistics.median(found["executor"]) - statistics.median(found["by hand"]) - statistics.median(found["empty job"])
    print(f"beyond both: {added:+.2f} s (target: at most 1 s)")
    if "24 runs" in found:
        best = max(sum(SLEEPS) / SLOTS, max(SLEEPS))
        print(f"24 runs: {found['24 runs'][0] / best:.2f} of the best schedule, {best:.1f} s (target: at most 1.15)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
