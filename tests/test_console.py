"""Live lines on a real pseudo-terminal: they fit its width, follow a resize, and are plain lines where nothing can be renewed."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptshake.console import cut, fit, lasting, printable, width


class Terminal:
    """A pseudo-terminal: what a person sees on it, with lines that wrap."""

    def __init__(self, columns: int) -> None:
        self.master, slave = os.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.raw = ""
        self.resize(columns)

    def resize(self, columns: int) -> None:
        self.columns = columns
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self) -> str:
        """What has been written since the last time."""
        self.stream.flush()
        os.set_blocking(self.master, False)
        text = b""
        try:
            while chunk := os.read(self.master, 1 << 16):
                text += chunk
        except BlockingIOError:
            self.raw += text.decode()
        return text.decode()

    def rows(self, text: str) -> list[str]:
        """Lines on the screen after a text was written on an empty one."""
        rows, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[\d*[A-Z]|.", text, re.DOTALL):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                rows += [""] if row == len(rows) else []
            elif part == "\x1b[K":
                rows[row] = rows[row][:column]
            elif part == "\x1b[J":
                rows = [*rows[:row], rows[row][:column]]
            elif part.endswith("A") and part.startswith("\x1b"):
                row -= int(part[2:-1])
                assert row >= 0
            else:
                assert part != "\x1b"
                if width(rows[row][:column]) + width(part) > self.columns:
                    row, column = row + 1, 0
                    rows += [""] if row == len(rows) else []
                rows[row] = rows[row][:column] + part + rows[row][column + 1 :]
                column += 1
        return rows


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    made: list[Terminal] = []

    def make(columns: int) -> Terminal:
        made.append(Terminal(columns))
        monkeypatch.setattr("sys.stdout", made[-1].stream)
        return made[-1]

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "300")  # of another terminal: this one itself knows better
    now = [0.0]

    def later() -> float:
        now[0] += 20.0
        return now[0]

    monkeypatch.setattr(time, "monotonic", later)
    yield make
    for one in made:
        one.stream.close()
        os.close(one.master)


def training() -> Callable[[], None]:
    from gptshake.training.callbacks.progress import Progress

    progress: Any = Progress()
    budget = SimpleNamespace(steps=100_000, total_tokens=1e9, accumulation=2, tokens_per_step=8192)
    row = {"step": 1, "train/loss": 10.8249, "train/lr": 3e-4, "perf/tokens_per_s": 123_456.0}
    module: Any = SimpleNamespace(context=SimpleNamespace(row=row), budget=budget, micro_batches=1, steps=12_345, tokens=1e8)
    progress.on_train_start(None, module)
    return lambda: progress.on_train_batch_end(None, module, None, None, 0)


def ramps() -> Callable[[], None]:
    from gptshake.setup.lr_finder import _Progress

    progress = _Progress(1000)
    return lambda: progress(0, 123, 200, 1.2e-3, 10.1234)


def building() -> Callable[[], None]:
    from gptshake.data.corpus import progress

    line = progress(print, "reading 日本語のテキスト.txt", 200_000_000)
    show = line.__enter__()

    def update() -> None:
        assert line  # which would be removed with it
        show(50_000_000, "1,234 documents", 200_000_000)

    return update


def sweeping() -> Callable[[], None]:
    from gptshake.report.live import Live

    live = Live()
    run = {"state": "running", "slot": 0, "started": time.time(), "value": 2.5, "tokens": 600_000, "tokens_per_s": 1000}
    trials = [{"number": n, "state": "running", "value": None, "params": {"optimizer.lr": 1e-3}, "runs": [run]} for n in range(3)]
    study = {
        **{"name": "s", "label": "とても長い名前のモデル · 日本語のテキスト · " * 3, "state": "running", "n_trials": 8, "slots": 2},
        **{"trials": trials, "objective": "val/bpb", "direction": "minimize", "axes": [{"key": "optimizer.lr"}], "updated": time.time()},
    }
    return lambda: live.update(study)


LIVE = [training, ramps, building, sweeping]


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("live", LIVE)
def test_every_live_line_fits_the_terminal_and_leaves_none_behind(
    terminal: Callable[[int], Terminal], live: Callable[[], Callable[[], None]], columns: int
) -> None:
    screen = terminal(columns)
    update = live()
    update()
    once = screen.rows(screen.read())
    for _ in range(5):
        update()
    screen.read()
    rows = screen.rows(screen.raw)
    assert len(rows) == len(once) and max(map(width, rows)) < columns
    assert rows[0].split()


@pytest.mark.parametrize("live", LIVE)
def test_a_live_line_follows_a_resize(terminal: Callable[[int], Terminal], live: Callable[[], Callable[[], None]]) -> None:
    screen = terminal(200)
    update = live()
    update()
    screen.read()
    for columns in (40, 60, 200):
        screen.resize(columns)
        update()
        seen = max(map(width, screen.rows(re.sub(r"\x1b\[\d+A", "", screen.read()))))
        assert min(columns, 60) / 2 < seen < columns


@pytest.mark.parametrize("live", LIVE)
def test_nothing_stale_is_left_above_or_below_when_the_terminal_was_resized(
    terminal: Callable[[int], Terminal], live: Callable[[], Callable[[], None]]
) -> None:
    screen = terminal(200)
    update = live()
    update()
    seen = ["$ gptshake", *screen.rows(screen.read())]
    for columns in (80, 40, 61, 200):
        screen.resize(columns)
        update()
        written = screen.read()
        seen = screen.rows("\n".join(seen) + written)  # first as the terminal has wrapped anew what was there
        assert seen == ["$ gptshake", *screen.rows(re.sub(r"\x1b\[\d+A", "", written))]


@pytest.mark.parametrize("variable", ["TERM=dumb", "JPY_PARENT_PID=1"])
@pytest.mark.parametrize("live", LIVE)
def test_a_dumb_terminal_and_a_notebook_get_plain_lines(
    terminal: Callable[[int], Terminal], live: Callable[[], Callable[[], None]], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable.split("="))
    screen = terminal(80)
    update = live()
    update()
    update()
    text = screen.read().replace("\r\n", "\n")
    assert text.endswith("\n") and "\x1b" not in text and "\r" not in text


def test_what_is_least_needed_goes_first() -> None:
    parts = ("step 1 of 9", "50 %", "loss 2.5", "left 9 s")
    assert fit(parts, 80, (1, 3)) == "step 1 of 9 | 50 % | loss 2.5 | left 9 s"
    assert fit(parts, 35, (1, 3)) == "step 1 of 9 | loss 2.5 | left 9 s"
    assert fit(parts, 24, (1, 3)) == "step 1 of 9 | loss 2.5"
    assert fit(parts, 10, (1, 3)) == "step 1 of "


@pytest.mark.parametrize(
    ("text", "columns", "seen"),
    [
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本"),
        ("한국어 abc", 7, "한국어 "),
        ("e\u0301te\u0301", 2, "e\u0301t"),
        ("🙂🙂", 3, "🙂"),
        ("a\x1b[2Jb\tc", 80, "a?[2Jb?c"),
    ],
)
def test_a_cut_counts_columns_and_not_letters(text: str, columns: int, seen: str) -> None:
    assert cut(text, columns) == seen


@pytest.mark.parametrize("target", ["a reader that is gone", "a full disk", "a closed descriptor"])
def test_a_protected_stream_takes_everything_and_raises_nothing(target: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    if target == "a full disk" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    number = os.open("/dev/full", os.O_WRONLY) if target == "a full disk" else writing
    stream = lasting(number, "utf-8", line_buffering=False)
    if target == "a closed descriptor":
        os.close(writing)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
        stream.buffer.write(b"y")
    stream.close()


def test_a_protected_stream_waits_for_a_slow_reader_and_escapes_what_the_encoding_lacks() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "é" + "z" * 300_000  # more than a pipe holds
    thread = threading.Thread(target=lambda: print(text, file=lasting(writing, "ascii", line_buffering=True), flush=True))
    thread.start()
    got = b""
    while len(got) < len(text) + 4:
        got += os.read(reading, 1 << 16)
    thread.join()
    assert got == b"\\xe9" + b"z" * 300_000 + b"\n"
    os.close(reading), os.close(writing)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x07\x00\x7f", "a\\x1b[31mb\\x07\\x00\\x7f"),
        ("\x9b2J\x9d0;t\x9c\x85", "\\x9b2J\\x9d0;t\\x9c\\x85"),  # the same commands in one character
        ("over\rwritten\x08", "over\\rwritten\\x08"),
        ("a\u202eb\u2066c\u2028d\ud800", "a\\u202eb\\u2066c\\u2028d\\ud800"),
        ("one\r\ntwo\n\tthree", "one\ntwo\n\tthree"),
        ("ä 水 👨\u200d👩 \u3000\u00a0é", "ä 水 👨\u200d👩 \u3000\u00a0é"),
    ],
)
def test_what_commands_a_terminal_is_shown_as_letters_and_all_other_text_as_it_is(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_open_in_child_processes_too(closed: str, tmp_path: Path) -> None:
    child = "import os; [os.fstat(number) for number in (0, 1, 2)]"
    program = f"import subprocess, sys; from gptshake.console import protect; protect(); sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    (tmp_path / "program.py").write_text(program)
    assert subprocess.run(f"'{sys.executable}' program.py {closed}", shell=True, cwd=tmp_path).returncode == 0
