"""What a run costs on Slurm beyond the same run started by hand: submission, queue, and the look at its end.

The Slurm is that of the tests: two nodes on this machine, as root. The run returns a number at once, so that all else is overhead: as a job
of the executor, by the same command from here, and as an empty job, until it has written a file. All three take turns.

    python benchmarks/slurm_overhead.py [--repeats N] [--json FILE]
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


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def measure(executor: Any, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, one after the other."""
    from gptshake.processes import write_task

    found: dict[str, list[float]] = {"executor": [], "by hand": [], "empty job": []}
    for number in range(repeats):
        job, hand, file = (folder / f"{name}-{number}" for name in ("job", "hand", "file"))

        def run(job: Path = job) -> None:
            executor.start(["give back", 1.0], job)
            while not executor.wait(0.25):
                pass

        def empty(file: Path = file) -> None:
            subprocess.run(["sbatch", "--quiet", "--output=/dev/null", f"--wrap=touch {file}"], check=True)
            while not file.exists():
                time.sleep(0.01)

        found["executor"].append(seconds_of(run))
        write_task(hand, ["give back", 1.0])
        found["by hand"].append(seconds_of(lambda hand=hand: subprocess.run([sys.executable, "-m", "deeds", str(hand)], check=True)))
        found["empty job"].append(seconds_of(empty))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each way")
    parser.add_argument("--json", type=Path, help="where to write every number")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    os.environ["PYTHONPATH"] = str(TESTS)
    from deeds import deed
    from slurm_cluster import Cluster

    from gptshake.sweep.executor.slurm import SlurmJobs

    cluster, executor = Cluster(), SlurmJobs(slots=1)
    os.environ["SLURM_CONF"] = str(cluster.conf)
    try:
        with tempfile.TemporaryDirectory() as folder:
            executor.open(deed, [])
            found = measure(executor, Path(folder), options.repeats)
    finally:
        cluster.close()
    for name, values in found.items():
        print(f"{name:10} median {statistics.median(values):5.2f} s, from {min(values):.2f} to {max(values):.2f} s")
    added = statistics.median(found["executor"]) - statistics.median(found["by hand"]) - statistics.median(found["empty job"])
    print(f"beyond both: {added:+.2f} s (target: at most 1 s)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
