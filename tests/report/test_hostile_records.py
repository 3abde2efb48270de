"""Records that somebody else made, or that are damaged: lists, pages and the journal answer, and wait for nothing."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake.errors import RecordError
from gptshake.record.index import Entry, read_entry, read_index
from gptshake.report.diff_text import code_differences, config_differences, result_differences
from gptshake.report.journal import write_journal
from gptshake.report.pages import run_page
from gptshake.report.runs_page import runs_page
from gptshake.report.runs_table import lines, select, table, tally

MARKUP = "</script><script>alert(1)</script> [b](javascript:x) \x1b[31m\u202e `|` "


@pytest.fixture(autouse=True)
def hang_ends() -> Iterator[None]:
    """A reader that waits for a FIFO fails instead."""
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("it waits for ever")))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def all_shown(root: Path) -> str:
    """Everything that is made of the runs below a folder."""
    entries = read_index([root / "runs", root / "multirun"])
    assert select(entries, "status!=pruned started<2100") == entries
    texts = [table(lines(entries)), tally(entries), *code_differences(entries[0], entries[-1]), *config_differences(entries)]
    done = write_journal(root / "JOURNAL.md", root / "pictures", root / "runs", root / "multirun")
    assert done.entries + done.problems == len(entries)
    return "\n".join([*texts, *result_differences(entries), runs_page(entries), *map(run_page, entries), done.text])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "diff.patch", "untracked", "plots", "run.json"])
def test_what_is_no_file_is_neither_waited_for_nor_fatal(record: Callable[..., Entry], tmp_path: Path, name: str, make: Any) -> None:
    record("k0000000")
    path = record("l0000000").path
    (path / name).unlink(missing_ok=True)
    make(path / name)
    assert "k0000000" in all_shown(tmp_path)


def test_pictures_of_a_finder_that_are_no_files_are_not_copied(record: Callable[..., Entry], tmp_path: Path) -> None:
    path = record("l0000000", task="find_lr").path
    (path / "plots").mkdir()
    os.mkfifo(path / "plots/a.svg")
    (path / "plots/b.svg").mkdir()
    (tmp_path / "secret").write_text("secret")
    (path / "plots/c.svg").symlink_to(tmp_path / "secret")
    all_shown(tmp_path)
    assert not (tmp_path / "pictures").exists()


def test_huge_and_hostile_texts_are_cut_and_shown_as_text(record: Callable[..., Entry], tmp_path: Path) -> None:
    file = record("l0000000", choices={"model": MARKUP, "data": MARKUP}, version=MARKUP, reason=MARKUP * 9).path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": MARKUP * 10_000}))
    shown = all_shown(tmp_path)
    assert "\x1b" not in shown and "\u202e" not in shown.replace("\\u202e", "")
    entries = read_index([tmp_path / "runs"])
    assert "<script>alert" not in runs_page(entries) + run_page(entries[0]) and len((tmp_path / "JOURNAL.md").read_text()) < 50_000


def test_a_journal_that_is_no_file_is_refused(record: Callable[..., Entry], tmp_path: Path) -> None:
    record("k0000000")
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / make.__name__)
        with pytest.raises(RecordError, match="is not a regular file"):
            write_journal(tmp_path / make.__name__, tmp_path / "pictures", tmp_path / "runs", tmp_path / "multirun")


@pytest.mark.parametrize("id", ["../../x", "a/../b", "..", "/etc", "a\nb", ""])
def test_an_id_that_leads_elsewhere_is_a_broken_record(record: Callable[..., Entry], tmp_path: Path, id: str) -> None:
    record("k0000000")
    file = record("l0000000").path / "run.json"
    file.write_text(file.read_text().replace('"l0000000"', f'"{id}"'.replace("\n", "\\n"), 1))
    assert read_entry(file.parent).status == "broken"
    all_shown(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["JOURNAL.md", "pictures", "runs"]
