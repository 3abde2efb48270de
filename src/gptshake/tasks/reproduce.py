"""``task=reproduce``: run a run once more with its own code, config, data and tokenizer, and compare the two step by step.

What the new run is about is held against the record before it trains; on the same machine every bit of every loss must then
be equal. The repetition is a run like any other, whose record says what it reproduces.
"""

import hashlib
import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gptshake.config.overrides import refuse_another_config, repeated, stored_config
from gptshake.config.values import more_than_a_value
from gptshake.console import one_line
from gptshake.context import Context
from gptshake.errors import ConfigError, GptshakeError, RecordError
from gptshake.estimate.words import counted
from gptshake.files import expanded
from gptshake.record.metrics import Row, read_rows
from gptshake.record.repeat import repeat
from gptshake.record.restore import PATCH, Code, changed_files, is_unchanged, restored, untracked_files
from gptshake.record.run import Run, find_run, read_run, run_roots
from gptshake.record.seal import is_made_here
from gptshake.redaction import redact_code
from gptshake.report.compare import Comparison, compare, steps_of_first_code, verdict
from gptshake.report.environment import environment_differences, same_machine

Info = dict[str, Any]


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
    rows = _rows(original, info, cfg.task.steps)
    path = _new_directory(expanded(cfg.paths.runs).absolute(), info)
    folder = _folder(info)
    overrides = repeated(original, _own(cfg, original, info, path, folder))
    with restored(original, info) as code:
        _announce(info, rows, code)
        repeat(code, overrides, path, folder, len(rows), lambda new: _refuse_another(original, info, code, path, new))
    _conclude(cfg, info, rows, path)


def _refuse_foreign_code(original: Path, info: Info, *, trust: bool) -> None:
    """List what of a record would run that was not made by this user on this machine, and run it only if it is trusted.

    Raises:
        RecordError: it is not.
    """
    if is_made_here(info) and is_unchanged(original, info):
        return
    git, environment = info.get("git") or {}, info.get("environment") or {}
    found: dict[str, Any] = {
        "commit of your checkout": [git["commit"]] if git.get("commit") else [],
        "changes of it (diff.patch)": changed_files(original / PATCH),
        "files beside it (untracked/)": sorted({*untracked_files(original), *(git.get("untracked") or {})}),
        f"your own files in {environment.get('cwd')}": list(info.get("local_conf") or {}),
        "overrides": [text for text in info.get("overrides") or () if more_than_a_value(str(text))],
    }
    lines = "\n".join(f"  {what}: {one_line(', '.join(map(str, names)))}" for what, names in found.items() if names)
    if not trust:
        raise RecordError(
            f"{info['id']} was not made by you on this machine, was made by an earlier version, or was changed since. Reproducing it runs code:\n"
            f"{lines or '  the installed gptshake'}\nRead it in {original}; if you trust it, say task.trust=true."
        )
    print(f"trusted, though not made by you on this machine:\n{lines or '  the installed gptshake'}", flush=True)


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
    """Where the run was started, so that relative paths and ./conf mean the same; if that is gone, here.

    Raises:
        RecordError: a file of the user's own is not there, or Python of theirs is other Python now.
    """
    told = (info.get("environment") or {}).get("cwd")
    folder = Path(told) if told and Path(told).is_dir() else Path.cwd()
    own: dict[str, str] = info.get("local_conf") or {}
    missing = [name for name in own if not (folder / name).is_file()]
    changed = [name for name in own if name not in missing and _kept_hash(folder / name, name) != own[name]]
    if yamls := [name for name in changed if name.startswith("conf/")]:
        print(f"note: changed since the run: {', '.join(yamls)}; the config that comes of it is compared key by key", flush=True)
    for names, what in ((missing, "are not in"), ([name for name in changed if name not in yamls], "were changed since, in")):
        if names:
            raise RecordError(
                f"Files of the run's own {what} {folder}: {', '.join(names)}. The run directory keeps them in conf/ and code/: copy them there."
            )
    return folder


def _kept_hash(file: Path, name: str) -> str:
    """As run.json has it: of what the record keeps, in which secrets are hidden."""
    return hashlib.sha256(redact_code(file.read_bytes(), name)).hexdigest()


def _new_directory(runs: Path, info: Info) -> Path:
    """``<now>-<model>-<data>-<source>-<changes>-again-<id>``: a name like that of any run, with the other's id at its end."""
    middle = re.sub(r"^\d{8}-\d{4}-|-[0-9a-z]{8}$", "", str(info["name"])).removesuffix("-again")
    name = f"{datetime.now():%Y%m%d-%H%M}-{middle}-again-{info['id']}"
    taken = [path.name for path in runs.glob(f"{name}*")]
    return runs / (f"{name}_{len(taken) + 1}" if taken else name)


def _own(cfg: DictConfig, original: Path, info: Info, path: Path, folder: Path) -> dict[str, Any]:
    """What the repetition says itself: places, and where that lies now which the run began with."""
    own: dict[str, Any] = {f"paths.{key}": str(expanded(cfg.paths[key]).absolute()) for key in ("runs", "multirun", "cache")}
    own |= {"paths.run_dir": str(path), "note": f"reproduces {info['id']}"}
    config = stored_config(original)
    if config.get("tokenizer.path") is not None:
        own["tokenizer.path"] = str((original / "tokenizer").absolute())
    if source := config.get("init_from"):
        own["init_from"] = str(_parent(cfg, info, source))
    if cfg.task.data_path is not None:
        own["data.path"] = str(expanded(cfg.task.data_path).absolute())
    elif isinstance(text := config.get("data.path"), str | list):  # relative in older records
        own["data.path"] = [str(folder / expanded(one)) for one in text] if isinstance(text, list) else str(folder / expanded(text))
    return own


def _parent(cfg: DictConfig, info: Info, source: str) -> Path:
    """The run whose weights it began with: under the name that was typed if that is it still, else wherever its id is found."""
    known = info.get("parent")
    with suppress(RecordError):
        named = find_run(source, run_roots(cfg.paths))
        if known in (None, read_run(named)["id"]):
            return named.absolute()
    try:
        return find_run(known or source, run_roots(cfg.paths)).absolute()
    except RecordError as error:
        raise RecordError(f"{info['id']} began with the weights of init_from={source}, which is not here. {error}") from error


def _announce(info: Info, rows: list[Row], code: Code) -> None:
    planned = (info.get("budget") or {}).get("steps")
    print(
        f"reproducing {info['name']}: {counted(len(rows), 'step')}{f' of {planned:,}' if planned and planned != len(rows) else ''}",
        flush=True,
    )
    print(f"code: {code.about}", flush=True)
    for note in code.notes:
        print(f"note: {note}", flush=True)


def _refuse_another(original: Path, info: Info, code: Code, path: Path, new: Info) -> None:
    """Hold what is about to train against the record; then say in what the two environments differ.

    Raises:
        RecordError: code, config, data, tokenizer or plan are others.
    """
    if (new.get("git") or {}).get("commit") != code.commit or new.get("version") != info.get("version"):
        raise RecordError(f"{code.about} was to run, but gptshake {new.get('version')} of another place did; is gptshake installed twice?")
    refuse_another_config(original, path)
    _refuse_another_text(info, new)
    for key in ("steps", "tokens", "tokens_per_step"):
        if (info.get("budget") or {}).get(key) != new["budget"][key]:
            raise RecordError(f"{info['id']} was planned for {info.get('budget')}, and would now be for {new['budget']}.")
    _say_environment(info, new)


def _refuse_another_text(info: Info, new: Info) -> None:
    then, now = info.get("data") or {}, new["data"]
    lines = [
        f"  {what}: was {str(then.get(key))[:16]}, is {str(now[key])[:16]}"
        for key, what in (("fingerprint", "tokens of the text"), ("tokenizer", "tokenizer"))
        if then.get(key) != now[key]
    ]
    if lines:
        listed = "\n".join(lines)
        raise RecordError(
            f"The data is not that of {info['id']}; nothing was trained. Fingerprints:\n{listed}\n"
            "Give it the text that it had; if that lies elsewhere now: task.data_path=<file or folder>."
        )


def _say_environment(info: Info, new: Info) -> None:
    from gptshake.report.tables import aligned

    rows = environment_differences(info, new)
    if rows:
        table = aligned([("differs", "then", "now"), *rows], left=(0, 1))
        print("environment:\n" + "\n".join(f"  {line}" for line in table.splitlines()), flush=True)
    else:
        print("environment: the same in everything that is recorded", flush=True)


def _conclude(cfg: DictConfig, info: Info, rows: list[Row], path: Path) -> None:
    """Compare, write the outcome into the new record, draw it, say it."""
    new = Run.open(path)
    again_rows = new.rows()[: len(rows)]
    found = compare(rows, again_rows)
    holds, sentence = verdict(found, same=same_machine(info, new.info), tolerance=cfg.task.tolerance)
    if new.info["status"] == "interrupted":
        new.update(reason=f"stopped after the {counted(len(rows), 'step')} that {'was' if len(rows) == 1 else 'were'} to be compared")
    new.update(reproduces=info["id"], reproduction={"holds": holds, "verdict": sentence, **_figures(found)})
    from gptshake.report.reproduction import plot

    files = plot(info, rows, again_rows, found, path / "plots", tolerance=cfg.task.tolerance)
    print(f"\n{sentence}" if holds else "", flush=True)
    print("\n".join(f"  {name + ':':<9}{os.path.relpath(file)}" for name, file in (("record", path), ("picture", files[0]))), flush=True)
    if not holds:
        raise GptshakeError(sentence)


def _figures(found: Comparison) -> dict[str, Any]:
    worst = found.largest
    figures: dict[str, Any] = {"steps": found.steps, "identical": found.identical}
    return figures | ({"deviation": worst.relative, "at_step": worst.step, "column": worst.column} if worst else {})
