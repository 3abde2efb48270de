"""The code of this moment as git sees it: commit, and what is not committed, kept so that it can be made again, without secrets.

Only the package's own checkout counts; without git, or where git refuses, the code is "unversioned" and says why.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gptshake.files import sha256, write_atomic
from gptshake.redaction import redact_code

GUARDED = ("src", "conf", "pyproject.toml", "constraints.txt")  # what decides the numbers of a run
MAX_COPY = 1 << 20  # bytes of an untracked file that is still copied
MAX_COPIES = 16 << 20  # bytes of all of them together
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color")  # whatever the user's git is set to


class GitRefused(Exception):
    """Git is missing, or did not do what it was asked; the text says why."""


def run_git(folder: Path, *command: str, seconds: float = 10.0) -> bytes:
    """What git prints. It takes no lock to read, asks nothing, runs no hook or helper of the user's, and no variable points elsewhere."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith("GIT_CONFIG")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    settings = ("-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-c", f"core.hooksPath={os.devnull}")
    options: dict[str, Any] = {"cwd": folder, "env": env, "stdin": subprocess.DEVNULL, "timeout": seconds}
    try:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(["git", *settings, *command], capture_output=True, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitRefused("git is not installed" if isinstance(error, FileNotFoundError) else f"git did not answer: {error}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = next((line for line in lines if line.startswith("fatal: ")), lines[-1] if lines else f"exit code {done.returncode}")
        raise GitRefused(f"git refused: {reason.removeprefix('error: ').rstrip('.')}")
    return done.stdout


def _line_of(root: Path, *command: str) -> str | None:
    """One line, or None where git has no answer, as with a detached HEAD or no commit yet."""
    try:
        return run_git(root, *command).decode(errors="replace").strip() or None
    except GitRefused:
        return None


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
    root = None
    try:
        root = _checkout()
        return _read(root)
    except GitRefused as refusal:
        return Code({"unversioned": str(refusal)}, unread=str(refusal) if root else "")


def checkout_root() -> Path | None:
    """The checkout that this package runs from; None for a wheel, without git, or where git refuses."""
    try:
        return _checkout()
    except GitRefused:
        return None


def _checkout() -> Path:
    sources, root = Path(__file__).resolve().parents[2:4]
    if sources.name != "src":
        raise GitRefused("installed from a wheel, not run from a checkout")
    top = os.fsdecode(run_git(root, "rev-parse", "--show-toplevel").rstrip(b"\n"))
    if not top or Path(top).resolve() != root:
        raise GitRefused("the package's folder is not a git checkout of its own")
    return root


def read_workspace() -> dict[str, Any] | None:
    """Commit, branch, remote and ``dirty`` of the user's own repository, in which the command was typed.

    Returns:
        None outside of any, in the package's own checkout, or where git refuses. ``dirty`` is None in a repository whose own config
        names filters, for git would run them: it may be somebody else's.
    """
    try:
        root = Path(os.fsdecode(run_git(Path.cwd(), "rev-parse", "--show-toplevel").rstrip(b"\n")))
        if root.resolve() == checkout_root():
            return None
        filters = _line_of(root, "config", "--local", "--includes", "--get-regexp", r"^filter\.")
        return _head(root) | {"dirty": None if filters else bool(run_git(root, "status", "--porcelain", "--ignore-submodules=all"))}
    except GitRefused:
        return None


def _head(root: Path) -> dict[str, Any]:
    return {
        "commit": _line_of(root, "rev-parse", "--verify", "--quiet", "HEAD"),
        "branch": _line_of(root, "symbolic-ref", "--quiet", "--short", "HEAD"),
        "remote": without_credentials(_line_of(root, "remote", "get-url", "origin") or "") or None,
    }


def without_credentials(remote: str) -> str:
    """A remote's address without user, password, token or query; ``git@host:path`` stays as it is."""
    if "://" not in remote:  # host:path, or a folder
        user, at, rest = remote.partition("@")
        return remote if not at or user == "git" or "/" in user else rest
    parts = urlsplit(remote)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _read(root: Path) -> Code:
    head = _head(root)
    # --no-renames: a renamed file is one removed and one added, so every entry has one path
    status = run_git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", *GUARDED).split(b"\0")
    files = sorted(_text(entry[3:]) for entry in status if entry)
    patch, hidden = _patch(root, head["commit"])
    copies, hashes, left_out = dict[str, bytes](), dict[str, str | None](), [name for name in files if _is_dotenv(name)]
    others = run_git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *GUARDED).split(b"\0") if files else []
    for name in sorted(name for name in map(_text, filter(None, others)) if not _is_dotenv(name)):
        file, free = root / name, MAX_COPIES - sum(map(len, copies.values()))
        if file.is_symlink():
            hashes[name] = link_sha256(file)
        elif not file.is_file():  # a repository within the checkout
            hashes[name] = None
        elif file.stat().st_size > min(MAX_COPY, free):
            hashes[name] = sha256(file)
        else:
            content = file.read_bytes()
            copies[name] = redact_code(content, name)
            hashes[name] = hashlib.sha256(copies[name]).hexdigest()
            hidden += [name] if copies[name] != content else []
    changes = {
        "dirty": bool(files),
        "diff_sha256": changes_sha256(patch, hashes) if files else None,
        "untracked": hashes,
        "left_out": sorted({*left_out, *(hashes.keys() - copies.keys())}),
        "redacted": sorted(hidden),
    }
    return Code(head | changes, files, patch, copies)


def _patch(root: Path, commit: str | None) -> tuple[bytes, list[str]]:
    """All changes with their secrets hidden, and the files that are no longer as they were; a binary one is left out whole."""
    base = commit or run_git(root, "hash-object", "-t", "tree", os.devnull).decode().strip()  # before the first commit: the empty tree
    paths = (*GUARDED, ":(exclude,glob)**/.env*", ":(exclude,glob)**/.env*/**")
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")  # whatever the user's own git writes
    patch, kept, hidden = run_git(root, "diff", "--binary", *_PLAIN, "--no-renames", *prefixes, base, "--", *paths), b"", list[str]()
    for section in re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE):
        name = _text(section.partition(b"\n")[0].rpartition(b" b/")[2]).strip('"')
        if b"\nGIT binary patch\n" in section:
            content = (root / name).read_bytes() if (root / name).is_file() else b""
            clean = section if redact_code(content, name) == content else b""
        else:
            clean = redact_code(section, name)
        kept += clean
        hidden += [name] if clean != section else []
    return kept, hidden


def _is_dotenv(name: str) -> bool:
    return any(part.startswith(".env") for part in Path(name).parts)


def _text(path: bytes) -> str:
    return path.decode(errors="backslashreplace")


def changes_sha256(patch: bytes, untracked: Mapping[str, str | None]) -> str:
    """One hash over the patch and every untracked file."""
    digest = hashlib.sha256(patch)
    for name, known in sorted(untracked.items()):
        digest.update(f"\0{name}\0{known}".encode(errors="replace"))
    return digest.hexdigest()


def link_sha256(file: Path) -> str:
    """A link counts as the path that it holds and is never followed."""
    return hashlib.sha256(os.fsencode(file.readlink())).hexdigest()


def is_commit(text: str) -> bool:
    """Whether a text out of a record is a commit's hash; anything else might be an option of git's."""
    return re.fullmatch("[0-9a-f]{7,64}", text) is not None


def commits_between(old: str, new: str, shown: str = "%h %s", paths: Iterable[str] = GUARDED) -> list[str] | None:
    """``1a2b3c4 subject`` of every commit that ``new`` has, ``old`` has not, and that touches some paths; the newest first.

    None if there is no checkout, or it does not hold both commits.
    """
    return _lines("log", f"--format={shown}", f"{old}..{new}", "--", *paths) if is_commit(old) and is_commit(new) else None


def stat_between(old: str, new: str) -> list[str] | None:
    """``git diff --stat`` of source and config from one commit to another, with the line of sums at the end; None as above."""
    lines = _lines("diff", "--stat=100", *_PLAIN, old, new, "--", *GUARDED) if is_commit(old) and is_commit(new) else None
    return None if lines is None else [line.strip() for line in lines]


def on_remote(commit: str) -> bool:
    """Whether a commit of the package's own checkout was pushed to ``origin``, as far as is known here."""
    return bool(_lines("for-each-ref", "--contains", commit, "refs/remotes/origin"))


def _lines(*command: str) -> list[str] | None:
    """What git says of the package's own checkout; None without one, or where git refuses."""
    root = checkout_root()
    try:
        return None if root is None else run_git(root, *command).decode(errors="replace").splitlines()
    except GitRefused:
        return None
