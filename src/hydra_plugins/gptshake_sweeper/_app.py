"""A Hydra app as the sweep sees it, and the end of a sweep as people see it. Hydra does not scan it: its name begins with ``_``."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, Node, OmegaConf, open_dict, read_write

from gptshake.config.overrides import refuse_code, typed_values
from gptshake.errors import GptshakeError, Stop
from gptshake.files import expanded
from gptshake.processes import ASKED_BY, read_outcome
from gptshake.redaction import redact, redacted
from gptshake.report.live import Live
from gptshake.signals import SIGNALS
from gptshake.sweep.app import Host
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.rows import RunRow, TrialRow
from gptshake.sweep.session import sweep
from gptshake.sweep.study import Study
from gptshake.tasks.report import conclude


class HydraApp:
    """See ``gptshake.sweep.app.App``."""

    def __init__(self, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = context, task_function, _without_sweeper(config)
        self.typed: set[str] = set()
        self.folder = expanded(config.hydra.sweep.dir).absolute()
        self.host: Host | None = task_function if isinstance(task_function, Host) else None
        self.program = "gptshake" if self.host else sys.argv[0]

    def sweep(self, options: SweeperConfig, arguments: list[str]) -> list[list[JobReturn]]:
        """Run the study, and tell what came out, however it ended.

        Raises:
            GptshakeError: what is wrong, or which trials failed; for another app as Hydra's own kind.
        """
        SIGNALS.install()
        overrides = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(arguments)
        self.typed = typed_values(overrides, [str(change) for change in options.ablate])
        live = Live()
        try:
            study = sweep(options, overrides, self, show=live.update, end=lambda folder: _end(live, folder))
            if failed := study.failures():
                raise GptshakeError(failed)
            return [] if self.host else [self._returns(study)]
        except GptshakeError as error:
            if self.host:
                raise
            raise CompactHydraException(str(error)) from None
        except Stop as stop:
            if self.host:
                raise
            raise SystemExit(stop.exit_code) from None

    def begun(self, folder: Path) -> None:
        """Leave the multirun's config in the study's folder, as every Hydra sweeper does."""
        config = redacted(OmegaConf.to_container(self.config, resolve=False))
        OmegaConf.save(OmegaConf.create(config), folder / "multirun.yaml")
        if self.host:
            self.host.begun(folder)

    def child(self, task: dict[str, Any]) -> Any:
        """Do a task in a child: compose its config, then let Hydra run the job, or let the host prepare."""
        if self.host:
            refuse_code(task["overrides"], self.folder, self.typed)  # a study's files may be somebody else's
        cfg = self._composed(task)
        if "prepare" in task and self.host:
            return self.host.prepare(cfg)
        done = run_job(self.task_function, cfg, "hydra.sweep.dir", "hydra.sweep.subdir", self.context)
        done.overrides = [redact(text) for text in done.overrides or ()]  # Hydra prints them if the job failed
        return done.return_value

    def declared(self, key: str) -> tuple[Any, bool]:
        """The value that the config has without the sweep, and whether the key holds integers."""
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(self.config, parent) if parent else self.config
        value = OmegaConf.select(self.config, key)
        if not isinstance(node, DictConfig) or name not in node or isinstance(value, DictConfig):
            return self.config.hydra.runtime.choices.get(key), False  # a group
        leaf = node._get_node(name)
        typed = isinstance(leaf, Node) and leaf._metadata.ref_type is int
        return value, typed or (isinstance(value, int) and not isinstance(value, bool))

    def _composed(self, task: dict[str, Any]) -> DictConfig:
        cfg = self.context.config_loader.load_sweep_config(self.config, list(task["overrides"]))
        with open_dict(cfg):
            cfg.hydra.job.id = f"{task.get('study', 'job')}_{task['path'].replace('/', '.')}"
            cfg.hydra.job.num = task.get("number", 0)
            cfg.hydra.sweep.dir = task.get("folder", str(self.folder))
            if self.host or task["path"] != str(task["number"]):  # else the app's own subdir, by default the number
                cfg.hydra.sweep.subdir = task["path"]
            cfg.hydra.sweeper.trial = task
        HydraConfig.instance().set_config(cfg)
        return cfg

    def _returns(self, study: Study) -> list[JobReturn]:
        """What Hydra's callers expect of a sweeper, rebuilt from the study."""
        return [self._return(study, trial, run) for _, trial in sorted(study.trials.items()) for run in trial.runs]

    def _return(self, study: Study, trial: TrialRow, run: RunRow) -> JobReturn:
        task = study.task(trial, run)
        hydra_cfg = self._composed(task)
        with read_write(hydra_cfg.hydra.runtime), open_dict(hydra_cfg.hydra.runtime):
            hydra_cfg.hydra.runtime.output_dir = str(study.folder / run.path)
        cfg = OmegaConf.masked_copy(hydra_cfg, [str(key) for key in hydra_cfg if key != "hydra"])
        done = JobReturn(task["overrides"], cfg, OmegaConf.masked_copy(hydra_cfg, ["hydra"]))
        done.working_dir = hydra_cfg.hydra.runtime.output_dir if hydra_cfg.hydra.job.chdir is not False else str(Path.cwd())
        done.task_name, done.status, done.return_value = JobRuntime.instance().get("name"), JobStatus.COMPLETED, _value(study, run)
        return done


def _without_sweeper(config: DictConfig) -> DictConfig:
    """The multirun's config for its jobs, which need not know how they are swept."""
    own = config.copy()
    texts: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    with read_write(own.hydra.overrides), open_dict(own.hydra.overrides):
        own.hydra.overrides.hydra = [text for text in texts if not str(text).lstrip("+~").startswith("hydra.sweeper.")]
    return own


def _value(study: Study, run: RunRow) -> Any:
    outcome = read_outcome(study.folder / run.path)
    return outcome.value if outcome else None


def _end(live: Live, folder: Path) -> None:
    live.close()
    conclude(folder, aloud=ASKED_BY not in os.environ)
