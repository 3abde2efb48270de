"""The code of a run as git sees it: its commit, and what is not committed, kept without secrets, and restored in a temporary worktree.

Only the package's own checkout counts; without git, or where git refuses, the code is "unversioned" and says why. Such code cannot be
restored: then the installation at hand must have the same hash. The user's checkout, index and branches are only read.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gptshake.errors import RecordError
from gptshake.files import lock_file, sha256, write_atomic
from gptshake.redaction import redact_code

GUARDED = ("src", "conf", "pyproject.toml", "constraints.txt")  # what decides the numbers of a run
MAX_COPY = 1 << 20  # bytes of an untracked file that is still copied
MAX_COPIES = 16 << 20  # bytes of all of them together
PATCH, UNTRACKED = "diff.patch", "untracked"
PREFIX, TREE = "gptshake-code-", "code"  # of the temporary folder, and the worktree in it
TIMEOUT_S = 300.0  # of one git command; a large checkout on a slow disk takes a while
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


def _lines(root: Path | None, *command: str) -> list[str] | None:
    """What git says of a checkout; None without one, and where git refuses or has no answer, as with a detached HEAD or no commit yet."""
    with suppress(GitRefused):
        return run_git(root, *command).decode(errors="replace").splitlines() if root else None
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
            write_atomic(folder / PATCH, self.patch)
        for name, content in self.untracked.items():
            target = folder / UNTRACKED / name
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
        filters = _lines(root, "config", "--local", "--includes", "--get-regexp", r"^filter\.")
        return _head(root) | {"dirty": None if filters else bool(run_git(root, "status", "--porcelain", "--ignore-submodules=all"))}
    except GitRefused:
        return None


def _head(root: Path) -> dict[str, Any]:
    commands = ("rev-parse --verify --quiet HEAD", "symbolic-ref --quiet --short HEAD", "remote get-url origin")
    commit, branch, remote = (next(iter(_lines(root, *command.split()) or ()), None) for command in commands)
    return {"commit": commit, "branch": branch, "remote": without_credentials(remote or "") or None}


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
    said = run_git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", *GUARDED)
    states = {_text(entry[3:]): entry[:2] for entry in said.split(b"\0") if entry}
    files = sorted(states)
    for entry in map(_text, run_git(root, "ls-files", "-v", "-z", "--", *GUARDED).split(b"\0")):
        if (entry[:1].islower() or entry.startswith("S ")) and (root / entry[2:]).exists():
            flag = "skip-worktree" if entry.startswith("S") else "assume-unchanged"
            raise GitRefused(f"git does not look at {entry[2:]}, until `git update-index --no-{flag} {entry[2:]}`")
    patch, hidden = _patch(root, head["commit"])
    copies, hashes, left_out = dict[str, bytes](), dict[str, str | None](), [name for name in files if _is_dotenv(name)]
    for name in (name for name in files if states[name] == b"??" and not _is_dotenv(name)):
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
    return _lines(checkout_root(), "log", f"--format={shown}", f"{old}..{new}", "--", *paths) if is_commit(old) and is_commit(new) else None


def stat_between(old: str, new: str) -> list[str] | None:
    """``git diff --stat`` of source and config from one commit to another, with the line of sums at the end; None as above."""
    lines = _lines(checkout_root(), "diff", "--stat=100", *_PLAIN, old, new, "--", *GUARDED) if is_commit(old) and is_commit(new) else None
    return None if lines is None else [line.strip() for line in lines]


def on_remote(commit: str) -> bool:
    """Whether a commit of the package's own checkout was pushed to ``origin``, as far as is known here."""
    return bool(_lines(checkout_root(), "for-each-ref", "--contains", commit, "refs/remotes/origin"))


def code_sha256() -> str:
    """One hash over the package's files and its config tree: equal in a wheel and in the checkout that it was made from."""
    package = Path(__file__).resolve().parents[1]
    conf = package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"
    folders = {"gptshake": package, "hydra_plugins": package.parent / "hydra_plugins" / "gptshake_sweeper", "conf": conf}
    files = {}
    for place, folder in folders.items():
        for file in folder.rglob("*"):
            within = file.relative_to(folder)
            if file.is_file() and "__pycache__" not in within.parts and (place == "conf") == (file.suffix == ".yaml"):
                files[f"{place}/{within.as_posix()}"] = file
    lines = (f"{name}\0{sha256(file)}\n" for name, file in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class RestoredCode:
    """Sources to run."""

    source: Path | None  # folder to put in front of PYTHONPATH; None: what is installed is the run's code
    commit: str | None
    about: str  # what it is, in a few words
    notes: tuple[str, ...] = ()  # sentences: in what it may not be the run's code
    own_conf: bool = True  # whether the run had a ./conf of its user's own


@contextmanager
def restored(run_dir: Path, info: Mapping[str, Any]) -> Iterator[RestoredCode]:
    """The code that a run was made with.

    Raises:
        RecordError: the commit is not here, the patch does not apply, a file was not kept, or unversioned code is not that of today.
    """
    state = info.get("git") or {}
    commit, own_conf = state.get("commit"), any(name.startswith("conf/") for name in info.get("local_conf") or {})
    if not commit:
        yield RestoredCode(None, None, _installed(info, state), own_conf=own_conf)
        return
    if not is_commit(str(commit)):
        raise RecordError(f"{info['id']} names {str(commit)!r:.80} as its commit, which is none: this record is not as gptshake writes it.")
    remote, root = state.get("remote"), checkout_root()
    if root is None:
        raise RecordError(
            f"{info['id']} was made by commit {commit[:10]} of a checkout, and this gptshake runs from none: clone "
            f"{remote or 'its repository'}, install it with pip install -e, and run the same command again."
        )
    way = f"git fetch {remote} {commit}" if remote else "fetch it from where the run was made"
    with _worktree(root, commit, f"If it is not there, {way}, and run the same command again.", info["id"]) as tree:
        changed, notes = _restore_changes(run_dir, tree, root, state)
        yield RestoredCode(tree / "src", commit, f"commit {commit[:10]}{changed}", notes, own_conf)


@contextmanager
def _worktree(root: Path, commit: str, way_out: str, identity: str) -> Iterator[Path]:
    """A worktree of a commit in a temporary folder, locked while it is in use; those that killed reproductions left are removed."""
    for dead in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or at work
            if (dead / TREE).is_dir():
                os.close(lock_file(dead / "lock"))
                shutil.rmtree(dead)
    with suppress(GitRefused):
        run_git(root, "worktree", "prune", seconds=TIMEOUT_S)
    with TemporaryDirectory(prefix=PREFIX) as folder:
        tree, lock = Path(folder).resolve() / TREE, lock_file(Path(folder) / "lock")
        try:
            try:
                run_git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit, seconds=TIMEOUT_S)
            except GitRefused as refusal:
                said = f"Commit {commit}, which made {identity}, cannot be restored from {root}: {refusal}."
                raise RecordError(f"{said} {way_out}") from refusal
            yield tree
        finally:
            os.close(lock)
            with suppress(GitRefused):  # twice: also one that was being made
                run_git(root, "worktree", "remove", "--force", "--force", str(tree), seconds=TIMEOUT_S)


def _installed(info: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    version, then = info.get("version"), state.get("code_sha256")
    now = code_sha256() if then else ""
    if then and then == now:
        return f"gptshake {version} as it is installed, which has the hash of the run's code"
    known = f"Its code has the hash {then[:16]}, this installation {now[:16]}" if then else "It kept no hash of its code"
    raise RecordError(
        f"{info['id']} was made by gptshake {version} without a commit ({state.get('unversioned') or 'git knew no commit'}), so its code "
        f"cannot be restored. {known}: install gptshake {version} in the way it was then, and run the same command again."
    )


def _restore_changes(run_dir: Path, tree: Path, root: Path, state: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Bring back what was not committed; gives it in words, and sentences about what is doubtful."""
    patch, hashes = run_dir / PATCH, _hashes(run_dir, state)
    if state.get("dirty") and not patch.is_file() and not (run_dir / UNTRACKED).exists() and not state.get("untracked"):
        raise RecordError(f"{run_dir} was made with uncommitted changes, but holds neither {PATCH} nor {UNTRACKED}/: they are lost.")
    redacted = ", ".join(state.get("redacted") or ())
    if patch.is_file():
        try:
            run_git(tree, "apply", "--whitespace=nowarn", str(patch.absolute()), seconds=TIMEOUT_S)
        except GitRefused as refusal:
            hidden = f" (the record hides a secret in {redacted})" if redacted else ""
            raise RecordError(f"{patch} does not apply to commit {state['commit'][:10]}: {refusal}{hidden}.") from refusal
    _copy_untracked(untracked_files(run_dir), hashes, tree, root)
    parts = [PATCH] * patch.is_file() + [f"{len(hashes)} untracked file{'s' if len(hashes) > 1 else ''}"] * bool(hashes)
    doubts = [f"the record hides a secret in {redacted}: what is restored is not quite what ran"] if redacted else []
    if state.get("diff_sha256") and not is_unchanged(run_dir, state):
        doubts += [f"{PATCH} and {UNTRACKED}/ were changed, or are not complete: they do not have the hash that the run began with"]
    return f" with {' and '.join(parts)}" if parts else "", tuple(doubts)


def _copy_untracked(kept: Mapping[str, Path], hashes: Mapping[str, str | None], tree: Path, root: Path) -> None:
    """Copy untracked files from the record, or from the user's checkout where that has them still."""
    missing = list[str]()
    for name, known in sorted(hashes.items()):
        source, target = kept.get(name, root / name), tree / name
        if name in kept or (source.is_file() and (link_sha256(source) if source.is_symlink() else sha256(source)) == known):
            if not target.resolve().is_relative_to(tree):
                raise RecordError(
                    f"{name!r}, an untracked file of the record, would leave the restored code: it is not as gptshake writes it."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        elif known is not None:  # else a repository inside the checkout, of which nothing is known
            missing.append(f"  {name} (SHA-256 {known[:16]})")
    if missing:
        listed = "\n".join(missing)
        raise RecordError(f"These files were part of the code, but the record kept only their hashes; put them back into {root}:\n{listed}")


def untracked_files(run_dir: Path) -> dict[str, Path]:
    """The files that a record keeps beside its commit, by their names in the checkout."""
    folder = run_dir / UNTRACKED
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {file.relative_to(folder).as_posix(): file for file in found}


def is_unchanged(run_dir: Path, state: Mapping[str, Any]) -> bool:
    """Whether the uncommitted code that a record keeps has the hash that the run began with, as ``git`` of run.json has it."""
    patch, hashes = run_dir / PATCH, _hashes(run_dir, state)
    if known := state.get("diff_sha256"):
        return bool(changes_sha256(patch.read_bytes() if patch.is_file() else b"", hashes) == known)
    return not untracked_files(run_dir) and not patch.is_file()


def _hashes(run_dir: Path, state: Mapping[str, Any]) -> dict[str, str | None]:
    return dict(state.get("untracked") or {}) | {name: sha256(file) for name, file in untracked_files(run_dir).items()}
