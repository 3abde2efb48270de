"""From parsed arguments to running tasks: compose once, check, guard, name, run.

One composition serves the checks and the task of a single run. ``hydra.main`` acts only where it must, with ``-m``. It prints
its own text for a failed task and returns nothing, so exceptions of a task are kept and raised afterwards.
"""

import gc
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import run_job
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gptshake import hardware, torchrun
from gptshake.config import overrides
from gptshake.config.arguments import SWEEP_PARTS, Arguments, quote
from gptshake.config.compose import call_hydra, choices, resolve_preset, single_run, snapshot, without_hydra
from gptshake.config.compose_errors import checked_compose, parse_overrides, source_hint
from gptshake.config.experiments import SUFFIXES, expand_experiment_files, experiment_files_as_options
from gptshake.config.layout import GROUPS, SWEPT_FILES, local_confs, local_files, own_files, packaged_conf
from gptshake.config.multirun import SWEEPER, each_point, expand_globs, single_run_overrides, starting_options
from gptshake.config.validate import check, check_groups, check_one_device, check_targets, check_torchrun, sweeps_here, targets, trains
from gptshake.context import Context, RunSpec
from gptshake.errors import ConfigError, GptshakeError, RecordError
from gptshake.files import expanded, refuse_links
from gptshake.keys import AUTO, RESULT, is_free, key_of
from gptshake.notify import notified
from gptshake.record.git import PATCH, UNTRACKED, Code, read_code
from gptshake.record.lock import HEARTBEAT
from gptshake.record.names import new_id, run_name, task_name
from gptshake.record.provenance import collect
from gptshake.record.run import discard, read_run
from gptshake.redaction import redact, redacted
from gptshake.setup import make_plan, open_store
from gptshake.signals import stop_behind
from gptshake.sweep.space import is_configured_range, listed_points, texts_of

_NO_PARTS = ("~pruner", "~executor")  # of our sweeper, which Hydra's own does not know
ONE_AFTER_THE_OTHER = [*_NO_PARTS, "hydra.sweep.dir=${paths.multirun}/${now:%Y%m%d-%H%M%S}"]
_UNNAMED = ("model", "data", "trainer", "callbacks", "experiment", "debug")  # groups that a run's name does not repeat
# What a run leaves that was killed before its run.json, which is written last.
_BEFORE_RECORD = {"run.lock", HEARTBEAT, "stop", "config.yaml", "overrides", PATCH, UNTRACKED, "tokenizer", "conf", "code"}
_MOST_LISTED = 20  # uncommitted files that are named


def run(arguments: Arguments) -> Path | None:
    """Check what was asked for and run it; gives the directory of a single run that leaves a record."""
    with ExitStack() as stack:
        if arguments.multirun:  # experiment files are options like others in a sweep
            gc.enable()  # each of its configs is made to be looked at, and is garbage then
            os.environ[SWEPT_FILES] = stack.enter_context(TemporaryDirectory(prefix="gptshake-experiments-"))
            arguments.overrides = experiment_files_as_options(arguments.overrides, Path(os.environ[SWEPT_FILES]))
        typed = expand_experiment_files(arguments.overrides, single=not arguments.multirun)
        arguments.overrides, arguments.origin = overrides.resolve_lr_from(typed)
        automatic = overrides.typed_value(arguments.overrides, "resume") == AUTO
        single, full, label, resumed = _compose_checked(arguments)
        if automatic:
            print(
                f"resume=auto: {f'resuming {resumed.name}' if resumed else 'no unfinished run of this command, so one begins'}", flush=True
            )
        gc.enable()
        cfg = without_hydra(full)
        training, writes = trains(cfg), bool(cfg.task.get("writes_command"))  # a task about the command itself, of a run or of a sweep
        code = read_code() if training or writes else Code()
        _require_committed(cfg, single, code)
        if note := overrides.lr_mismatch_note(arguments.origin, cfg):
            print(note, flush=True)
        chosen = any(key_of(text) == SWEEPER for text in arguments.overrides)
        if arguments.multirun and _kind_of_task(cfg) == (True, True) and not chosen:
            if any(key_of(text) == "hydra.sweep.subdir" for text in arguments.overrides):
                raise ConfigError(
                    "hydra.sweep.subdir= means nothing to a study, whose trials lie in folders of their numbers: leave it out."
                )
            _sweep(arguments, full, single, label, code)
            return None
        command = arguments.argv()
        if writes:
            arguments = Arguments(overrides=single)
        swept = [key for key in map(key_of, arguments.overrides) if key.startswith("hydra.sweeper.")]
        if swept and not chosen and not writes:
            raise ConfigError(f"{swept[0].removeprefix('hydra.sweeper.')}= is for a sweep of trainings: leave it out with this task.")
        hardware.share_cores()
        jobs = _Jobs(arguments, command, label, resumed, code, records=training)
        if training:
            stack.enter_context(notified(cfg.callbacks, lambda: jobs.folder))
        if arguments.multirun:
            for override in parse_overrides(arguments.overrides):
                if override.is_interval_sweep() or is_configured_range(override):
                    text, key = (override.input_line or "").replace("=choice(range)", "=range"), override.key_or_group
                    raise ConfigError(f"{text} is for a study of trainings: here list the values, as in {key}=1,2.")
            arguments.overrides[:0] = ONE_AFTER_THE_OTHER + ([] if chosen else [f"{SWEEPER}=basic"])
            if not training:  # what only reads or prints leaves no directory of its own
                scratch = stack.enter_context(TemporaryDirectory(prefix="gptshake-"))
                arguments.overrides += ["hydra.run.dir=.", f"hydra.sweep.dir={quote(scratch)}"]
            call_hydra(arguments.argv(), jobs.run)
        else:
            sys.argv[1:] = arguments.argv()  # child ranks read it again
            jobs.place(full)
            with single_run(full) as hydra_context:
                done = run_job(jobs.run, full, "hydra.run.dir", None, hydra_context)
                hydra_context.callbacks.on_run_end(config=full, config_name="config", job_return=done)
                _ = done.return_value  # raises what Hydra has kept
        jobs.raise_failures()
        return expanded(full.paths.run_dir) if training and not arguments.multirun else None


def checked_config(arguments: Arguments) -> DictConfig:
    """The config of one run, composed and checked, but not run."""
    arguments.overrides, arguments.origin = overrides.resolve_lr_from(expand_experiment_files(arguments.overrides, single=True))
    return without_hydra(_compose_checked(arguments)[1])


def _compose_checked(arguments: Arguments) -> tuple[list[str], DictConfig, str, Path | None]:
    """The overrides of one run, its config, the label of the data's source, and the run to resume."""
    arguments.overrides = overrides.with_pretrained_shape(overrides.resolve_latest(arguments.overrides))
    resumed = _resumed(arguments)
    if arguments.multirun:
        arguments.overrides = expand_globs(arguments.overrides)
        arguments.overrides[:0] = starting_options(parse_overrides(arguments.overrides))
    single = single_run_overrides(arguments)
    full = checked_compose(single, with_hydra=True)
    HydraConfig.instance().set_config(full)  # for ${hydra:...}
    return single, full, _validate(arguments, single, full, resumed), resumed


def _validate(arguments: Arguments, single: list[str], full: DictConfig, resumed: Path | None) -> str:
    """Refuse what cannot work, before anything heavy is imported; gives the label of the data's source."""
    cfg, several = without_hydra(full), arguments.multirun
    try:
        extended = bool(local_confs()) or any(text.startswith("+") for text in single)
        label = _check_job(full, several=several, extended=extended, resumed=resumed)
    except ConfigError as error:
        raise ConfigError(f"{error}{source_hint(str(error), single)}") from error
    check_torchrun(cfg, torchrun.launched(), multirun=several)
    if (mode := overrides.typed_value(single, "hydra.mode")) and (mode.rpartition(".")[2] == "MULTIRUN") != several:
        raise ConfigError(f"hydra.mode={mode}: several runs are asked for with -m, one without it.")
    shadowed = [name for name in sorted(local_files()) if (packaged_conf() / name).is_file()]
    if shadowed and not cfg.conf_shadow:
        raise ConfigError(f"conf/{shadowed[0]} has the name of a packaged option: rename it, or use conf_shadow=true.")
    if trains(cfg) and not resumed and overrides.typed_value(arguments.overrides, "paths.run_dir"):
        _refuse_used_folder(expanded(cfg.paths.run_dir))
    for key in SWEEP_PARTS if trains(cfg) or cfg.task.get("writes_command") else ():
        if not (several or resumed) and overrides.typed_value(arguments.overrides, key):
            raise ConfigError(f"{key}= is for a sweep: add -m and the keys to vary.")
    if several:
        parsed = parse_overrides(arguments.overrides)
        for _, point in each_point(single, parsed, cfg, _listed(parsed)):
            if _kind_of_task(point) != _kind_of_task(cfg):  # the records of one kind would be lost with the scratch folder of the other
                raise ConfigError("task= cannot vary between these: give each task a command of its own.")
            _check_job(point)
    return label


def _listed(parsed: list[Override]) -> list[list[str]]:
    """Points that a sweep lists: ``enqueue=`` and ``ablate=``, as far as they are lists; what else they may be is refused later."""
    values = {override.key_or_group: override.value() for override in parsed}
    enqueue, ablate = (values.get(f"hydra.sweeper.{key}") for key in ("enqueue", "ablate"))
    points = [point for point in enqueue if isinstance(point, dict)] if isinstance(enqueue, list) else []
    return listed_points(points, [str(change) for change in ablate] if isinstance(ablate, list) else [])


def _kind_of_task(cfg: DictConfig) -> tuple[bool, bool]:
    """Whether it trains, and whether -m makes it a study."""
    return trains(cfg), bool(cfg.task.get("sweeps", True))


def _check_job(full: DictConfig, *, several: bool = True, extended: bool = False, resumed: Path | None = None) -> str:
    """Check the config of one run, which may be one of several, or hold keys of the user's own; gives the label of the data's source."""
    check(full)
    cfg = without_hydra(full)
    if resumed:
        overrides.refuse_differences(cfg, resumed)
    check_targets(cfg, extended=extended)
    if resumed and trains(cfg) and (begun := read_run(resumed).get("task", "train")) != task_name(str(cfg.task._target_)):
        raise ConfigError(f"{resumed.name} was begun by task={begun}, which alone continues it: leave task= out.")
    if trains(cfg):
        check_groups(cfg)
        if several:
            check_one_device(cfg, "Each run of -m")
    elif cfg.data is None:
        return ""  # a task that only reads records
    from gptshake.setup import resolve  # numpy comes with it, which `--cfg job` need not wait for

    return resolve.preflight(cfg)


def _refuse_used_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"paths.run_dir={folder} is a file: name a new folder.")
    found = {entry.name for entry in folder.iterdir()} if folder.is_dir() and not (folder / "run.json").exists() else set()
    if HEARTBEAT in found:
        found = {name for name in found - _BEFORE_RECORD if not name.startswith(".")}
    if found:
        raise ConfigError(
            f"paths.run_dir={folder} is neither empty nor a run: it holds {min(found)}{' and more' if len(found) > 1 else ''}. "
            "Name a new folder; a run replaces files of its own names."
        )


def _resumed(arguments: Arguments) -> Path | None:
    """The run that ``resume=`` names; its stored overrides are put before the new ones."""
    name = overrides.typed_value(arguments.overrides, "resume")
    if not name:
        return None
    if arguments.multirun:
        raise ConfigError("resume= continues one run; leave -m and repeats= out.")
    if name == AUTO:  # the record says which commit or folder init_from= meant; without such a run this is left out
        run_dir = overrides.unfinished(arguments.overrides)
        taken = {"resume", "init_from", "paths.run_dir"} if run_dir else {"resume"}
        arguments.overrides = [text for text in arguments.overrides if key_of(text) not in taken]
        if run_dir is None:
            return None
        arguments.overrides.append(f"resume={quote(str(run_dir.absolute()))}")
    else:
        run_dir = overrides.locate(name, arguments.overrides)
    refuse_links(run_dir)
    devices = ["trainer.devices=auto"] * (torchrun.launched() > 1)  # those that torchrun or srun started now
    arguments.overrides[:0] = [*overrides.resumed_overrides(run_dir, arguments.overrides), *devices]
    return run_dir


def _sweep(arguments: Arguments, cfg: DictConfig, single: list[str], label: str, code: Code) -> None:
    """Hand a study to Hydra's sweeper, with a copy of the config folders that nobody edits."""
    parsed = parse_overrides(arguments.overrides)
    from gptshake.trials import Trials

    swept = {override.key_or_group: texts_of(override) for override in parsed if override.is_choice_sweep()}
    experiments = swept.get("experiment", [])
    files = [f"experiment={text}" for text in experiments if text.endswith(SUFFIXES)]
    experiment_files = {text: expand_experiment_files([text]) for text in files}
    chosen = choices(cfg.hydra) | {group: "_".join(texts[:3]) for group, texts in swept.items() if group in GROUPS}
    named = "_".join(Path(text).stem if experiment_files else text for text in experiments[:3])
    named = named or "-".join(chosen.get(group, group).replace("/", "_") for group in ("model", "data"))
    provenance = collect(code) | arguments.origin
    trials = Trials(
        named,
        label,
        provenance,
        code,
        own_files(targets(without_hydra(cfg)).values()),
        experiment_files,
        dirty=_may_be_uncommitted(cfg, single),
    )
    place = None if sweeps_here(cfg) else expanded(cfg.paths.multirun).absolute()
    with notified(cfg.callbacks, lambda: trials.folder), snapshot(place) as conf:
        call_hydra(arguments.argv(), trials, conf)


def _require_committed(cfg: DictConfig, single: list[str], code: Code) -> None:
    """Refuse a run whose sources are not committed, or may not be: it could not be repeated."""
    if _may_be_uncommitted(cfg, single):
        return
    if code.unread:
        raise RecordError(f"Whether source and config are committed is not known: {code.unread}. Mend that, or add --dirty.")
    if code.files:
        listed = "\n".join(f"  {file}" for file in code.files[:_MOST_LISTED])
        more = f"\n  and {len(code.files) - _MOST_LISTED} more" if len(code.files) > _MOST_LISTED else ""
        raise ConfigError(
            f"Uncommitted changes in source or config; this run could not be repeated:\n{listed}{more}\nCommit them, or add --dirty."
        )


def _may_be_uncommitted(cfg: DictConfig, single: list[str]) -> bool:
    """Whether code that is not committed is allowed: by ``--dirty``, by the variable that tests set, or because it is being debugged."""
    debugged = any(key_of(text) == "debug" and not text.endswith("=null") for text in single)
    return bool(cfg.dirty) or os.environ.get("GPTSHAKE_DIRTY") == "1" or debugged


def _task(cfg: DictConfig) -> Callable[[Context], Any]:
    try:
        task: Callable[[Context], Any] = pkgutil.resolve_name(cfg.task._target_)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"task._target_={cfg.task._target_} cannot be imported: {error}.") from error
    if isinstance(task, type) or inspect.isbuiltin(task) or not callable(task):  # a partial or a method is as good as a function
        raise ConfigError(f"task._target_={cfg.task._target_} is no Python function of a context (docs/extending.md).")
    return task


class _Jobs:
    """The runs of one command that is no study: each gets its name and its task; what they raise is kept for the end."""

    def __init__(self, arguments: Arguments, command: list[str], label: str, resumed: Path | None, code: Code, *, records: bool) -> None:
        self.arguments, self.command, self.label, self.resumed, self.code = arguments, command, label, resumed, code
        self.records = records  # whether a run has a directory
        self.identity = new_id()
        self.provenance = collect(code) | arguments.origin if code.git else {}  # a task that trains nothing keeps no record
        self.failures: list[tuple[str, Exception]] = []
        self.done = 0
        self.folder: Path | None = None  # of the run, or of all runs
        self.there = set[Path]()  # folders that Hydra does not make

    def place(self, cfg: DictConfig) -> None:
        """Give the only run of a command its directory; the working directory, if its task leaves no record."""
        with read_write(cfg.hydra):
            if not self.records:
                cfg.hydra.run.dir = "."
            elif not overrides.typed_value(self.arguments.overrides, "paths.run_dir"):
                name = self._name(choices(cfg.hydra), self.arguments.overrides, self.identity)
                cfg.paths.run_dir = str(self.resumed or Path(cfg.paths.runs) / name)
            if cfg.hydra.job.chdir and self.records:  # relative paths are meant from here
                from gptshake.setup.resolve import resolved_initial_paths, resolved_source

                for key, value in (resolved_source(cfg) | resolved_initial_paths(cfg)).items():
                    OmegaConf.update(cfg, key, value)
        path = Path(cfg.hydra.run.dir).resolve()
        self.there = {folder for folder in (path, path.parent) if folder.exists()}

    def run(self, cfg: DictConfig) -> None:
        """Run the task of one job; called by Hydra."""
        self.done += 1
        multirun, hydra_cfg = self.arguments.multirun, HydraConfig.get()
        path = Path(hydra_cfg.runtime.output_dir)
        self.folder = path.parent if multirun else path
        if self.records:
            with open_dict(cfg):
                cfg.paths.run_dir = str(path)
        if multirun and self.done == 1 and (file := path.parent / "multirun.yaml").exists():  # Hydra's sweeper has written what was typed
            OmegaConf.save(OmegaConf.create(redacted(OmegaConf.to_container(OmegaConf.load(file), resolve=False))), file)
        identity = new_id() if multirun else self.identity
        try:
            spec = self._spec(path, hydra_cfg, cfg, identity)
            if multirun:
                check(cfg)
                resolve_preset(cfg)
                print(f"[{hydra_cfg.job.num}] {redact(' '.join(spec.overrides))}")
            _task(cfg)(Context(cfg, spec, open_store, make_plan))
        except Exception as error:  # kept for the end: the other runs of a multirun go on
            if stop := stop_behind(error):
                raise stop from None
            if isinstance(error, ConfigError):
                discard(path, identity)
            self.failures.append((str(path), error))
            if multirun:
                print(f"error: {redact(str(error))}", file=sys.stderr)
        finally:
            for folder in (path, path.parent) if self.records else ():  # a run that ended before its record began leaves no empty directory
                if folder.is_dir() and folder.resolve() not in {*self.there, Path(hydra_cfg.runtime.cwd)}:
                    with suppress(OSError):  # it is not empty; whatever else keeps it would hide what is raised
                        folder.rmdir()

    def _spec(self, path: Path, hydra_cfg: Any, cfg: DictConfig, identity: str) -> RunSpec:
        given: Any = OmegaConf.to_container(hydra_cfg.overrides.task, resolve=False)  # ${oc.env:NAME} stays what was typed
        texts = [text for text in given if text.split("=", 1)[0] not in ("paths.run_dir", *_NO_PARTS)]
        chosen, resumes, several = choices(hydra_cfg), self.resumed is not None, self.arguments.multirun
        typed = path.name.lstrip(".") if self.records and not several else ""  # as a name, .scratch is scratch
        name = typed or self._name(chosen, texts, identity)
        own = own_files(targets(cfg).values())
        asked = RunSpec(identity, name, path, texts, chosen, self.provenance, resumes=resumes, code=self.code, local_conf=own)
        return replace(asked, command=self.command)

    def _name(self, chosen: dict[str, str], texts: list[str], identity: str) -> str:
        changes = [
            redact(text)
            for text in {key_of(text): text for text in texts}.values()  # of one key typed twice the last counts
            if not (is_free(key_of(text), RESULT) or key_of(text) in _UNNAMED or key_of(text).startswith(("data.path", "tokenizer.path")))
            and not text.endswith("=null")  # nothing was chosen
        ]
        return run_name(chosen.get("model", "model"), chosen.get("data", "data"), self.label, changes, identity, datetime.now())

    def raise_failures(self) -> None:
        """Raise what the only run raised, or the list of those that failed."""
        if self.failures and self.done == 1:
            raise self.failures[0][1]
        if self.failures:
            lines = "\n".join(f"  {path}: {error}" for path, error in self.failures)
            raise GptshakeError(f"{len(self.failures)} of {self.done} runs failed:\n{lines}")
