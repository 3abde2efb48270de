"""The room in which every test runs: no network, no account, one thread, a cache that is thrown away.

All of it is set in the environment, before any library reads it, so that child processes live in the same room.
"""

import os
import shutil
import tempfile

import hypothesis
import pytest

ROOM = {
    "GPTSHAKE_DIRTY": "1",  # the tests of the guard take it away again
    "GPTSHAKE_CACHE": tempfile.mkdtemp(prefix="gptshake-tests-"),
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # small tensors are not faster on two, and a busy neighbour makes two much slower
}
NEVER = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HYDRA_FULL_ERROR", "LOCAL_RANK", "PYTHONPATH")

os.environ.update(ROOM)
for name in NEVER:
    os.environ.pop(name, None)

# The same examples on every run, and no deadline, because a shared machine stalls now and then.
hypothesis.settings.register_profile("gptshake", deadline=None, derandomize=True)
hypothesis.settings.load_profile("gptshake")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's cache."""
    shutil.rmtree(ROOM["GPTSHAKE_CACHE"], ignore_errors=True)
