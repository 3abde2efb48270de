"""The code of this moment as git sees it: commit, and what is not committed, kept so that it can be made again.

Only the package's own checkout counts: an installed wheel inside somebody's repository is not that repository. Without git, or
where git refuses, the code is "unversioned" and says why. A secret in a change is hidden, and the file is named in
``git.redacted``: such a patch may no longer apply. A ``.env`` is never read.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gptshake.files import sha256, write_atomic
from gptshake.redaction import redact_code

GUARDED = ("src", "conf", "pyproject.toml", "constraints.txt")  # what decides the numbers of a run
MAX_COPY = 1 << 20  # bytes of an untracked file that is still copied
MAX_COPIES = 16 << 20  # bytes of all of them together


class _Refused(Exception):
    """Git is missing, or did not do what it was asked; the text says why."""


@dataclass(frozen=True)
class Code:
    """What a run runs, read once when the command begins.

    Attributes:
        git: for run.json: ``commit``, ``branch``, ``remote`` (without credentials), ``dirty``, ``diff_sha256``, ``untracked`` (file to
            SHA-256 of what was kept of it; null: not read), ``left_out`` (not copied) and ``redacted`` (a secret was hidden); or
            ``unversioned`` with the reason.
        files: changed, added, removed and untracked files that decide a run's numbers, relative to the checkout, sorted.
        patch: all changes of tracked files, as ``git apply`` takes them.
        untracked: contents by name.
        unread: why git could not say what is uncommitted in a checkout; empty if it could.
    """

    git: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    patch: bytes = b""
    untracked: dict[str, bytes] = field(default_factory=dict)
    unread: str = ""

    def save(self, folder: Path) -> None:
        """Keep what is not committed in a run directory: diff.patch, and copies of untracked files under untracked/."""
        if self.patch:
            write_atomic(folder / "diff.patch", self.patch)
        for name, content in self.untracked.items():
            target = folder / "untracked" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def read_code() -> Code:
    """Ask git about the package's own checkout."""
    try:
        root = _checkout()
    except _Refused as refusal:
        return Code({"unversioned": str(refusal)})
    try:
        return _read(root)
    except _Refused as refusal:
        return Code({"unversioned": str(refusal)}, unread=str(refusal))


def read_workspace() -> dict[str, Any] | None:
    """Commit, branch, remote and ``dirty`` of the user's own repository, in which the command was typed.

    Returns:
        None outside of any, in the package's own checkout, or where git refuses. ``dirty`` is None in a repository whose own config
        names filters, for git would run them: it may be somebody else's.
    """
    here = Path.cwd()
    try:
        root = Path(os.fsdecode(_git(here, "rev-parse", "--show-toplevel").rstrip(b"\n")))
        if root.resolve() == checkout_root():
            return None
        filters = _answer(root, "config", "--local", "--includes", "--get-regexp", r"^filter\.")
        status = None if filters else _git(root, "status", "--porcelain", "--ignore-submodules=all")
    except _Refused:
        return None
    return {
        "commit": _answer(root, "rev-parse", "--verify", "--quiet", "HEAD"),
        "branch": _answer(root, "symbolic-ref", "--quiet", "--short", "HEAD"),
        "remote": without_credentials(_answer(root, "remote", "get-url", "origin") or "") or None,
        "dirty": None if status is None else bool(status),
    }


def checkout_root() -> Path | None:
    """The checkout that this package runs from; None for a wheel, without git, or where git refuses."""
    try:
        return _checkout()
    except _Refused:
        return None


def without_credentials(remote: str) -> str:
    """A remote's address without user, password, token or query; ``git@host:path`` stays as it is."""
    if "://" not in remote:  # host:path, or a folder
        user, at, rest = remote.partition("@")
        return remote if not at or user == "git" or "/" in user else rest
    parts = urlsplit(remote)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _checkout() -> Path:
    sources, root = Path(__file__).resolve().parents[2:4]
    if sources.name != "src":
        raise _Refused("installed from a wheel, not run from a checkout")
    top = os.fsdecode(_git(root, "rev-parse", "--show-toplevel").rstrip(b"\n"))
    if not top or Path(top).resolve() != root:
        raise _Refused("the package's folder is no git checkout of its own")
    return root


def _read(root: Path) -> Code:
    commit, files = _answer(root, "rev-parse", "--verify", "--quiet", "HEAD"), _uncommitted(root)
    patch, hidden = _without_secrets(_patch(root, commit), root)
    copies, hashes, left_out = dict[str, bytes](), dict[str, str | None](), [name for name in files if _is_dotenv(name)]
    for name in _untracked(root) if files else ():
        content, hashes[name] = _content(root / name, MAX_COPIES - sum(map(len, copies.values())))
        if content is None:
            left_out.append(name)
            continue
        copies[name] = redact_code(content, name)
        if copies[name] != content:
            hidden.append(name)
            hashes[name] = hashlib.sha256(copies[name]).hexdigest()
    about = {
        "commit": commit,
        "branch": _answer(root, "symbolic-ref", "--quiet", "--short", "HEAD"),
        "remote": without_credentials(_answer(root, "remote", "get-url", "origin") or "") or None,
        "dirty": bool(files),
        "diff_sha256": changes_sha256(patch, hashes) if files else None,
        "untracked": hashes,
        "left_out": sorted(set(left_out)),
        "redacted": sorted(hidden),
    }
    return Code(about, files, patch, copies)


def _content(file: Path, room: int) -> tuple[bytes | None, str | None]:
    """A file's content if it is to be copied, and its hash. A link counts as the path that it holds and is never followed."""
    if file.is_symlink():
        return None, hashlib.sha256(os.fsencode(file.readlink())).hexdigest()
    if not file.is_file():  # a repository within the checkout
        return None, None
    if file.stat().st_size > min(MAX_COPY, room):
        return None, sha256(file)
    content = file.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _without_secrets(patch: bytes, root: Path) -> tuple[bytes, list[str]]:
    """The patch with its secrets hidden, and the files that are no longer as they were; a binary one is left out whole."""
    kept, hidden = [], []
    for section in re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE):
        name = _text(section.partition(b"\n")[0].rpartition(b" b/")[2]).strip('"')
        if b"\nGIT binary patch\n" in section:
            content = (root / name).read_bytes() if (root / name).is_file() else b""
            clean = section if redact_code(content, name) == content else b""
        else:
            clean = redact_code(section, name)
        kept.append(clean)
        if clean != section:
            hidden.append(name)
    return b"".join(kept), hidden


def _is_dotenv(name: str) -> bool:
    return any(part.startswith(".env") for part in Path(name).parts)


def changes_sha256(patch: bytes, untracked: Mapping[str, str | None]) -> str:
    """One hash over the patch and every untracked file."""
    digest = hashlib.sha256(patch)
    for name, known in sorted(untracked.items()):
        digest.update(f"\0{name}\0{known}".encode(errors="replace"))
    return digest.hexdigest()


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
    names = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *GUARDED).split(b"\0")
    return sorted(name for name in map(_text, filter(None, names)) if not _is_dotenv(name))


def _patch(root: Path, commit: str | None) -> bytes:
    base = commit or _git(root, "hash-object", "-t", "tree", os.devnull).decode().strip()  # before the first commit: the empty tree
    paths = (*GUARDED, ":(exclude,glob)**/.env*", ":(exclude,glob)**/.env*/**")
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")  # whatever the user's own git writes
    return _git(root, "diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", *prefixes, base, "--", *paths)


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


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
