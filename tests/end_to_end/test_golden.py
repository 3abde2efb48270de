"""Golden losses, all digits: whatever moves a number of training is seen, meant or not.

On the kind of machine and the torch that made them every bit must be the same; elsewhere sums are rounded in another order and a tight
tolerance holds. When they shall change:  GPTSHAKE_RENEW_GOLDEN=1 python -m pytest tests/end_to_end/test_golden.py
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.metrics import read_rows

FOLDER = Path(__file__).parents[1] / "golden"
RENEW = "GPTSHAKE_RENEW_GOLDEN"
ELSEWHERE = 1e-5  # relative; SSE2 instead of AVX512 changes these by 2e-7
ELSEWHERE_BF16 = 1e-2  # a product has 8 bits, and processors with and without instructions for it add up differently
LOSSES = ("train/loss", "val/loss", "val/bpb")
MORE = (*LOSSES, "train/lr", "train/beta1", "train/grad_norm", "train/tokens")
CPU = ("data=text_char", "trainer=cpu", "trainer.threads=1", "logger=none")
RECIPE = ("scheduler=gpt3", "scheduler.warmup=0.01", "optimizer.lr=2e-3")  # recommendations may change, these numbers do not
SMOKE = ("model=tiny", "debug=smoke", *CPU, "trainer.precision=32-true", *RECIPE)
SMALL = (
    *("model=tiny", "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.block_size=16", *CPU, "optimizer.lr=2e-3"),
    *("trainer.precision=32-true", "trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.limit_val_batches=2", "callbacks=none"),
    *("data.batch_size=8", "data.micro_batch_size=8", "data.test_fraction=0"),
)
RUNS = {  # name of the golden file -> what is typed, and what is typed to resume it
    "smoke": (SMOKE,),
    "bf16": ((*SMALL, *RECIPE, "trainer.precision=bf16-mixed"),),
    "accumulation": ((*SMALL, *RECIPE, "model.dropout=0.2", "data.micro_batch_size=2"),),
    "one_cycle": ((*SMALL, "scheduler=one_cycle"),),
    "two_ranks": ((*SMALL, *RECIPE, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.micro_batch_size=2"),),
    "resume": (
        (*SMALL, "scheduler=constant", "scheduler.warmup=3", "trainer.max_steps=4", "model.dropout=0.2"),
        ("resume=latest", "trainer.max_steps=6"),
    ),
}
SAMPLE = ("task=sample", "task.run=latest", "task.prompt=the ", "task.n_tokens=60", "trainer=cpu", "trainer.threads=1")


def differences(then: Mapping[str, Any], now: Mapping[str, Any], elsewhere: float = ELSEWHERE) -> list[str]:
    """Lines about every number that is another one; nothing if all is as it was."""
    if then["text"] != now["text"]:
        return [f"the run reads another text: {then['text'][:16]}, now {now['text'][:16]}"]
    tolerance = 0.0 if then["made_with"] == now["made_with"] else elsewhere
    lines = [] if list(then["losses"]) == list(now["losses"]) else [f"steps: {[*then['losses']]}, now {[*now['losses']]}"]
    for step in then["losses"].keys() & now["losses"].keys():
        old, new = then["losses"][step], now["losses"][step]
        lines += [f"step {step}, other columns: {[*old]}, now {[*new]}"] if list(old) != list(new) else []
        wrong = [key for key in old.keys() & new.keys() if not abs(old[key] - new[key]) <= tolerance * abs(old[key])]
        lines += [f"step {step}, {key}: {old[key]!r}, now {new[key]!r}" for key in wrong]
    return sorted(lines)


def golden(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def kept(name: str, now: Mapping[str, Any]) -> Any:
    """What the golden file holds; written anew first if that is asked for."""
    if os.environ.get(RENEW) == "1":
        (FOLDER / f"{name}.json").write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return golden(name)


@pytest.mark.parametrize("name", RUNS)
def test_the_losses_are_those_of_the_golden_file(
    name: str, commands: Any, book: Path, tmp_path: Path, the_run: Any, machine_kind: dict[str, str]
) -> None:
    for number, words in enumerate(RUNS[name]):
        done = commands(tmp_path, *words, *([] if number else [f"data.path={book}"]))
        assert done.code == 0, done.out + done.err
    record, columns = the_run(tmp_path), LOSSES if name == "smoke" else MORE
    losses = {str(int(row["step"])): {key: row[key] for key in columns if key in row} for row in read_rows(record.path / "metrics.csv")}
    now = {"made_with": machine_kind, "text": record.info["data"]["fingerprint"], "losses": losses}
    then = kept(name, now)
    steps, validated = ([1, 2, 3, 4], [2, 4]) if name == "smoke" else ([1, 2, 3, 4, 5, 6], [3, 4, 6] if name == "resume" else [3, 6])
    assert [*map(int, then["losses"])] == steps and [step for step in steps if "val/bpb" in then["losses"][str(step)]] == validated
    lines = "\n".join(differences(then, now, ELSEWHERE_BF16 if name == "bf16" else ELSEWHERE))
    assert not lines, f"Training gives other numbers than before.\n{lines}\nIf that is meant: {RENEW}=1 python -m pytest {__file__}"


def test_the_text_of_a_sample_is_that_of_the_golden_file(commands: Any, book: Path, tmp_path: Path) -> None:
    assert commands(tmp_path, *SMALL, *RECIPE, f"data.path={book}", "trainer.max_steps=30", "optimizer.lr=2e-2").code == 0
    texts = {}
    for name, words in {"drawn": ("task.num_samples=2",), "likeliest": ("task.temperature=0",), "top": ("task.top_k=5", "seed=2")}.items():
        done = commands(tmp_path, *SAMPLE, *words)
        assert done.code == 0, done.err
        texts[name] = done.out
    assert kept("sample", texts) == texts


@pytest.mark.parametrize("column", LOSSES)
def test_one_bit_is_a_difference_on_the_same_kind_and_elsewhere_only_what_rounding_does_not_explain(
    column: str, machine_kind: dict[str, str]
) -> None:
    then = golden("smoke")
    assert differences(then, then) == []
    for factor, same, elsewhere in ((1 + 2**-52, 1, 0), (1 + 9e-6, 1, 0), (1 - 1.1e-5, 1, 1), (float("nan"), 1, 1)):
        row = then["losses"]["2"]
        now = then | {"losses": then["losses"] | {"2": row | {column: row[column] * factor}}}
        assert len(differences(then, now)) == same
        assert len(differences(then, now | {"made_with": machine_kind | {"torch": "another"}})) == elsewhere


def test_a_step_or_a_column_that_is_missing_is_a_difference() -> None:
    then = golden("smoke")
    assert differences(then, then | {"losses": {step: row for step, row in then["losses"].items() if step != "4"}})
    assert differences(then, then | {"losses": then["losses"] | {"4": {"train/loss": then["losses"]["4"]["train/loss"]}}})
    assert differences(then, then | {"text": "another"})
