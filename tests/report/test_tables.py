"""Tables for other programs, read back by them: CSV, JSON and LaTeX hold every value in full, whatever the record holds."""

import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import ConfigError
from gptshake.record.index import METADATA, Entry, read_entry
from gptshake.report.study_stats import differences
from gptshake.report.tables import check_targets, runs_csv, runs_json, study_csv, study_latex, write_table

EVIL = 'a "quoted", note\nwith 50 % & _under_ {braces} \\ ~^ # $ 日本語'


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def runs(record: Callable[..., Entry], tmp_path: Path) -> list[Entry]:
    config = "optimizer: {lr: 0.00030000000000000003, betas: [0.9, .nan]}\nday: 2026-01-01\npaths: {runs: here}\n"
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/run.json").write_text("{")
    return [
        record("k0000000", note=EVIL, config=config),
        record("l0000000", status="failed", reason="no memory"),
        read_entry(tmp_path / "torn"),
    ]


def test_csv_and_json_hold_every_run_with_its_figures_and_config(runs: list[Entry]) -> None:
    rows, objects = read(runs_csv(runs)), json.loads(runs_json(runs))
    assert [row["id"] for row in rows] == [one["id"] for one in objects] == ["k0000000", "l0000000", "torn"]
    assert [row["status"] for row in rows] == ["ok", "failed", "broken"] and "damaged" in rows[2]["reason"]
    assert float(rows[0]["optimizer.lr"]) == objects[0]["config"]["optimizer.lr"] == 0.00030000000000000003
    assert float(rows[0]["val/bpb"]) == objects[0]["figures"]["val/bpb"] == runs[0].figures["val/bpb"]
    assert objects[0]["config"]["optimizer.betas"] == [0.9, None] and objects[0]["config"]["day"] == "2026-01-01"
    assert rows[0]["note"] == objects[0]["note"] == " ".join(EVIL.split()) and "paths.runs" not in rows[0]


def test_no_runs_are_an_empty_table() -> None:
    assert json.loads(runs_json([])) == [] and runs_csv([]) == ",".join(METADATA) + "\n"


def test_a_studys_csv_holds_every_trial_in_full(line: Callable[..., dict[str, Any]]) -> None:
    study = line()
    study["trials"][0]["value"] = 3.0123456789012345
    rows = read(study_csv(study))
    assert [int(row["trial"]) for row in rows] == [trial["number"] for trial in study["trials"]]
    assert (
        float(rows[0]["val/bpb"]) == 3.0123456789012345 and float(rows[0]["optimizer.lr"]) == study["trials"][0]["params"]["optimizer.lr"]
    )
    assert [row["best"] for row in rows].count("True") == 1


def test_a_studys_latex_is_a_tabular_whose_rows_have_equal_cells(line: Callable[..., dict[str, Any]]) -> None:
    study = line()
    study["trials"][1] |= {"state": "failed", "value": None, "reason": EVIL}
    text = study_latex(study)
    columns = len(re.findall(r"[lr]", re.search(r"begin\{tabular\}\{(\w+)\}", text)[1]))  # type: ignore[index]
    rows = [row for row in text.splitlines() if row.endswith(r"\\")]
    assert len(rows) == len(study["trials"]) + 1 and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
    assert text.count(r"\textbf") >= 3 and r"50 \% \& \_under\_ \{braces\} \textbackslash{}" in text and "日本語" in text


def test_a_comparison_is_exported_as_its_differences(compared: Callable[..., dict[str, Any]]) -> None:
    study = compared()
    base, *changes = read(study_csv(study))
    assert base["change"] == study["ablate"]["labels"][0] and "toprule" in study_latex(study)
    assert [float(change["difference"]) for change in changes] == [
        row.mean for row in differences(study)
    ]  # in full, without signs of percent


def test_a_table_goes_to_a_file_or_to_the_standard_output(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert write_table("é\ud800\n", str(tmp_path / "new/table.csv")) == tmp_path / "new/table.csv"
    assert (tmp_path / "new/table.csv").read_bytes() == "é?\n".encode()
    assert write_table("é\n", "-") is None and capsysbinary.readouterr().out == "é\n".encode()
    with pytest.raises(ConfigError, match=r"task.csv=- and task.json=-"):
        check_targets({"task.csv": "-", "task.json": "-", "task.html": None})
    for folder in (str(tmp_path), ".", "new/"):
        with pytest.raises(ConfigError, match="is a folder: name a file"):
            check_targets({"task.csv": folder})


def test_a_pipe_or_a_device_takes_a_table_and_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_table("a\n", str(tmp_path / "pipe"))
    assert os.read(reader, 9) == b"a\n" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_a_link_to_a_file_takes_a_table_and_stays_a_link(tmp_path: Path) -> None:
    """As /dev/stdout is one behind ``> runs.csv``, which root could replace for everybody."""
    (tmp_path / "out").symlink_to(tmp_path / "runs.csv")
    (tmp_path / "runs.csv").write_text("before\n")
    for text in ("a\n", "b\n"):
        write_table(text, str(tmp_path / "out"))
        assert (tmp_path / "out").is_symlink() and (tmp_path / "runs.csv").read_text() == text
