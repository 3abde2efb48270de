"""Where a run comes from: version, commit, uncommitted changes, interpreter and libraries.

Only the package's own checkout counts: an installed wheel inside somebody's repository is not that repository. Without
git, or where git refuses, the code is "unversioned" and the record says why. Imports no library to ask its version.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gptshake import __version__
from gptshake.errors import RecordError
from gptshake.files import sha256, write_atomic
from gptshake.hardware import cpu_name

GUARDED = ("src", "conf", "pyproject.toml", "constraints.txt")  # what decides the numbers of a run
MAX_COPY = 1 << 20  # bytes of an untracked file that is still copied
_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "safetensors", "datasets", "wandb", "optuna")
_CUDA = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")


class _Refused(Exception):
    """Git is missing, or did not do what it was asked; the text says why."""


def collect() -> dict[str, Any]:
    """Version, git, environment: plain values for run.json.

    ``git`` holds commit, branch, remote (without credentials), dirty and diff_sha256; or ``unversioned`` with the reason.
    """
    return {
        "version": __version__,
        "git": _git_state(),
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: version for name in _PACKAGES if (version := _version(name))},
            "cuda": next((version for name in _CUDA if (version := _version(name))), None),
            "cpu": cpu_name(),
        },
    }


def checkout_root() -> Path | None:
    """The checkout that this package runs from; None for a wheel, without git, or where git refuses."""
    try:
        return _checkout()
    except _Refused:
        return None


def uncommitted(root: Path | None = None) -> list[str]:
    """Changed, added, removed or untracked files that decide a run's numbers, relative to ``root``, sorted.

    Args:
        root: the checkout; the package's own by default, and then an unversioned package has none.
    Raises:
        RecordError: if git refuses in a checkout that was given.
    """
    own = root or checkout_root()
    try:
        return _uncommitted(own) if own else []
    except _Refused as refusal:
        raise RecordError(f"git cannot say what changed in {own}: {refusal}.") from refusal


def save_patch(run_dir: Path) -> list[str]:
    """Keep the uncommitted changes in a run directory: diff.patch, and copies of untracked files under untracked/.

    Returns:
        Untracked files that were left out: larger than ``MAX_COPY`` bytes, or no plain files.
    """
    root = checkout_root()
    if root is None:
        return []
    if patch := _patch(root):
        write_atomic(run_dir / "diff.patch", patch)
    left_out = []
    for name in _untracked(root):
        source, target = root / name, run_dir / "untracked" / name
        if source.is_symlink() or not source.is_file() or source.stat().st_size > MAX_COPY:
            left_out.append(name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return left_out


def copy_patch(source: Path, run_dir: Path) -> None:
    """Give a run the uncommitted changes that ``save_patch`` kept in another folder."""
    if (source / "diff.patch").exists():
        write_atomic(run_dir / "diff.patch", (source / "diff.patch").read_bytes())
    if (source / "untracked").is_dir():
        shutil.copytree(source / "untracked", run_dir / "untracked", dirs_exist_ok=True)


def without_credentials(remote: str) -> str:
    """A remote's address without user, password, token or query; ``git@host:path`` stays as it is."""
    if "://" not in remote:  # host:path, or a folder
        user, at, rest = remote.partition("@")
        return remote if not at or user == "git" or "/" in user else rest
    parts = urlsplit(remote)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _git_state() -> dict[str, Any]:
    try:
        root = _checkout()
        return {
            "commit": _commit(root),
            "branch": _answer(root, "symbolic-ref", "--quiet", "--short", "HEAD"),
            "remote": without_credentials(_answer(root, "remote", "get-url", "origin") or "") or None,
            "dirty": bool(_uncommitted(root)),
            "diff_sha256": _diff_sha256(root),
        }
    except _Refused as refusal:
        return {"unversioned": str(refusal)}


def _checkout() -> Path:
    root = Path(__file__).resolve().parents[3]
    if not (root / "pyproject.toml").exists() or not (root / "src" / "gptshake").is_dir():
        raise _Refused("installed from a wheel, not run from a checkout")
    top = os.fsdecode(_git(root, "rev-parse", "--show-toplevel").rstrip(b"\n"))
    if not top or Path(top).resolve() != root:
        raise _Refused("the package's folder is no git checkout of its own")
    return root


def _commit(root: Path) -> str | None:
    return _answer(root, "rev-parse", "--verify", "--quiet", "HEAD")


def _answer(root: Path, *command: str) -> str | None:
    """One line, or None where git has no answer, as with a detached HEAD or no commit yet."""
    try:
        return _git(root, *command).decode(errors="replace").strip() or None
    except _Refused:
        return None


def _uncommitted(root: Path) -> list[str]:
    # --no-renames: a renamed file is one removed and one added, so every entry has one path.
    entries = _git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", *GUARDED).split(b"\0")
    return sorted(_text(entry[3:]) for entry in entries if entry)


def _untracked(root: Path) -> list[str]:
    return sorted(map(_text, filter(None, _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *GUARDED).split(b"\0"))))


def _patch(root: Path) -> bytes:
    base = _commit(root) or _git(root, "hash-object", "-t", "tree", os.devnull).decode().strip()  # before the first commit: the empty tree
    return _git(root, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", base, "--", *GUARDED)


def _diff_sha256(root: Path) -> str | None:
    """One hash over the patch and every untracked file; None if nothing is uncommitted."""
    patch, untracked = _patch(root), _untracked(root)
    if not patch and not untracked:
        return None
    digest = hashlib.sha256(patch)
    for name in untracked:
        content = (root / name).read_bytes() if (root / name).is_file() else b""
        digest.update(f"\0{name}\0{hashlib.sha256(content).hexdigest()}".encode(errors="replace"))
    return digest.hexdigest()


def _git(root: Path, *command: str) -> bytes:
    # A hook's GIT_DIR would point elsewhere; a read must take no lock and start no helper of the user's.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith("GIT_CONFIG")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    arguments = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *command]
    try:
        done = subprocess.run(arguments, cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Refused("git is not installed" if isinstance(error, FileNotFoundError) else f"git did not answer: {error}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _Refused(f"git refused: {lines[0] if lines else f'exit code {done.returncode}'}")
    return done.stdout


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")


def code_sha256() -> str:
    """One hash over the package's files and its config tree: equal in a wheel and in the checkout that it was made from."""
    digest = hashlib.sha256()
    for name, file in sorted(_own_files()):
        digest.update(f"{name}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def _own_files() -> Iterator[tuple[str, Path]]:
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    conf = package / "conf" if (package / "conf").is_dir() else checkout
    folders = {"gptshake": package, "hydra_plugins": package.parent / "hydra_plugins" / "gptshake_sweeper", "conf": conf}
    for place, folder in folders.items():
        for file in folder.rglob("*"):
            within = file.relative_to(folder)
            if file.is_file() and "__pycache__" not in within.parts and (place == "conf") == (file.suffix == ".yaml"):
                yield f"{place}/{within.as_posix()}", file
