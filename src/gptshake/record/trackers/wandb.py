"""Weights & Biases as a mirror of the run record, under the run's own id; ``task=sync`` uploads later what could not be.

The W&B step is the optimizer step. An offline run is written anew at each start, because wandb keeps its history per process: older
folders are ``superseded-1-...``.
"""

import contextlib
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError, first_line
from gptshake.record.run import Run
from gptshake.record.texts import Sample
from gptshake.record.trackers.config import WandbConfig
from gptshake.record.trackers.process import ProcessTracker, describe, files_to_repeat, follow
from gptshake.redaction import redact

MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}  # of WANDB_MODE
SMALLER_IS_BETTER = ("val/loss", "val/bpb")
LATER = "upload later with: gptshake task=sync task.run={id}"


@dataclass(eq=False)
class WandbTracker(WandbConfig, ProcessTracker):
    """Mirrors rows, samples and pictures to W&B."""

    service, package, later = "W&B", "wandb", f"; {LATER}"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.project = redact(self.project or os.environ.get("WANDB_PROJECT") or "gptshake")  # W&B keeps both in files of its own
        self.entity = redact(self.entity or os.environ.get("WANDB_ENTITY") or "") or None

    def mode_to_try(self) -> str:
        """online, offline or disabled; ``auto`` is what WANDB_MODE says, else online."""
        named = os.environ.get("WANDB_MODE") or "online"
        if self.mode == "auto" and named not in MODES:
            raise ConfigError(f"WANDB_MODE={named} is not known; it is one of {', '.join(MODES)}.")
        return self.mode if self.mode != "auto" else MODES[named]

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume; what W&B does not have of the run's history is written first."""
        mode, former, trial = self.mode_to_try(), run.info.get("wandb") or {}, run.info.get("trial")
        if mode == "disabled":
            run.update(wandb={"mode": mode, "whole": False, "uploaded": False})
            return
        place = {"id": former.get("id") or run.id, "project": self.project, "entity": self.entity}
        if place["id"] != run.id:  # an agent began it
            place |= {"project": former["project"], "entity": former["entity"]}
        if os.environ.get("WANDB_SWEEP_ID") and not trial:  # the agent's run, or its sweep would not see the numbers
            place = {}
        options = {"mode": mode, "required": self.mode == "online", "every": self.every, "seconds": 60.0 if self.waits else 4.0}
        options |= {"place": place, "artifacts": self.artifacts == "best" and not trial}
        defaults = {"WANDB_DATA_DIR": str(run.path / "wandb"), "WANDB_ERROR_REPORTING": "false"}  # tables lie there until upload
        agents = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH") if trial else ()
        env = defaults | os.environ | dict.fromkeys(("WANDB_SERVICE", *agents))  # the service of a wandb in this process
        self.begin(run, options, env)
        self.wait_for_start()


def track(run: Run, options: dict[str, Any], ended: threading.Event, reply: Callable[..., None]) -> None:
    """Track a run until ``ended`` is set; ``reply`` takes ``record`` for run.json, ``say`` and ``end``."""
    import wandb

    tracker = _connect(run, options, reply)
    for file in files_to_repeat(run):
        tracker.save(str(file), base_path=str(run.path), policy="now")
    _log_rows(tracker, run, options["every"], ended)
    run = Run.open(run.path)  # as it ended
    try:
        for artifact in _artifacts(run) if options["artifacts"] else ():
            tracker.log_artifact(artifact, aliases=["best"] if artifact.type == "model" else None)
    except Exception as error:  # a quota that is used up costs the artifacts, not the mirror
        reply(say=f"W&B took no artifacts of this run: {first_line(error)}.")
    status = run.info["status"]
    final = {key: value for key, value in (run.info.get("summary") or {}).items() if key not in SMALLER_IS_BETTER}
    tracker.summary.update({**final, "status": status})
    tracker.finish(exit_code={"ok": 0, "pruned": 0, "interrupted": 255}.get(status, 1))  # 255 is W&B's "killed"
    wandb.teardown()  # its service writes its last words now: what the server refused is only printed
    printed = "" if tracker.offline else os.pread(2, 1 << 20, 0).decode(errors="replace")
    reasons = [line.removeprefix("wandb: ")[:200] for line in printed.splitlines() if "encountered (" in line]
    refused = "Fatal error while uploading" in printed
    say = f"W&B did not take everything ({(reasons or ['the server refused it'])[0]}); {LATER.format(id=run.id)}" if refused else ""
    reply(record={"wandb": {"whole": True, "uploaded": not tracker.offline and not refused}}, say=say, end=True)


def _connect(run: Run, options: dict[str, Any], reply: Callable[..., None]) -> Any:
    """The W&B run, offline where online is not possible; ConfigError: it must be online, and there is no key."""
    import wandb

    mode, problem = options["mode"], ""
    if mode == "online":
        no_key, unreachable = online_problem()
        if no_key and options["required"]:
            way_out = "set WANDB_API_KEY, run `wandb login`, or leave it at logger.mode=auto"
            raise ConfigError(f"logger.mode=online, but {no_key}: {way_out}.")
        problem = no_key or unreachable
    try:
        tracker = _open(run, options, mode := "offline" if problem else mode)
    except Exception as error:
        if mode == "offline":
            raise
        problem = f"no answer ({first_line(error)[:120]})"
        wandb.teardown()  # the service of the attempt holds the id
        tracker = _open(run, options, mode := "offline")
    url = tracker.url if mode == "online" else None
    facts = {"id": tracker.id, "project": tracker.project, "entity": tracker.entity or None, "mode": mode, "url": url}
    facts |= {"folder": str(Path(tracker.dir).parent), "whole": False, "uploaded": False}
    offline = f"offline{f', {problem}' if problem else ''}; {LATER.format(id=run.id)}"
    reply(record={"wandb": facts}, say=f"W&B: {url or offline}")
    return tracker


def online_problem(*, silent: bool = False) -> tuple[str, str]:
    """What is wrong with the key (variable or netrc), and why the server cannot be reached; empty texts if nothing is. Takes seconds."""
    import wandb

    wandb.setup(settings=wandb.Settings(mode="online", silent=silent))
    try:
        if not wandb.login(prompt=False, verify=False):
            return "no key", ""
    except Exception as error:  # a key that cannot be one
        return first_line(error), ""
    url = f"{wandb.setup().settings.base_url}/graphql"
    request = urllib.request.Request(url, b'{"query":"query{__typename}"}', {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=2.0).close()
    except urllib.error.HTTPError as error:  # any answer is one, except for the server's own failure
        return "", f"the server failed with {error.code}" if error.code >= 500 else ""
    except (OSError, ValueError, HTTPException) as error:
        reason = str(getattr(error, "reason", error))
        return "", "" if "CERTIFICATE" in reason else f"no network ({reason})"  # wandb has its own certificates
    return "", ""


def _open(run: Run, options: dict[str, Any], mode: Any) -> Any:
    """The W&B run, with its axes and summaries."""
    import wandb

    place = options["place"] | ({"resume": "allow"} if mode == "online" else {})
    folder, run_id = run.path / "wandb", place.get("id") or os.environ.get("WANDB_RUN_ID")
    older = [old for old in sorted(folder.glob(f"*run-*-{run_id}")) if old.name[0] in "or"]
    for number, old in enumerate(older, start=len(list(folder.glob("superseded-*"))) + 1):  # wandb's own names repeat within a second
        old.rename(old.with_name(f"superseded-{number}-{old.name}"))
    # Provenance and log are ours: W&B's hold whatever was typed, and credentials of the remote. Copies, for a run directory may be moved.
    settings = wandb.Settings(
        init_timeout=options["seconds"], console="off", symlink=False, x_disable_meta=True, disable_git=True, disable_code=True
    )
    tracker = wandb.init(dir=str(run.path), mode=mode, settings=settings, **place, **describe(run))
    tracker.define_metric("train/tokens")
    tracker.define_metric("*", step_metric="train/tokens")
    for name in SMALLER_IS_BETTER:
        tracker.define_metric(name, step_metric="train/tokens", summary="min")
    return tracker


def _log_rows(tracker: Any, run: Run, every: int, ended: threading.Event) -> None:
    """Log rows, samples and pictures as they come, until the record has ended; of an online run that is resumed W&B has the beginning."""
    import wandb

    known = tracker.step
    table = wandb.Table(columns=["step", "tokens", "title", "text"], log_mode="INCREMENTAL")
    for step, one in (entry for new in follow(run, every, ended) for entry in new):
        if isinstance(one, Path):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                tracker.log({f"plots/{one.stem}": wandb.Image(str(one))}, step=max(step, known))  # else a later sample is dropped
        elif step < known:
            continue
        elif isinstance(one, Sample):
            table.add_data(*one)
            tracker.log({"train/tokens": one.tokens, "samples": table}, step=step)
        else:
            when = {"_timestamp": one["time"]} if "time" in one else {}  # of the step, also where it is logged later
            tracker.log({name: value for name, value in one.items() if name not in ("step", "time")} | when, step=step)


def _artifacts(run: Run) -> Iterator[Any]:
    """The tokenizer, a description of the token store (never the text), named by their content, and the best weights, if any were saved."""
    import wandb

    data, summary = run.info["data"], run.info.get("summary") or {}
    named = {"tokenizer": f"tokenizer-{data['tokenizer'][:12]}", "token-store": f"tokens-{data['store'][:12]}"}
    saved = wandb.Artifact(named["tokenizer"], "tokenizer", metadata={"digest": data["tokenizer"], "vocab_size": data["vocab_size"]})
    saved.add_dir(str(run.path / "tokenizer"))
    described = wandb.Artifact(named["token-store"], "token-store", metadata={**data, "made_with": named["tokenizer"]})
    with described.new_file("description.json") as file:
        json.dump(data, file, indent=2, sort_keys=True)
    yield from (saved, described)
    folder = run.path / "checkpoints" / f"step-{int(summary.get('best/step') or 0):08d}"
    if folder.is_dir():
        made_from = {"run": run.name, "trained_on": named | {"parent": run.info.get("parent")}}
        weights = wandb.Artifact(f"model-{run.id}", "model", metadata={**summary, **made_from})
        for part in (*sorted(folder.glob("model*.safetensors")), folder / "checksums.json"):
            weights.add_file(str(part))
        yield weights
