"""The finder's picture and sentences, from a record alone."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from gptshake.estimate.lr_range import geometric_rates
from gptshake.report.plots_tasks import plot_find_lr as plot
from gptshake.report.tasks_text import STEEP
from gptshake.report.tasks_text import find_lr_text as sentences
from gptshake.report.tasks_text import lr_estimates as said
from gptshake.tasks.find_lr import fall

LANDSCAPES = Path(__file__).parents[2] / "benchmarks" / "landscapes"


def losses(rates: list[float], shift: float = 0.0) -> list[float | None]:
    return [round(4 - 2 / (1 + math.exp(-(math.log10(rate) + 3 + shift) / 0.25)), 4) for rate in rates]


def record(**more: Any) -> dict[str, Any]:
    quick, rates = geometric_rates(1e-6, 1, 50), geometric_rates(1e-5, 0.1, 100)
    found: dict[str, Any] = {
        "rules": {"steep": 1e-3, "valley": 8e-4, "minimum": 1e-3, "slide": None, "middle": 5e-3, "one_cycle": 8e-3},
        "start": 5e-3,
        "one_cycle": False,
        "still_falls": False,
        "diverged": 0.1,
        "declared": 6e-4,
        "preset": 6e-4,
        "law": 2e-3,
        "law_says": "lr 2e-3, batch 2k tokens",
        "ramps": {
            "quick_rates": quick,
            "quick": losses(quick),
            "rates": rates,
            "losses": [losses(rates), [*losses(rates, 0.1)[:60], None]],
        },
        "lr": 1e-5,
        "low": None,
        "high": None,
        "confirm": [],
        "last": None,
    }
    return {"id": "x0000001", "name": "20261124-1200-tiny-wiki_char-excerpt106-x0000001", "find_lr": found | more}


def test_every_estimate_stands_apart_from_its_rate() -> None:
    lines = sentences(record(), [])
    rates = lines[1 : next(number for number, line in enumerate(lines) if "scaling law" in line)]
    assert len(rates) == len(said(record()["find_lr"])) - 1 and all("  " in line.strip() for line in rates)


RUNS = {
    "confirm": [
        {"lr": lr, "value": value, "state": state}
        for lr, value, state in ((1e-3, 2.2, "ok"), (4e-3, 2.0, "ok"), (1.6e-2, 2.1, "ok"), (6e-2, None, "diverged"))
    ],
    "lr": 4e-3,
    "low": 3e-3,
    "high": 9e-3,
    "edge": None,
    "objective": "val/bpb",
    "steps": 800,
    "of_steps": 5000,
}


def test_the_answer_is_told_as_a_ratio_because_exponents_are_misread() -> None:
    text = "\n".join(sentences(record(), ["model=tiny"]))
    assert "That is 0.017 x the preset (6e-4)." in text
    text = "\n".join(sentences(record(last={"id": "y0000001", "lr": 5e-6}), ["model=tiny"]))
    assert "0.017 x the preset (6e-4) and 2 x the last run of this model and data (5e-6, y0000001)" in text


def test_the_answer_names_schedule_and_warm_up() -> None:
    assert "It is the peak of this run's schedule: cosine, warm-up 5 steps." in sentences(record(schedule="cosine, warm-up 5 steps"), [])


def test_the_answer_comes_with_interval_reason_and_the_command_that_uses_it() -> None:
    text = "\n".join(sentences(record(**RUNS), ["model=tiny", "data.path='it is'"]))
    assert "optimizer.lr=4e-3 is the peak to train with (3e-3 to 9e-3 are indistinguishable from it): best of 4 runs of 800 steps" in text
    assert "): middle of the best two, which are within the usual noise of 0.5 %, of 4 runs" in "\n".join(
        sentences(record(**RUNS | {"lr": 8e-3}), [])
    )
    assert shlex.split(text.rpartition("next:")[2])[1:] == ["model=tiny", "data.path='it is'", "optimizer.lr=from:x0000001"]
    assert "want less" not in text and "looks further" not in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"still_falls": True}, "The loss still fell at the end of the range test, 1e-1"),
        ({"rules": {}, "start": None} | RUNS, "The loss did not fall at any rate of the range test"),
        (RUNS | {"fell": 0.56}, "lost 56 % of its loss after its first quarter"),
        (RUNS | {"edge": "high"}, "The best is at the high end of what was run: task.confirm=7 looks further."),
        (
            RUNS | {"confirm": RUNS["confirm"][:1], "low": None, "high": None},  # type: ignore[index]
            "1 run of 1 ended with a loss, and an interval needs two",
        ),
    ],
)
def test_doubts_are_told_with_what_settles_them(more: dict[str, Any], words: str) -> None:
    assert words in "\n".join(sentences(record(**more), []))


@pytest.mark.parametrize("more", [{"fell": 0.4}, {"fell": None}, {"fell": 0.56, "of_steps": RUNS["steps"]}])
def test_runs_that_carry_or_are_whole_need_no_sweep(more: dict[str, Any]) -> None:
    assert "Warning" not in "\n".join(sentences(record(**RUNS | more), []))


def test_of_the_measured_landscapes_only_one_falls_too_fast_for_short_runs() -> None:
    """JSON, where the finder ends 6 % above the best; at most 2.2 % everywhere else."""
    lands = [json.loads(path.read_text()) for path in LANDSCAPES.glob("*.json")]
    fell = {land["name"]: fall(land["short"]["curve"]) or 0.0 for land in lands if "curve" in land.get("short", {})}
    assert len(fell) > 15 and {name for name, share in fell.items() if share > STEEP} == {"codes-characters", "codes-characters-edge"}
    command = "\n".join(sentences(record(**RUNS | {"fell": max(fell.values())}), ["model=tiny", "data.path='it is'"]))
    assert shlex.split(command.partition("is sure:")[2].partition("\n")[0]) == [
        "gptshake",
        "-m",
        "model=tiny",
        "data.path='it is'",
        "optimizer.lr=range",
    ]


def test_who_says_nothing_is_not_listed_and_a_typed_rate_is_no_preset() -> None:
    names = [name for name, _, _ in said(record()["find_lr"])]
    assert "slide" not in names and "preset" in names and names[-1] == "recommended" and "high, for one cycle" not in names
    names = [name for name, _, _ in said(record(declared=1e-3, one_cycle=True)["find_lr"])]
    assert "optimizer.lr" in names and "preset" not in names and "high, for one cycle" in names


ALONE = RUNS | {"ramps": None, "rules": None, "start": 6e-4, "diverged": None}  # without a range test


@pytest.mark.parametrize(
    "more",
    [{}, RUNS, {"lr": None, "rules": {}, "start": None}, ALONE],
    ids=["range test", "with runs", "before the answer", "runs alone"],
)
def test_every_stage_is_drawn_and_the_same_record_gives_the_same_bytes(tmp_path: Path, more: dict[str, Any]) -> None:
    first = [file.read_bytes() for file in plot(record(**more), tmp_path / "a")]
    assert first == [file.read_bytes() for file in plot(record(**more), tmp_path / "b")]
    assert len(first[1]) < 120_000
