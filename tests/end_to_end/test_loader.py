"""Who fetches the batches changes no number: with processes, stopped by a signal to all of them, and gone on without."""

import os
import signal
import time
from pathlib import Path
from typing import Any

RUN = (
    *(
        "model=tiny",
        "model.n_layer=1",
        "model.n_embd=32",
        "model.n_head=2",
        "data=text_char",
        "data.batch_size=4",
        "data.micro_batch_size=2",
    ),
    *("data.offset=random", "trainer=cpu", "trainer.threads=1", "logger=none", "callbacks=none", "trainer.val_check_interval=1000"),
)


def test_workers_change_no_loss_and_a_signal_to_all_of_them_stops_as_exactly(
    commands: Any, tmp_path: Path, book: Path, the_run: Any
) -> None:
    words = (*RUN, f"data.path={book}", "trainer.max_steps=120")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
    assert commands(alone, *words).code == 0
    process = commands.start(shared, *words, "data.workers=2")
    until = time.monotonic() + 60
    while not [file for file in shared.glob("runs/*/metrics.csv") if len(file.read_text().splitlines()) > 10]:
        assert time.monotonic() < until and process.code() is None, process.output()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stopped = process.wait(60)
    record = the_run(shared)
    if stopped.code == 128 + signal.SIGINT:
        assert record.info["status"] == "interrupted" and 10 <= len(record.steps) < 120
        done = commands(shared, f"resume={record.info['id']}", "data.workers=0")
        assert done.code == 0, done.err
    assert the_run(shared).numbers() == the_run(alone).numbers()
