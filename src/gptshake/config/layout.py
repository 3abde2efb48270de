"""Where the config folders are and which options they hold, read from the disk alone: no Hydra, so help is instant."""

from collections.abc import Iterable
from pathlib import Path

GROUPS = (
    *("model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "logger", "callbacks"),
    *("search_space", "sampler", "pruner", "executor", "experiment", "task", "debug", "paths"),
)


def packaged_conf() -> Path:
    """The config tree of this installation: a checkout's own ``conf/`` first, else the copy inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


def local_conf() -> Path | None:
    """The user's own ``./conf``, if there is one and it is not the packaged tree."""
    folder = Path.cwd() / "conf"
    return folder if folder.is_dir() and folder.resolve() != packaged_conf() else None


def local_files() -> dict[str, bytes]:
    """Every config file of the user's own ``./conf`` with its content, by its path below the working directory."""
    local = local_conf()
    files = sorted(local.rglob("*.yaml")) if local else []
    return _contents(file for file in files if not any(part.startswith(".env") for part in file.relative_to(local or file).parts))


def local_code(targets: Iterable[str]) -> dict[str, bytes]:
    """The Python files of the user's own that ``_target_``s are in, with their content, by their path below the working directory.

    A target in a package brings the whole package.
    """
    here, found = Path.cwd(), set[Path]()
    for name in {target.partition(".")[0] for target in targets} - {"", "gptshake"}:
        found.update([here / f"{name}.py"] if (here / f"{name}.py").is_file() else (here / name).rglob("*.py"))
    return _contents(sorted(found))


def _contents(files: Iterable[Path]) -> dict[str, bytes]:
    return {file.relative_to(Path.cwd()).as_posix(): file.read_bytes() for file in files if file.is_file()}


def options(group: str) -> list[str]:
    """Names that ``group=`` accepts, packaged and local, in alphabetical order."""
    folders = [folder / group for folder in (packaged_conf(), local_conf()) if folder]
    return sorted({file.relative_to(folder).with_suffix("").as_posix() for folder in folders for file in folder.rglob("*.yaml")})


def shadowed() -> list[str]:
    """Local files that would replace a packaged option of the same name, relative to ``conf/``."""
    local = local_conf()
    if local is None:
        return []
    files = (file.relative_to(local) for file in sorted(local.rglob("*.yaml")))
    return [file.as_posix() for file in files if (packaged_conf() / file).is_file()]
