"""Weights & Biases as a mirror of the run record, under the run's own id; ``task=sync`` uploads later what could not be.

wandb runs in a process of its own, this file as a program, which follows the files of the record, and answers with lines of JSON: a start
or an end waits ten seconds at most, a row for nothing, and a service that hangs costs one sentence. The W&B step is the optimizer step.
An offline run is written anew at each start, because wandb keeps its history per process: older folders are ``superseded-1-...``.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from multiprocessing.connection import wait
from operator import itemgetter
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryFile
from typing import Any

from gptshake.errors import ConfigError, first_line
from gptshake.processes import Command
from gptshake.record.metrics import CHUNK_BYTES, Tail, history
from gptshake.record.run import Run
from gptshake.record.texts import Sample
from gptshake.record.trackers.protocol import Tracker
from gptshake.redaction import redact

START_SECONDS = FINISH_SECONDS = 9.0  # a run waits no longer for its mirror, whatever happens there; ten seconds are promised
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}  # of WANDB_MODE
SMALLER_IS_BETTER = ("val/loss", "val/bpb")


class WandbTracker(Tracker):
    """Mirrors rows, samples and pictures to W&B.

    Args:
        project: W&B project; None is that of the variable WANDB_PROJECT, else gptshake.
        entity: team or user; None is that of the variable WANDB_ENTITY, else the key's own.
        mode: ``auto`` is online with a key and offline without; the variable WANDB_MODE decides before that.
        every: a row is logged every so many steps, and whenever it holds a validation.
        artifacts: ``best`` uploads tokenizer, description of the data and best weights; never a trial's.
    """

    def __init__(
        self, project: str | None = None, entity: str | None = None, mode: str = "auto", every: int = 10, artifacts: str = "none"
    ) -> None:
        self.project = redact(project or os.environ.get("WANDB_PROJECT") or "gptshake")  # W&B keeps both in files of its own
        self.entity = redact(entity or os.environ.get("WANDB_ENTITY") or "") or None
        self.mode, self.every, self.artifacts = mode, every, artifacts
        self.waits = False  # however long it takes, as in task=sync
        self._child: Command | None = None  # while there is a mirror

    def mode_to_try(self) -> str:
        """online, offline or disabled; ``auto`` is what WANDB_MODE says, else online."""
        named = os.environ.get("WANDB_MODE") or "online"
        if self.mode == "auto" and named not in MODES:
            raise ConfigError(f"WANDB_MODE={named} is not known; it is one of {', '.join(MODES)}.")
        return self.mode if self.mode != "auto" else MODES[named]

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume; what W&B does not have of the run's history is written first."""
        self._run, mode = run, self.mode_to_try()
        if mode == "disabled":
            run.update(wandb={"mode": mode, "whole": False, "uploaded": False})
            return
        defaults = {"WANDB_DATA_DIR": str(run.path / "wandb"), "WANDB_ERROR_REPORTING": "false"}  # tables lie there until upload
        agents = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH") if run.info.get("trial") else ()
        env = defaults | os.environ | dict.fromkeys(("WANDB_SERVICE", *agents))  # the service of a wandb in this process
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), env.get("PYTHONPATH")]))
        command = [sys.executable, "-P", "-m", "gptshake.record.trackers.wandb", str(run.path), json.dumps(self._options(run, mode))]
        self._printed = TemporaryFile("a+b")  # noqa: SIM115 -- by wandb; appended to, so both processes can read it meanwhile
        pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": self._printed, "bufsize": 0}
        self._child = Command(command, env, process_group=0, **pipes)  # an interrupt at the terminal is the run's alone
        if not self._wait(START_SECONDS, "wandb"):
            run.say(f"W&B has not answered in {START_SECONDS:.0f} s; the run continues without waiting for it.")

    def _options(self, run: Run, mode: str) -> dict[str, Any]:
        """For ``track``. Under ``wandb agent`` a run is the agent's, or the sweep would not see its numbers; a trial of our own sweeps is not."""
        former, trial = run.info.get("wandb") or {}, run.info.get("trial")
        place = {"id": former.get("id") or run.id, "project": self.project, "entity": self.entity}
        if place["id"] != run.id:  # an agent began it
            place |= {"project": former["project"], "entity": former["entity"]}
        if os.environ.get("WANDB_SWEEP_ID") and not trial:
            place = {}
        options = {"mode": mode, "required": self.mode == "online", "every": self.every, "seconds": 60.0 if self.waits else 4.0}
        return options | {"place": place, "artifacts": self.artifacts == "best" and not trial}

    def row(self, row: Mapping[str, float]) -> None:
        """Print what became of the mirror, if there is news; the row itself is read from metrics.csv."""
        self._wait(0.0, "end")

    def finish(self) -> None:
        """End with the final numbers of the record; what is not uploaded in time is left to ``task=sync``."""
        if self._child and self._child.process.stdin:
            with contextlib.suppress(OSError):
                self._child.process.stdin.write(b"finish\n")
        if not self._wait(FINISH_SECONDS, "end"):
            self._end()
            later = f"upload later with: gptshake task=sync task.run={self._run.id}"
            self._run.say(f"W&B did not take everything (in {FINISH_SECONDS:.0f} s); {later}")

    def _wait(self, seconds: float, kind: str) -> bool:
        """Note and print answers until one of a kind comes, or there is no mirror any more; False if neither is so in time."""
        until, found = time.monotonic() + seconds, False
        while self._child and (answers := self._child.process.stdout) and not found:
            if not wait([answers.fileno()], None if self.waits else max(0.0, until - time.monotonic())):
                return False
            line = answers.readline()
            answer: dict[str, Any] = json.loads(line or "{}")
            if not line:
                self._printed.seek(0)
                why = self._printed.read().decode(errors="replace").strip().rpartition("\n")[2][:300] or "its process ended"
                answer = {"say": f"W&B failed and is left out from here on; the record of the run is complete ({why}).", "end": True}
            found = kind in answer
            if "wandb" in answer:
                self._run.update(wandb=answer["wandb"])
            if "end" in answer:
                self._end()
            if answer.get("say"):
                self._run.say(answer["say"])
            if "refused" in answer:
                raise ConfigError(answer["refused"])
        return True

    def _end(self) -> None:
        """End the process and wandb's service, frozen or not."""
        child, self._child = self._child, None
        if child is None:
            return
        for file in Path(f"/proc/{child.process.pid}/task").glob("*/children"):  # Linux; elsewhere the service sees that its parent is gone
            with contextlib.suppress(OSError):  # a thread that ends meanwhile, as all do when the process has done its work
                for service in file.read_text().split():
                    os.kill(int(service), signal.SIGKILL)
        child.kill()


def track(run: Run, options: dict[str, Any], ended: threading.Event, answer: Callable[..., None]) -> None:
    """Track a run until ``ended`` is set; ``answer`` takes ``wandb`` for run.json, ``say``, ``end`` and ``refused``."""
    import wandb

    for _ in history(run.path / "metrics.csv", options["every"]):
        pass  # a damaged row is an error, with its line; the tail would pass over it
    mode, problem, later = options["mode"], "", f"upload later with: gptshake task=sync task.run={run.id}"
    if mode == "online":
        no_key, unreachable = online_problem()
        if no_key and options["required"]:
            way_out = "set WANDB_API_KEY, run `wandb login`, or leave it at logger.mode=auto"
            answer(refused=f"logger.mode=online, but {no_key}: {way_out}.", end=True)
            return
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
    offline = ", ".join(filter(None, ("offline", problem)))
    answer(wandb=facts, say=f"W&B: {url or f'{offline}; {later}'}")
    for file in filter(Path.is_file, (run.path / "overrides", run.path / "diff.patch", *run.path.glob("untracked/**/*"))):
        tracker.save(str(file), base_path=str(run.path), policy="now")  # what repeats the run besides its config
    _follow(tracker, run, options["every"], ended)
    run = Run.open(run.path)  # as it ended
    try:
        for artifact in _artifacts(run) if options["artifacts"] else ():
            tracker.log_artifact(artifact, aliases=["best"] if artifact.type == "model" else None)
    except Exception as error:  # a quota that is used up costs the artifacts, not the mirror
        answer(say=f"W&B took no artifacts of this run: {first_line(error)}.")
    status = run.info["status"]
    final = {key: value for key, value in (run.info.get("summary") or {}).items() if key not in SMALLER_IS_BETTER}
    tracker.summary.update({**final, "status": status})
    tracker.finish(exit_code={"ok": 0, "pruned": 0, "interrupted": 255}.get(status, 1))  # 255 is W&B's "killed"
    wandb.teardown()  # its service writes its last words now: what the server refused is only printed
    printed = os.pread(2, 1 << 20, 0).decode(errors="replace") if mode == "online" else ""
    reasons = [line.removeprefix("wandb: ")[:200] for line in printed.splitlines() if "encountered (" in line]
    refused = "Fatal error while uploading" in printed
    say = f"W&B did not take everything ({(reasons or ['the server refused it'])[0]}); {later}" if refused else ""
    answer(wandb={"whole": True, "uploaded": mode == "online" and not refused}, say=say, end=True)


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
        "tags": list(dict.fromkeys(tag[:64] for tag in tags if tag)),  # W&B refuses longer ones
        "notes": info.get("note") or config.get("note") or None,
        "config": config | {"derived": derived} | ({"trial": trial} if trial else {}),
    }


def _follow(tracker: Any, run: Run, every: int, ended: threading.Event) -> None:
    """Log rows, samples and pictures as they come, until the record has ended; of an online run that is resumed W&B has the beginning."""
    import wandb

    path, known, reached, n_samples, drawn = run.path / "metrics.csv", tracker.step, -1, 0, dict[Path, float]()
    table = wandb.Table(columns=["step", "tokens", "title", "text"], log_mode="INCREMENTAL")
    tail = Tail(path)
    while True:
        last, new = ended.is_set(), tail.new(CHUNK_BYTES)
        rows = [row for row in new if row["step"] > reached and (row["step"] % every == 0 or "val/loss" in row)]
        reached = max([reached, *(int(row["step"]) for row in new)])
        all_read = last and not tail.more
        samples = [sample for sample in run.samples()[n_samples:] if sample.step <= reached or all_read]  # others wait for their row
        n_samples += len(samples)
        steps: list[tuple[int, Any]] = [*((int(row["step"]), row) for row in rows), *((sample.step, sample) for sample in samples)]
        for step, one in sorted(steps, key=itemgetter(0)):
            if step >= known and isinstance(one, Sample):
                table.add_data(*one)
                tracker.log({"train/tokens": one.tokens, "samples": table}, step=step)
            elif step >= known:
                when = {"_timestamp": one["time"]} if "time" in one else {}  # of the step, also where it is logged later
                tracker.log({name: value for name, value in one.items() if name not in ("step", "time")} | when, step=step)
        if tail.more:
            continue
        for picture in sorted((run.path / "plots").glob("*.png")):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if (changed := picture.stat().st_mtime) != drawn.get(picture):
                    drawn[picture] = changed
                    tracker.log({picture.stem: wandb.Image(str(picture))}, step=max(reached, known))  # else a later sample is dropped
        if last:
            return
        ended.wait(1.0)


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
        for name in ("model.safetensors", "checksums.json"):
            weights.add_file(str(folder / name))
        yield weights


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # the run gets them too, and says what follows
        signal.signal(number, signal.SIG_IGN)
    answers, ended = os.fdopen(os.dup(1), "w"), threading.Event()
    os.dup2(2, 1)  # wandb's service prints there, too

    def listen() -> None:
        for _ in sys.stdin:
            ended.set()
        os._exit(1)  # the run was killed

    threading.Thread(target=listen, daemon=True).start()
    try:
        options = json.loads(sys.argv[2])
        track(Run.open(Path(sys.argv[1])), options, ended, lambda **parts: print(json.dumps(parts), file=answers, flush=True))
    except (Exception, SystemExit) as error:
        print(first_line(error), file=sys.stderr)
    os._exit(0)  # wandb's own end would wait for its service


if __name__ == "__main__":
    _main()
