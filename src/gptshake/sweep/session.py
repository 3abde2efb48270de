"""One sweep from its command to its end: axes, name, cost, study, controller. Read ``sweep`` from top to bottom.

The server that runs are forked from begins first, so that it has imported everything by the time it is needed.
"""

import contextlib
import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from gptshake.errors import ConfigError, GptshakeError, RecordError
from gptshake.estimate.formatting import counted, duration
from gptshake.files import storage_error
from gptshake.keys import STUDY, about
from gptshake.processes import raised
from gptshake.record.index import STUDY_FILE, read_study
from gptshake.record.lock import RunLock
from gptshake.sweep.app import App, Prepared, joined
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.controller import CONFIRMED, Controller, Limits
from gptshake.sweep.executor.local import LocalSlots
from gptshake.sweep.executor.protocol import Executor
from gptshake.sweep.options import (
    check,
    first_points,
    first_seed,
    measures_noise,
    number_of_trials,
    sampler_for,
    sequence_of,
    typed_options,
)
from gptshake.sweep.plane import SurfaceSearch
from gptshake.sweep.pruning import Patient
from gptshake.sweep.rows import NUMBER, Header
from gptshake.sweep.search import SECONDS, LineSearch, SampledSearch, search_for
from gptshake.sweep.space import Axis, Params, Value, axis_of, overrides_of
from gptshake.sweep.study import Study

N_TRIALS = 20  # of a search that would go on for ever
OURS = ("study", "sampler", "pruner", "executor")  # keys of the command line that are the sweeper's, no trial's
ABLATE, BASE, TOGETHER = "ablate", "base", "all together"
LIMITS = ("timeout", "trial_timeout", "max_failures", "repeats", "confirm", "keep", "deterministic")  # options that are limits as they are
_BEFORE_ROWS = {"run.lock", "lease.json", "prepare", "journal.log", "journal.log.lock"}  # left by a controller that was killed at once
Options = tuple[tuple[str, Value], ...]  # of swept groups: (group, option) of each
Show = Callable[[dict[str, Any]], None]


def sweep(options: SweeperConfig, overrides: Sequence[Override], app: App, *, show: Show, end: Callable[[Path], None]) -> Study:
    """Run, or go on with, the study that a command means.

    Args:
        options: of the sweeper.
        overrides: of the task, parsed, swept and fixed.
        app: what is swept.
        show: is given the study's rows now and then.
        end: is given the study's folder when there is something to report, however the study ended.
    Returns:
        The study, at its end.
    Raises:
        GptshakeError: what is wrong, or what failed.
        Stop: a signal came.
    """
    check(options)
    swept = [override for override in overrides if override.is_sweep_override()]
    fixed = [_text(override) for override in overrides if not override.is_sweep_override()]
    executor: Executor = options.executor if options.executor is not None else LocalSlots()
    executor.open(app.work(), app.host.modules() if app.host else ())
    try:
        ranges = {str(key): str(value) for key, value in (options.search_space or {}).items()}
        axes = _axes(options, swept, ranges, app, Prepared())
        folder = app.folder / name if (name := options.study or _default_name(options, axes, fixed, app)) else app.folder
        with _held(folder):
            parts = {key: _kept(part, folder) for key, part in _prepare(app, executor, fixed, axes, folder).items()}
            prepared = joined(list(parts.values()))
            axes = _axes(options, swept, ranges | prepared.ranges, app, prepared)
            controller = _controller(options, axes, _unswept(fixed, axes), app, executor, prepared, parts, folder, show)
            app.on_start(folder)
            try:
                controller.run()
            finally:
                end(folder)
    finally:
        executor.close()
    return controller.study


def _controller(
    options: SweeperConfig,
    axes: list[Axis],
    fixed: list[str],
    app: App,
    executor: Executor,
    prepared: Prepared,
    parts: Mapping[Options, Prepared],
    folder: Path,
    show: Show,
) -> Controller:
    """Open the study, print its cost, and make ready to run it."""
    first = first_points(options, axes)
    most = math.prod(len(axis.finite or [None] * N_TRIALS) for axis in axes) * options.repeats
    slots = executor.allot(prepared.device, prepared.memory, most)
    wished = number_of_trials(options, prepared, slots)
    search = search_for(
        axes, n_trials=wished, slots=slots, seed=options.seed, deterministic=options.deterministic, sampler=options.sampler is not None
    )
    n_trials = N_TRIALS if wished is None and search.size is None else wished
    noise = measures_noise(options, search, wished, axes, app)
    seed = app.declared(options.seed_key)[0] if noise else first_seed(options, axes, app)
    total = wished if isinstance(search, (LineSearch, SurfaceSearch)) else min(filter(None, (search.size, n_trials)))
    frozen = _unswept(prepared.frozen + ([f"trainer.threads={executor.threads}"] if app.host else []), axes)
    varied = [*(axis.key for axis in axes), *map(str, options.ablate)]
    open_ended = search.expected() if isinstance(search, (LineSearch, SurfaceSearch)) and total is None else None
    schedule, warmer = _schedule(varied, prepared)
    header = Header(
        name=folder.name,
        program=app.program,
        objective=options.objective or NUMBER,
        direction=options.direction,
        label=prepared.label,
        fixed=fixed,
        axes=[axis.plain() for axis in axes],
        search=search.name,
        n_trials=total,
        repeats=options.repeats,
        tokens=None if any(axis.numeric and app.host and app.host.changes_cost(axis.key) for axis in axes) else prepared.tokens,
        slots=slots,
        device=executor.device,
        seconds=prepared.seconds,
        ablate={"labels": list(axes[0].choices)} if options.ablate else None,
        seed_key=options.seed_key,
        frozen=frozen,
        code=app.host.code() if app.host else {},
        schedule=schedule,
        warmer=warmer,
        confirm_runs=2 if noise else options.confirm * min(CONFIRMED, total or CONFIRMED),
        noise=noise,
        options=typed_options(options),
        expected=list(open_ended) if open_ended else None,
    )
    pruner, may_differ = options.pruner or Patient(), not app.host or app.host.may_differ()
    study = Study(folder, header, axes, pruner=pruner, may_differ=may_differ, shared=app.shared())
    _print_cost(header, prepared, parts, options, folder)
    return Controller(
        study,
        search,
        executor,
        Limits(slots, n_trials, noise=noise, **{name: getattr(options, name) for name in LIMITS}),
        overrides=_overrides(options, axes, app, prepared, parts),
        seed=seed,
        sampler=lambda number: sampler_for(options, number),
        first=first,
        sequence=sequence_of(options, axes) if isinstance(search, SampledSearch) else None,
        show=show,
    )


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the study's folder; one in which no study began is removed again.

    Raises:
        RecordError: another controller is at work in it, or it holds something else than a study.
        GptshakeError: what the disk or a sampler raises, as a sentence that says how to go on.
    """
    lock = None
    try:
        found = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        if others := sorted(found - _BEFORE_ROWS) if STUDY_FILE not in found else []:
            raise RecordError(f"{folder} is neither empty nor a study: it holds {others[0]}. Give the study another name: study=<name>.")
        try:
            lock = RunLock(folder)
        except RecordError as error:
            look = f"To look at it: task=report study={folder.name}"
            raise RecordError(f"The study {folder.name} is running already: {error} {look}") from error
        yield
    except ImportError as error:  # Optuna's samplers find out only when they are asked
        raise ConfigError(f"The sampler needs a package that is not installed ({error}): pip install 'gptshake[samplers]'") from error
    except BrokenPipeError:
        raise  # the reader of our output has gone, not the disk
    except OSError as error:
        reason = storage_error(error, folder) or error
        raise GptshakeError(f"The study in {folder} cannot be written. {reason} The same command again resumes it.") from error
    finally:
        if lock:
            lock.release()
            if not (folder / STUDY_FILE).exists():
                for name in ("run.lock", "lease.json"):
                    (folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / "prepare", ignore_errors=True)
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    folder.parent.rmdir()


def _prepare(app: App, executor: Executor, fixed: list[str], axes: list[Axis], folder: Path) -> dict[Options, Prepared]:
    """Let the host find out what it can, in a child, for every combination of swept options that change what a run costs.

    Raises:
        GptshakeError: what it found wrong.
    """
    host = app.host
    if host is None:
        return {(): Prepared()}
    found = {}
    for point in itertools.product(
        *([(axis.key, value) for value in axis.choices] for axis in axes if axis.choices and host.changes_cost(axis.key))
    ):
        keys = {key for key, _ in point}
        overrides = [
            *(text for text in fixed if text.partition("=")[0].lstrip("+") not in keys),
            *(f"{key}={value}" for key, value in point),
        ]
        task = {"prepare": True, "path": "prepare", "folder": str(folder), "overrides": overrides, "shared": app.shared()}
        outcome = executor.probe(task, folder / "prepare")
        shutil.rmtree(folder / "prepare", ignore_errors=True)
        if outcome.status in ("killed", "timeout"):
            raise GptshakeError(
                f"A trial run to see what the study needs was {outcome.reason}: try a smaller model or data.micro_batch_size."
            )
        if outcome.status != "ok":
            raise raised(outcome)
        found[point] = Prepared(**outcome.value)
    return found


def _kept(prepared: Prepared, folder: Path) -> Prepared:
    """The length and the ranges that a study began with: measured or worked out once, they are not found out anew."""
    if not (folder / STUDY_FILE).exists():
        return prepared
    stored = read_study(folder)
    axes = {axis["key"]: f"tag(log,interval({axis['low']!r},{axis['high']!r}))" for axis in stored["axes"]}
    return replace(
        prepared, tokens=stored["tokens"] or prepared.tokens, ranges={key: axes.get(key, text) for key, text in prepared.ranges.items()}
    )


def _axes(options: SweeperConfig, swept: list[Override], ranges: Mapping[str, str], app: App, prepared: Prepared) -> list[Axis]:
    def declared(key: str) -> tuple[Any, bool]:
        value, integer = app.declared(key)
        return (prepared.declared[key], isinstance(prepared.declared[key], int)) if key in prepared.declared else (value, integer)

    axes = [axis_of(override, ranges, declared) for override in swept]
    keys = [axis.key.lstrip("+") for axis in axes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(f"{twice[0]} is swept twice: give all its values in one list, or one range.")
    if options.ablate:
        if axes:
            raise ConfigError(f"ablate= compares changes with one base; {axes[0].key} cannot be swept at the same time.")
        if len(set(options.ablate)) < len(options.ablate):
            raise ConfigError("ablate= names a change twice: each is compared with the base once.")
        together = [TOGETHER] if len(options.ablate) > 1 else []
        return [Axis(ABLATE, choices=(BASE, *options.ablate, *together), declared=BASE)]
    return axes


def _overrides(
    options: SweeperConfig, axes: list[Axis], app: App, prepared: Prepared, parts: Mapping[Options, Prepared]
) -> Callable[[Params], list[str]]:
    changes = list(options.ablate)
    table = {BASE: [], TOGETHER: changes} | {change: [change] for change in changes}
    keys = [key for key, _ in next(iter(parts))]

    def overrides(params: Params) -> list[str]:
        texts = table[str(params[ABLATE])] if changes else overrides_of(axes, params)
        point = {text.partition("=")[0]: text.partition("=")[2] for text in texts} if changes else params
        own = parts.get(tuple((key, params[key]) for key in keys), prepared)
        frozen = [text for text in own.frozen if text not in prepared.frozen]
        return texts + frozen + (app.host.comparable(point, own) if app.host else [])

    return overrides


def _schedule(varied: Sequence[str], prepared: Prepared) -> tuple[str, str]:
    """The schedule of all runs, in words, and the override that makes its warm-up longer; nothing if the schedule varies itself.

    Where batches or lengths vary it says that it holds at the starting values.
    """

    def varies(*starts: str) -> bool:
        return any(text.lstrip("+~").startswith(starts) for text in varied)

    if varies("scheduler"):
        return "", ""
    moves = varies("data.batch_", "model", "trainer.max_", "optimizer.beta2") or "optimizer" in varied
    return prepared.schedule and prepared.schedule + (" at the starting values" if moves else ""), prepared.warmer


def _print_cost(header: Header, prepared: Prepared, parts: Mapping[Options, Prepared], options: SweeperConfig, folder: Path) -> None:
    """What the study will cost, before it begins; where options are swept, a run of each."""
    open_ended = header.expected
    mostly, at_most = open_ended or (header.n_trials or N_TRIALS,) * 2
    runs, confirm = mostly * header.repeats, header.confirm_runs
    repeats = f" x {header.repeats} seeds" if header.repeats > 1 else ""
    line = f"study: {header.name} | {header.search} over {', '.join(axis['key'] for axis in header.axes) or 'nothing'}"
    trials = f"usually {mostly} trials, at most {at_most}" if open_ended else counted(mostly, "trial")
    schedule = f" | {header.schedule}" if header.schedule else ""
    print(f"{line} | {trials}{repeats} on {header.device}{schedule}", flush=True)
    for point, part in parts.items() if len(parts) > 1 else ():
        if part.seconds is not None:
            print(f"  {' '.join(f'{key}={value}' for key, value in point)}: about {duration(part.seconds)} a run", flush=True)
    if prepared.seconds is not None and prepared.disk is not None:
        again = SECONDS if header.noise else confirm
        total, longest = (
            prepared.seconds * (math.ceil(n / header.slots) + math.ceil(seeds / header.slots))
            for n, seeds in ((runs, confirm), (at_most * header.repeats, again))
        )
        limit = f", at most {duration(longest)}" if open_ended else ""
        disk = prepared.disk * (options.keep * header.repeats + 2 * header.slots) / 1e6
        why = "of a second seed" if header.noise else "to confirm"
        each = f"{counted(runs, 'run')}{f' and {confirm} {why}' if confirm else ''} x {duration(prepared.seconds)}"
        price = f"{each} on {counted(header.slots, 'slot')} = about {duration(total)}{limit}"
        print(f"estimated cost: {price} | disk: about {max(disk, 1):,.0f} MB in {folder}", flush=True)


def _default_name(options: SweeperConfig, axes: list[Axis], fixed: list[str], app: App) -> str | None:
    """What the study is about as a name, so that the same command is the same study; None in a foreign app, whose folder is its name."""
    if app.host is None:
        return None
    space = [{key: value for key, value in axis.plain().items() if key != "declared"} for axis in axes]
    text = json.dumps([space, sorted(about(_unswept(fixed, axes), STUDY)), options.repeats, options.objective, options.direction])
    return f"{app.host.study_name()}-s{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _unswept(fixed: list[str], axes: list[Axis]) -> list[str]:
    """What all trials share: without overrides of a swept key, which only say where its search begins, and without the sweeper's own."""
    keys = {*OURS, *(axis.key.lstrip("+") for axis in axes)}
    return [text for text in fixed if text.partition("=")[0].lstrip("+") not in keys]


def _text(override: Override) -> str:
    key = override.get_key_element()
    return key if override.is_delete() and override.value_type is None else f"{key}={override.get_value_element_as_str()}"
