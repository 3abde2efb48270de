import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.record.index import Entry
from gptshake.record.metrics import Row
from gptshake.report.diff_text import machine_differences
from gptshake.report.reproduction import compare, same_machine, steps_of_first_code, verdict


def rows(*losses: float, val: dict[int, float] | None = None) -> list[Row]:
    made: list[Row] = [{"step": step, "train/tokens": 64 * step, "train/loss": loss} for step, loss in enumerate(losses, 1)]
    return [row | ({"val/loss": val[row["step"]]} if val and row["step"] in val else {}) for row in made]  # type: ignore[index]


def test_equal_runs_are_bit_identical_and_counted() -> None:
    found = compare(rows(4.0, 3.0, 2.5, val={2: 3.1}), rows(4.0, 3.0, 2.5, val={2: 3.1}))
    assert found.identical and found.largest is None and found.counts == {"train/loss": 3, "val/loss": 1}
    assert verdict(found, same=True, tolerance=0.0) == (True, "Reproduced: 3 train and 1 val losses of 3 steps are bit-identical.")


@given(st.floats(0.1, 10.0), st.integers(1, 9))
def test_one_bit_is_enough(loss: float, step: int) -> None:
    then = rows(*[loss] * 9)
    now = [row | ({"train/loss": math.nextafter(loss, 11.0)} if row["step"] == step else {}) for row in then]
    found = compare(then, now)
    assert not found.identical and found.deviations[0].step == step
    assert not verdict(found, same=True, tolerance=1.0)[0]  # the same machine has no tolerance
    assert verdict(found, same=False, tolerance=1e-12)[0]


def test_the_largest_relative_deviation_is_found_with_its_step() -> None:
    found = compare(rows(4.0, 2.0, 1.0, val={3: 1.0}), rows(4.0, 2.2, 1.05, val={3: 1.01}))
    assert found.largest is not None
    assert (found.largest.step, found.largest.column) == (2, "train/loss") and found.largest.relative == pytest.approx(0.1)
    holds, told = verdict(found, same=False, tolerance=0.05)
    assert not holds and "Not reproduced, above the tolerance of 0.05" in told
    assert "3 differ, the first at step 2, the most train/loss of step 2: 2.2 was 2, a relative deviation of 1.0e-01" in told
    assert verdict(found, same=False, tolerance=0.11)[0]


def test_a_loss_that_was_not_finite_is_reproduced_by_itself_alone() -> None:
    assert compare(rows(4.0, math.nan), rows(4.0, math.nan)).identical
    found = compare(rows(4.0, math.nan), rows(4.0, 3.0))
    assert found.largest is not None and found.largest.relative == math.inf and not verdict(found, same=False, tolerance=1e9)[0]


def test_steps_and_validations_that_only_one_has_are_not_compared() -> None:
    found = compare(rows(4.0, 3.0, val={2: 3.0}), rows(4.0, 3.0, 2.0))
    assert found.identical and found.steps == 2 and found.counts["val/loss"] == 0


def test_nothing_in_common_is_no_reproduction() -> None:
    assert not compare([], rows(1.0)).identical and not verdict(compare([], rows(1.0)), same=False, tolerance=1.0)[0]


def test_only_what_the_first_code_made_can_be_asked_of_it() -> None:
    one, other = {"commit": "a", "diff_sha256": "1"}, {"commit": "a", "diff_sha256": "2"}
    assert steps_of_first_code([]) is None
    assert steps_of_first_code([one | {"from_step": 0}, one | {"from_step": 40}]) is None
    assert steps_of_first_code([one | {"from_step": 0}, one | {"from_step": 40}, other | {"from_step": 60}, one | {"from_step": 80}]) == 60


def info(
    *, torch: str = "2.13.0", cpu: str = "EPYC", threads: int = 2, gpus: tuple[str, ...] = (), device: str = "cpu", **more: Any
) -> Any:
    environment = {"python": "3.11.7", "packages": {"torch": torch, "numpy": "2.4.6"}, "cuda": None} | more
    hardware = {"cpu": cpu, "threads": 4, "gpus": [{"name": name} for name in gpus]}
    return {
        "environment": environment,
        "hardware": hardware,
        "resolved": {"trainer.accelerator": device, "trainer.precision": "32-true", "trainer.threads": threads},
    }


def test_every_difference_is_a_row_and_equal_things_are_none() -> None:
    then, same = (Entry(Path(name), "ok", info()) for name in ("a", "b"))
    assert machine_differences([then, same]) == ["no difference"]
    other = Entry(Path("b"), "ok", info(torch="2.14.0", python="3.12.1", packages={"torch": "2.14.0", "rich": "14.0"}, driver="580.1"))
    assert sorted(line.split() for line in machine_differences([then, other])[1:]) == [
        ["driver", "none", "580.1"],
        ["numpy", "2.4.6", "none"],
        ["python", "3.11.7", "3.12.1"],
        ["rich", "none", "14.0"],
        ["torch", "2.13.0", "2.14.0"],
    ]


def test_the_same_machine_is_the_same_device_torch_and_threads() -> None:
    assert same_machine(info(), info(python="3.12.1", packages={"torch": "2.13.0", "numpy": "1"}))
    for other in (info(torch="2.14.0"), info(cpu="Xeon"), info(threads=1), info(device="gpu")):
        assert not same_machine(info(), other)


def test_only_the_device_that_trained_counts() -> None:
    assert same_machine(info(), info(gpus=("H100",)))
    assert same_machine(info(device="gpu", gpus=("H100",)), info(device="gpu", gpus=("H100",), cpu="Xeon"))
    assert not same_machine(info(device="gpu", gpus=("H100",)), info(device="gpu", gpus=("A100",)))


def test_a_record_that_does_not_say_is_not_the_same_machine() -> None:
    assert not same_machine({}, info()) and not same_machine({}, {})
    assert machine_differences([Entry(Path("a"), "ok", {"environment": None}), Entry(Path("b"), "ok", {})]) == ["no difference"]
