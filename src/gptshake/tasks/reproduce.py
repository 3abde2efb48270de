"""``task=reproduce``: run a run once more with its own code, config, data and tokenizer, and compare the two step by step.

What the new run is about is compared with the record before it trains; on the same machine every bit of every loss must then be equal.
The repetition is a run like any other in an interpreter of its own, watched through the record that it writes: that is what versions of
gptshake agree on, so nothing else is asked of old code.
"""

import contextlib
import glob
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from subprocess import PIPE, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from gptshake.config.overrides import refuse_another_config, repeated, stored_config
from gptshake.config.values import unsafe_reason
from gptshake.console import one_line
from gptshake.context import Context
from gptshake.errors import ConfigError, GptshakeError, RecordError
from gptshake.estimate.formatting import counted
from gptshake.export.hub import HF
from gptshake.files import expanded
from gptshake.processes import Command
from gptshake.record.git import PATCH, RestoredCode, is_unchanged, restored, untracked_files
from gptshake.record.index import Entry
from gptshake.record.metrics import Row, Tail, last_row, read_rows
from gptshake.record.run import Run, find_run, is_made_here, read_run, run_roots
from gptshake.record.shape import read_record
from gptshake.redaction import redact_code
from gptshake.report.changes import machine_facts
from gptshake.report.diff_text import machine_differences
from gptshake.report.reproduction import compare, same_machine, steps_of_first_code, verdict

Info = dict[str, Any]
POLL_S = 0.02
GRACE_S = 60.0  # for saving the last step
# `python -m gptshake` with a thread that waits for one byte of its caller on the standard input, after which nothing more is printed, or its end.
# The user's own modules join the path after Hydra, whatever its version of gptshake does, has looked for plugins.
CHILD = f"""
import os, runpy, signal, sys, threading, time, warnings
def watch():
    if os.read(0, 1):
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({GRACE_S})
    os._exit(128 + signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
from hydra.core.plugins import Plugins
with warnings.catch_warnings(action="ignore"):
    Plugins.instance()
sys.path.insert(len(list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))), sys.argv.pop(1))
runpy.run_module("gptshake", run_name="__main__", alter_sys=True)
"""


def run(context: Context) -> None:
    """Reproduce the run ``task.run``; prints the verdict, draws both curves and their difference.

    Raises:
        ConfigError: no run was named.
        RecordError: something of it is not here any more, or is another thing now.
        GptshakeError: it was not reproduced.
    """
    cfg = context.config
    if not cfg.task.run:
        raise ConfigError("Choose a run: task=reproduce task.run=<name, id or path>.")
    original = find_run(cfg.task.run, run_roots(cfg.paths))
    info = read_run(original)
    _refuse_foreign_code(original, info, trust=cfg.task.trust)
    rows, planned = _rows(original, info, cfg.task.steps), (info.get("budget") or {}).get("steps")
    folder = _folder(info)
    # A name like that of any run, with the other's id at its end: <now>-<model>-<data>-<source>-<changes>-again-<id>
    middle = re.sub(r"^\d{8}-\d{4}-|-[0-9a-z]{8}$", "", str(info["name"])).removesuffix("-again")
    runs, name = expanded(cfg.paths.runs).absolute(), f"{datetime.now():%Y%m%d-%H%M}-{middle}-again-{info['id']}"
    taken = len(list(runs.glob(f"{name}*")))
    path = runs / (f"{name}_{taken + 1}" if taken else name)
    overrides = repeated(original, _own(cfg, original, info, path, folder))
    with restored(original, info) as code:
        part = f" of {planned:,}" if planned and planned != len(rows) else ""
        print(f"reproducing {info['name']}: {counted(len(rows), 'step')}{part}\ncode: {code.about}", flush=True)
        for note in code.notes:
            print(f"note: {note}", flush=True)
        repeat(code, overrides, path, folder, len(rows), lambda new: _check_new_record(original, info, code, path, new))
    _conclude(cfg, info, rows, path)


def _refuse_foreign_code(original: Path, info: Info, *, trust: bool) -> None:
    """List what of a record would run that was not made by this user on this machine, and run it only if it is trusted."""
    git, environment, patch = info.get("git") or {}, info.get("environment") or {}, original / PATCH
    if is_made_here(info) and is_unchanged(original, git):
        return
    changes = patch.read_text(errors="replace") if patch.is_file() else ""
    found: dict[str, Any] = {
        "commit of your checkout": [git["commit"]] if git.get("commit") else [],
        "changes of it (diff.patch)": re.findall(r"^diff --git .* b/(.*)$", changes, re.M),
        "files beside it (untracked/)": sorted({*untracked_files(original), *(git.get("untracked") or {})}),
        f"your own files in {environment.get('cwd')}": list(info.get("local_conf") or {}),
        "overrides": [text for text in info.get("overrides") or () if unsafe_reason(str(text))],
    }
    lines = [f"  {what}: {one_line(', '.join(map(str, names)))}" for what, names in found.items() if names]
    listed = "\n".join(lines or ["  the installed gptshake"])
    if not trust:
        raise RecordError(
            f"{info['id']} was not made by you on this machine, was made by an earlier version, or was changed since. Reproducing it runs code:\n"
            f"{listed}\nRead it in {original}; if you trust it, add task.trust=true."
        )
    print(f"trusted, though not made by you on this machine:\n{listed}", flush=True)


def _rows(original: Path, info: Info, steps: int | None) -> list[Row]:
    """The rows to compare with: all that its first plan has, or the first ``steps``."""
    if info.get("task") != "train":
        raise RecordError(f"{info['id']} is a run of task={info.get('task')}; only training can be reproduced.")
    rows = read_rows(original / "metrics.csv")[: (info.get("budget") or {}).get("steps")]
    if not rows:
        raise RecordError(f"{info['id']} has not finished one step that could be compared.")
    covered = steps_of_first_code(info.get("sittings") or ())
    if covered is not None and covered < len(rows):
        print(f"note: after step {covered:,} the run went on with other code; the steps before are repeated", flush=True)
        rows = rows[:covered]
    return rows[:steps]


def _folder(info: Info) -> Path:
    """Where the run was started, so that relative paths and ./conf mean the same; if that is gone, here."""
    started = (info.get("environment") or {}).get("cwd")
    folder = Path(started) if started and Path(started).is_dir() else Path.cwd()
    kept = info.get("local_conf") or {}
    missing = [name for name in kept if not (folder / name).is_file()]
    there = {name: redact_code((folder / name).read_bytes(), name) for name in kept if name not in missing}  # as the record keeps it
    changed = [name for name, content in there.items() if hashlib.sha256(content).hexdigest() != kept[name]]
    if yamls := [name for name in changed if name.startswith("conf/")]:
        print(f"note: changed since the run: {', '.join(yamls)}; the config that comes of it is compared key by key", flush=True)
    if names := missing or [name for name in changed if name not in yamls]:
        raise RecordError(
            f"Files of the run's own {'are not in' if missing else 'were changed since, in'} {folder}: {', '.join(names)}. "
            "The run directory keeps them in conf/ and code/: copy them there."
        )
    return folder


def _own(cfg: DictConfig, original: Path, info: Info, path: Path, folder: Path) -> dict[str, Any]:
    """What the repetition says itself: places, and where that lies now which the run began with."""
    own: dict[str, Any] = {f"paths.{key}": str(expanded(cfg.paths[key]).absolute()) for key in ("runs", "multirun", "cache")}
    own |= {"paths.run_dir": str(path), "note": f"reproduces {info['id']}"}
    config, known, roots = stored_config(original), info.get("parent"), run_roots(cfg.paths)
    if config.get("tokenizer.path") is not None:
        own["tokenizer.path"] = str((original / "tokenizer").absolute())
    if str(source := config.get("init_from") or "").startswith(HF):
        own["init_from"] = str(source)
    elif source:  # under the name that was typed if that is it still, else wherever its id is found
        try:
            parent = None
            with contextlib.suppress(RecordError):
                parent = find_run(source, roots)
            parent = parent if parent and known in (None, read_run(parent)["id"]) else find_run(known or source, roots)
        except RecordError as error:
            raise RecordError(f"{info['id']} started from the weights of init_from={source}, which is not here. {error}") from error
        own["init_from"] = str(parent.absolute())
    if cfg.task.data_path is not None:
        own["data.path"] = str(expanded(cfg.task.data_path).absolute())
    elif isinstance(text := config.get("data.path"), str | list):  # relative in older records
        paths = [folder / expanded(one) for one in (text if isinstance(text, list) else [text])]
        if missing := [path for path in paths if not path.exists() and not glob.has_magic(str(path))]:
            raise RecordError(f"The text of {info['id']} is not there: {missing[0]}. If it has moved: task.data_path=<file or folder>.")
        own["data.path"] = [str(path) for path in paths] if isinstance(text, list) else str(paths[0])
    return own


def _check_new_record(original: Path, info: Info, code: RestoredCode, path: Path, new: Info) -> None:
    """Compare what is about to train with the record; then print in what the two environments differ."""
    if (new.get("git") or {}).get("commit") != code.commit or new.get("version") != info.get("version"):
        raise RecordError(f"{code.about} was to run, but gptshake {new.get('version')} of another place did; is gptshake installed twice?")
    refuse_another_config(original, path)
    then, now, plan = info.get("data") or {}, new["data"], info.get("budget") or {}
    lines = [
        f"  {what}: was {str(then.get(key))[:16]}, is {str(now[key])[:16]}\n"
        for key, what in (("fingerprint", "tokens of the text"), ("tokenizer", "tokenizer"))
        if then.get(key) != now[key]
    ]
    if info.get("pretrained") != new.get("pretrained"):
        raise RecordError(f"{info['id']} started from other weights than its init_from= holds now; nothing was trained.")
    if lines:
        raise RecordError(
            f"The data is not that of {info['id']}; nothing was trained. Fingerprints:\n{''.join(lines)}"
            "Restore its text; if that has moved: task.data_path=<file or folder>."
        )
    if any(plan.get(key) != new["budget"][key] for key in ("steps", "tokens", "tokens_per_step")):
        raise RecordError(f"{info['id']} was planned for {plan}, and would now be for {new['budget']}.")
    differences = machine_differences([Entry(original, "ok", info), Entry(path, "running", new)])
    same = machine_facts(info) == machine_facts(new)
    print("environment: the same in everything that is recorded" if same else "\n  ".join(["environment:", *differences]), flush=True)


def repeat(code: RestoredCode, overrides: Sequence[str], path: Path, folder: Path, steps: int, before: Callable[[Info], None]) -> None:
    """Run gptshake until it has written ``steps`` rows, and stop it by a signal, which leaves the length of the schedule alone.

    A pipe ties the two: when whoever waits dies, the run stops too, whatever version it is. It starts in ``folder``, or in an empty one
    if the ./conf there is not the run's. ``before`` looks at run.json of ``path`` before anything trains; what it raises ends the run and
    removes its directory.
    """
    sources = os.pathsep.join(filter(None, [str(code.source or ""), os.environ.get("PYTHONPATH")]))
    env = {"HYDRA_FULL_ERROR": None, "GPTSHAKE_CONFIG_DIR": None, "PYTHONPATH": sources, "GPTSHAKE_DIRTY": "1"}
    with TemporaryDirectory(prefix="gptshake-start-") as empty:
        start = folder if code.own_conf or not (folder / "conf").is_dir() else empty
        child = Command([sys.executable, "-P", "-c", CHILD, str(folder), *overrides], env, cwd=start, stdin=PIPE, bufsize=0)
        ended = False
        try:
            while "data" not in (info := _info(path)) and not ended:
                ended = child.wait(POLL_S) is not None  # its record is read once more
            if "data" in info:
                before(info)
        except BaseException:  # it has saved nothing yet
            child.kill()
            shutil.rmtree(path, ignore_errors=True)
            raise
        try:
            tail, reached = Tail(path / "metrics.csv"), 0.0
            while child.wait(POLL_S) is None and not steps <= reached < info["budget"]["steps"]:
                reached = next((row["step"] for row in reversed(tail.new())), reached)
            with contextlib.suppress(BrokenPipeError, TimeoutExpired):
                child.process.communicate(b".", GRACE_S)
        finally:
            child.stop(GRACE_S)
    if (done := int(last_row(path / "metrics.csv").get("step", 0))) < steps:
        where = f"after step {done}, before step {steps}" if done else "before its first step"
        raise GptshakeError(f"The reproduction ended {where}: {_info(path).get('reason') or 'what it said is above.'}")


def _info(path: Path) -> Info:
    """run.json as far as it is there; an old version need not write all of it at once."""
    with contextlib.suppress(RecordError):
        return read_record(path / "run.json", "run", "id")
    return {}


def _conclude(cfg: DictConfig, info: Info, rows: list[Row], path: Path) -> None:
    """Compare, write the outcome into the new record, draw it, print it."""
    from gptshake.report.plots_run import reproduction_plot  # brings matplotlib

    new = Run.open(path)
    again_rows = new.rows()[: len(rows)]
    found = compare(rows, again_rows)
    holds, sentence = verdict(found, same=same_machine(info, new.info), tolerance=cfg.task.tolerance)
    outcome: Info = {"holds": holds, "verdict": sentence, "steps": found.steps, "identical": found.identical}
    if worst := found.largest:
        outcome |= {"deviation": worst.relative, "at_step": worst.step, "column": worst.column}
    if new.info["status"] == "interrupted":
        new.update(reason=f"stopped after the {counted(len(rows), 'step')} that {'was' if len(rows) == 1 else 'were'} to be compared")
    new.update(reproduces=info["id"], reproduction=outcome)
    files = reproduction_plot(info, rows, again_rows, found, path / "plots", tolerance=cfg.task.tolerance)
    print(f"\n{sentence}" if holds else "", flush=True)
    print(f"  record:  {os.path.relpath(path)}\n  picture: {os.path.relpath(files[0])}", flush=True)
    if not holds:
        raise GptshakeError(sentence)
