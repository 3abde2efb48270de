"""One sweep from its command to its end: axes, name, cost, study, controller. Read ``sweep`` and ``Session.controller`` from top to bottom.

The server that runs are forked from begins first, so that it has imported everything by the time it is needed.
"""

import contextlib
import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from gptshake.errors import ConfigError, GptshakeError, RecordError, StorageError
from gptshake.estimate.formatting import counted, duration
from gptshake.files import storage_error
from gptshake.keys import STUDY, key_of, not_free
from gptshake.outcome import raised
from gptshake.record.index import STUDY_FILE, read_study
from gptshake.record.lock import RunLock
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.controller import CONFIRMED, Controller, Proposals
from gptshake.sweep.executor.local import LocalSlots
from gptshake.sweep.options import check, first_points, number_of_trials, sampler_for, seeds, sequence_of, typed_options
from gptshake.sweep.protocols import App, Executor, Prepared, merge_prepared
from gptshake.sweep.pruning import Patient
from gptshake.sweep.rows import NUMBER, Header
from gptshake.sweep.search import SECONDS, SampledSearch, search_for
from gptshake.sweep.space import Axis, Params, Value, axis_of, is_configured_range, listed_points, overrides_of
from gptshake.sweep.study import Study

N_TRIALS = 20  # of a search that would go on for ever
THREADS = "trainer.threads"  # of a run, in our config
ABLATE, BASE, TOGETHER = "ablate", "base", "all together"
_BEFORE_ROWS = {"run.lock", "lease.json", "prepare", "journal.log", "journal.log.lock"}  # left by a controller that was killed at once
Show = Callable[[dict[str, Any]], None]


def sweep(options: SweeperConfig, overrides: Sequence[Override], app: App, *, show: Show, end: Callable[[Path], None]) -> Study:
    """Run, or resume, the study that a command means.

    Args:
        overrides: of the task, parsed, swept and fixed.
        show: is given the study's rows now and then.
        end: is given the study's folder when there is something to report, however the study ended.
    """
    check(options)
    executor: Executor = options.executor if options.executor is not None else LocalSlots()
    threads = app.configured(THREADS)[0] if app.ours else None
    executor.open(app.work(), app.host.modules(), threads if isinstance(threads, int) else None)
    try:
        session = Session(options, overrides, app, executor)
        with contextlib.ExitStack() as last, _held(session.folder) as lock:
            session.prepare()
            controller = session.controller(partial(_show_alive, lock, show))
            app.on_start(session.folder)
            last.callback(end, session.folder)  # once the lock is free: a study that could not write its end has ended nevertheless
            controller.run()
    finally:
        executor.close()
    return controller.study


class Session:
    """What a command and the host's preparation say about a study before it runs."""

    def __init__(self, options: SweeperConfig, overrides: Sequence[Override], app: App, executor: Executor) -> None:
        self.options, self.app, self.executor = options, app, executor
        self.swept = [override for override in overrides if override.is_sweep_override()]
        self.fixed = [_text(override) for override in overrides if not override.is_sweep_override()]
        # By (group, option) of swept groups that change the cost, and what they have in common.
        self.parts: dict[tuple[tuple[str, Value], ...], Prepared] = {(): Prepared()}
        self.prepared = Prepared()
        self.axes = self._axes()
        name = options.study
        if not name and app.host.name is not None:  # the same command is the same study; another app's folder is its name
            space = [{key: value for key, value in axis.plain().items() if key != "declared"} for axis in self.axes]
            fixed = sorted(not_free(self._unswept(self.fixed), STUDY))
            text = json.dumps([space, fixed, options.repeats, options.objective, options.direction])
            name = f"{app.host.name}-s{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        self.folder = app.folder / name if name else app.folder

    def _axes(self) -> list[Axis]:
        ranges = {str(key): str(value) for key, value in (self.options.search_space or {}).items()} | self.prepared.ranges

        def configured(key: str) -> tuple[Any, bool]:
            if key in self.prepared.declared:
                return self.prepared.declared[key], isinstance(self.prepared.declared[key], int)
            return self.app.configured(key)

        axes = [axis_of(override, ranges, configured) for override in self.swept]
        keys = [axis.key.lstrip("+") for axis in axes]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ConfigError(f"{twice[0]} is swept twice: give all its values in one list, or one range.")
        if not (changes := self.options.ablate):
            return axes
        if axes:
            raise ConfigError(f"ablate= compares changes with one base; {axes[0].key} cannot be swept at the same time.")
        if len(set(changes)) < len(changes):
            raise ConfigError("ablate= names a change twice: each is compared with the base once.")
        return [Axis(ABLATE, choices=(BASE, *changes, *([TOGETHER] if len(changes) > 1 else [])), declared=BASE)]

    def _unswept(self, texts: Iterable[str]) -> list[str]:
        """What all trials share: without overrides of a swept key, which only say where its search begins, and without the sweeper's own."""
        keys = {"study", "sampler", "pruner", "executor", *(axis.key.lstrip("+") for axis in self.axes)}
        return [text for text in texts if text.partition("=")[0].lstrip("+") not in keys]

    def prepare(self) -> None:
        """Let the host find out what it can, in a child, for every combination of swept options that change what a run costs.

        The length and the ranges that a study began with are not found out anew, and its search starts where it did, unless a start is typed.
        """
        if self.app.ours:
            costly = [axis for axis in self.axes if axis.choices and self.app.host.changes_cost(axis.key)]
            points = itertools.product(*([(axis.key, value) for value in axis.choices] for axis in costly))
            self.parts = {point: self._probe(point) for point in points}
        stored = read_study(self.folder) if (self.folder / STUDY_FILE).exists() else None
        if stored:
            axes = {axis["key"]: f"tag(log,interval({axis['low']!r},{axis['high']!r}))" for axis in stored["axes"]}
            for point, part in self.parts.items():
                ranges = {key: axes.get(key, text) for key, text in part.ranges.items()}
                self.parts[point] = replace(part, tokens=stored["tokens"] or part.tokens, ranges=ranges)
        else:
            self._check_ranges()
        self.prepared = merge_prepared(list(self.parts.values()))
        self.axes = self._axes()
        if stored:
            typed = {key_of(text) for text in self.fixed}
            began = {axis["key"]: axis["declared"] for axis in stored["axes"] if "declared" in axis and key_of(axis["key"]) not in typed}
            self.axes = [replace(axis, declared=began.get(axis.key, axis.declared)) for axis in self.axes]

    def _check_ranges(self) -> None:
        """Refuse the word ``range`` where it is another range with each of the swept options: a study has one."""
        for key in (override.key_or_group for override in self.swept if is_configured_range(override)):
            if len({part.ranges.get(key) for part in self.parts.values()}) > 1:
                options = " and ".join(" ".join(f"{name}={value}" for name, value in point) for point in self.parts)
                raise ConfigError(
                    f"{key}=range is not the same range with {options}, and a study has one: run a study of each, "
                    f"or write the range, as {key}=tag(log,interval(1e-4,1))."
                )

    def _probe(self, point: tuple[tuple[str, Value], ...]) -> Prepared:
        keys = {key for key, _ in point}
        overrides = [text for text in self.fixed if text.partition("=")[0].lstrip("+") not in keys]
        overrides += [f"{key}={value}" for key, value in point]
        swept = [override.input_line for override in self.swept if override.get_key_element() not in keys]
        points = {"swept": swept, "listed": listed_points(self.options.enqueue, self.options.ablate)}
        task = {"path": "prepare", "folder": str(self.folder), "overrides": overrides, "shared": self.app.shared(), **points}
        outcome = self.executor.probe(task, self.folder / "prepare")
        shutil.rmtree(self.folder / "prepare", ignore_errors=True)
        if outcome.status in ("killed", "timeout"):
            raise GptshakeError(
                f"A trial run to see what the study needs was {outcome.reason}: try a smaller model or data.micro_batch_size."
            )
        if outcome.status != "ok":
            raise raised(outcome)
        return Prepared(**outcome.value)

    def controller(self, show: Show) -> Controller:
        """Open the study, print its cost, and make ready to run it."""
        options, axes, prepared, host = self.options, self.axes, self.prepared, self.app.host
        first = first_points(options, axes)
        most = math.prod(len(axis.finite or [None] * N_TRIALS) for axis in axes) * options.repeats
        slots = self.executor.allot(prepared.device, prepared.memory, most)
        asked = number_of_trials(options, prepared, slots)
        sampler = options.sampler is not None
        search = search_for(axes, n_trials=asked, slots=slots, seed=options.seed, deterministic=options.deterministic, sampler=sampler)
        n_trials = N_TRIALS if asked is None and search.size is None else asked
        noise, seed = seeds(options, search, asked, axes, self.app)
        expected = search.expected()
        total = asked if expected else min(filter(None, (search.size, n_trials)))
        schedule, warmer = self._schedule()
        costly = any(axis.numeric and host.changes_cost(axis.key) for axis in axes)
        header = Header(
            name=self.folder.name,
            program=self.app.program,
            objective=options.objective or NUMBER,
            direction=options.direction,
            label=prepared.label,
            fixed=self._unswept(self.fixed),
            axes=[axis.plain() for axis in axes],
            search=search.name,
            n_trials=total,
            repeats=options.repeats,
            tokens=None if costly else prepared.tokens,
            slots=slots,
            device=self.executor.device,
            seconds=prepared.seconds,
            ablate={"labels": list(axes[0].choices)} if options.ablate else None,
            seed_key=options.seed_key,
            frozen=self._unswept(dict.fromkeys([f"{THREADS}={self.executor.threads}"] * self.app.ours + prepared.frozen)),
            code=host.version(),
            schedule=schedule,
            warmer=warmer,
            confirm_runs=2 if noise else options.confirm * min(CONFIRMED, total or CONFIRMED),
            noise=noise,
            options=typed_options(options),
            expected=list(expected) if expected and total is None else None,
        )
        pruner = options.pruner or Patient()
        study = Study(self.folder, header, axes, pruner=pruner, host=host, shared=self.app.shared())
        self._print_cost(header)
        sequence = sequence_of(options, axes) if isinstance(search, SampledSearch) else None
        proposals = Proposals(search, self.overrides, lambda number: sampler_for(options, number), first, sequence, seed)
        return Controller(study, proposals, self.executor, replace(options, n_trials=n_trials), show)

    def overrides(self, params: Params) -> list[str]:
        changes, point = list(self.options.ablate), params
        if changes:
            table = {BASE: [], TOGETHER: changes} | {change: [change] for change in changes}
            texts = table[str(params[ABLATE])]
            point = {text.partition("=")[0]: text.partition("=")[2] for text in texts}
        else:
            texts = overrides_of(self.axes, params)
        part = self.parts.get(tuple((key, params[key]) for key, _ in next(iter(self.parts))), self.prepared)
        frozen = [text for text in part.frozen if text not in self.prepared.frozen]
        return texts + frozen + self.app.host.comparable(point, part)

    def _schedule(self) -> tuple[str, str]:
        """The schedule of all runs, in words, and the override that makes its warm-up longer; nothing if the schedule varies itself.

        Where batches or lengths vary it says that it holds at the starting values.
        """
        varied = [text.lstrip("+~") for text in (*(axis.key for axis in self.axes), *map(str, self.options.ablate))]
        if any(text.startswith("scheduler") for text in varied):
            return "", ""
        starts = ("data.batch_", "model", "trainer.max_", "optimizer.beta2")
        moves = any(text.startswith(starts) or text == "optimizer" for text in varied)
        return self.prepared.schedule and self.prepared.schedule + (" at the starting values" if moves else ""), self.prepared.warmer

    def _print_cost(self, header: Header) -> None:
        """What the study will cost, before it begins; where options are swept, a run of each."""
        seconds, slots, confirm = self.prepared.seconds, header.slots, header.confirm_runs
        mostly, at_most = header.expected or (header.n_trials or N_TRIALS,) * 2
        runs = mostly * header.repeats
        trials = f"usually {mostly} trials, at most {at_most}" if header.expected else counted(mostly, "trial")
        over = f"{header.search} over {', '.join(axis['key'] for axis in header.axes)} | {trials}" if header.axes else "one configuration"
        repeats = f" x {header.repeats} seeds" if header.repeats > 1 else ""
        schedule = f" | {header.schedule}" if header.schedule else ""
        print(f"study: {header.name} | {over}{repeats} on {header.device}{schedule}", flush=True)
        for point, part in self.parts.items() if len(self.parts) > 1 else ():
            if part.seconds is not None:
                print(f"  {' '.join(f'{key}={value}' for key, value in point)}: about {duration(part.seconds)} a run", flush=True)
        if seconds is None or self.prepared.disk is None:
            return
        total = seconds * (math.ceil(runs / slots) + math.ceil(confirm / slots))
        longest = seconds * (math.ceil(at_most * header.repeats / slots) + math.ceil((SECONDS if header.noise else confirm) / slots))
        limit = f", at most {duration(longest)}" if header.expected else ""
        disk = self.prepared.disk * (self.options.keep * header.repeats + 2 * slots) / 1e6
        more = f" and {confirm} {'of a second seed' if header.noise else 'to confirm'}" if confirm else ""
        cost = f"{counted(runs, 'run')}{more} x {duration(seconds)} on {counted(slots, 'slot')} = about {duration(total)}{limit}"
        print(f"estimated cost: {cost} | disk: about {max(disk, 1):,.0f} MB in {self.folder}", flush=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[RunLock]:
    """Hold the study's folder; one in which no study began is removed again."""
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
        yield lock
    except ImportError as error:  # Optuna's samplers find out only when they are asked
        raise ConfigError(f"The sampler needs a package that is not installed ({error}): pip install 'gptshake[samplers]'") from error
    except BrokenPipeError:
        raise  # the reader of our output has gone, not the disk
    except (OSError, StorageError) as error:
        reason = error if isinstance(error, StorageError) else storage_error(error, folder) or error
        raise StorageError(f"The study in {folder} cannot continue. {reason} The same command again resumes it.") from error
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


def _show_alive(lock: RunLock, show: Show, rows: dict[str, Any]) -> None:
    """Show a study's rows, and that it is alive, to other hosts, which may not see the lock."""
    with contextlib.suppress(OSError):  # a full disk is told where study.json is written
        lock.heartbeat(0)
    show(rows)


def _text(override: Override) -> str:
    key = override.get_key_element()
    return key if override.is_delete() and override.value_type is None else f"{key}={override.get_value_element_as_str()}"
