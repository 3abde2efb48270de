"""A run as text for rented machines: a SkyPilot task file, and for Vast alone a script of plain ``vastai`` commands.

Both hold the same shell scripts, which lie beside this file: what installs a fresh machine, and what restores, trains and copies. Here are the
values that stand before them. Names of secrets are written, never their values. ``check`` refuses what SkyPilot's parser accepts and no cloud can do.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gptshake.errors import ConfigError, nearest
from gptshake.hardware import KNOWN_GPUS


@dataclass(frozen=True)
class Cloud:
    """What a cloud can do by SkyPilot 0.14.1 (its lists of unsupported features)."""

    spot: bool
    mounts: bool  # buckets as folders
    rented: bool = True  # False: the user's own machines


CLOUDS = {
    "vast": Cloud(spot=True, mounts=False),
    "runpod": Cloud(spot=True, mounts=False),
    "lambda": Cloud(spot=False, mounts=True),
    "kubernetes": Cloud(spot=False, mounts=True),
    "slurm": Cloud(spot=False, mounts=False, rented=False),  # mounts need FUSE on its nodes
    "ssh": Cloud(spot=False, mounts=True, rented=False),
}
# By the names of hardware.KNOWN_GPUS: those of SkyPilot's catalogues, of which any will do, and of Vast's offers. The pinned torch is built for
# CUDA 13, which has left out the generations before Turing (P100, V100).
GPUS = {
    "a100": (("A100-80GB", "A100-80GB-SXM"), ("A100_SXM4", "A100_PCIE")),
    "h100": (("H100", "H100-SXM"), ("H100_SXM", "H100_PCIE")),
    "h200": (("H200", "H200-SXM"), ("H200",)),
    "rtx3090": (("RTX3090",), ("RTX_3090",)),
    "rtx4090": (("RTX4090",), ("RTX_4090",)),
    "t4": (("T4",), ("Tesla_T4",)),
}
CUDA, DRIVER, PYTHON = "13.0", "580", "3.13"  # of the pinned torch; the oldest driver that knows that CUDA; of the machine's environment
WORK, INPUTS, KEY, MOUNT = "gptshake-work", "gptshake-inputs", "~/.ssh/gptshake-sync", "/gptshake-bucket"  # on the machine
BUCKET = re.compile(r"(s3|gs|r2)://[\w.-]+(/[\w./-]*)?")
SPOT = "# Spot: this is the most for each start of a machine; it usually costs less.\n"
HOST = re.compile(r"([\w.-]+)@([\w.-]+):([\w./~-]*)")


@dataclass(frozen=True)
class Job:
    """A run or a sweep, and the machine that it is for."""

    name: str
    cloud: str  # a word of CLOUDS, with more of SkyPilot's ``infra`` behind a slash, as in slurm/cluster/partition
    gpu: str  # a word of GPUS
    gpus: int  # of each machine
    spot: bool
    command: list[str]  # arguments of gptshake
    root: Path  # of the sources here
    origin: tuple[str, str] | None  # repository and commit to clone; None: the sources are uploaded
    files: Mapping[str, Path]  # path below the machine's home -> file or folder here
    secrets: tuple[str, ...]  # names of the variables that the command needs
    sync: str | None  # bucket, or user@host:folder
    sync_key: str | None  # file of the private key for that host
    sync_minutes: float
    idle_minutes: int
    hours: float  # after which the training is stopped
    disk_gb: int = 0
    price: str = ""  # in words, for the heads of the files
    confirm: str = ""  # what is typed to rent
    longest: float = 0.0  # hours that are paid at most

    @property
    def sky_secrets(self) -> tuple[str, ...]:
        """Names of the variables that SkyPilot passes on: those of the command, and the bucket's where rclone copies to it by itself."""
        own = str(self.sync).startswith("s3://") and not self.can.mounts
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *(["AWS_SESSION_TOKEN"] if "AWS_SESSION_TOKEN" in os.environ else []))
        return (*self.secrets, *(keys if own else ()))

    @property
    def sweeps(self) -> bool:
        return bool({"-m", "--multirun"} & set(self.command))

    @property
    def can(self) -> Cloud:
        return CLOUDS[self.cloud.partition("/")[0]]


def check(job: Job) -> None:
    """Refuse what SkyPilot's parser would accept and the cloud cannot do.

    Raises:
        ConfigError: with the way out.
    """
    word = job.cloud.partition("/")[0]
    if word not in CLOUDS:
        raise ConfigError(f"task.cloud={word} is not known{nearest(word.lower(), CLOUDS)} It is one of {', '.join(CLOUDS)}.")
    if job.gpu not in GPUS:
        near = nearest(re.sub(r"[\W_]|nvidia|geforce|tesla", "", job.gpu.lower()), GPUS)
        why = f"is too old for the CUDA {CUDA} of the pinned torch." if job.gpu in ("p100", "v100") else f"is not known{near}"
        raise ConfigError(f"task.gpu={job.gpu} {why} It is one of {', '.join(GPUS)}.")
    if not job.command:
        raise ConfigError("There is nothing to run: give model= and data=.")
    if job.spot and not job.can.spot:
        raise ConfigError(f"task.spot=true: {word} has no spot machines; leave it out.")
    if job.sync is None:
        if job.can.rented and word != "vast":
            raise ConfigError(
                "task.sync= is missing: what is only on a rented machine is lost with it. Give a bucket, as s3://bucket/folder, or user@host:folder."
            )
        return
    if HOST.fullmatch(job.sync):
        if job.sync_key is None or not Path(job.sync_key).is_file():
            raise ConfigError(
                f"task.sync={job.sync} needs task.sync_key=, the file of a private key that the host accepts; make one for this alone."
            )
    elif not BUCKET.fullmatch(job.sync):
        raise ConfigError(f"task.sync={job.sync} is neither a bucket, as s3://bucket/folder, nor user@host:folder.")
    elif not job.can.mounts and not job.sync.startswith("s3://"):
        raise ConfigError(f"task.sync={job.sync}: {word} cannot mount buckets, so this works with s3:// and user@host:folder only.")


def sky_text(job: Job) -> str:
    """SkyPilot's task file, with a head that says what it costs and how it is started."""
    head = f"# {job.price}\n{SPOT * job.spot}# {shlex.join(start_command(job, f'{job.name}.yaml'))}\n"
    return head + str(yaml.dump(sky_task(job), Dumper=_Blocks, sort_keys=False, width=10**6, allow_unicode=True))


def sky_task(job: Job) -> dict[str, Any]:
    """The task file as plain values."""
    names, offers = GPUS[job.gpu]
    if job.cloud == "vast":  # whose catalogue at SkyPilot has the names of the offers without memory and socket
        names = tuple(dict.fromkeys(re.sub(r"_|^Tesla|(SXM4|SXM|PCIE)$", "", name) for name in offers))
    resources: dict[str, Any] = {"infra": job.cloud, "accelerators": dict.fromkeys(names, job.gpus), "disk_size": job.disk_gb}
    resources |= {"autostop": {"idle_minutes": job.idle_minutes, "down": True}}
    resources |= {"use_spot": True, "job_recovery": {"strategy": "EAGER_NEXT_REGION"}} if job.spot else {}
    place, envs, mounts = _target(job)
    mounts |= {f"~/{name}": str(path) for name, path in job.files.items()}
    task = {
        "name": job.name,
        "resources": resources,
        "workdir": {"url": job.origin[0], "ref": job.origin[1]} if job.origin else str(job.root),
        "envs": envs,
        "secrets": dict.fromkeys(job.sky_secrets),  # null: by --secret, from the shell that starts it
        "file_mounts": mounts,
        "setup": _install_script("~/sky_workdir"),
        "run": _run_script(job, "~/sky_workdir", place),
    }
    return {key: value for key, value in task.items() if value}


def start_command(job: Job, file: str) -> list[str]:
    """The command that starts the task file: as a managed job, which SkyPilot recovers, on spot machines; else on a cluster of its own."""
    start = ["sky", "jobs", "launch", "--name", job.name] if job.spot else ["sky", "launch", "--cluster", job.name]
    return [*start, *(word for name in job.sky_secrets for word in ("--secret", name)), file]


def vast_script(job: Job) -> str:
    """Plain commands of ``vastai``, ssh and rsync: search, rent, install, run, copy here, destroy."""
    file, (_, offers) = f"{job.name}-vast.sh", GPUS[job.gpu]
    query = f"gpu_name in [{','.join(map(json.dumps, offers))}] gpu_ram>={KNOWN_GPUS[job.gpu].memory / 1.1e9:.0f} num_gpus={job.gpus} "
    query += f"disk_space>={job.disk_gb} cuda_vers>={CUDA} cpu_arch=amd64 reliability>0.98 inet_down>=200"
    sources = f"copy --filter=':- .gitignore' --exclude='.env*' --exclude=/.git/config --exclude=.venv {shlex.quote(str(job.root))}/"
    sent = [f'{sources} "$host:gptshake/"']
    sent += [f'copy {shlex.quote(str(path))}{"/" * path.is_dir()} "$host:{name}"' for name, path in job.files.items()]
    values: dict[str, Any] = {
        "name": job.name,
        "price": job.price,
        "hours": f"{job.longest:.4g}",
        "query": query,
        "image": f"python:{PYTHON}",
    }
    values |= {"disk": job.disk_gb, "secrets": " ".join(job.secrets), "seconds": f"{60 * job.sync_minutes:g}"}
    return f"""\
#!/usr/bin/env bash
# {job.price}
# A run at Vast by its own command line, for those who do not use SkyPilot (pip install vastai; vastai create ssh-key):
#   bash {file}                lists offers
#   bash {file} rent <offer>   rents one, starts the training, then does what fetch does; asks for its price to be typed
#   bash {file} fetch <id>     copies the results of an instance beside this file until it has ended, and destroys it; sends nothing
#   bash {file} destroy <id>   ends it now
# Vast charges until the instance is destroyed. If this script was stopped, the training goes on: fetch it, or destroy it.
{_assigned(values)}
send() {{
  {f"{chr(10)}  ".join(sent)}
}}
install_script() {{ cat <<'INSTALL'
{_install_script("~/gptshake")}INSTALL
}}
run_script() {{ cat <<'RUN'
{_run_script(job, "~/gptshake", "")}RUN
}}
{_shell("link")}{_shell("vast")}"""


def _target(job: Job) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Where rclone copies to, the variables that it is configured by, and what SkyPilot mounts for it."""
    if host := HOST.fullmatch(str(job.sync)):
        user, name, folder = host.groups()
        remote, mounts = {"TYPE": "sftp", "HOST": name, "USER": user, "KEY_FILE": KEY}, {KEY: job.sync_key}
    else:
        scheme, _, folder = str(job.sync).partition("://")
        if job.can.mounts:
            bucket, _, folder = folder.partition("/")
            place = "/".join(filter(None, (MOUNT, folder.strip("/"), job.name)))
            return place, {}, {MOUNT: {"source": f"{scheme}://{bucket}", "mode": "MOUNT_CACHED"}}
        remote, mounts = {"TYPE": "s3", "PROVIDER": "AWS", "ENV_AUTH": "true", "NO_CHECK_BUCKET": "true"}, {}
    place = "/".join(filter(None, (folder.rstrip("/"), job.name)))
    return f"out:{place}", {f"RCLONE_CONFIG_OUT_{key}": value for key, value in remote.items()}, mounts


def _install_script(sources: str) -> str:
    return f"sources={sources}\n{_assigned({'python': PYTHON, 'cuda': CUDA, 'driver': DRIVER})}\n{_shell('install')}"


def _run_script(job: Job, sources: str, place: str) -> str:
    """``place`` is rclone's name of where it copies to; empty: others fetch it."""
    train = " \\\n  ".join([f"{sources}/.venv/bin/gptshake", *map(shlex.quote, job.command)])
    limit = max(1, round(60 * job.hours))  # minutes; to `timeout` 0 means for ever
    values = {"place": place, "seconds": f"{60 * job.sync_minutes:g}", "limit": f"{limit}m"}
    return f"{_assigned(values)}\ntrain=({train})\n{_shell('link')}{_shell('run')}"


def _assigned(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}={shlex.quote(str(value))}" for name, value in values.items())


def _shell(name: str) -> str:
    return Path(__file__).with_name(f"cloud_{name}.sh").read_text(encoding="utf-8")


class _Blocks(yaml.SafeDumper):  # type: ignore[misc]
    """YAML's safe writer, with texts of several lines as blocks."""

    def represent_str(self, data: str) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Blocks.add_representer(str, _Blocks.represent_str)
