"""``task=cloud``: the same command on a rented machine, as a SkyPilot task file and, for Vast, as plain commands; started only with ``task.launch``."""

import hashlib
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gptshake import hardware
from gptshake.config.arguments import override_value
from gptshake.config.experiments import EXPERIMENT
from gptshake.config.overrides import locate
from gptshake.config.validate import check_groups
from gptshake.context import Context
from gptshake.errors import ConfigError, GptshakeError
from gptshake.estimate.forecast import CERTAIN, CHECKPOINTS
from gptshake.estimate.formatting import short_bytes
from gptshake.export import cloud
from gptshake.export.hub import HF
from gptshake.files import expanded, sha256, sha256_text, write_atomic
from gptshake.keys import AUTO, key_of
from gptshake.record.git import checkout_root, on_remote, run_git
from gptshake.redaction import redact, redact_code
from gptshake.report.tasks_text import plan_text
from gptshake.setup.plan import plan

HERE = ("task", "dirty", "resume", "paths")  # keys that mean this machine and this command
SETUP_HOURS = 0.2  # to start a machine and to install 3 GB
ENDING_MINUTES = 5  # in which a training that is stopped writes its checkpoint
BASE_GB, SWEPT = 40, 8  # of the disk: system, CUDA, caches; runs of a sweep that keep checkpoints at once


def run(context: Context) -> None:
    """Print the plan and its price, write the files, and start the machine if that was asked for and confirmed.

    Raises:
        ConfigError: what the cloud cannot do, what is missing, a secret in the command, or nobody who could confirm.
    """
    cfg, choices = context.config, context.spec.choices
    check_groups(cfg)
    job = _job(context)
    cloud.check(job)
    if cfg.task.launch:
        _check_start(job)
    gpu = hardware.KNOWN_GPUS[job.gpu]
    if not job.can.rented and cfg.task.price_per_hour is None:
        cfg.task.price_per_hour = 0.0
    facts = plan(cfg, context.store, f"{choices['model']} · {choices['data']} · {context.store.label}", gpu)
    if (needed := facts["memory"].total) is not None and needed > CERTAIN * gpu.memory:
        raise ConfigError(
            f"The run needs about {short_bytes(needed)} and a {job.gpu} has {short_bytes(gpu.memory)}: "
            "take another task.gpu=, a smaller data.micro_batch_size=, or more devices with trainer=fsdp."
        )
    job = _priced(job, sum(facts["seconds"].values()) / 3600, facts["price_per_hour"])
    tokens = sum(4 * split.n_tokens for split in context.store.splits)
    sent = sum(file.stat().st_size for path in job.files.values() for file in _files_of(path))
    checkpoints = facts["checkpoint_bytes"] * CHECKPOINTS * (SWEPT if job.sweeps else 1)
    job = replace(job, disk_gb=BASE_GB + math.ceil((tokens + sent + checkpoints) / 1e9))
    folder = expanded(cfg.task.folder)
    _write({folder / f"{job.name}-files" / name: content for name, content in context.spec.local_conf.items()})
    texts = {folder / f"{job.name}.yaml": cloud.sky_text(job)} if job.sync else {}
    texts |= {folder / f"{job.name}-vast.sh": cloud.vast_script(job)} if job.cloud == "vast" else {}
    _write(texts)
    if "auto" in _wandb_modes(cfg) and "WANDB_API_KEY" not in job.secrets:
        print("WANDB_API_KEY is not set here (a key in ~/.netrc is not sent), so W&B is offline there.\n")
    print(f"{plan_text(facts)}\n\ncode: {_code_text(job)}\n{job.price}")
    for file in texts:
        words = ["bash", str(file)] if file.suffix == ".sh" else cloud.start_command(job, str(file))
        print(f"  {file}: {shlex.join(words)}")
    if cfg.task.launch:
        _start(job, folder / f"{job.name}.yaml")


def _job(context: Context) -> cloud.Job:
    """The machine and the command, without what the plan says."""
    cfg, task, spec, several = context.config, context.config.task, context.spec, context.config.trainer.get("strategy") is not None
    _check_machine(cfg, several=several)
    if (root := checkout_root()) is None:
        raise ConfigError("task=cloud installs the machine by the Makefile of a checkout, and this gptshake runs from none: git clone it.")
    files: dict[str, Path] = {}
    command = _command(context, files)
    if "resume=auto" not in command and task.hours is None:
        raise ConfigError("How long a sweep takes is not known before: give task.hours=, after which it is stopped.")
    name = re.sub(r"[^a-z0-9]+", "-", f"gptshake-{spec.choices['model']}-{spec.choices['data']}".lower())
    name += f"-{_identity(context, command, files)[:8]}"
    if spec.local_conf:
        files[cloud.WORK] = (expanded(task.folder) / f"{name}-files").absolute()
    return cloud.Job(
        name=name,
        cloud=str(task.cloud),
        gpu=str(task.gpu),
        gpus=cfg.trainer.devices if several else 1,
        spot=task.spot,
        command=command,
        root=root,
        origin=_origin(context, root),
        files=files,
        secrets=_secrets(cfg, command, spec.local_conf.values()),
        sync=task.sync,
        sync_key=task.sync_key and str(expanded(task.sync_key).absolute()),
        sync_minutes=task.sync_minutes,
        idle_minutes=task.idle_minutes,
        hours=task.hours or 0.0,
    )


def _check_machine(cfg: DictConfig, *, several: bool) -> None:
    if cfg.task.cloud is None or cfg.task.gpu is None:
        raise ConfigError(
            f"Choose a cloud and a GPU: task.cloud= is one of {', '.join(cloud.CLOUDS)}, task.gpu= of {', '.join(cloud.GPUS)}."
        )
    if cfg.trainer.accelerator in ("cpu", "mps"):
        raise ConfigError(f"trainer.accelerator={cfg.trainer.accelerator} would leave the rented GPU idle: leave it out.")
    if several and cfg.trainer.devices == AUTO:
        raise ConfigError("trainer.devices=auto is all GPUs of a machine: say how many to rent.")


def _command(context: Context, files: dict[str, Path]) -> list[str]:
    """The arguments of gptshake on the machine; ``files`` takes what they name here, to be sent there.

    Raises:
        ConfigError: the command holds a secret, or names what cannot be sent.
    """
    cfg, spec = context.config, context.spec
    if cfg.resume:
        raise ConfigError("resume= names a run of this machine; start a new one from its weights: init_from=<run>.")
    words = [word for word in spec.command if key_of(word).partition(".")[0] not in HERE]
    sweeps = bool({"-m", "--multirun"} & set(words))
    for key in ("data.path", "tokenizer.path", "init_from"):
        value = OmegaConf.select(cfg, key)
        typed = [word for word in words if key_of(word) == key]
        if value is None or not (texts := [value] if isinstance(value, str) else [str(text) for text in value]):
            continue
        if any("choice(" in word for word in typed):
            raise ConfigError(f"{typed[0]}: several values of {key} cannot be sent to another machine; write a task file for each.")
        sent = [_sent(key, text, spec.command, files) for text in texts]
        words = [word for word in words if key_of(word) != key] + [f"{key}={override_value(sent if len(sent) > 1 else sent[0])}"]
    _refuse_what_stays_here(cfg, words, spec.local_conf)
    return [*words, *([] if sweeps else ["resume=auto"]), *(["dirty=true"] if spec.code.files else [])]


def _refuse_what_stays_here(cfg: DictConfig, words: Iterable[str], local_conf: Mapping[str, bytes]) -> None:
    """Refuse what is not installed on the machine, cannot be sent there, or holds a secret."""
    for tracker in _trackers(cfg):
        if str(tracker.get("_target_")).endswith((".MlflowTracker", ".TrackioTracker")):
            raise ConfigError("logger=mlflow and logger=trackio are not installed on the machine: use logger=wandb, tensorboard or none.")
    for word in words:
        if key_of(word).rpartition("/")[2] == "executor" and word.partition("=")[2] != "local":
            raise ConfigError(f"{word}: the machine has its own GPUs only, and this executor is not installed there; leave it out.")
        if key_of(word) == EXPERIMENT and ".yaml" in word:
            raise ConfigError(f"{word}: a list of files cannot be sent to another machine; name one, or put them into conf/experiment.")
        if redact(word) != word:
            raise ConfigError(
                f"{key_of(word)}= holds a secret, which would be written into a file: write '{key_of(word)}=${{oc.env:NAME}}', and it is passed on as a secret."
            )
    for name, content in local_conf.items():
        if redact_code(content, name) != content:
            raise ConfigError(f"{name} holds a secret and would be sent to another machine: write ${{oc.env:NAME}} for it.")


def _identity(context: Context, command: list[str], files: Mapping[str, Path]) -> str:
    """One hash over all that decides the results: what another of it has left is neither restored nor continued."""
    code, contents = context.spec.code.git, context.spec.local_conf
    parts = [*command, str(code.get("commit")), str(code.get("diff_sha256"))]
    parts += [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(contents.items())]
    parts += [f"{name}/{file.relative_to(path)} {sha256(file)}" for name, path in files.items() for file in _files_of(path)]
    return sha256_text(chr(0).join(parts))


def _sent(key: str, text: str, overrides: list[str], files: dict[str, Path]) -> str:
    """What a path or the name of a run is called on the machine."""
    hub = HF if text.startswith(HF) else ""
    path = expanded(text.removeprefix(hub))
    if not path.exists():
        if hub:
            return text
        if key == "data.path":
            raise ConfigError(f"data.path={text} is neither a file nor a folder here that could be sent to another machine.")
        path = locate(text, overrides)
    name = f"{cloud.INPUTS}/{len(files)}-{re.sub(r'[^A-Za-z0-9_.-]', '-', path.name)}"  # into scripts, unquoted
    files[name] = path.absolute()
    return f"{hub}~/{name}"


def _origin(context: Context, root: Path) -> tuple[str, str] | None:
    """Repository and commit, if all that counts is committed and pushed to where a machine can clone it without a key; None: it is uploaded.

    Raises:
        ConfigError: git's own settings, which are uploaded too, hold a secret.
    """
    remote, commit = (context.spec.code.git.get(key) for key in ("remote", "commit"))
    if remote and remote.startswith("https://") and commit and not context.spec.code.files and on_remote(commit):
        return remote, commit
    settings = run_git(root, "config", "--local", "--list").decode(errors="replace")
    if redact(settings) != settings:
        raise ConfigError("The sources would be uploaded with .git/config, which holds a secret: keep it in a credential helper instead.")
    return None


def _code_text(job: cloud.Job) -> str:
    """Where the machine has its sources from."""
    if job.origin:
        return "{1:.10} of {0}".format(*job.origin)
    lacks = ", whose git history is elsewhere (.git is a file): the run will record no commit" if (job.root / ".git").is_file() else ""
    return f"uploaded from {job.root}{lacks}"


def _secrets(cfg: DictConfig, command: list[str], contents: Iterable[bytes]) -> tuple[str, ...]:
    """Names of the variables that the machine needs and no file may hold."""
    names: set[str] = set()
    for text in [*command, *(content.decode(errors="replace") for content in contents)]:
        names |= set(re.findall(r"\$\{oc\.env:([A-Za-z_]\w*)", text))
    modes = _wandb_modes(cfg)
    if "online" in modes or (modes != ["offline"] * len(modes) and "WANDB_API_KEY" in os.environ):
        names.add("WANDB_API_KEY")
    hub = any("source.hub." in word or HF in word for word in (*command, str(OmegaConf.select(cfg, "data.documents._target_"))))
    if hub and "HF_TOKEN" in os.environ:  # what is gated needs it
        names.add("HF_TOKEN")
    return tuple(sorted(names))


def _wandb_modes(cfg: DictConfig) -> list[str]:
    return [tracker.mode for tracker in _trackers(cfg) if str(tracker.get("_target_")).endswith(".WandbTracker")]


def _trackers(cfg: DictConfig) -> list[DictConfig]:
    return [] if not cfg.logger else [cfg.logger] if "_target_" in cfg.logger else list(cfg.logger.values())


def _priced(job: cloud.Job, hours: float, hourly: float) -> cloud.Job:
    """The job with its limit and with what it costs, in words; ``hourly`` is the price of an hour of all GPUs."""
    limit = job.hours or max(1.0, 2 * hours)
    idle = job.idle_minutes if job.sync else 0  # of SkyPilot's machine; Vast's plain script destroys its own at once
    longest = limit + SETUP_HOURS + (idle + ENDING_MINUTES) / 60
    most = f"{longest * hourly:.2f}"
    estimate = "" if job.sweeps else f"about {hours + SETUP_HOURS:.1f} h = ${(hours + SETUP_HOURS) * hourly:.2f}, "
    text = f"{job.gpus} x {job.gpu} at {job.cloud}: {estimate}at most {longest:.1f} h = ${most} at ${hourly:.2f} per hour."
    return replace(job, hours=limit, price=text, confirm=most, longest=longest)


def _write(contents: Mapping[Path, str | bytes]) -> None:
    for file, content in contents.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content)


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _check_start(job: cloud.Job) -> None:
    """Refuse to start what cannot start, before anything is written."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "task.launch=true rents a machine and asks for its price to be typed, and there is no terminal here: leave it out."
        )
    if not job.sync:
        raise ConfigError(
            "task.launch=true starts SkyPilot's task file, which needs task.sync=; without it there are plain commands for Vast only."
        )
    if shutil.which("sky") is None:
        raise ConfigError("task.launch=true calls `sky`, which is not installed: see docs.skypilot.co, or use the written file elsewhere.")
    if missing := [name for name in job.sky_secrets if not os.environ.get(name)]:
        raise ConfigError(f"{missing[0]} is not set, and the machine needs it: export it in this shell.")


def _start(job: cloud.Job, file: Path) -> None:
    try:
        typed = input(f"This costs money. Type {job.confirm} to rent: ").strip().removeprefix("$")
    except EOFError:
        typed = ""
    if typed != job.confirm:
        print("Nothing is started.")
    elif code := subprocess.run(cloud.start_command(job, str(file)), check=False).returncode:
        raise GptshakeError(
            f"sky ended with exit code {code}; what it said is above. "
            f"A machine may be up and charged: `sky status` and `sky jobs queue` show it, `sky down {job.name}` ends it."
        )
