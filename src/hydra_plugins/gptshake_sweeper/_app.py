"""A Hydra app as the sweep sees it, and the end of a sweep as people see it. Hydra does not scan it: its name begins with ``_``."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, Node, OmegaConf, open_dict, read_write

from gptshake.child import locate
from gptshake.config.overrides import typed_values
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

    def on_start(self, folder: Path) -> None:
        """Leave the multirun's config in the study's folder, as every Hydra sweeper does."""
        config = redacted(OmegaConf.to_container(self.config, resolve=False))
        OmegaConf.save(OmegaConf.create(config), folder / "multirun.yaml")
        if self.host:
            self.host.on_start(folder)

    def work(self) -> Callable[[dict[str, Any]], Any]:
        """What does a task in a child: of gptshake's own runs ``gptshake.child``, of another app Hydra's own job."""
        if self.host:
            from gptshake.child import run  # the module of runs, which another app can do without

            return run
        name = JobRuntime.instance().get("name")
        return partial(_run_job, self.context, self.config, _reference(self.task_function), name, str(self.folder))

    def shared(self) -> dict[str, Any]:
        """What a child of ours needs to compose and to run: the host, folders of config, typed values."""
        if self.host is None:
            return {}
        sources = self.config.hydra.runtime.config_sources
        conf = [source.path for provider in ("main", "gptshake-local") for source in sources if source.provider == provider]
        hydra_texts = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        return {"trials": self.host.plain(), "conf": conf, "hydra": hydra_texts, "typed": sorted(self.typed)}

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

    def _returns(self, study: Study) -> list[JobReturn]:
        """What Hydra's callers expect of a sweeper, rebuilt from the study."""
        return [self._return(study, trial, run) for _, trial in sorted(study.trials.items()) for run in trial.runs]

    def _return(self, study: Study, trial: TrialRow, run: RunRow) -> JobReturn:
        task = study.task(trial, run)
        hydra_cfg = _composed(self.context, self.config, task, str(self.folder))
        with read_write(hydra_cfg.hydra.runtime), open_dict(hydra_cfg.hydra.runtime):
            hydra_cfg.hydra.runtime.output_dir = str(study.folder / run.path)
        cfg = OmegaConf.masked_copy(hydra_cfg, [str(key) for key in hydra_cfg if key != "hydra"])
        done = JobReturn(task["overrides"], cfg, OmegaConf.masked_copy(hydra_cfg, ["hydra"]))
        done.working_dir = hydra_cfg.hydra.runtime.output_dir if hydra_cfg.hydra.job.chdir is not False else str(Path.cwd())
        done.task_name, done.status, done.return_value = JobRuntime.instance().get("name"), JobStatus.COMPLETED, _value(study, run)
        return done


Reference = tuple[str, str] | TaskFunction  # module and name of a function, or something that can be pickled


def _reference(function: TaskFunction) -> Reference:
    """How a child finds the task function: the name of one that is decorated is its decorator's, which keeps it as ``__wrapped__``."""
    module, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
    return (module, name) if hasattr(sys.modules.get(module), name) and not isinstance(function, MethodType) else function


def _run_job(context: HydraContext, config: DictConfig, reference: Reference, name: str, folder: str, task: dict[str, Any]) -> Any:
    """Run a job of another app in a child: compose its config, then let Hydra run it."""
    setup_globals()
    JobRuntime.instance().set("name", name)
    function: Any = reference
    if isinstance(reference, tuple):
        function = getattr(importlib.import_module(reference[0]) if reference[0] != "__main__" else sys.modules["__main__"], reference[1])
        function = inspect.unwrap(function)
    done = run_job(function, _composed(context, config, task, folder), "hydra.sweep.dir", "hydra.sweep.subdir", context)
    done.overrides = [redact(text) for text in done.overrides or ()]  # Hydra prints them if the job failed
    return done.return_value


def _composed(context: HydraContext, config: DictConfig, task: dict[str, Any], folder: str) -> DictConfig:
    cfg = context.config_loader.load_sweep_config(config, list(task["overrides"]))
    locate(
        cfg, {"folder": folder, **task}, whole_path=task["path"] != str(task["number"])
    )  # else the app's own subdir, by default the number
    HydraConfig.instance().set_config(cfg)
    return cfg


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
