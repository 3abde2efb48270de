"""Golden losses of ``debug=smoke``, all digits: whatever moves a number of training is seen, meant or not.

On the kind of machine and the torch that made them every bit must be the same; elsewhere sums are rounded in another order and a tight
tolerance holds. When they shall change:  GPTSHAKE_RENEW_GOLDEN=1 python -m pytest tests/end_to_end/test_golden.py
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gptshake import hardware
from gptshake.record.metrics import read_rows

GOLDEN = Path(__file__).parents[1] / "golden" / "smoke.json"
RENEW = "GPTSHAKE_RENEW_GOLDEN"
ELSEWHERE = 1e-5  # relative; SSE2 instead of AVX512 changes these by 2e-7
LOSSES = ("train/loss", "val/loss", "val/bpb")
RECIPE = ("scheduler=gpt3", "scheduler.warmup=0.01", "optimizer.lr=2e-3")  # recommendations may change, these numbers do not
RUN = ("model=tiny", "data=text_char", "debug=smoke", "trainer=cpu", "trainer.threads=1", "trainer.precision=32-true", *RECIPE)


def kind() -> dict[str, str]:
    """Torch and processor; two of the latter that a cloud gives one name differ by their numbers."""
    told = hardware.CPU_INFO.read_text() if hardware.CPU_INFO.exists() else ""
    numbers = [
        f"{name} {found[1]}" for name in ("cpu family", "model", "stepping") if (found := re.search(rf"^{name}\s*: (.+)$", told, re.M))
    ]
    processor = ", ".join([hardware.cpu_name(), *numbers])
    return {"torch": torch.__version__, "processor": processor, "instructions": torch.backends.cpu.get_cpu_capability()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines about every loss that is another one; nothing if all is as it was."""
    if then["text"] != now["text"]:
        return [f"the run reads another text: {then['text'][:16]}, now {now['text'][:16]}"]
    tolerance = 0.0 if then["made_with"] == now["made_with"] else ELSEWHERE
    lines = [] if list(then["losses"]) == list(now["losses"]) else [f"steps: {[*then['losses']]}, now {[*now['losses']]}"]
    for step in then["losses"].keys() & now["losses"].keys():
        old, new = then["losses"][step], now["losses"][step]
        lines += [f"step {step}, other columns: {[*old]}, now {[*new]}"] if list(old) != list(new) else []
        wrong = [key for key in old.keys() & new.keys() if not abs(old[key] - new[key]) <= tolerance * abs(old[key])]
        lines += [f"step {step}, {key}: {old[key]!r}, now {new[key]!r}" for key in wrong]
    return sorted(lines)


def test_the_losses_of_smoke_are_those_of_the_golden_file(commands: Any, book: Path, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *RUN, f"data.path={book}")
    assert done.code == 0, done.out + done.err
    record = the_run(tmp_path)
    losses = {str(int(row["step"])): {key: row[key] for key in LOSSES if key in row} for row in read_rows(record.path / "metrics.csv")}
    now = {"made_with": kind(), "text": record.info["data"]["fingerprint"], "losses": losses}
    if os.environ.get(RENEW) == "1":
        GOLDEN.write_text(json.dumps(now, indent=1) + "\n")
    then = json.loads(GOLDEN.read_text())
    assert list(then["losses"]) == ["1", "2", "3", "4"] and [len(row) for row in then["losses"].values()] == [1, 3, 1, 3]
    lines = "\n".join(differences(then, now))
    assert not lines, f"Training gives other numbers than before.\n{lines}\nIf that is meant: {RENEW}=1 python -m pytest {__file__}"


@pytest.mark.parametrize("column", LOSSES)
def test_one_bit_is_a_difference_on_the_same_kind_and_elsewhere_only_what_rounding_does_not_explain(column: str) -> None:
    then = json.loads(GOLDEN.read_text())
    assert differences(then, then) == []
    for factor, same, elsewhere in ((1 + 2**-52, 1, 0), (1 + 9e-6, 1, 0), (1 - 1.1e-5, 1, 1), (float("nan"), 1, 1)):
        row = then["losses"]["2"]
        now = then | {"losses": then["losses"] | {"2": row | {column: row[column] * factor}}}
        assert len(differences(then, now)) == same
        assert len(differences(then, now | {"made_with": kind() | {"torch": "another"}})) == elsewhere


def test_a_step_or_a_column_that_is_missing_is_a_difference() -> None:
    then = json.loads(GOLDEN.read_text())
    assert differences(then, then | {"losses": {step: row for step, row in then["losses"].items() if step != "4"}})
    assert differences(then, then | {"losses": then["losses"] | {"4": {"train/loss": then["losses"]["4"]["train/loss"]}}})
    assert differences(then, then | {"text": "another"})
