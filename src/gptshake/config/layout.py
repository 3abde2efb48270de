"""Where the config folders are and which options they hold, read from the disk alone: no Hydra, so help is instant."""

import os
from collections.abc import Iterable
from pathlib import Path

from gptshake.errors import ConfigError
from gptshake.files import expanded

GROUPS = (
    *("model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "logger", "callbacks"),
    *("search_space", "sampler", "pruner", "executor", "experiment", "task", "debug", "paths"),
)

# Names of earlier versions, still accepted but no longer listed: data=wiki_bpe is data=wiki tokenizer=bpe.
OLD_OPTIONS = {
    "data": {
        f"{source}_{tokenizer}": (source, tokenizer)
        for source in ("wiki", "shakespeare", "text", "hf")
        for tokenizer in ("bpe", "byte", "gpt2", "sentencepiece")
    }
}

# Targets of earlier versions, still accepted: what records, and config of the user's own, may hold.
OLD_TARGETS = {
    "gptshake.record.sinks.wandb.WandbSink": "gptshake.record.trackers.wandb.WandbTracker",
    "gptshake.record.sinks.tensorboard.TensorBoardSink": "gptshake.record.trackers.tensorboard.TensorBoardTracker",
}

CONFIG_DIR = "GPTSHAKE_CONFIG_DIR"  # variable that hands --config-dir on to processes of ours
SWEPT_FILES = "GPTSHAKE_SWEPT_FILES"  # the same for files of ``experiment=`` that are swept


def packaged_conf() -> Path:
    """The config tree of this installation: a checkout's own ``conf/`` first, else the copy inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


def check_working_directory() -> None:
    """Refuse one that was removed: it has no path."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("The working directory was removed: change to another.") from error


def add_folder(folder: str | None) -> None:
    """Let a folder count like ``./conf``, here and in the processes that this one begins."""
    if folder is not None:
        path = expanded(folder).absolute()
        if not path.is_dir():
            raise ConfigError(f"--config-dir {folder}: there is no such folder.")
        os.environ[CONFIG_DIR] = str(path)


def local_confs() -> list[Path]:
    """The user's own folders of config: ``./conf``, and that of ``--config-dir``; the packaged tree is none of them."""
    folders = [Path.cwd() / "conf", *map(Path, filter(None, map(os.environ.get, (CONFIG_DIR, SWEPT_FILES))))]
    there = {folder.resolve(): folder for folder in folders if folder.is_dir()}
    return [folder for real, folder in there.items() if real != packaged_conf().resolve()]


def local_files() -> dict[str, Path]:
    """The user's own files by their place below the folder of config."""
    found: dict[str, Path] = {}
    for folder in local_confs():
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder).as_posix()
            if name.startswith(".env") or "/.env" in name:  # secrets are no options
                continue
            if name in found:
                raise ConfigError(f"{found[name]} and {file} are the same option: rename one of them.")
            found[name] = file
    return found


def own_files(targets: Iterable[str]) -> dict[str, bytes]:
    """Every config file of the user's own, as ``conf/<group>/<name>.yaml`` wherever its folder lies, and the Python files that ``_target_``s
    are in, by their path below the working directory; of a package the whole. Each with its content.
    """
    here, code = Path.cwd(), set[Path]()
    for name in {target.partition(".")[0] for target in targets} - {"", "gptshake"}:
        code.update([here / f"{name}.py"] if (here / f"{name}.py").is_file() else (here / name).rglob("*.py"))
    files = {f"conf/{name}": file for name, file in sorted(local_files().items())} | {
        file.relative_to(here).as_posix(): file for file in sorted(code)
    }
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}


def options(group: str) -> list[str]:
    """Names that ``group=`` accepts, packaged and local, in alphabetical order; without files that only others take over (``_common``)."""
    folders = [folder / group for folder in (packaged_conf(), *local_confs())]
    files = {file.relative_to(folder) for folder in folders for file in folder.rglob("*.yaml") if not file.name.startswith("_")}
    return sorted(file.with_suffix("").as_posix() for file in files)


def is_option(group: str, name: str) -> bool:
    """Whether ``group=name`` can be composed, by an old name too."""
    return name in options(group) or name in OLD_OPTIONS.get(group, {})


def option_files(group: str, option: str) -> list[Path]:
    """The files that ``group=option`` may mean, a packaged one first."""
    return [file for folder in (packaged_conf(), *local_confs()) if (file := folder / group / f"{option}.yaml").is_file()]
