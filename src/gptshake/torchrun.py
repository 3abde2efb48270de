"""Which process of a run this is, by torch's variables in the environment: torchrun sets them, rank 0 for those it starts, srun its own.

Every command reads them, so nothing heavy is imported; what the processes do together is in ``distributed``.
"""

import os
import re
from collections.abc import Mapping

from gptshake.errors import ConfigError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SPECIAL_STEPS = 0xFFFFFFF0  # Slurm's numbers of batch scripts, interactive shells and the like begin here


def srun_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """torch's variables for one of several tasks that ``srun`` has started together; none for any other process.

    A batch script, a shell of ``salloc`` and a step of one task have many of Slurm's variables, too, but train alone. Where torch's are
    set already, as by a torchrun that srun has started, those count.
    """
    step, n_tasks = environ.get("SLURM_STEP_ID", ""), environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
    in_step = step.isdigit() and int(step) < SPECIAL_STEPS and "SLURM_PROCID" in environ
    if not in_step or int(n_tasks) == 1 or all(name in environ for name in VARIABLES):
        return {}
    node = int(environ.get("SLURM_NODEID", "0"))
    layout = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE") or n_tasks  # as in 4(x2),3
    on_nodes = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout) for _ in range(int(times or 1))]
    names = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")  # as in gpu[07-09,12],big1
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", names)
    host = re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first[0] if first else "")
    return {
        "RANK": environ["SLURM_PROCID"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "GROUP_RANK": str(node),
        "WORLD_SIZE": n_tasks,
        "LOCAL_WORLD_SIZE": str(on_nodes[node]),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or (host if len(on_nodes) > 1 else "127.0.0.1"),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(15000 + (int(environ.get("SLURM_JOB_ID", "0")) + int(step)) % 10000),
    }


def launched() -> int:
    """How many processes torchrun, srun or their like have started for this run, on all nodes; 1 without them."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdecimal() and all(name in os.environ for name in VARIABLES) else 1


def check_variables() -> None:
    """Refuse torchrun's variables with values that it does not give.

    Raises:
        ConfigError: with the one that is wrong.
    """
    if not all(name in os.environ for name in VARIABLES):
        return
    size = launched()
    limits = {"WORLD_SIZE": (1, size), "LOCAL_WORLD_SIZE": (1, size), "RANK": (0, size - 1), "LOCAL_RANK": (0, size - 1)}
    for name, (least, most) in (limits | {"MASTER_PORT": (1, 65535)}).items():
        text = os.environ.get(name, str(least))
        if not (text.isdecimal() and least <= int(text) <= most):
            raise ConfigError(
                f"{name}={text} in the environment is not what torchrun or srun sets: unset it, and RANK, to train in one process."
            )


def nodes() -> int:
    """On how many nodes they are; each has equally many."""
    size = launched()
    return size // int(os.environ.get("LOCAL_WORLD_SIZE", size)) if size > 1 else 1


def follows() -> bool:
    """Whether this process takes its orders from rank 0."""
    return launched() > 1 and os.environ["RANK"] != "0"


def speaker() -> str:
    """What an error message of a process that follows begins with."""
    return f"rank {os.environ['RANK']}: " if follows() else ""
