"""The process that mirrors one run directory to W&B: it follows the files of the record, so the run hands over nothing and never waits.

``wandb.py`` starts it with its options as JSON. It answers with lines of JSON; the line ``finish`` on its input ends the mirror, and the
end of the input (the run was killed) ends the process at once. The W&B step is the optimizer step. An offline run is written anew from
the record at each start, because wandb keeps its history per process; older folders are renamed ``superseded-1-...``.
"""

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from operator import itemgetter
from pathlib import Path
from typing import Any

from gptshake.record.metrics import Tail, read_history
from gptshake.record.run import Run
from gptshake.record.texts import Sample

INIT_SECONDS = 4.0  # for an online run to begin
PROBE_SECONDS = 2.0  # for any answer of the server
POLL_SECONDS = 1.0
SMALLER_IS_BETTER = ("val/loss", "val/bpb")
TAG_LETTERS = 64  # W&B refuses longer ones
_X_AXIS = "train/tokens"
_SOURCES = ("overrides", "diff.patch", "untracked")  # what repeats the run besides its config
_WEIGHTS = ("model.safetensors", "checksums.json")
_EXIT_CODES = {"ok": 0, "pruned": 0, "interrupted": 255}  # 255 is W&B's "killed"


def describe(run: Run) -> dict[str, Any]:
    """Arguments of ``wandb.init`` that describe a run, from its record alone, which holds no secret: name, group, tags, notes, config."""
    info, config = run.info, run.config()
    trial, choices, git = info.get("trial"), info.get("choices") or {}, info.get("git") or {}
    named = [f"{group}:{choices[group]}" for group in ("data", "tokenizer", "model", "debug") if choices.get(group)]
    tags = [(info.get("data") or {}).get("label"), *named, "dirty" if git.get("dirty") else None]
    derived = {key: info[key] for key in ("budget", "model", "data", "hardware") if info.get(key)}
    derived |= {"version": info.get("version"), "commit": git.get("commit")}
    return {
        "name": run.name,
        "group": trial["study"] if trial else choices.get("experiment"),
        "job_type": info.get("task"),
        "tags": list(dict.fromkeys(tag[:TAG_LETTERS] for tag in tags if tag)),
        "notes": info.get("note") or config.get("note") or None,
        "config": config | {"derived": derived} | ({"trial": trial} if trial else {}),
    }


def online_problem(*, silent: bool = False) -> tuple[str, str]:
    """What is wrong with the key (variable or netrc), and why the server cannot be reached; empty texts if nothing is. Takes seconds."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=silent, mode="online"))
    try:
        if not wandb.login(prompt=False, verify=False):
            return "no key", ""
    except Exception as error:  # a key that cannot be one
        return short(error), ""
    url = f"{wandb.setup().settings.base_url}/graphql"
    request = urllib.request.Request(url, b'{"query":"query{__typename}"}', {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:  # any answer is one, except for the server's own failure
        return "", f"the server failed with {error.code}" if error.code >= 500 else ""
    except (OSError, ValueError, HTTPException) as error:
        reason = str(getattr(error, "reason", error))
        return "", "" if "CERTIFICATE" in reason else f"no network ({reason})"  # wandb has its own certificates
    return "", ""


def short(error: BaseException) -> str:
    """What an error says, in one line of at most 200 letters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def mirror(run: Run, options: dict[str, Any], ended: threading.Event, answer: Callable[..., None]) -> None:
    """Mirror a run until ``ended`` is set.

    Args:
        run: the record.
        options: ``place`` (id, project, entity for ``wandb.init``), ``mode`` (online, offline), ``required`` (no way out of online),
            ``problem`` (why it is offline), ``every`` (steps per logged row), ``artifacts``.
        ended: set when the record is complete.
        answer: takes ``refused=``, ``opened=`` (facts for run.json), ``complaint=`` (something is left out) and ``done=``.
    """
    import wandb

    if options["mode"] == "online":
        no_key, unreachable = online_problem()
        if no_key and options["required"]:
            answer(refused=no_key)
            return
        if problem := no_key or unreachable:
            options |= {"mode": "offline", "problem": problem}
    try:
        tracker = _open(run, options["place"], options["mode"])
    except Exception as error:
        if options["mode"] == "offline":
            raise
        options |= {"mode": "offline", "problem": f"no answer ({short(error)[:120].strip()})"}
        wandb.teardown()  # the service of the attempt holds the id
        tracker = _open(run, options["place"], "offline")
    url = tracker.url if options["mode"] == "online" else None
    named = {"id": tracker.id, "project": tracker.project, "entity": tracker.entity or None}
    facts = {**named, "mode": options["mode"], "url": url, "folder": str(Path(tracker.dir).parent)}
    answer(opened=facts, problem=options["problem"])
    for file in (file for name in _SOURCES for file in [run.path / name, *sorted((run.path / name).rglob("*"))] if file.is_file()):
        tracker.save(str(file), base_path=str(run.path), policy="now")
    _log_artifacts(_log_inputs, tracker, run, options, answer)
    _follow(tracker, run, options["every"], ended)
    run = Run.open(run.path)  # as it ended
    _log_artifacts(_log_weights, tracker, run, options, answer)
    final = {key: value for key, value in (run.info.get("summary") or {}).items() if key not in SMALLER_IS_BETTER}
    tracker.summary.update({**final, "status": run.info["status"]})
    tracker.finish(exit_code=_EXIT_CODES.get(run.info["status"], 1))
    wandb.teardown()  # its service writes its last words now
    answer(done=True)


def _open(run: Run, place: dict[str, Any], mode: Any) -> Any:
    """The W&B run, with its axes and summaries."""
    import wandb

    folder = run.path / "wandb"
    older = [old for old in sorted(folder.glob(f"*run-*-{place.get('id') or os.environ.get('WANDB_RUN_ID')}")) if old.name[0] in "or"]
    for number, old in enumerate(older, start=len(list(folder.glob("superseded-*"))) + 1):  # wandb's own names repeat within a second
        old.rename(old.with_name(f"superseded-{number}-{old.name}"))
    # Provenance is ours (theirs misses untracked files and keeps credentials of the remote); so is the console's log.
    settings = wandb.Settings(
        init_timeout=INIT_SECONDS,
        console="off",
        x_disable_meta=True,  # it holds the command line, and with it whatever was typed there
        disable_git=True,
        disable_code=True,
        save_code=False,
        symlink=False,  # copies: a run directory may be moved
    )
    resume: Any = "allow" if mode == "online" else None
    tracker = wandb.init(dir=str(run.path), mode=mode, resume=resume, settings=settings, **place, **describe(run))
    tracker.define_metric(_X_AXIS)
    tracker.define_metric("*", step_metric=_X_AXIS)
    for name in SMALLER_IS_BETTER:
        tracker.define_metric(name, step_metric=_X_AXIS, summary="min")
    return tracker


def _follow(tracker: Any, run: Run, every: int, ended: threading.Event) -> None:
    """Log rows, samples and pictures as they come, until the record has ended; of an online run that is resumed W&B has the beginning."""
    import wandb

    path, known = run.path / "metrics.csv", tracker.step
    rows, tail, n_samples, table, drawn = read_history(path, every, sys.maxsize), Tail(path), 0, None, dict[Path, float]()
    reached = int(rows[-1]["step"]) if rows else -1
    while True:
        last = ended.is_set()
        new = [row for row in tail.new() if row["step"] > reached]
        reached = int(new[-1]["step"]) if new else reached
        rows += [row for row in new if row["step"] % every == 0 or "val/loss" in row]
        samples = [sample for sample in run.samples()[n_samples:] if last or sample.step <= reached]  # others wait for their row
        n_samples += len(samples)
        steps: list[tuple[int, Any]] = [*((int(row["step"]), row) for row in rows), *((sample.step, sample) for sample in samples)]
        for step, one in sorted(steps, key=itemgetter(0)):
            if step < known:
                continue
            if isinstance(one, Sample):
                table = table or wandb.Table(columns=["step", "tokens", "title", "text"], log_mode="INCREMENTAL")
                table.add_data(*one)
                tracker.log({_X_AXIS: one.tokens, "samples": table}, step=step)
            else:
                when = {"_timestamp": one["time"]} if "time" in one else {}  # of the step, also where it is logged later
                tracker.log({name: value for name, value in one.items() if name not in ("step", "time")} | when, step=step)
        for picture in sorted((run.path / "plots").glob("*.png")):
            with suppress(FileNotFoundError):  # removed meanwhile
                if (changed := picture.stat().st_mtime) != drawn.get(picture):
                    drawn[picture] = changed
                    image = wandb.Image(str(picture))
                    tracker.log({picture.stem: image}, step=max(reached, known))  # else a later sample of this step is dropped
        if last:
            return
        rows = []
        ended.wait(POLL_SECONDS)


def _log_artifacts(log: Callable[[Any, Run], None], tracker: Any, run: Run, options: dict[str, Any], answer: Callable[..., None]) -> None:
    """Log some if they are asked for, never a trial's; a quota that is used up costs the artifacts, not the mirror."""
    if options["artifacts"] and not run.info.get("trial"):
        try:
            log(tracker, run)
        except Exception as error:
            answer(complaint=f"W&B took no artifacts of this run: {short(error)}.")


def _artifact_names(run: Run) -> tuple[str, str]:
    """Of tokenizer and token store; with the beginning of a content hash, so that runs on the same text share them."""
    return f"tokenizer-{run.info['data']['tokenizer'][:12]}", f"tokens-{run.info['data']['store'][:12]}"


def _log_inputs(tracker: Any, run: Run) -> None:
    """The tokenizer, and a description of the token store (source and fingerprint, never the text)."""
    import wandb

    data, (tokenizer, store) = run.info["data"], _artifact_names(run)
    saved = wandb.Artifact(tokenizer, "tokenizer", metadata={"digest": data["tokenizer"], "vocab_size": data["vocab_size"]})
    saved.add_dir(str(run.path / "tokenizer"))
    described = wandb.Artifact(store, "token-store", metadata={**data, "made_with": tokenizer})
    with described.new_file("description.json") as file:
        json.dump(data, file, indent=2, sort_keys=True)
    for artifact in (saved, described):
        tracker.log_artifact(artifact)


def _log_weights(tracker: Any, run: Run) -> None:
    """The weights with the lowest validation loss, if the run saved any; what they come from is in their metadata."""
    import wandb

    summary = run.info.get("summary") or {}
    folder = run.path / "checkpoints" / f"step-{int(summary.get('best/step') or 0):08d}"
    if not folder.is_dir():
        return
    kept = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    parents = dict(zip(("tokenizer", "token-store"), _artifact_names(run), strict=True)) | {"parent": run.info.get("parent")}
    artifact = wandb.Artifact(f"model-{run.id}", "model", metadata={**kept, "run": run.name, "trained_on": parents})
    for name in _WEIGHTS:
        artifact.add_file(str(folder / name))
    tracker.log_artifact(artifact, aliases=["best"])


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # the run gets them too, and says what follows
        signal.signal(number, signal.SIG_IGN)
    answers, options, ended = os.fdopen(os.dup(1), "w"), json.loads(sys.argv[2]), threading.Event()
    os.dup2(2, 1)  # wandb's service prints there, too

    def listen() -> None:
        for line in sys.stdin:
            if line == "finish\n":
                ended.set()
        os._exit(1)

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    threading.Thread(target=listen, daemon=True).start()
    try:
        mirror(Run.open(Path(sys.argv[1])), options, ended, answer)
    except (Exception, SystemExit) as error:
        answer(failed=short(error))
    os._exit(0)  # wandb's own end would wait for its service


if __name__ == "__main__":
    _main()
