import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gptshake.estimate.lr_fit import NearOptimal
from gptshake.report import study_stats
from gptshake.report.ascii_plots import ASCII_WIDTH, ascii_plot
from gptshake.report.study_stats import best, differences, objective_text, param_text, scales
from gptshake.report.study_text import at_equal_time, table_text, verdict

Make = Callable[..., dict[str, Any]]


def said(study: dict[str, Any], word: str) -> str:
    """The one sentence of the verdict in which the word occurs."""
    (sentence,) = [sentence for sentence in verdict(study) if word in sentence]
    return sentence


@pytest.fixture
def sure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the basin's arithmetic by a given answer."""

    def give(low: float, high: float, edge: str | None = None, *, at: float = 2e-3, assumed: bool = True) -> None:
        monkeypatch.setattr(
            study_stats, "near_optimal_interval", lambda points, log, sd, freedom, runs: NearOptimal(at, low, high, edge, 0.0113, assumed)
        )  # type: ignore[arg-type]

    return give


def test_the_best_is_named_with_its_number_its_values_and_its_length(line: Make) -> None:
    assert said(line(), "The best is") == "The best is trial 4: lr 2e-3, val/bpb 2.2500 after 1.2M tokens."


def test_a_pruned_or_running_trial_never_wins(line: Make, rows: SimpleNamespace) -> None:
    more = [rows.trial(8, {"optimizer.lr": 3e-3}, [1.0], "pruned"), rows.trial(9, {"optimizer.lr": 3e-3}, [1.0], "running")]
    winner = best(line(more=more))
    assert winner is not None and winner.trial["number"] == 4


def test_the_highest_wins_if_higher_is_better(line: Make) -> None:
    winner = best(line(loss=lambda rate: -abs(math.log(rate / 8e-3)), direction="maximize", objective="accuracy"))
    assert winner is not None and winner.trial["params"] == {"optimizer.lr": 8e-3}


def test_the_confirmation_names_the_winner(line: Make, rows: SimpleNamespace) -> None:
    again = {3: (2.20, 2.24, 2.22), 4: (2.27, 2.29, 2.28)}
    confirm = [rows.trial(number, {"optimizer.lr": rate}, again[number]) for number, rate in ((4, 2e-3), (3, 1e-3))]
    sentence = said(line(confirm=confirm), "The best is")
    assert said(line(confirm=confirm), "The confirmation") == "The confirmation: trial 4 2.2800 ± 0.0058; trial 3 2.2200 ± 0.0115."
    assert (
        "trial 3" in sentence
        and "2.2200 ± 0.0115 (mean of 3 seeds, standard error)" in sentence
        and "confirmed with fresh seeds" in sentence
    )


def test_an_unfinished_confirmation_names_nobody_yet(line: Make, rows: SimpleNamespace) -> None:
    confirm = [rows.trial(3, {"optimizer.lr": 1e-3}, [2.0]), rows.trial(4, {"optimizer.lr": 2e-3}, [None], "running")]
    winner = best(line(confirm=confirm, state="running"))
    assert winner is not None and (winner.trial["number"], winner.confirmed) == (4, False)


def test_the_interval_says_whether_its_noise_was_measured(line: Make, sure: Callable[..., None]) -> None:
    sure(1.234e-3, 3.17e-3)
    between = "The best optimizer.lr lies between 1.2e-3 and 3.2e-3"
    expected = f"{between} (values that were tried; the noise between seeds was not measured: repeats=3 measures it)."
    assert said(line(), "lies between") == expected
    sure(1.234e-3, 3.17e-3, assumed=False)
    assert said(line(), "lies between") == f"{between} (seeds move val/bpb by ± 0.011, measured)."


def test_without_measured_noise_the_values_that_were_tried_hold_the_best(line: Make) -> None:
    """1e-3 and 4e-3 are 2.2 % worse than 2e-3: more than seeds that differ by 0.5 % make."""
    assert "The best optimizer.lr lies between 1e-3 and 4e-3 (values that were tried" in said(line(), "lies between")


def second(rows: SimpleNamespace, number: int, rate: float, value: float | None, state: str = "ok") -> dict[str, Any]:
    row: dict[str, Any] = rows.trial(number, {"optimizer.lr": rate}, [value], state)
    row["runs"][0] |= {"path": f"noise/{number}.1", "repeat": 1}
    return row


def test_a_second_seed_measures_the_noise_and_the_mean_of_both_decides(line: Make, rows: SimpleNamespace) -> None:
    """Trial 4 (2e-3) has 2.25 and 2.33, trial 5 (4e-3) 2.30 and 2.24."""
    again = [second(rows, 4, 2e-3, 2.33), second(rows, 5, 4e-3, 2.24)]
    study = line(confirm=again)
    winner = best(study)
    assert winner is not None and (winner.trial["number"], winner.seeds, winner.confirmed) == (5, 2, False)
    assert winner.value == pytest.approx(2.27) and winner.error == pytest.approx(0.03)
    assert said(study, "second seed") == "With a second seed: trial 4 2.3300; trial 5 2.2400."
    sd = math.sqrt(((0.08**2 + 0.06**2) / 2 + 2 * (0.005 * 2.25) ** 2) / 4)
    assert f"(seeds move val/bpb by ± {sd:.2g}, measured)" in said(study, "lies between")


@pytest.mark.parametrize(("value", "state"), [(2.6, "ok"), (None, "diverged")])
def test_a_best_that_is_unstable_with_the_second_seed_is_a_cliff_beside_the_next(
    line: Make, rows: SimpleNamespace, value: float | None, state: str
) -> None:
    again = [second(rows, 4, 2e-3, value, state), second(rows, 3, 1e-3, 2.31)]
    study = line(confirm=again)
    winner = best(study)
    assert winner is not None and winner.trial["number"] == 3
    assert f"trial 4 {'2.6000' if value else 'diverged'} at lr 2e-3, which is unstable; trial 3 2.3100" in said(study, "With a second seed")
    assert said(study, "cliff") == "Warning: the best lies beside a cliff: at 2e-3 training is not stable."


def test_two_stable_values_beside_two_that_are_not_still_bracket_the_best(line: Make, rows: SimpleNamespace) -> None:
    """Measured on characters: with the second seed everything from 3.2e-2 on lies on a plateau 20 % higher."""
    losses = {4e-3: 3.25, 1.6e-2: 3.08, 3.2e-2: 3.12, 6.4e-2: 3.21}
    again = [second(rows, n, rate, value) for n, rate, value in ((1, 1.6e-2, 3.08), (2, 3.2e-2, 3.74), (3, 6.4e-2, 3.85))]
    study = line(tuple(losses), losses.__getitem__, confirm=again)
    why = "values that were tried; 2 of 3 points with a second seed are unstable, which measures no noise"
    assert f"lies between 4e-3 and 3.2e-2 ({why})" in said(study, "lies between")
    assert not any("one seed" in sentence or "safe" in sentence for sentence in verdict(study))


@pytest.mark.parametrize("state", ["diverged", "ok"])
def test_a_best_that_no_second_seed_stands_for_is_not_given_without_a_warning(line: Make, rows: SimpleNamespace, state: str) -> None:
    losses, value = {4e-3: 3.25, 8e-3: 3.08, 1.6e-2: 3.12}, None if state == "diverged" else 3.74
    how = f"{'diverged' if value is None else 'ended at 3.7400'}"
    every = [second(rows, number, rate, value, state) for number, rate in enumerate(losses)]
    assert f"its second seed {how}, and no other point that finished is stable" in said(
        line(tuple(losses), losses.get, confirm=every), "not a safe"
    )
    warning = said(line(tuple(losses), losses.get, confirm=every[1:]), "Warning: the best has")
    assert f"the best has one seed, and no second seed so far held: that of lr 8e-3 {how}, that of lr 1.6e-2 {how}." in warning
    assert warning.endswith("optimizer.lr=0.004 repeats=3")


def test_noise_that_is_yet_to_be_measured_changes_nothing(line: Make, rows: SimpleNamespace) -> None:
    again = [second(rows, 4, 2e-3, None, "running"), second(rows, 5, 4e-3, 2.24)]
    winner = best(line(confirm=again, state="running"))
    assert winner is not None and (winner.trial["number"], winner.seeds) == (4, 1)


def test_beside_a_cliff_the_report_offers_a_longer_warm_up(line: Make) -> None:
    """At twice the best rate the loss is 22 % worse; a factor of 4 away it would be none of its business."""
    study = line(rates=(1e-3, 2e-3, 4e-3), loss=lambda rate: {1e-3: 2.4, 2e-3: 2.25, 4e-3: 2.75}[rate], warmer="scheduler.warmup=0.16")
    expected = "Warning: the best lies beside a cliff: at 4e-3 val/bpb is 22 % worse. A longer warm-up moves it away and often gains:  "
    command = "python -m gptshake -m model=tiny data=wiki_char optimizer.lr='tag(log,interval(1e-5,0.1))' scheduler.warmup=0.16"
    assert said(study, "cliff") == expected + command
    typed = said(study | {"options": ["hydra.sweeper.n_trials=9"]}, "cliff")
    assert typed.endswith("interval(1e-5,0.1))' hydra.sweeper.n_trials=9 scheduler.warmup=0.16")
    assert said(study | {"warmer": ""}, "cliff") == "Warning: the best lies beside a cliff: at 4e-3 val/bpb is 22 % worse."
    nothing = line(rates=(1e-3, 2e-3, 4e-3), loss=lambda rate: {1e-3: 0.5, 2e-3: 0.0, 4e-3: 1.5}[rate])
    assert said(nothing, "cliff") == "Warning: the best lies beside a cliff: at 4e-3 val/bpb is 1.5000."
    far = line(rates=(1e-3, 2e-3, 8e-3), loss=lambda rate: {1e-3: 2.4, 2e-3: 2.25, 8e-3: 2.75}[rate])
    assert not [sentence for sentence in verdict(far) if "cliff" in sentence]


@pytest.mark.parametrize(("declared", "offers"), [(32, True), (16, True), (8, False)])
def test_the_command_beside_a_cliff_sweeps_every_axis_again(rows: SimpleNamespace, declared: int, offers: bool) -> None:
    """Not where the best batch is larger than the configured one: its warm-up, in steps, is a larger share of its run already."""
    batch = rows.axis("data.batch_size", low=8, high=64, log=True, integer=True, powers=True, declared=declared)
    points = [(2e-3, 16, 2.25), (4e-3, 16, 2.75), (2e-3, 32, 2.3)]
    trials = [rows.trial(n, {"optimizer.lr": lr, "data.batch_size": size}, [loss]) for n, (lr, size, loss) in enumerate(points)]
    sentence = said(rows.study([rows.LR, batch], trials, search="plane", warmer="scheduler.warmup=0.16"), "cliff")
    swept = "optimizer.lr='tag(log,interval(1e-5,0.1))' data.batch_size='tag(log,powers_of_two,int(interval(8,64)))'"
    assert sentence.endswith(f"wiki_char {swept} scheduler.warmup=0.16" if offers else "val/bpb is 22 % worse.")


def test_whole_numbers_have_an_interval_of_values_that_were_tried(grid: Make, sure: Callable[..., None]) -> None:
    sure(12.0, 40.0, at=16)
    assert "lies between 16 and 32 (" in said(grid(), "The best data.batch_size")


@pytest.mark.parametrize(
    ("edge", "at", "wider"),
    [("high", 1e-1, "'optimizer.lr=tag(log,interval(1e-5,1))'"), ("low", 1e-5, "'optimizer.lr=tag(log,interval(1e-6,0.1))'")],
)
def test_a_best_at_the_end_of_the_range_is_a_warning_with_a_wider_range(
    line: Make, sure: Callable[..., None], edge: str, at: float, wider: str
) -> None:
    sure(1e-5, 1e-1, edge, at=at)
    sentence = said(line(), "Warning")
    assert f"at the {'upper' if edge == 'high' else 'lower'} end of its range: widen it, e.g. {wider}" in sentence


@pytest.mark.parametrize(
    ("key", "ends", "edge", "wider"),
    [
        ("optimizer.beta2", (0.9, 0.99), "high", "interval(0.9,0.995)"),
        ("model.dropout", (0.0, 0.3), "high", "interval(0,0.6)"),
        ("model.dropout", (0.0, 0.6), "high", "interval(0,0.8)"),
        ("callbacks.samples.top_p", (0.5, 1.0), "high", ""),
        ("scheduler.pct_start", (0.2, 0.5), "low", "interval(0.1,0.5)"),
        ("model.n_layer", (2, 12), "high", "int(interval(2,24))"),
        ("model.n_embd", (48, 192), "low", ""),
        ("data.batch_size", (2, 12), "low", "int(interval(1,12))"),
        ("data.batch_size", (1, 12), "low", ""),
        ("x", (-5.0, 5.0), "low", "interval(-15,5)"),
        ("x", (-5.0, -1.0), "high", "interval(-5,0)"),
    ],
)
def test_a_wider_range_is_one_that_its_key_may_have(
    rows: SimpleNamespace, sure: Callable[..., None], key: str, ends: tuple[float, float], edge: str, wider: str
) -> None:
    """A fraction stays below 1, a batch is a whole number from 1 up, and no shape is proposed that may not divide."""
    low, high = ends
    best = high if edge == "high" else low
    sure(*ends, edge, at=best)
    values = [low, (low + high) / 2 if isinstance(low, float) else (low + high) // 2, high]
    trials = [rows.trial(n, {key: value}, [2.2 + abs(value - best)]) for n, value in enumerate(values)]
    axis = rows.axis(key, low=low, high=high, integer=isinstance(low, int), declared=values[1])
    sentence = said(rows.study([axis], trials), "end of its range")
    assert sentence.endswith(f"end of its range: widen it, e.g. '{key}={wider}'." if wider else "end of its range.")


@pytest.mark.parametrize(
    ("key", "program", "smallest"), [("model.dropout", "gptshake", True), ("+x", "gptshake", False), ("x", "my.py", False)]
)
def test_nothing_below_0_is_missed_where_a_key_takes_none(
    rows: SimpleNamespace, sure: Callable[..., None], key: str, program: str, smallest: bool
) -> None:
    sure(0.0, 0.3, "low", at=0.0)
    trials = [rows.trial(n, {key: value}, [2.2 + value]) for n, value in enumerate((0.0, 0.15, 0.3))]
    study = rows.study([rows.axis(key, low=0.0, high=0.3, declared=0.15)], trials) | {"program": program}
    expected = f"The best {key} is 0, the smallest there is."
    assert said(study, "is 0, the" if smallest else "end of its range").startswith(expected if smallest else "Warning")


def test_a_larger_value_that_diverged_has_been_tried(line: Make, rows: SimpleNamespace) -> None:
    study = line(rates=(1e-3, 2e-3, 4e-3, 8e-3), loss=lambda rate: 3 - 100 * rate, more=[])
    assert "no larger optimizer.lr" in said(study, "Warning")
    study["trials"].append(rows.trial(4, {"optimizer.lr": 1.6e-2}, [None], "diverged"))
    assert not [sentence for sentence in verdict(study) if "no larger" in sentence]


def test_a_range_of_powers_of_two_is_widened_to_powers_of_two(grid: Make, sure: Callable[..., None]) -> None:
    sure(16, 64, "high", at=64)
    assert "'data.batch_size=tag(log,powers_of_two,int(interval(8,256)))'" in said(grid(), "batch_size=tag")


def test_a_best_at_the_end_of_what_was_tried_only_needs_more_trials(line: Make, sure: Callable[..., None]) -> None:
    sure(1e-3, 1.6e-2, "high", at=1.6e-2)
    assert said(line(), "Warning") == "Warning: no larger optimizer.lr than the best, 1.6e-2, has been tried to the end."


def test_batch_sizes_show_their_speed_beside_their_loss(grid: Make) -> None:
    sentence = said(grid(), "tokens/s")
    assert "16: 2.2500 at 4k tokens/s; 32: 2.2825 at 5.66k tokens/s; 64: 2.2900 at 8k tokens/s" in sentence


def test_two_runs_that_end_at_the_end_of_the_range_bracket_the_best(line: Make) -> None:
    study = line(rates=(2.5e-2, 1e-1), loss=lambda rate: 1 / rate)
    assert "optimizer.lr lies between 2.5e-2 and 0.1 (values that were tried" in said(study, "The best optimizer.lr")
    assert "at the upper end of its range: widen it" in said(study, "Warning")
    assert not [sentence for sentence in verdict(line(rates=(2.5e-2,))) if "lies between" in sentence]


def plane(rows: SimpleNamespace, batches: Sequence[int], losses: Sequence[float], **fields: Any) -> dict[str, Any]:
    """A study over rates and batches in which each batch has another rate, so that no axis has a basin."""
    trials = [
        rows.trial(n, {"optimizer.lr": 1e-3 * 1.5**n, "data.batch_size": batch}, [loss], run_ended=rows.BEGIN + 480 / batch)
        for n, (batch, loss) in enumerate(zip(batches, losses, strict=True))
    ]
    batch = rows.axis("data.batch_size", low=4, high=64, log=True, integer=True, powers=True, declared=16)
    return cast("dict[str, Any]", rows.study([rows.LR, batch | fields], trials, search="plane"))


def test_the_best_batch_at_the_end_of_its_range_is_said_without_a_basin_too(rows: SimpleNamespace) -> None:
    wider = "'data.batch_size=tag(log,powers_of_two,int(interval(1,64)))'"
    expected = f"Warning: the best data.batch_size lies at the lower end of its range: widen it, e.g. {wider}."
    assert said(plane(rows, (16, 8, 4), (2.4, 2.3, 2.2)), "batch_size lies") == expected
    assert (
        said(plane(rows, (16, 8), (2.4, 2.3)), "no smaller data")
        == "Warning: no smaller data.batch_size than the best, 8, has been tried to the end."
    )
    assert said(plane(rows, (16, 1), (2.4, 2.3), low=1), "smallest") == "The best data.batch_size is 1, the smallest there is."
    assert not [
        sentence
        for sentence in verdict(plane(rows, (16, 8, 4), (2.4, 2.2, 2.3)))
        if "data.batch_size than" in sentence or "range" in sentence
    ]


def test_a_batch_that_is_better_at_equal_time_is_said(rows: SimpleNamespace) -> None:
    """Batch 8 takes twice the time of 16. Its curve falls by 5 % for twice the tokens, so after half of its time it is at 2.3 x 2^0.074."""
    curve = [(tokens * 1e6, 3 * tokens**-0.074) for tokens in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)]
    expected = (
        "At equal time data.batch_size=16 is the better one: 8 takes 2 x its time. After 30 s batch_size 16 would be at about val/bpb 2.4000, "
        "8 at 2.4211, judged by the slopes of their curves."
    )
    study = plane(rows, (16, 8), (2.4, 2.3))
    assert at_equal_time(study, {0: [curve], 1: [curve]}) == [expected]
    assert at_equal_time(study, {0: [curve]}) == []  # no curve, no slope
    assert at_equal_time(plane(rows, (16, 8), (2.4, 2.2)), {0: [curve], 1: [curve]}) == []
    assert at_equal_time(plane(rows, (16, 8), (2.3, 2.4)), {0: [curve], 1: [curve]}) == []


def test_the_answer_is_bound_to_its_tokens(line: Make, grid: Make) -> None:
    assert said(line(), "valid") == "This is valid for 1.2M tokens: longer runs may need another value."
    cut = said(line() | {"schedule": "wsd, warm-up 37 steps, 30 % of the run"}, "valid")
    assert cut == "This is valid for 1.2M tokens (wsd, warm-up 37 steps, 30 % of the run): a longer warm-up allows a higher rate."
    other = line() | {"schedule": "wsd, warm-up 37 steps, 30 % of the run", "axes": [line()["axes"][0] | {"key": "optimizer.beta2"}]}
    for trial in other["trials"]:
        trial["params"] = {"optimizer.beta2": trial["params"]["optimizer.lr"]}
    assert said(other, "valid").endswith("30 % of the run): longer runs may need another value.")  # about beta2, not about a rate
    assert "1.2M tokens (cosine, warm-up 5 steps): longer" in said(line() | {"schedule": "cosine, warm-up 5 steps"}, "valid")
    whole = {"schedule": "wsd, warm-up 160 steps, 27 % of the run"}
    assert "of the run): within a factor of 4 in length the best rate of AdamW was seen to carry." in said(line() | whole, "valid")
    assert "of the run): longer runs may need another value." in said(grid() | whole, "valid")
    study = line(tokens=300_000)  # the length itself was swept
    assert "valid for 1.2M tokens" in said(study, "valid")
    for run in [run for trial in study["trials"] for run in trial["runs"]]:
        run["tokens"] = None
    assert "valid for 300k tokens" in said(study, "valid")
    assert not [sentence for sentence in verdict(study | {"tokens": None}) if "valid" in sentence]


def test_losses_are_counted_and_failures_have_reasons(line: Make, rows: SimpleNamespace) -> None:
    lost = [("pruned", None), ("pruned", None), ("diverged", "loss is nan"), ("failed", "killed by signal 9")]
    more = [rows.trial(8 + n, {"optimizer.lr": 1e-2}, [None], state, reason=reason) for n, (state, reason) in enumerate(lost)]
    expected = "4 of 12 trials ended early: 2 pruned, 1 diverged, 1 failed (trial 11: killed by signal 9)."
    assert said(line(more=more), "ended early") == expected


def test_the_command_repeats_the_best_and_is_safe_in_a_shell(line: Make) -> None:
    fixed = ["model=tiny", "data=wiki_char", "optimizer.lr=5", "note='a $b'", "optimizer.betas=[0.9,0.95]"]
    typed = said(line(fixed=fixed), "Repeat it:  ").removeprefix("Repeat it:  ")
    expected = ["model=tiny", "data=wiki_char", "optimizer.lr=0.002", "note='a $b'", "optimizer.betas=[0.9,0.95]"]
    assert shlex.split(typed) == ["python", "-m", "gptshake", *expected]
    assert typed.endswith("optimizer.betas='[0.9,0.95]'")


def test_a_foreign_app_is_repeated_with_its_own_program(line: Make) -> None:
    assert "python my_app.py " in said(line(program="my_app.py"), "Repeat it")
    assert "python -m my_app " in said(line(program="my_app"), "Repeat it")


def test_the_way_to_build_on_it_names_the_file(line: Make) -> None:
    assert said(line(), "Build on it").endswith("experiment=multirun/tiny-wiki_char-ab12/best.yaml")
    assert verdict(line(), Path("elsewhere/x"))[-1].endswith("experiment=elsewhere/x/best.yaml")


def test_a_study_without_a_finished_trial_says_so(rows: SimpleNamespace) -> None:
    empty = rows.study([rows.LR], [])
    assert verdict(empty) == ["No trial has finished yet, so there is no answer."]
    assert table_text(empty) == ascii_plot(empty) == ""


def test_a_study_at_work_says_how_far_it_is(line: Make) -> None:
    assert verdict(line(state="running", n_trials=20))[0] == "The study is running: 8 of 20 trials have ended."
    assert verdict(line(state="stopped", n_trials=20))[0].startswith("The study was interrupted; the same command resumes it: 8 of 20")


def test_the_table_has_a_row_for_every_trial_in_order_and_marks_the_best(line: Make, rows: SimpleNamespace) -> None:
    more = [
        rows.trial(9, {"optimizer.lr": 3e-2}, [None], "failed", reason="exit code 3"),
        rows.trial(8, {"optimizer.lr": 1e-2}, [None], "pruned", at=4000),
    ]
    head, *lines = table_text(line(more=more)).splitlines()
    assert head.split() == ["trial", "state", "lr", "val/bpb", "tokens/s", "took", "why"]
    assert [text.lstrip("* ").split()[0] for text in lines] == [str(n) for n in range(10)]
    assert [text for text in lines if text.startswith("*")] == [lines[4]] and "2e-3   2.2500       20k  45 s" in lines[4]
    assert lines[9].endswith("exit code 3") and lines[8].endswith("at 4k tokens")
    assert {text.index("45 s") for text in lines} == {lines[0].index("45 s")}


def test_a_paired_difference_is_the_mean_over_seeds_with_its_standard_error(compared: Make) -> None:
    noise, worse, better = differences(compared())
    gaps = [0.01, -0.01, 0.005]
    assert noise.mean == pytest.approx(sum(gaps) / 3)
    assert noise.error == pytest.approx(math.sqrt(sum((gap - sum(gaps) / 3) ** 2 for gap in gaps) / 2 / 3))
    assert noise.percent == pytest.approx(100 * noise.mean / 2.32) and noise.speed == pytest.approx(2.0)
    assert [row.verdict for row in (noise, worse, better)] == ["within noise", "worse", "better"]


def test_more_is_better_turns_better_and_worse(compared: Make) -> None:
    assert [row.verdict for row in differences(compared(direction="maximize"))] == ["within noise", "better", "worse"]


def test_one_seed_gives_no_verdict_and_the_base_stays(compared: Make) -> None:
    study = compared()
    for trial in study["trials"]:
        del trial["runs"][1:]
    assert {row.verdict for row in differences(study)} == {"one seed: no verdict"}
    winner = best(study)
    assert winner is not None and winner.trial["params"]["ablate"] == "base"


def test_two_seeds_cannot_decide(compared: Make) -> None:
    study = compared()
    for trial in study["trials"]:
        del trial["runs"][2:]
    assert {row.verdict for row in differences(study)} == {"no verdict: two seeds cannot decide"}
    assert "two seeds cannot decide, +0.2100" in said(study, "optimizer.lr=1e-5: ")


@pytest.mark.parametrize("state", ["diverged", "failed", "pruned", "stopped"])
def test_a_change_with_a_seed_that_is_not_ok_has_no_figures_and_never_wins(state: str, compared: Make) -> None:
    """The seeds that survived are the lucky ones: without the worst of them a change looks better than it is."""
    study = compared()
    study["trials"][3]["runs"][0] |= {"state": state, "value": None}
    study["trials"][3] |= {"state": state, "value": None}
    row = differences(study)[2]
    assert (row.verdict, row.mean, row.error, row.half_width, row.percent) == (f"1 of 3 seeds {state}", None, None, None, None)
    assert best(study).trial["params"]["ablate"] == "base"  # type: ignore[union-attr]
    assert said(study, "all together") == f"all together: 1 of 3 seeds {state}."
    assert table_text(study).splitlines()[-1].split()[:6] == ["all", "together", "-", "-", "-", "4.00x"]


def test_a_base_with_a_seed_that_is_not_ok_judges_nothing(compared: Make) -> None:
    study = compared()
    study["trials"][0]["runs"][1] |= {"state": "diverged", "value": None}
    study["trials"][0] |= {"state": "diverged", "value": None}
    assert {row.verdict for row in differences(study)} == {"the base is incomplete: 1 of 3 seeds diverged"}
    assert best(study) is None and said(study, "The base is incomplete (1 of 3 seeds diverged)")


def test_a_change_at_work_has_no_verdict_yet(compared: Make) -> None:
    study = compared()
    study["trials"][3]["runs"][0] |= {"state": "running", "value": None}
    assert [(row.seeds, row.verdict) for row in differences(study)][2] == (2, "2 of 3 seeds ended")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("diverged", "1 of 3 seeds diverged"),
        ("failed", "1 of 3 seeds failed"),
        ("stopped", "1 of 3 seeds stopped"),
        ("waiting", "2 of 3 seeds ended"),
    ],
)
def test_a_point_with_a_seed_that_is_not_ok_is_never_confirmed(state: str, why: str, line: Make, rows: SimpleNamespace) -> None:
    confirm = [rows.trial(3, {"optimizer.lr": 1e-3}, (1.98, None, 1.97)), rows.trial(4, {"optimizer.lr": 2e-3}, (2.0, 2.0, 2.0))]
    confirm[0]["runs"][1]["state"] = state
    study = line(confirm=confirm, state="stopped" if state in ("stopped", "waiting") else "done")
    winner = best(study)
    assert winner is not None and winner.trial["number"] == 4 and winner.confirmed is (state in ("diverged", "failed"))
    assert f"trial 3 is not confirmed ({why})" in "\n".join(verdict(study))
    assert ("The same command resumes the confirmation." in "\n".join(verdict(study))) is (state in ("stopped", "waiting"))


@pytest.mark.parametrize("state", ["done", "running", "stopped"])
def test_trials_that_ended_well_without_a_number_have_ended(state: str, rows: SimpleNamespace) -> None:
    study = rows.study([rows.LR], [rows.trial(n, {"optimizer.lr": rate}, [None], "ok") for n, rate in enumerate((1.0, 10.0))])
    assert said(study | {"state": state}, "so there is no").startswith("No trial returned a number")


def test_a_point_that_diverged_with_fresh_seeds_does_not_win(line: Make, rows: SimpleNamespace) -> None:
    confirm = [rows.trial(4, {"optimizer.lr": 2e-3}, (1.9, None), "diverged", run_state="ok")]
    confirm[0]["runs"][1]["state"] = "diverged"
    winner = best(line(confirm=confirm))
    assert winner is not None and winner.trial["number"] != 4 and not winner.confirmed


@pytest.mark.parametrize("state", ["diverged", "pruned", "failed"])
def test_a_study_without_a_finished_trial_says_how_they_ended(state: str, rows: SimpleNamespace) -> None:
    study = rows.study([rows.LR], [rows.trial(n, {"optimizer.lr": rate}, [None], state) for n, rate in enumerate((1.0, 10.0))])
    how = "diverged" if state == "diverged" else "ended early"
    assert said(study, "no answer").startswith(f"All 2 trials {how}, so there is no answer")
    assert said(study | {"state": "running"}, "no answer") == "No trial has finished yet, so there is no answer."


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.30119, "2.3012"), (0.0, "0.0000"), (4e-6, "4e-6"), (4.12349e-6, "4.1235e-6"), (0.0123456, "0.012346"), (-3.5, "-3.5000"), (1.5e9, "1.5e9")],
)  # fmt: skip
def test_an_objective_is_printed_in_digits_enough(value: float, text: str) -> None:
    assert objective_text(value) == text


def test_a_difference_has_the_decimals_of_its_objective() -> None:
    assert objective_text(0.00171, like=2.3, sign="+") == "+0.0017"
    assert objective_text(1.71e-8, like=4e-6, sign="+") == "+1.71e-8"


def test_a_comparison_is_told_as_a_table_of_differences(compared: Make) -> None:
    head, base, noise, *_ = table_text(compared()).splitlines()
    assert head.split() == ["change", "difference", "±", "error", "percent", "speed", "seeds", "verdict"]
    assert base.split() == ["base", "2.3200", "1.00x", "val/bpb"]
    assert noise.split() == ["data.batch_size=64", "+0.0017", "0.0060", "+0.07", "%", "2.00x", "3", "within", "noise"]
    assert "better, -0.1050 ± 0.0029 val/bpb (-4.53 %, 3 seeds), 4.00x the speed" in said(compared(), "all together: ")
    assert "data.batch_size=64 optimizer.lr=1e-5" in said(compared(), "Repeat it")


def test_the_drawing_is_a_bowl_with_its_best_at_the_bottom(line: Make, sure: Callable[..., None]) -> None:
    sure(1e-3, 4e-3)
    title, *body = ascii_plot(line()).splitlines()
    grid = [text[11:] for text in body if text[9:].startswith(" |")]
    assert title == "val/bpb" and 10 <= len(grid) <= 16 and max(map(len, body)) <= ASCII_WIDTH + 40
    columns = {letter: [(text.index(letter), n) for n, text in enumerate(grid) if letter in text] for letter in "*o"}
    ((column, row),) = columns["*"]
    assert row == len(grid) - 1 and 25 < column < 40
    axis = body[len(grid)]
    assert axis[11 + column] == "=" and axis.count("=") == pytest.approx(2 / 7 * ASCII_WIDTH, abs=2)
    assert "1.25e-4" in body[-2] and "optimizer.lr" in body[-2] and "* best" in body[-1]
    assert body[0].split()[0] == "3.050"


def test_each_batch_size_has_its_letter(grid: Make) -> None:
    drawing = ascii_plot(grid())
    assert "a batch_size 16   b batch_size 32   c batch_size 64" in drawing


def test_pruned_trials_stand_at_the_upper_edge(line: Make, rows: SimpleNamespace) -> None:
    more = [rows.trial(8, {"optimizer.lr": 5e-2}, [None], "diverged")]
    drawing = ascii_plot(line(more=more)).splitlines()
    assert drawing[1].endswith("x") and any("x pruned or diverged" in text for text in drawing[-2:])


def test_there_is_no_drawing_without_numbers_or_with_too_few(line: Make, rows: SimpleNamespace) -> None:
    assert ascii_plot(line(rates=[1e-3, 2e-3])) == ""
    words = rows.study([rows.axis("scheduler", choices=["gpt3", "cosine"])], [rows.trial(0, {"scheduler": "gpt3"}, [2.0])])
    assert ascii_plot(words) == ""


def test_a_value_just_below_1_is_not_written_as_1(line: Make, sure: Callable[..., None]) -> None:
    assert [param_text(value) for value in (0.965, 0.9987, 0.9995, 0.99999)] == ["0.965", "0.9987", "0.9995", "0.99999"]
    sure(0.978, 0.999)
    assert "lies between 0.98 and 0.999 (" in said(line(), "lies between")


def test_flat_losses_are_drawn(line: Make) -> None:
    assert ascii_plot(line(loss=lambda _: 2.0)).count("o") >= 7


@pytest.mark.parametrize(
    ("choices", "log"),
    [([1e-4, 1e-3, 1e-2], True), ([1e-3, 2e-3, 4e-3], True), ([0.0, 0.1, 0.2], False), ([0.1, 0.2, 0.3], False), ([2, 4], False)],
)
def test_a_list_of_numbers_finds_its_scale(rows: SimpleNamespace, choices: list[float], log: bool) -> None:
    (scale,) = scales(rows.study([rows.axis("x", choices=choices)], []))
    assert scale.log is log


def test_the_learning_rate_comes_first_and_equal_names_keep_their_keys(rows: SimpleNamespace) -> None:
    axes = [rows.axis(key, choices=[1, 2, 3]) for key in ("data.batch_size", "optimizer.lr", "+a.size", "b.size")]
    assert [scale.name for scale in scales(rows.study(axes, []))] == ["lr", "batch_size", "a.size", "b.size"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-3, "2e-3"), (1.834e-4, "1.83e-4"), (0.1, "0.1"), (0.0, "0"), (64, "64"), ("gpt3", "gpt3"), (1.0, "1"), (3e10, "3e10")],
)
def test_values_are_written_as_people_type_them(value: Any, text: str) -> None:
    assert param_text(value) == text


def seeds_of_one_configuration(rows: SimpleNamespace, values: Sequence[float | None], state: str = "ok") -> dict[str, Any]:
    one = rows.trial(0, {}, values, state)
    for number, row in enumerate(one["runs"]):
        row["seed"] = 7 + number
    return cast("dict[str, Any]", rows.study([], [one], repeats=len(values), search="grid"))


def test_one_configuration_has_the_mean_of_its_seeds_with_students_interval(rows: SimpleNamespace) -> None:
    study = seeds_of_one_configuration(rows, [2.0, 2.1, 2.2])
    assert verdict(study) == [  # t(2) = 4.3027, times 0.1 / sqrt(3)
        "val/bpb 2.1000 after 1.2M tokens: mean of 3 seeds, 95 % interval 1.8516 to 2.3484, standard deviation 0.1000."
    ]
    assert [line.split()[:3] for line in table_text(study).splitlines()] == [
        ["seed", "state", "val/bpb"],
        ["7", "ok", "2.0000"],
        ["8", "ok", "2.1000"],
        ["9", "ok", "2.2000"],
    ]


def test_two_seeds_give_a_mean_without_an_interval(rows: SimpleNamespace) -> None:
    (sentence,) = verdict(seeds_of_one_configuration(rows, [2.0, 2.2]))
    assert sentence == "val/bpb 2.1000 after 1.2M tokens: mean of 2 seeds, two seeds give no interval."


def test_a_seed_that_diverged_leaves_one_configuration_without_a_mean(rows: SimpleNamespace) -> None:
    assert verdict(seeds_of_one_configuration(rows, [2.0, None], "diverged")) == ["2 of 2 seeds diverged, so there is no mean."]


def test_a_comparison_of_which_the_base_alone_has_begun_says_so(rows: Any) -> None:
    labels = ["base", "seed=2"]
    axes, trials = [rows.axis("ablate", choices=labels, declared="base")], [rows.trial(0, {"ablate": "base"}, [2.3])]
    study = rows.study(axes, trials, ablate={"labels": labels}, state="running")
    assert any(sentence.endswith("No change has a finished pair with base yet.") for sentence in verdict(study)), verdict(study)
