import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import DiskFull, RecordError, StorageError
from gptshake.record import metrics
from gptshake.record.metrics import (
    COLUMNS,
    DRAWN,
    MetricsWriter,
    Tail,
    history,
    last_row,
    last_values,
    other_columns,
    read_columns,
    read_rows,
)

KILLED_WRITER = """
import sys
from pathlib import Path
from gptshake.record.metrics import MetricsWriter
writer = MetricsWriter(Path(sys.argv[1]))
while True:
    step = writer.n_rows + 1
    writer.append({"step": step, "train/tokens": 768 * step, "train/loss": 4 / step, "train/lr": 1e-3 / 3, "time": 1.7e9 + step})
    print(step, flush=True)
"""


def full_row(step: int) -> dict[str, float]:
    return {name: (step if name in ("step", "train/tokens") else step / 7) for name in COLUMNS}


@given(st.lists(st.floats(width=64), min_size=1, max_size=8))
def test_every_float_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    writer = MetricsWriter(path)
    for step, value in enumerate(values):
        writer.append({"step": step, "train/loss": value})
    back = [row["train/loss"] for row in read_rows(path)]
    writer.close()
    assert all(a.hex() == b.hex() for a, b in zip(values, back, strict=True))  # hex: the sign of zero counts, and NaN equals NaN


def test_numpy_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    writer.append({"step": np.int64(3), "train/tokens": np.int32(9), "train/loss": np.float32(0.1), "val/loss": np.float64(0.1)})
    assert read_rows(tmp_path / "metrics.csv") == [{"step": 3, "train/tokens": 9, "train/loss": float(np.float32(0.1)), "val/loss": 0.1}]


def test_a_column_without_a_value_is_empty_and_absent_when_read(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    writer.append({"step": 1, "val/loss": None})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [",".join(COLUMNS), "1" + "," * (len(COLUMNS) - 1)]
    assert read_rows(tmp_path / "metrics.csv") == [{"step": 1}]


def test_a_new_name_becomes_a_column_behind_the_old_ones_and_old_rows_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    before = [full_row(1), {"step": 2}]
    for row in before:
        writer.append(row)
    tail = Tail(path)
    tail.new()
    writer.append({"step": 3, "mine/b": 0.5, "mine/a": 1.5})
    writer.append({"step": 4, "mine/a": 2.5})
    assert path.read_text().splitlines()[0] == ",".join((*COLUMNS, "mine/b", "mine/a"))
    rows = [*before, {"step": 3, "mine/b": 0.5, "mine/a": 1.5}, {"step": 4, "mine/a": 2.5}]
    assert read_rows(path) == rows and other_columns(path) == ["mine/b", "mine/a"] and last_row(path) == rows[-1]
    assert [row["step"] for row in tail.new()] == [1]  # all again; rows without tokens are none to it
    writer.cut(3)
    writer.close()
    again = MetricsWriter(path)
    again.append({"step": 4, "mine/a": 2.5})
    assert again.n_rows == 4 and read_rows(path) == rows


def test_a_run_of_a_version_with_fewer_columns_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/tokens,train/loss\n1,8,2.5\n")
    MetricsWriter(path).append({"step": 2, "train/tokens": 16, "train/loss": 2.25, "train/lr": 0.5})
    assert read_rows(path) == [
        {"step": 1, "train/tokens": 8, "train/loss": 2.5},
        {"step": 2, "train/tokens": 16, "train/loss": 2.25, "train/lr": 0.5},
    ]


@pytest.mark.parametrize("name", ["a,b", "a\nb", ""])
def test_a_name_that_cannot_be_a_column_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match="cannot be the name of a metric"):
        MetricsWriter(tmp_path / "metrics.csv").append({"step": 1, name: 2.0})


def test_a_full_disk_in_a_rewrite_leaves_a_file_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    writer.append({"step": 1, "train/tokens": 64})
    with monkeypatch.context() as full:
        full.setattr(metrics, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            writer.append({"step": 2, "train/tokens": 128, "mine": 1.0})
    writer.append({"step": 2, "train/tokens": 128})
    writer.append({"step": 3, "train/tokens": 192, "mine": 2.0})
    assert [row.get("mine") for row in read_rows(path)] == [None, None, 2.0] and [row["step"] for row in read_rows(path)] == [1, 2, 3]


def test_a_row_is_there_for_others_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    for step in range(1, 4):
        writer.append(full_row(step))
        assert len(read_rows(tmp_path / "metrics.csv")) == step


@pytest.mark.parametrize("torn", ["7", "7,8,0.1", "7" + ",1.0" * (len(COLUMNS) - 1), "\x00\x00"])
def test_a_torn_last_line_is_ignored_and_then_replaced(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    writer.append(full_row(1))
    writer.close()
    with path.open("a") as file:
        file.write(torn)
    assert read_rows(path) == [full_row(1)]
    writer = MetricsWriter(path)
    assert writer.n_rows == 1
    writer.append(full_row(2))
    assert read_rows(path) == [full_row(1), full_row(2)]


def test_a_writer_killed_within_its_header_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/tok")
    assert read_rows(path) == []
    MetricsWriter(path).append(full_row(1))
    assert read_rows(path) == [full_row(1)]


def test_a_damaged_line_in_the_midst_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    writer.append(full_row(1))
    with path.open("a") as file:
        file.write("nonsense\n")
    writer.append(full_row(2))
    with pytest.raises(RecordError, match="line 3"):
        read_rows(path)


def test_other_columns_are_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2.0\n")
    with pytest.raises(RecordError, match="other columns"):
        MetricsWriter(tmp_path / "metrics.csv")


def test_rows_appended_after_a_cut_follow_the_kept_ones(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    for step in range(1, 11):
        writer.append(full_row(step))
    writer.cut(4)
    writer.append(full_row(5))
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5]
    writer.cut(0)
    assert read_rows(path) == [] and writer.n_rows == 0


def test_a_cut_beyond_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds 0 rows and its checkpoint was saved after 1: .*init_from="):
        MetricsWriter(tmp_path / "metrics.csv").cut(1)


def test_line_ends_of_windows_change_no_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    for step in range(1, 4):
        writer.append(full_row(step))
    writer.close()
    rows, columns = read_rows(path), read_columns(path, ("step", "time"))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_rows(path) == rows and last_row(path) == rows[-1] and read_columns(path, ("step", "time")) == columns
    assert Tail(path).new() == rows and last_values(path, ["time"]) == {"time": rows[-1]["time"]}
    writer = MetricsWriter(path)
    writer.append(full_row(4))
    assert read_rows(path) == [*rows, full_row(4)]


def test_a_process_killed_while_it_writes_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    written = 0
    for lines in (1, 50, 400):
        with subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(lines):
                written = int(child.stdout.readline())
            os.kill(child.pid, signal.SIGKILL)
        rows = read_rows(path)
        assert len(rows) >= written
        assert rows == [
            {"step": n, "train/tokens": 768 * n, "train/loss": 4 / n, "train/lr": 1e-3 / 3, "time": 1.7e9 + n}
            for n in range(1, len(rows) + 1)
        ]


def test_a_tail_gives_every_whole_row_once(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "metrics.csv")
    assert tail.new() == [] and tail.rate is None
    writer = MetricsWriter(tmp_path / "metrics.csv")
    writer.append({"step": 1, "train/tokens": 100, "perf/step_ms": 500.0})
    assert [row["step"] for row in tail.new()] == [1] and tail.new() == []
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,200,")
    assert tail.new() == []
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(",,,,1500.0,,,,,,\n")
    assert [row["train/tokens"] for row in tail.new()] == [200]
    assert tail.rate == pytest.approx(200 / 2.0)


@pytest.mark.parametrize("more", [1, 5])
def test_a_tail_reads_anew_what_was_cut_by_a_resume(more: int, tmp_path: Path) -> None:
    writer, tail = MetricsWriter(tmp_path / "metrics.csv"), Tail(tmp_path / "metrics.csv")
    for step in range(1, 5):
        writer.append({"step": step, "train/tokens": step * 10**step})
    tail.new()
    writer.cut(2)
    for step in range(3, 3 + more):
        writer.append({"step": step, "train/tokens": step})
    seen = [row["step"] for row in [*tail.new(), *tail.new()]]
    assert seen[-1] == 2 + more and (more > 1 or seen == [1, 2, 3])


@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), st.floats(-1e9, 1e9)), max_size=20), st.binary(max_size=20))
def test_the_last_values_are_those_of_the_last_rows(rows: list[dict[str, float]], torn: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.csv"
        writer = MetricsWriter(path)
        for row in rows:
            writer.append(row)
        writer.close()
        last: dict[str, float] = {}
        for row in read_rows(path):
            last |= row
        with path.open("ab") as file:
            file.write(torn.replace(b"\n", b""))
        assert last_values(path, COLUMNS) == last
        assert last_values(path, ["val/bpb"]) == {name: value for name, value in last.items() if name == "val/bpb"}


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1000])
def test_the_last_values_are_found_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("gptshake.record.metrics._LINES_BYTES", chunk)
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,train/tokens,val/loss\r\n1,10,4.5\r\n2,20,\n3,30,\n4,4")
    assert last_values(path, ["step", "val/loss", "none"]) == {"step": 3, "val/loss": 4.5}
    assert last_row(path) == {"step": 3, "train/tokens": 30}


def test_what_lies_before_an_endless_line_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptshake.record.metrics.CHUNK_BYTES", 20)
    monkeypatch.setattr("gptshake.record.metrics._LINES_BYTES", 7)
    path = tmp_path / "metrics.csv"
    for end, found in (("", {}), ("\n2,4.5\n", {"step": 2, "val/loss": 4.5})):
        path.write_text(f"step,val/loss\n1,5.5\n{'1' * 100}{end}")
        assert last_row(path) == found and last_values(path, ["step", "val/loss"]) == found


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n\xff\n", b"step,val/loss\nno,number\n", b"val/loss\n"])
def test_a_damaged_file_has_no_last_values(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    assert last_values(tmp_path / "metrics.csv", ["step", "val/loss"]) == {}
    assert last_values(tmp_path / "none.csv", ["step"]) == {}


@given(
    st.lists(
        st.fixed_dictionaries({"step": st.integers(0, 2**40)}, optional={"train/loss": st.floats(), "val/bpb": st.floats()}), max_size=8
    )
)
def test_columns_hold_what_the_rows_hold(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]]) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    writer = MetricsWriter(path)
    for row in rows:
        writer.append(row)
    writer.close()
    with path.open("a") as file:
        file.write("7,torn")
    columns = read_columns(path, ["step", "val/bpb", "train/loss", "unknown"])
    assert columns["unknown"] == pytest.approx([math.nan] * len(rows), nan_ok=True)
    for name in ("step", "val/bpb", "train/loss"):
        assert [value.hex() for value in columns[name]] == [float(row.get(name, math.nan)).hex() for row in read_rows(path)]


@pytest.mark.parametrize("content", ["step,train/loss\n1\n", "step,train/loss\n1,2,3\n4\n", "step,train/loss\n1,x\n"])
def test_columns_of_a_damaged_file_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(RecordError, match=r"metrics\.csv"):
        read_columns(tmp_path / "metrics.csv", ["step", "train/loss"])


def test_a_resume_of_a_million_rows_reads_their_columns_in_seconds(tmp_path: Path) -> None:
    path, n_rows = tmp_path / "metrics.csv", 100_000
    row = "7,896,5.421,1.2e-05,,1.3566409349441528,15.807229000017742,0.328345999,8097.560932397218,0.0003626783,,,1795951469.3365238\n"
    path.write_text(",".join(COLUMNS) + "\n" + n_rows * row)
    start = time.process_time()
    columns = read_columns(path, DRAWN)
    assert time.process_time() - start < 10  # of a tenth of them; 0.25 measured
    assert len(columns["step"]) == n_rows and columns["train/loss"][-1] == 5.421 and math.isnan(columns["val/bpb"][-1])


def test_a_long_history_is_thinned_evenly_and_keeps_every_validation(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    writer = MetricsWriter(path)
    for step in range(1, 101):
        writer.append({"step": step, "train/tokens": step} | ({"val/loss": 2.0} if step in (7, 100) else {}))
    writer.close()
    assert [row["step"] for row in history(path, 20, 1000)] == [7, 20, 40, 60, 80, 100]
    assert [row["step"] for row in history(path, 10, 4)] == [7, 30, 60, 90, 100]  # every third of those that are due
    assert list(history(path, 1, 1000)) == read_rows(path) and list(history(tmp_path / "none.csv", 10, 4)) == []


def test_a_file_that_is_not_there_has_empty_columns(tmp_path: Path) -> None:
    assert read_columns(tmp_path / "metrics.csv", ["step"]) == {"step": array("d")}


def test_a_row_is_whole_however_little_the_system_takes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, writer = os.write, MetricsWriter(tmp_path / "metrics.csv")
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    for step in (1, 2):
        writer.append({"step": step, "train/tokens": step, "train/loss": 1 / step})
    assert [row["train/loss"] for row in read_rows(tmp_path / "metrics.csv")] == [1.0, 0.5]


def test_a_row_that_cannot_be_written_or_flushed_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(number: int) -> None:
        raise OSError(number, os.strerror(number))

    writer = MetricsWriter(tmp_path / "metrics.csv")
    monkeypatch.setattr(os, "write", lambda handle, data: fails(errno.ENOSPC))
    with pytest.raises(DiskFull, match=r"metrics\.csv could not be written"):
        writer.append({"step": 1, "train/tokens": 1})
    monkeypatch.setattr(os, "fsync", lambda handle: fails(errno.EIO))
    with pytest.raises(StorageError, match=r"metrics\.csv cannot be accessed: Input/output error"):
        writer.flush()
