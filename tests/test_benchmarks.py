"""The benchmarks: their figures are had by hand, but each of them starts, and the one for a GPU says so where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", [pytest.param(path, id=path.stem) for path in sorted((ROOT / "benchmarks").glob("*.py"))])
def test_a_benchmark_says_how_it_is_used(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"python benchmarks/{script.name}" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: benchmarks/gpu.sh would measure it")
def test_the_benchmark_for_a_gpu_refuses_a_machine_without_one(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    done = subprocess.run(
        [ROOT / "benchmarks/gpu.sh", "", output], capture_output=True, text=True, timeout=60, env={"PYTHON": sys.executable}
    )
    assert done.returncode == 1 and not output.exists()
    assert done.stderr == "error: torch sees no CUDA device here; benchmarks/train_speed.py measures a CPU.\n"
