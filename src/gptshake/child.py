"""One run of a sweep from the ``task.json`` that the controller wrote into its folder: the same wherever it runs.

``python -m gptshake.child <folder>`` does it in a process of its own, and leaves ``outcome.json`` there. The file holds overrides, point,
seed and what all runs of the study share (provenance, uncommitted code, the user's own files), so nothing else is asked.
"""

import sys
from base64 import b85decode
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from gptshake.processes import SourcesChanged, live_here
from gptshake.redaction import redact


def run(task: dict[str, Any]) -> Any:
    """Do a task: a run, or the preparation of a study. What it shares with others is under ``shared``, from ``Trials.plain`` and the sweeper."""
    from gptshake.config.compose import Callbacks, LocalConf, prepare
    from gptshake.config.overrides import check_trial_overrides
    from gptshake.trials import Trials

    shared = task["shared"]
    check_trial_overrides(task["overrides"], Path(task["folder"]), set(shared["typed"]))  # a study's files may be somebody else's
    packaged, *own = map(Path, shared["conf"])
    LocalConf.copies[:] = own
    prepare(task["overrides"])
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(packaged), version_base="1.3", job_name="gptshake"):
        cfg = compose("config", [*shared["hydra"], *task["overrides"]], return_hydra_config=True)
        trials = Trials.from_plain(shared["trials"])
        locate(cfg, task)
        if "swept" in task:
            HydraConfig.instance().set_config(cfg)
            return trials.prepare(cfg, task["swept"], task["listed"])
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(cfg))  # type: ignore[arg-type]
        done = run_job(trials, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    done.overrides = [redact(text) for text in done.overrides or ()]  # Hydra prints them if the job failed
    return done.return_value


def run_alone(task: dict[str, Any]) -> Any:
    """``run`` in a process that imports now what the study's other runs imported earlier.

    Raises:
        SourcesChanged: a Python file of the user's own is no longer what it was when the command started.
    """
    for name, text in task["shared"]["trials"]["local_conf"].items():
        if name.endswith(".py") and not (Path(name).is_file() and Path(name).read_bytes() == b85decode(text)):
            raise SourcesChanged(
                f"{name} has changed since this command started, so its runs would not be comparable: run the same command again."
            )
    return run(task)


def locate(cfg: DictConfig, task: dict[str, Any], *, whole_path: bool = True) -> None:
    """Write into Hydra's node which run this is, and unless an app has a rule of its own, where it lies in the study."""
    with open_dict(cfg):
        cfg.hydra.job.id = f"{task.get('study', 'job')}_{task['path'].replace('/', '.')}"
        cfg.hydra.job.num = task.get("number", 0)
        cfg.hydra.sweep.dir = task["folder"]
        if whole_path:
            cfg.hydra.sweep.subdir = task["path"]
        cfg.hydra.sweeper.trial = {key: value for key, value in task.items() if key != "shared"}


if __name__ == "__main__":
    live_here(run_alone, Path(sys.argv[1]), *sys.argv[2:])
