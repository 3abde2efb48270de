"""What two configs, and two machines, differ in, as far as it can change a result. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from gptshake.keys import RESULT, is_free
from gptshake.report.study_stats import param_text

# What ``auto`` decides by the size of a run and by the machine: of no interest between the runs of a journal.
AUTOMATIC = ("data.micro_batch_size", "trainer.val_check_interval", "trainer.threads")


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> its value in ``old`` and in ``new``, where they differ; in the configs' own order.

    A key that is not there is None; where another option of a group was chosen, the keys that only one of the two has are left out.
    """
    found = {}
    for key in {**new, **old}:
        target = f"{key.partition('.')[0]}._target_"
        of_another = key != target and old.get(target) != new.get(target) and not (key in old and key in new)
        if old.get(key) != new.get(key) and not of_another and not is_free(key, RESULT, old, new) and not _is_copy(key, old, new):
            found[key] = old.get(key), new.get(key)
    return found


def counting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that can change a result, without copies."""
    return {key: value for key, value in config.items() if not is_free(key, RESULT, config) and not _is_copy(key, config)}


def _is_copy(key: str, *configs: Mapping[str, Any]) -> bool:
    """Whether a key of the source stands beside it, too: ``data.documents.path`` is ``data.path``."""
    own = key.replace("data.documents.", "data.", 1)
    return own != key and not key.endswith("_target_") and all(config.get(key) == config.get(own) for config in configs)


def key_text(key: str) -> str:
    """A key for people: ``lr`` for optimizer.lr, ``scheduler`` for scheduler._target_."""
    parts = key.removesuffix("._target_").split(".")
    return ".".join(parts) if parts[0] in ("data", "tokenizer") and parts[-1] in ("path", "documents") else parts[-1]


def value_text(value: Any) -> str:
    """A value for people: 2e-3, none, true, ``cosine`` for gptshake.optim.schedule.cosine; different numbers never look the same."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return param_text(value) if math.isfinite(value) and float(param_text(value)) == value else repr(value)
    text = str(value)
    return text.rpartition(".")[2] if text.startswith("gptshake.") else text


def machine_facts(info: Mapping[str, Any]) -> dict[str, str]:
    """What a run.json says of interpreter, libraries and machine, and what ``auto`` became on it."""
    environment, hardware, resolved = (info.get(key) or {} for key in ("environment", "hardware", "resolved"))
    gpus, packages = hardware.get("gpus"), environment.get("packages")
    named = [str(gpu["name"]) for gpu in gpus if isinstance(gpu, dict) and gpu.get("name")] if isinstance(gpus, list) else []
    facts = {
        "gptshake": info.get("version"),
        "python": environment.get("python"),
        "system": environment.get("platform"),
        "processor": hardware.get("cpu") or environment.get("cpu"),
        "cores": hardware.get("cores"),
        "hardware threads": hardware.get("threads"),
        "memory, GB": hardware.get("ram_gb"),
        "GPU": ", ".join(named) or None,
        "driver": environment.get("driver"),
        "CUDA": environment.get("cuda"),
        "device": resolved.get("trainer.accelerator"),
        "precision": resolved.get("trainer.precision"),
        "threads of torch": resolved.get("trainer.threads"),
        "micro-batch size": resolved.get("data.micro_batch_size"),
        "loader workers": resolved.get("data.workers"),
        **(packages if isinstance(packages, dict) else {}),
    }
    return {what: str(value) for what, value in facts.items() if value is not None}
