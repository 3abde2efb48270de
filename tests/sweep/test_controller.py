"""A study from its first run to its last with an executor that ends runs at once: limits, confirmation, sequences, what a fault leaves."""

import functools
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from gptshake.errors import ConfigError
from gptshake.files import lock_file
from gptshake.outcome import Outcome, write_outcome
from gptshake.record.metrics import Tail
from gptshake.report import study_text
from gptshake.report.study_stats import best, run_seconds, state_of
from gptshake.sweep import controller as module
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.controller import Controller, Proposals
from gptshake.sweep.options import number_of_trials, sampler_for, sequence_of
from gptshake.sweep.protocols import Prepared
from gptshake.sweep.pruning import Patient
from gptshake.sweep.rows import Header, RunRow
from gptshake.sweep.search import search_for, start_of
from gptshake.sweep.space import Axis, Params
from gptshake.sweep.study import Study

LR = Axis("lr", 1e-4, 1e-1, log=True, declared=1e-2)
DROPOUT = Axis("dropout", 0.0, 0.5, declared=0.1)
LIST = Axis("lr", choices=(1e-3, 2e-3, 4e-3, 8e-3))


class Run:
    """A run that has ended before anybody looks."""

    def __init__(self, slot: int, folder: Path, outcome: Outcome) -> None:
        self.slot, self.folder, self.outcome, self.started, self.place = slot, folder, outcome, 0.0, ""

    def stop(self) -> None: ...

    def kill(self, reason: str) -> None: ...


class AtOnce:
    """One slot; ``result`` is asked for the value of a task, an exception is the failure of its run; each run takes a second."""

    def __init__(self, result: Callable[[Mapping[str, Any]], float], clock: list[float]) -> None:
        self.threads, self.device, self._result, self._clock = 1, "", result, clock
        self.tasks: list[Mapping[str, Any]] = []
        self._running: list[Run] = []

    def start(self, task: Mapping[str, Any], folder: Path) -> Run | None:
        if self._running:
            return None
        self.tasks.append(task)
        try:
            outcome = Outcome("ok", value=self._result(task))
        except ValueError as error:
            outcome = Outcome("failed", reason=str(error))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))
        self._running = [Run(0, folder, outcome)]
        return self._running[0]

    def adopt(self, folder: Path) -> None: ...

    def wait(self, seconds: float) -> Sequence[Run]:
        self._clock[0] += 1
        ended, self._running = self._running, []
        return ended


Begin = Callable[..., tuple[Study, AtOnce]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Runs a study in one folder, again and again; returns it and its executor."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def begin(result: Callable[[Mapping[str, Any]], float], axes: list[Axis], options: SweeperConfig | None = None, **limits: Any) -> Any:
        options = options or SweeperConfig()
        executor = AtOnce(result, clock)
        search = search_for(
            axes, n_trials=limits.get("n_trials"), slots=1, seed=0, deterministic=False, sampler=options.sampler is not None
        )
        rows = [axis.plain() for axis in axes]
        header = Header(
            "mine",
            "app.py",
            limits.pop("objective", "value"),
            "minimize",
            "",
            [],
            rows,
            "",
            None,
            1,
            None,
            1,
            "",
            None,
            None,
            "seed",
            [],
            {},
            noise=limits.pop("noise", False),
        )
        study = Study(tmp_path, header, axes)
        proposals = Proposals(
            search,
            lambda params: [f"{key}={value}" for key, value in params.items()],
            lambda number: sampler_for(options, number),
            sequence=sequence_of(options, axes),
            seed=0 if limits.get("confirm") or header.noise else None,
        )
        Controller(
            study,
            proposals,
            executor,  # type: ignore[arg-type]
            replace(options, **limits),
            lambda rows: None,
        ).run()
        return study, executor

    return begin


def value(task: Mapping[str, Any]) -> float:
    return float(task["params"]["lr"])


def bowl(task: Mapping[str, Any]) -> float:
    return 2.0 * (1 + 0.01 * math.log2(task["params"]["lr"] / 1.1e-2) ** 2)


# Limits


def test_no_run_of_the_confirmation_begins_after_the_timeout_and_the_same_command_goes_on_with_it(run: Begin) -> None:
    study, executor = run(value, [LIST], n_trials=4, timeout=5.5, confirm=3)
    assert len(executor.tasks) == 6 and [run.state for run in study.confirm[0].runs] == ["ok", "ok", "waiting"]
    winner = best(study.rows())
    assert study.state == "stopped" and winner is not None and not winner.confirmed
    study, executor = run(value, [LIST], n_trials=4, timeout=5.5, confirm=3)
    assert len(executor.tasks) == 6 and study.rows()["deadline"] is not None
    study, executor = run(value, [LIST], n_trials=4, confirm=3)
    winner = best(study.rows())
    assert len(executor.tasks) == 1 and winner is not None and winner.confirmed and study.state == "done"


def test_a_point_that_failed_and_is_the_best_on_the_second_try_is_confirmed_like_the_others(run: Begin) -> None:
    def fails_at_the_best(task: Mapping[str, Any]) -> float:
        if task["params"]["lr"] == 1e-3:
            raise ValueError("killed")
        return value(task)

    study, _ = run(fails_at_the_best, [LIST], n_trials=4, confirm=1)
    assert [row.params["lr"] for row in study.confirm] == [2e-3, 4e-3, 8e-3]
    study, executor = run(value, [LIST], n_trials=4, confirm=1)
    winner = best(study.rows())
    assert [task["params"]["lr"] for task in executor.tasks] == [1e-3, 1e-3] and [row.params["lr"] for row in study.confirm][3:] == [1e-3]
    assert winner is not None and winner.confirmed and winner.trial["params"] == {"lr": 1e-3}


def test_no_confirmation_begins_after_the_timeout(run: Begin) -> None:
    study, executor = run(value, [LIST], n_trials=4, timeout=2.5, confirm=3)
    assert len(executor.tasks) == 3 and study.confirm == []


@pytest.mark.parametrize(("timeout", "confirm", "through"), [(2.5, 0, 3), (0.5, 0, 1), (3.5, 0, 4), (3.5, 3, 4)])
def test_a_study_that_its_timeout_cut_off_says_so_and_one_that_had_nothing_left_does_not(
    run: Begin, timeout: float, confirm: int, through: int
) -> None:
    study, executor = run(value, [LIST], n_trials=4, timeout=timeout, confirm=confirm)
    said = study_text.verdict(study.rows() | {"n_trials": 4, "updated": math.inf, "confirm_runs": confirm})
    cut_off = f"The study has reached its limit (hydra.sweeper.timeout); the same command resumes it: {through} of 4 trials have ended."
    assert len(executor.tasks) == through and (cut_off in said) == (study.state == "stopped") == (through < 4 or confirm > 0)
    assert ("The confirmation has not started." in said) == (confirm > 0)


@pytest.mark.parametrize(
    ("runs", "repeats", "confirm", "expected"),
    [(20, 1, 0, 20), (20, 1, 3, 11), (20, 2, 3, 5), (8, 1, 3, 2), (1, 3, 3, 1), (20, 3, 0, 6), (14, 1, 3, 5)],
)
def test_hours_are_for_the_runs_of_the_confirmation_too(runs: int, repeats: int, confirm: int, expected: int) -> None:
    options = SweeperConfig(hours=runs / 360, repeats=repeats, confirm=confirm)
    found = number_of_trials(options, Prepared(seconds=10.0), 1)
    assert found == expected
    assert found == 1 or found * repeats + min(found, 3) * confirm <= runs


def test_one_seed_that_diverged_keeps_a_point_from_being_confirmed(run: Begin) -> None:
    """The ok run of 1e-3 is the best of all; its other fresh seeds diverged."""
    study, _ = run(
        lambda task: math.nan if task["params"]["lr"] == 1e-3 and task["repeat"] > 1 else value(task), [LIST], n_trials=4, confirm=3
    )
    winner = best(study.rows())
    assert winner is not None and winner.confirmed and winner.trial["params"] == {"lr": 2e-3}


def test_a_settled_line_runs_the_best_and_its_better_neighbour_with_a_second_seed_which_are_no_trials(run: Begin) -> None:
    study, executor = run(bowl, [LR], noise=True)
    best_rate, beside = (float(row.params["lr"]) for row in study.confirm)
    rates = sorted(float(trial.params["lr"]) for trial in study.ranking())
    assert best_rate == study.ranking()[0].params["lr"] and abs(rates.index(best_rate) - rates.index(beside)) == 1
    assert [[run.seed for run in row.runs] for row in study.confirm] == [[1], [1]]
    assert len(executor.tasks) == len(study.trials) + 2 and len(study.points()) == len(study._study.trials) == len(study.trials)
    study, executor = run(bowl, [LR], noise=True)
    assert executor.tasks == []


def test_a_best_that_diverges_with_the_second_seed_makes_the_next_ones_run_again(run: Begin) -> None:
    def result(task: Mapping[str, Any]) -> float:
        return math.nan if task["repeat"] and task["params"]["lr"] > 1e-2 else bowl(task)

    study, _ = run(result, [LR], noise=True)
    states = [row.state for row in study.confirm]
    winner = best(study.rows())
    assert "diverged" in states and states[-1] == "ok" and len(states) <= 4
    assert winner is not None and winner.seeds == 2 and winner.trial["params"]["lr"] <= 1e-2


def test_no_second_seed_is_run_after_the_timeout(run: Begin) -> None:
    study, _ = run(bowl, [LR], noise=True, timeout=2.5)
    assert study.confirm == []


def test_a_metric_that_no_run_brings_ends_the_study_with_its_first_run(run: Begin, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"ends with run 0, which returned no number val/los .*did you mean val/loss\? It returned val/loss\."
    ):
        run(lambda task: {"val/loss": value(task), "note": "x"}, [LIST], objective="val/los")  # type: ignore[arg-type, return-value]
    assert [row["number"] for row in json.loads((tmp_path / "study.json").read_text())["trials"]] == [0]


def test_a_run_without_the_metric_that_others_brought_costs_itself_alone(run: Begin) -> None:
    found = {1e-3: {"loss": 1.0}, 2e-3: {}, 4e-3: {"loss": 3.0}, 8e-3: {"loss": 4.0}}
    study, _ = run(lambda task: found[task["params"]["lr"]], [LIST], objective="loss")  # type: ignore[arg-type, return-value]
    assert [trial.state for _, trial in sorted(study.trials.items())] == ["ok", "failed", "ok", "ok"]


def test_a_trial_some_of_whose_seeds_returned_no_number_has_no_mean_of_the_others(run: Begin) -> None:
    study, _ = run(lambda task: None if task["repeat"] else 1.0, [LIST], repeats=2)  # type: ignore[arg-type, return-value]
    assert [(trial.state, trial.value) for trial in study.trials.values()] == [("ok", None)] * 4


def test_the_values_of_seeds_are_read_again_where_the_controller_was_killed_between_the_journal_and_study_json(
    run: Begin, tmp_path: Path
) -> None:
    before, _ = run(value, [LIST])
    stored = json.loads((tmp_path / "study.json").read_text())
    for trial in stored["trials"]:
        trial["state"], trial["value"] = "running", None
        trial["runs"][0] |= {"state": "running", "value": None, "ended": None}
    (tmp_path / "study.json").write_text(json.dumps(stored))
    study, executor = run(value, [LIST])
    assert not executor.tasks
    for number, trial in study.trials.items():
        assert [(one.state, one.value) for one in trial.runs] == [("ok", before.trials[number].value)]


def test_a_whole_number_too_large_for_a_float_is_a_diverged_run(run: Begin) -> None:
    study, _ = run(lambda task: -(10**400), [LIST])
    assert {trial.state for trial in study.trials.values()} == {"diverged"}


def test_whatever_ends_a_study_its_record_does_not_stay_at_work(run: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Tail, "new", lambda tail: [][0])
    with pytest.raises(IndexError):
        run(value, [LIST], n_trials=4)
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["state"] == "stopped" and {state_of(trial) for trial in record["trials"]} == {"stopped"}


# One sequence


def discrepancy(points: Sequence[Sequence[float]]) -> float:
    """Squared centred L2 discrepancy (Hickernell 1998), the measure of ``scipy.stats.qmc.discrepancy``."""
    n, d = len(points), len(points[0])
    near = [[abs(x - 0.5) for x in point] for point in points]
    single = sum(math.prod(1 + a / 2 - a * a / 2 for a in row) for row in near)
    pairs = range(n)
    double = sum(
        math.prod(1 + near[i][k] / 2 + near[j][k] / 2 - abs(points[i][k] - points[j][k]) / 2 for k in range(d))
        for i in pairs
        for j in pairs
    )
    return (13 / 12) ** d - 2 / n * single + double / n**2


@pytest.mark.parametrize("kind", [{"scramble": True}, {}, {"qmc_type": "halton", "scramble": True}])
def test_quasi_random_trials_are_one_sequence_and_point_i_is_trial_i_after_a_resume_too(kind: Any, run: Begin) -> None:
    pytest.importorskip("scipy")
    options = SweeperConfig(sampler=functools.partial(optuna.samplers.QMCSampler, **kind))
    failing = iter([False] * 5 + [True] + [False] * 100)

    def result(task: Mapping[str, Any]) -> float:
        if next(failing):
            raise ValueError("once")
        return value(task)

    axes = [LR, DROPOUT]
    whole = sequence_of(options, axes)
    assert whole is not None
    for n_trials in (5, 12, 31):  # resumed twice; one trial fails in the second sitting
        study, _ = run(result, axes, options, n_trials=n_trials)
    assert [study.trials[number].params for number in range(32)] == [whole(number) for number in range(32)]
    places = [[math.log10(row.params["lr"] / 1e-4) / 3, float(row.params["dropout"]) / 0.5] for row in study.trials.values()]
    assert discrepancy(places) < 0.003  # 32 random points: 0.009


def test_only_a_quasi_random_sampler_is_a_sequence() -> None:
    for sampler in (None, optuna.samplers.RandomSampler, functools.partial(optuna.samplers.TPESampler, n_startup_trials=1)):
        assert sequence_of(SweeperConfig(sampler=sampler), [LR]) is None


# Pruning


@pytest.fixture
def pruned(tmp_path: Path) -> Callable[..., bool]:
    """Whether a pruner that always says yes would end a trial with this point."""
    folders = itertools.count()

    def ask(params: Params, *, finished: Sequence[int] = (), pruner: optuna.pruners.BasePruner | None = None, **report: Any) -> bool:
        axes = [LR, DROPOUT]
        rows = [axis.plain() for axis in axes]
        header = Header("mine", "app.py", "value", "minimize", "", [], rows, "", None, 1, None, 1, "", None, None, "seed", [], {})
        (folder := tmp_path / str(next(folders))).mkdir()
        study = Study(folder, header, axes, pruner=pruner or Always())
        for tokens in finished:
            study._study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={tokens: 1.0}))
        number, _ = study.ask(params)
        study.trials[number] = module.TrialRow(number, params, [], [])
        return study.report(number, 9.0, 500, **report)

    return ask


class Always(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def test_along_a_line_no_rank_counts_within_a_factor_of_four_of_the_best_but_divergence_does(tmp_path: Path) -> None:
    header = Header("mine", "app.py", "value", "minimize", "", [], [LR.plain()], "line", None, 1, 1000, 1, "", None, None, "seed", [], {})
    study = Study(tmp_path, header, [LR], pruner=Patient(patience=1, n_startup_trials=1))
    other = optuna.trial.create_trial
    best_row = module.TrialRow(0, {"lr": 3e-3}, [], [], "ok", 1.0)
    study._study.add_trial(other(value=1.0, intermediate_values={400: 1.0}))
    study.trials[0] = best_row
    for rate, last, expected in ((1.2e-2, 1.2, False), (1.3e-2, 1.2, True), (1.2e-2, math.nan, True), (1.2e-2, 9.0, True)):
        number, params = study.ask({"lr": rate})
        study.trials[number] = module.TrialRow(number, params, [], [])
        study.report(number, 1.2, 500)
        assert study.report(number, last, 600) is expected, (rate, last)


POINT: Params = {"lr": 2e-2, "dropout": 0.1}


def test_no_pruner_ends_a_trial_in_its_warm_up_nor_by_rank_without_a_finished_trial_nor_the_starting_values(pruned: Any) -> None:
    assert pruned(POINT, finished=[400])
    assert not pruned(POINT, finished=[400], warming=True)
    assert not pruned(POINT) and not pruned(POINT, finished=[501])
    assert not pruned({"lr": 1e-2, "dropout": 0.1}, finished=[400])
    assert pruned(POINT, pruner=optuna.pruners.ThresholdPruner(upper=5.0))  # a limit is no rank


@pytest.mark.parametrize(("search", "expected"), [("sampled", True), ("plane", False)])
def test_a_fitted_surface_wants_losses_so_only_divergence_is_pruned(search: str, expected: bool, tmp_path: Path) -> None:
    axes = [LR, DROPOUT]
    rows = [axis.plain() for axis in axes]
    header = Header("mine", "app.py", "value", "minimize", "", [], rows, search, None, 1, 1000, 1, "", None, None, "seed", [], {})
    study = Study(tmp_path, header, axes, pruner=Patient())
    curve = dict.fromkeys((600, 700, 800, 900), 2.0)
    for _ in range(4):
        study._study.add_trial(optuna.trial.create_trial(value=2.0, intermediate_values=curve))
    number, _ = study.ask(POINT)
    study.trials[number] = module.TrialRow(number, POINT, [], [])
    assert any(study.report(number, 2.1, tokens) for tokens in curve) is expected
    assert study.report(number, math.inf, 950)


def test_the_starting_values_are_those_of_the_config_where_every_axis_has_one() -> None:
    powers = Axis("batch", 8, 64, log=True, integer=True, powers=True, declared=32)
    assert start_of([LR, powers, Axis("s", choices=("a", "b"), declared="b")]) == {"lr": 1e-2, "batch": 32, "s": "b"}
    assert start_of([LR, Axis("x", 0, 1)]) is None and start_of([Axis("lr", 1, 2, declared=0.5)]) is None and start_of([]) is None


@pytest.mark.parametrize(
    ("rates", "warm"),
    [([1, 2, 3, 3, 3], 4), ([3, 3, 3], 2), ([3, 2, 1], 2), ([1, 2, 3], None), ([1, 2, 1, 2, 3], 3)],
)
def test_the_warm_up_lasts_while_the_learning_rate_rises(rates: list[float], warm: int | None, tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("step,train/tokens,train/lr\n" + "".join(f"{n},{n},{rate}\n" for n, rate in enumerate(rates, start=1)))
    tail = Tail(file)
    assert len(tail.new()) == len(rates)
    assert [tail.warming(n) for n in range(1, len(rates) + 1)] == [warm is None or n < warm for n in range(1, len(rates) + 1)]


@pytest.mark.parametrize("text", ["epoch,loss\n1,2.5\n", "a;b\n1;2\n", "name\nx,y\n", "train/tokens,loss\n,2.5\n", "\n\n\n"])
def test_the_metrics_of_another_program_have_no_rows(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    tail = Tail(tmp_path / "metrics.csv")
    assert tail.new() == [] and tail.new() == [] and tail.rate is None


def test_what_is_no_file_has_no_rows(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # nobody writes into it
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder", "nothing"):
        tail = Tail(tmp_path / name)
        assert tail.new() == [] and not tail.more


# Runs on other machines


def watched(folder: Path, **started: float) -> tuple[Controller, Any, Any]:
    """A controller that watches one run of a trial."""
    header = SimpleNamespace(objective="val/loss", tokens=None)
    study = SimpleNamespace(trials={}, confirm=[], folder=folder, header=header, now=lambda: 50.0, changed=False)
    executor = SimpleNamespace(adopt=lambda folder: None)
    trial = module.TrialRow(0, {}, [], [RunRow("0/0", 0, None), RunRow("0/1", 1, None)])
    running = SimpleNamespace(slot=0, folder=folder / "0/1", outcome=None, place="waits: Resources", started=math.inf, stopped=0)
    running.stop = lambda: setattr(running, "stopped", running.stopped + 1)
    running.folder.mkdir(parents=True)
    return Controller(study, None, executor, SweeperConfig(), lambda rows: None), trial, running  # type: ignore[arg-type]


def test_a_run_has_not_begun_as_long_as_it_waits_for_a_machine(tmp_path: Path) -> None:
    controller, trial, running = watched(tmp_path)
    run = trial.runs[1]
    controller._follow(trial, run, running)
    assert (run.state, run.place, run.started) == ("waiting", "waits: Resources", None)
    running.started, running.place = 7.0, "on n1"
    controller._watch(*controller._running[0])
    assert (run.state, run.place, run.started) == ("running", "on n1", 50.0)
    runs = [asdict(run), asdict(RunRow("1", 0, None, place="waits: Priority"))]
    trials = [{"number": 0, "state": "running", "value": None, "params": {}, "runs": runs}]
    rows = {"state": "running", "direction": "minimize", "axes": [{"key": "optimizer.lr"}], "trials": trials}
    assert "Runs: 0/1 on n1; 1 waits: Priority." in study_text.verdict(rows)
    running.started, running.place = math.inf, "waits: Priority"  # its node was lost
    controller._watch(*controller._running[0])
    assert (run.state, run.place, run.started) == ("waiting", "waits: Priority", None)


@pytest.mark.parametrize(("spent", "killed"), [(89.0, False), (91.0, True)])
def test_what_a_run_took_before_an_interruption_counts_for_its_time_limit(spent: float, killed: bool, tmp_path: Path) -> None:
    controller, trial, running = watched(tmp_path)
    controller.options, trial.runs[1].spent, said = SweeperConfig(trial_timeout=100), spent, list[str]()
    running.kill, running.started = said.append, time.monotonic() - 10
    controller._follow(trial, trial.runs[1], running)
    controller._watch(*controller._running[0])
    assert said == ["no end after 100 s (hydra.sweeper.trial_timeout)"] * killed


@pytest.mark.parametrize(("outcome", "seconds"), [(None, 30 + 50 - 20), (Outcome("ok", {"val/loss": 1.0}), 30), (Outcome("killed"), None)])
def test_time_between_two_controllers_is_that_of_a_run_that_went_on_alone(
    outcome: Outcome | None, seconds: int | None, tmp_path: Path
) -> None:
    controller, trial, running = watched(tmp_path)
    run = trial.runs[1]
    run.state, run.spent, run.started = "waiting", 30.0, 20.0  # as ``Study`` takes up one that was last seen at 20 s; now it is 50 s
    if outcome is None:
        running.started = 7.0
        controller._follow(trial, run, running)
        controller._apply(run, Outcome("ok", {"val/loss": 1.0}), 50.0)
    else:
        write_outcome(running.folder, outcome)
        controller._count_or_queue(trial, run, running.folder)
    assert run_seconds(asdict(run)) == seconds


def seen(folder: Path, moment: float) -> None:
    """The run in a folder was seen at work for the last time."""
    (folder / "lease.json").touch()
    os.utime(folder / "lease.json", (moment, moment))


def test_the_time_of_a_lost_run_ends_when_it_was_last_seen_and_not_when_its_loss_was_noticed(tmp_path: Path) -> None:
    controller, trial, running = watched(tmp_path)
    run = trial.runs[1]
    controller._follow(trial, run, running)
    run.state, run.started = "running", 10.0  # now it is 50 s
    seen(running.folder, 25.0)
    controller._watch(*controller._running[0])  # it waits for another machine
    assert (run.state, run.started, run.spent) == ("waiting", None, 15.0)
    running.started = 7.0
    controller._watch(*controller._running[0])
    run.started = 30.0
    controller._apply(run, Outcome("failed", reason="lost 6 times"), 42.0)
    assert run_seconds(asdict(run)) == 15 + 12


@pytest.mark.parametrize("outcome", [None, Outcome("ok", {"val/loss": 1.0})])
def test_a_run_that_went_on_without_its_controller_took_until_it_was_last_seen(outcome: Outcome | None, tmp_path: Path) -> None:
    controller, trial, running = watched(tmp_path)
    run = trial.runs[1]
    run.state, run.spent, run.started = "waiting", 30.0, 20.0  # its controller has last written at 20 s
    if outcome:
        write_outcome(running.folder, outcome)
    seen(running.folder, 35.0)
    controller._count_or_queue(trial, run, running.folder)
    assert (run_seconds(asdict(run)), run.spent) == ((45.0, 30.0) if outcome else (None, 45.0))


def test_a_run_of_a_trial_that_ends_early_is_asked_again_when_it_has_begun_anew_and_one_in_the_queue_never_begins(tmp_path: Path) -> None:
    controller, trial, running = watched(tmp_path)
    controller._follow(trial, trial.runs[1], running)
    trial.runs[0].state = "diverged"
    controller._watch(*controller._running[0])
    assert running.stopped == 1 and not (running.folder / "stop").exists()
    running.started = 7.0
    for _ in range(2):
        controller._watch(*controller._running[0])
        (running.folder / "stop").unlink()  # as the run does when it begins
    running.outcome = Outcome("stopped", reason="stopped before it had begun")
    controller.executor.wait = lambda seconds: [running]  # type: ignore[method-assign]
    controller._finish = lambda trial: None  # type: ignore[method-assign]
    controller._take_ends()
    assert trial.runs[1].state == "pruned"


def test_runs_that_still_save_for_an_earlier_controller_hold_up_nobody(tmp_path: Path, capsys: Any) -> None:
    controller, trial, running = watched(tmp_path)
    trial.runs, trial.overrides = trial.runs[1:], ["lr=0.001"]
    lock = lock_file(running.folder / "child.lock")
    controller.study.trials[0] = trial
    controller._recover()
    controller._take_over()
    assert controller._left == [(trial, trial.runs[0])] and not controller._pending
    assert capsys.readouterr().out.startswith("Run 0/1 is still at work for an earlier command")
    os.close(lock)
    controller._take_over()
    assert controller._pending == [(trial, trial.runs[0])] and not controller._left
