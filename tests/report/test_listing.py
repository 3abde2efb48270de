import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gptshake.record.index import Entry, read_index
from gptshake.report.diff_text import result_differences
from gptshake.report.runs_table import COLUMNS, age, lines, old_rule, shared, table, tally

Make = Callable[..., Entry]


def trial(number: int, lr: float) -> dict[str, object]:
    return {"study": "night1", "number": number, "params": {"optimizer.lr": lr}}


@pytest.fixture
def some(record: Make) -> list[Entry]:
    return [
        record("k0000000", overrides=["model=tiny", "data=wiki_char", "seed=2", "optimizer.lr=3e-4", "note='x'"], note="why\nnot \x1b[31m"),
        record(
            "l0000000",
            status="failed",
            losses=(),
            reason="no memory",
            overrides=["model=tiny", "optimizer.lr=1e-3", "seed=2", "logger=none"],
        ),
        *(
            record(f"t000000{n}", trial=trial(n, lr), losses=(4.0, loss), overrides=["seed=2"])
            for n, lr, loss in ((0, 1e-3, 3.0), (1, 2e-3, 2.5))
        ),
    ]


def test_a_run_has_a_line_that_says_what_it_was_and_what_came_out(some: list[Entry]) -> None:
    first, second, *_ = lines(some[:2])
    assert first["id"] == "k0000000" and first["status"] == "ok" and first["trained"] == "tiny · wiki_char · excerpt106"
    assert (first["val/bpb"], first["val/loss"], first["tokens"], first["time"], first["tokens/s"]) == (
        "3.3903",
        "2.3500",
        "400",
        "1 min 00 s",
        "1k",
    )
    assert first["note"] == "why not ?[31m"  # nothing that moves a terminal's cursor
    assert second["note"] == "no memory" and second["val/bpb"] == ""


def test_what_all_have_in_common_is_told_once(some: list[Entry]) -> None:
    assert shared(some[:2]) == {"seed": "2"}
    assert [line["changed"] for line in lines(some[:2])] == ["lr 3e-4", "lr 1e-3"]
    assert lines(some[:1])[0]["changed"] == "seed 2, lr 3e-4"


def test_a_study_is_one_line_with_its_best_trial_or_as_many_as_it_has_trials(some: list[Entry]) -> None:
    folded = lines(some)
    assert [line["id"] for line in folded] == ["k0000000", "l0000000", "night1"]
    assert folded[2]["status"] == "2 trials" and folded[2]["changed"] == "best lr 2e-3" and folded[2]["tokens"] == "400"
    assert folded[2]["val/bpb"] == lines(some, trials=True)[3]["val/bpb"]
    assert [line["id"] for line in lines(some, trials=True)] == ["k0000000", "l0000000", "t0000000", "t0000001"]


def test_a_study_tells_how_its_trials_ended_and_has_no_best_without_one_that_did(record: Make) -> None:
    lost = [record("t0000000", trial=trial(0, 1.0), status="failed", losses=()), record("t0000001", trial=trial(1, 2.0), status="pruned")]
    (line,) = lines(lost)
    assert line["status"] == "1 failed, 1 pruned" and "best" not in line["changed"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 300])
def test_a_table_fits_the_terminal_and_keeps_ids_and_results(some: list[Entry], width: int) -> None:
    text = table(lines([*some, *some]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "k0000000" in text and "night1" in text and ("3.3903" in text or width < 60)


def test_a_pipe_gets_every_column(some: list[Entry]) -> None:
    assert all(name in table(lines(some)).splitlines()[0] for name in COLUMNS)


def test_a_broken_record_has_a_line_and_its_reason_below(some: list[Entry], tmp_path: Path) -> None:
    (some[0].path / "run.json").write_text('{"id": ')
    found = read_index([tmp_path / "runs", tmp_path / "multirun"])
    assert any(line["status"] == "broken" and "damaged" in line["note"] for line in lines(found))
    assert tally(found).startswith("4 runs: 2 ok, ") and f"broken: {some[0].path}: " in tally(found)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "just now"), (150, "2 min ago"), (7300, "2 h ago"), (90_000, time.strftime("%d %b %Y", time.localtime(1.8e9 - 90_000)))],
)
def test_a_start_is_told_as_people_tell_it(seconds: float, text: str) -> None:
    assert age(1.8e9 - seconds, 1.8e9) == text


DATA = {"label": "excerpt106", "bytes_per_token": 1.0}
NEW = DATA | {"unknown": {"val": {"share": 0.1, "nats_per_token": 0.5}}}


def test_bits_per_byte_of_an_earlier_version_are_marked_where_tokens_can_be_unknown(record: Make) -> None:
    old, new = record("k0000000", data=DATA), record("l0000000", data=NEW)
    byte = record("m0000000", data=DATA, choices={"model": "tiny", "data": "text", "tokenizer": "byte"})
    assert [line["val/bpb"] for line in lines([old, new, byte])] == ["3.3903*", "3.3903", "3.3903"]
    assert old_rule([old, new]).startswith("* bits per byte by the old rule") and old_rule([new, byte]) == ""
    said = "Bits per byte of k0000000 by the old rule: what unknown tokens hide is left out."
    assert said in result_differences([old, new]) and said not in result_differences([new, byte])
