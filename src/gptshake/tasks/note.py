"""``task=note``: say at any time why a run or a sweep was made, or what came of it, while it is at work too."""

import os

from gptshake.context import Context
from gptshake.errors import ConfigError
from gptshake.files import refuse_links
from gptshake.record.index import STUDY_FILE, find_sweep, read_study
from gptshake.record.run import find_run, read_run, run_roots
from gptshake.record.texts import add_note


def run(context: Context) -> None:
    """Add ``task.text`` to the notes of ``task.run``. Leaves no record of its own.

    Raises:
        ConfigError: no run or no text was given.
        RecordError: there is no such run, or its record is damaged.
    """
    cfg = context.config
    name, text = str(cfg.task.run or "").strip(), str(cfg.task.text or "").strip()
    if not name or not text:
        raise ConfigError("Say what to note of which run: task=note task.run=latest task.text='what came of it'.")
    runs, multirun = run_roots(cfg.paths)
    path = find_sweep(name, multirun) or find_run(name, [runs, multirun])
    if (path / "run.json").exists():
        read_run(path)
    elif (path / STUDY_FILE).exists():
        read_study(path)
    refuse_links(path)
    add_note(path, text)
    print(f"noted in {os.path.relpath(path)}")
