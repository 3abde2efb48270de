"""A Hydra app as the sweep sees it, and the end of a sweep as people see it. Hydra does not scan it: its name begins with ``_``."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gptshake.child import locate
from gptshake.errors import GptshakeError, Stop
from gptshake.files import expanded
from gptshake.outcome import read_outcome
from gptshake.processes import ASKED_BY
from gptshake.redaction import redact, redacted
from gptshake.report.live import Live
from gptshake.signals import SIGNALS
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.protocols import Host
from gptshake.sweep.rows import RunRow, TrialRow
from gptshake.sweep.session import sweep
from gptshake.sweep.study import Study
from gptshake.tasks.report import conclude

Reference = tuple[str, str] | TaskFunction  # module and name of a function, or something that can be pickled


class HydraApp:
    """See ``gptshake.sweep.protocols.App``."""

    def __init__(self, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = context, task_function, config.copy()
        texts: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
        with read_write(self.config.hydra.overrides), open_dict(self.config.hydra.overrides):  # jobs need not know how they are swept
            self.config.hydra.overrides.hydra = [text for text in texts if not str(text).lstrip("+~").startswith("hydra.sweeper.")]
        self.typed: set[str] = set()  # every override that the command line itself says, one for each value of a list
        self.folder = expanded(config.hydra.sweep.dir).absolute()
        self.ours = isinstance(task_function, Host)
        self.host: Any = task_function if self.ours else Host()
        self.program = "gptshake" if self.ours else sys.argv[0]

    def sweep(self, options: SweeperConfig, arguments: list[str]) -> list[list[JobReturn]]:
        """Run the study, and report what came out, however it ended."""
        if added := [str(key) for key in self.config if str(key).startswith("hydra/sweeper/")]:
            raise CompactHydraException(
                f"+{added[0]}={self.config[added[0]]} adds a key that nobody reads, as gptshake brings no such options to another app: set the "
                "node, as in 'hydra.sweeper.sampler={_target_: optuna.samplers.TPESampler, _partial_: true}'."
            )
        SIGNALS.install()
        overrides = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(arguments)
        self.typed = {str(change) for change in options.ablate}
        for override in overrides:
            key = override.get_key_element()
            if override.is_choice_sweep():
                self.typed |= {f"{key}={value}" for value in override.sweep_string_iterator()}
            elif not override.is_sweep_override():
                self.typed |= {override.input_line or "", f"{key}={override.get_value_element_as_str()}"}
        live = Live()

        def end(folder: Path) -> None:
            live.close()
            conclude(folder, aloud=ASKED_BY not in os.environ)

        try:
            study = sweep(options, overrides, self, show=live.update, end=end)
            if failed := study.failures():
                raise GptshakeError(failed)
        except GptshakeError as error:
            if self.ours:
                raise
            raise CompactHydraException(str(error)) from None
        except Stop as stop:
            if self.ours:
                raise
            raise SystemExit(stop.exit_code) from None
        if self.ours:
            return []
        return [[self._return(study, trial, run) for _, trial in sorted(study.trials.items()) for run in trial.runs]]

    def on_start(self, folder: Path) -> None:
        """Leave the multirun's config in the study's folder, as every Hydra sweeper does."""
        config = redacted(OmegaConf.to_container(self.config, resolve=False))
        OmegaConf.save(OmegaConf.create(config), folder / "multirun.yaml")
        self.host.on_start(folder)

    def work(self) -> Callable[[dict[str, Any]], Any]:
        """What does a task in a child: of gptshake's own runs ``gptshake.child``, of another app Hydra's own job.

        Another app's task function goes by module and name; one that is decorated has its decorator's name, which keeps it as
        ``__wrapped__``.
        """
        if self.ours:
            from gptshake.child import run  # the module of runs, which another app can do without

            return run
        function: Reference = self.task_function
        module, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
        if hasattr(sys.modules.get(module), name) and not isinstance(function, MethodType):
            function = (module, name)
        return partial(_run_job, self.context, self.config, function, JobRuntime.instance().get("name"), str(self.folder))

    def shared(self) -> dict[str, Any]:
        """What a child of ours needs to compose and to run: the host, folders of config, typed values."""
        if not self.ours:
            return {}
        sources = self.config.hydra.runtime.config_sources
        conf = [source.path for provider in ("main", "gptshake-local") for source in sources if source.provider == provider]
        hydra_texts = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        return {"trials": self.host.plain(), "conf": conf, "hydra": hydra_texts, "typed": sorted(self.typed)}

    def configured(self, key: str) -> tuple[Any, bool]:
        """The value that the config has without the sweep, and whether the key holds integers."""
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(self.config, parent) if parent else self.config
        value = OmegaConf.select(self.config, key)
        if not isinstance(node, DictConfig) or name not in node or isinstance(value, DictConfig):
            return self.config.hydra.runtime.choices.get(key), False  # a group
        typed = get_type_hints(OmegaConf.get_type(node) or dict).get(name) in (int, int | None)
        return value, typed or (isinstance(value, int) and not isinstance(value, bool))

    def _return(self, study: Study, trial: TrialRow, run: RunRow) -> JobReturn:
        """What Hydra's callers expect of a job, rebuilt from the study."""
        task, folder = study.task(trial, run), study.folder / run.path
        hydra_cfg = _composed(self.context, self.config, task, str(self.folder))
        with read_write(hydra_cfg.hydra.runtime), open_dict(hydra_cfg.hydra.runtime):
            hydra_cfg.hydra.runtime.output_dir = str(folder)
        cfg = OmegaConf.masked_copy(hydra_cfg, [str(key) for key in hydra_cfg if key != "hydra"])
        done = JobReturn(task["overrides"], cfg, OmegaConf.masked_copy(hydra_cfg, ["hydra"]))
        done.working_dir = str(folder) if hydra_cfg.hydra.job.chdir is not False else str(Path.cwd())
        done.task_name, done.status = JobRuntime.instance().get("name"), JobStatus.COMPLETED
        outcome = read_outcome(folder)
        done.return_value = outcome.value if outcome else None
        return done


def _run_job(context: HydraContext, config: DictConfig, reference: Reference, name: str, folder: str, task: dict[str, Any]) -> Any:
    """Run a job of another app in a child: compose its config, then let Hydra run it."""
    setup_globals()
    JobRuntime.instance().set("name", name)
    function: Any = reference
    if isinstance(reference, tuple):
        module = sys.modules["__main__"] if reference[0] == "__main__" else importlib.import_module(reference[0])
        function = inspect.unwrap(getattr(module, reference[1]))
    done = run_job(function, _composed(context, config, task, folder), "hydra.sweep.dir", "hydra.sweep.subdir", context)
    done.overrides = [redact(text) for text in done.overrides or ()]  # Hydra prints them if the job failed
    return done.return_value


def _composed(context: HydraContext, config: DictConfig, task: dict[str, Any], folder: str) -> DictConfig:
    cfg = context.config_loader.load_sweep_config(config, list(task["overrides"]))
    whole = task["path"] != str(task["number"])  # else the app's own subdir, by default the number
    locate(cfg, {"folder": folder, **task}, whole_path=whole)
    HydraConfig.instance().set_config(cfg)
    return cfg
