"""What two runs were made with, side by side: interpreter, libraries, processor, GPU, driver, threads. Pure; takes two run.json.

A value that only one record holds is a difference, too: it is what a newer version began to write, or a library that is gone.
"""

from collections.abc import Mapping
from typing import Any

NONE = "-"
Info = Mapping[str, Any]


def environment_differences(then: Info, now: Info) -> list[tuple[str, str, str]]:
    """(what, value then, value now) of everything that differs; ``-`` stands for nothing."""
    before, after = _facts(then), _facts(now)
    rows = [(what, before.get(what, NONE), after.get(what, NONE)) for what in dict.fromkeys([*before, *after])]
    return [row for row in rows if row[1] != row[2]]


def same_machine(then: Info, now: Info) -> bool:
    """Whether the same bits can be asked for: device, torch and threads are the same.

    A GPU that was not trained on does not count. Processors are told apart by their names only.
    """
    device = (then.get("resolved") or {}).get("trainer.accelerator")
    keys = ["torch", "threads of torch", "device", "precision", "processor" if device == "cpu" else "GPU"]
    before, after = _facts(then), _facts(now)
    return all(key in before and before[key] == after.get(key) for key in keys)


def _facts(info: Info) -> dict[str, str]:
    environment, hardware, resolved = (info.get(key) or {} for key in ("environment", "hardware", "resolved"))
    gpus = hardware.get("gpus") or []
    facts = {
        "python": environment.get("python"),
        "system": environment.get("platform"),
        "processor": hardware.get("cpu") or environment.get("cpu"),
        "cores": hardware.get("cores"),
        "hardware threads": hardware.get("threads"),
        "memory, GB": hardware.get("ram_gb"),
        "GPU": ", ".join(str(gpu.get("name")) for gpu in gpus) or None,
        "driver": environment.get("driver"),
        "CUDA": environment.get("cuda"),
        "device": resolved.get("trainer.accelerator"),
        "precision": resolved.get("trainer.precision"),
        "threads of torch": resolved.get("trainer.threads"),
        **(environment.get("packages") or {}),
    }
    return {what: str(value) for what, value in facts.items() if value is not None}
