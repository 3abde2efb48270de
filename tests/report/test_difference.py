import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.record.index import Entry, read_entry
from gptshake.record.lock import RunLock
from gptshake.report.diff_text import (
    config_differences,
    data_differences,
    equal_tokens,
    head,
    machine_differences,
    names,
    result_differences,
    setting,
    value_at,
    varying,
)
from gptshake.report.plots_run import comparison_plot

Make = Callable[..., Entry]
CHAR = "tokenizer: {_target_: a.Char}\noptimizer: {lr: 0.002}\n"
BYTE = "tokenizer: {_target_: a.Byte}\noptimizer: {lr: 0.002}\n"


def data(content: str, tokenizer: str, label: str = "excerpt106") -> dict[str, object]:
    return {
        "label": label,
        "fingerprint": content * 64,
        "tokenizer": tokenizer * 64,
        "store": content,
        "vocab_size": 3,
        "bytes_per_token": 1.5,
    }


def test_only_config_keys_that_differ_are_told_with_the_names_of_options(record: Make) -> None:
    a = record("k0000000", config=CHAR, choices={"tokenizer": "char"})
    b = record("l0000000", config=BYTE.replace("0.002", "3.0e-4"), choices={"tokenizer": "byte"})
    assert config_differences([a, b]) == [
        "              k0000000  l0000000",
        "tokenizer     char      byte",
        "optimizer.lr  2e-3      3e-4",
    ]
    assert config_differences([a, a]) == ["no difference"]
    assert varying([a, b]) == ["tokenizer._target_", "optimizer.lr"] and setting(b, "tokenizer._target_") == "byte"


@pytest.mark.parametrize(
    ("old", "new", "config", "said"),
    [
        (data("1", "a"), data("1", "a"), CHAR, "the same: excerpt106"),
        (data("1", "a"), data("2", "a"), CHAR, "Their texts differ"),
        (data("1", "a"), data("2", "b"), CHAR, "Their texts differ"),  # the same kind of tokenizer learned from another text
        (data("1", "a"), data("2", "b"), BYTE, "Their tokenizers differ: compare bits per byte"),
        (data("1", "a"), data("2", "b", "hub10k"), BYTE, "Their texts differ"),
    ],
)
def test_it_says_what_still_compares(record: Make, old: object, new: object, config: str, said: str) -> None:
    lines = data_differences([record("k0000000", config=CHAR, data=old), record("l0000000", config=config, data=new)])
    assert [line for line in lines if line.startswith(("the same", "Their"))] == [line for line in lines if said in line] != []


def test_machines_are_compared_by_everything_that_the_records_say(record: Make) -> None:
    a = record(
        "k0000000", version="0.1.0", environment={"packages": {"torch": "2.13", "numpy": "2"}}, resolved={"trainer.threads": 1, "data.n": 1}
    )
    b = record(
        "l0000000", version="0.1.0", environment={"packages": {"torch": "2.14", "numpy": "2"}}, resolved={"trainer.threads": 2, "data.n": 2}
    )
    assert [line.split() for line in machine_differences([a, b])[1:]] == [["threads", "of", "torch", "1", "2"], ["torch", "2.13", "2.14"]]
    assert machine_differences([a, a]) == ["no difference"]


def test_results_are_told_at_the_end_and_at_equal_tokens(record: Make) -> None:
    a, b = record("k0000000", losses=(4.0, 3.0, 2.5, 2.25)), record("l0000000", losses=(4.0, 2.0), note="half as long")
    lines = [" ".join(line.split()) for line in result_differences([a, b])]
    assert lines[0] == "k0000000 l0000000"
    assert "val/loss 2.3500 2.1000 (-0.2500)" in lines
    assert "val/loss at 200 tokens 3.1000 2.1000 (-1.0000)" in lines
    assert "train/tokens 400 200 (-50.0 %)" in lines
    assert equal_tokens([a, b]) == 200


def test_curves_that_have_no_tokens_in_common_are_not_compared(record: Make) -> None:
    early, none = record("k0000000", losses=(4.0, 3.0)), record("m0000000", losses=(4.0,))
    late = record("l0000000")
    late.rows[:] = late.rows[2:]
    assert equal_tokens([early, late]) == 0 == equal_tokens([early, none])
    assert not any(" at " in line for line in result_differences([early, late]))


def test_equal_losses_are_told_and_up_to_which_step(record: Make) -> None:
    a, b, c, d = (
        record(f"{id}0000000", losses=losses) for id, losses in zip("klmo", [(4.0, 3.0), (4.0, 3.0), (4.0, 2.9), (5.0, 3.0)], strict=True)
    )
    assert result_differences([a, b])[-1] == "The losses of k0000000 and l0000000 are the same, bit for bit, in all 2 common steps."
    assert result_differences([a, c])[-1].endswith("up to step 1.")
    assert "bit for bit" not in "".join(result_differences([a, d]))


def test_broken_and_unfinished_runs_are_compared_as_far_as_they_can_be_read(record: Make, tmp_path: Path) -> None:
    a, b, c = record("k0000000", config=CHAR), record("l0000000", config=CHAR), record("m0000000", status="killed", losses=(), config=BYTE)
    (b.path / "run.json").write_text("{")
    (b.path / "config.yaml").write_text("a: [")
    runs = [a, read_entry(b.path), read_entry(c.path)]
    assert any(line.startswith(f"{b.path.name} is broken, and compared as far as it can be read: ") for line in head(runs))
    assert any(line == "m0000000 did not run to its end (killed)." for line in head(runs))
    assert f"config.yaml of {b.path.name} cannot be read." in config_differences(runs)
    assert data_differences(runs[:2]) == ["There are not two records that say what they were trained on."]
    assert machine_differences(runs) and "3.3903" in "".join(result_differences(runs))
    assert result_differences([runs[2]]) == ["No run has a figure yet."] and comparison_plot([runs[2]], tmp_path, "none") == []


def test_figures_of_a_run_at_work_are_not_final(record: Make) -> None:
    a, b = record("k0000000"), record("l0000000", status="running")
    lock = RunLock(b.path)
    assert head([a, read_entry(b.path)])[-1] == "l0000000 is still running: its figures are not final."
    lock.release()
    assert head([a, read_entry(b.path)])[-1] == "l0000000 did not run to its end (killed)."


def test_two_broken_records_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [Entry(tmp_path / study / "3", "broken") for study in ("a", "b")]
    assert names(runs) == [str(tmp_path / "a/3"), str(tmp_path / "b/3")]


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-5, 5)), min_size=2, unique_by=lambda point: point[0]), st.data())
def test_a_value_between_two_validations_lies_between_theirs(points: list[tuple[int, float]], draw: st.DataObject) -> None:
    rows = [{"train/tokens": tokens, "val/loss": loss} for tokens, loss in sorted(points)]
    for row in rows:
        assert value_at(rows, "val/loss", row["train/tokens"]) == pytest.approx(row["val/loss"])
    left = draw.draw(st.integers(0, len(rows) - 2))
    low, high = rows[left], rows[left + 1]
    found = value_at(rows, "val/loss", (low["train/tokens"] + high["train/tokens"]) / 2)
    assert found == pytest.approx((low["val/loss"] + high["val/loss"]) / 2)
    assert value_at(rows, "val/loss", 51) is None and value_at(rows, "val/loss", 0) is None


def test_the_picture_is_in_bits_where_tokenizers_differ_and_the_same_bytes_each_time(record: Make, tmp_path: Path) -> None:
    a, b = (
        record("k0000000", config=CHAR, data=data("1", "a")),
        record("l0000000", config=BYTE, data=data("2", "b"), losses=(3.0, 2.0, math.nan)),
    )
    first, second = (comparison_plot([a, b], tmp_path / folder, "curves") for folder in ("one", "two"))
    assert [file.name for file in first] == ["curves.png", "curves.svg"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert (
        comparison_plot([a, record("m0000000", data=data("1", "a"))], tmp_path / "three", "curves")[1].read_bytes() != first[1].read_bytes()
    )
