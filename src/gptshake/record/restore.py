"""The code of a run, restored: its commit in a git worktree of its own, with its patch and its untracked files on top.

Takes a run directory and its run.json; gives a folder of sources for a fresh interpreter, gone again afterwards. The user's
checkout, index and branches are only read, whatever state they are in. Code that git does not know cannot be brought back:
then the installation at hand must have the same hash.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from gptshake.errors import RecordError
from gptshake.files import sha256
from gptshake.record.commits import is_commit
from gptshake.record.git import changes_sha256, checkout_root
from gptshake.record.provenance import code_sha256

PATCH, UNTRACKED = "diff.patch", "untracked"
PREFIX, TREE = "gptshake-code-", "code"  # of the temporary folder, and the worktree in it
TIMEOUT_S = 300.0  # of one git command; a large checkout on a slow disk takes a while


@dataclass(frozen=True)
class Code:
    """Sources to run."""

    source: Path | None  # folder to put in front of PYTHONPATH; None: what is installed is the run's code
    commit: str | None
    about: str  # what it is, in a few words
    notes: tuple[str, ...] = ()  # sentences: in what it may not be the run's code
    own_conf: bool = True  # whether the run had a ./conf of its user's own
    held: tuple[int, ...] = ()  # descriptors to hand to whoever runs it: while one is open, the folder is in use


class _Refused(Exception):
    """Git did not do what it was asked; the text says why."""


@contextmanager
def restored(run_dir: Path, info: Mapping[str, Any]) -> Iterator[Code]:
    """The code that a run was made with.

    Args:
        run_dir: where diff.patch and untracked/ lie.
        info: the run's run.json.
    Raises:
        RecordError: the commit is not here, the patch does not apply, a file was not kept, or unversioned code is not that of today.
    """
    state = info.get("git") or {}
    commit, own_conf = state.get("commit"), any(name.startswith("conf/") for name in info.get("local_conf") or {})
    if commit and not is_commit(str(commit)):
        raise RecordError(f"{info['id']} names {str(commit)!r:.80} as its commit, which is none: this record is not as gptshake writes it.")
    if not commit:
        yield replace(_installed(info, state), own_conf=own_conf)
        return
    root = checkout_root()
    if root is None:
        raise RecordError(
            f"{info['id']} was made by commit {commit[:10]} of a checkout, and this gptshake runs from none: clone "
            f"{state.get('remote') or 'its repository'}, install it with pip install -e, and say the same again."
        )
    _refuse_unknown(root, commit, info)
    _remove_dead(root)
    with TemporaryDirectory(prefix=PREFIX) as folder:
        tree = Path(folder).resolve() / TREE
        lock = _lock(Path(folder), os.O_CREAT)
        try:
            try:
                _git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            except _Refused as refusal:
                raise RecordError(f"git cannot restore commit {commit[:10]}: {refusal}.") from refusal
            changed, notes = _put_changes(run_dir, tree, root, state)
            yield Code(tree / "src", commit, f"commit {commit[:10]}{changed}", notes, own_conf, (lock,))
        finally:
            os.close(lock)
            with suppress(_Refused):  # twice: also one that was being made
                _git(root, "worktree", "remove", "--force", "--force", str(tree))


def _remove_dead(root: Path) -> None:
    """Remove what a killed reproduction left: folders of ours with a worktree whose lock nobody holds, and git's notes of them."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or at work
            if (folder / TREE).is_dir():
                os.close(_lock(folder))
                shutil.rmtree(folder)
    with suppress(_Refused):
        _git(root, "worktree", "prune")


def _lock(folder: Path, flags: int = 0) -> int:
    """A descriptor that holds the folder's lock; BlockingIOError if another process does."""
    lock = os.open(folder / "lock", os.O_RDWR | flags, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _installed(info: Mapping[str, Any], state: Mapping[str, Any]) -> Code:
    """What is installed, if it is the run's code."""
    version, then = info.get("version"), state.get("code_sha256")
    now = code_sha256() if then else None
    if then and then == now:
        return Code(None, None, f"gptshake {version} as it is installed, which has the hash of the run's code")
    reason = state.get("unversioned") or "git knew no commit"
    known = f"Its code has the hash {then[:16]}, this installation {now[:16]}" if then and now else "It kept no hash of its code"
    raise RecordError(
        f"{info['id']} was made by gptshake {version} without a commit ({reason}), so its code cannot be restored. {known}: "
        f"install gptshake {version} in the way it was then, and say the same again."
    )


def _refuse_unknown(root: Path, commit: str, info: Mapping[str, Any]) -> None:
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except _Refused as refusal:
        remote = (info.get("git") or {}).get("remote")
        way = f"git fetch {remote} {commit}" if remote else "fetch it from where the run was made"
        raise RecordError(f"Commit {commit}, which made {info['id']}, is not in {root}: {way}, and say the same again.") from refusal


def _put_changes(run_dir: Path, tree: Path, root: Path, state: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Bring back what was not committed; returns it in words, and what is doubtful about it."""
    patch, untracked = run_dir / PATCH, run_dir / UNTRACKED
    if state.get("dirty") and not patch.exists() and not untracked.exists() and not state.get("untracked"):
        raise RecordError(f"{run_dir} was made with uncommitted changes, but holds neither {PATCH} nor {UNTRACKED}/: they are lost.")
    if patch.exists():
        try:
            _git(tree, "apply", "--whitespace=nowarn", str(patch.absolute()))
        except _Refused as refusal:
            hidden = f" (the record hides a secret in {', '.join(state['redacted'])})" if state.get("redacted") else ""
            raise RecordError(f"{patch} does not apply to commit {state['commit'][:10]}: {refusal}{hidden}.") from refusal
    kept = untracked_files(run_dir)
    for name, file in kept.items():
        _copy(file, tree, name)
    hashes = _hashes(kept, state)
    _find_left_out({name: known for name, known in hashes.items() if name not in kept}, tree, root)
    parts = [PATCH] * patch.exists() + [f"{len(hashes)} untracked file{'s' if len(hashes) > 1 else ''}"] * bool(hashes)
    return f" with {' and '.join(parts)}" if parts else "", tuple(_doubts(patch, hashes, state))


def untracked_files(run_dir: Path) -> dict[str, Path]:
    """The files that a record keeps beside its commit, by their names in the checkout."""
    folder = run_dir / UNTRACKED
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {file.relative_to(folder).as_posix(): file for file in found}


def changed_files(patch: Path) -> list[str]:
    """The files that a patch changes."""
    text = patch.read_text(encoding="utf-8", errors="replace") if patch.exists() else ""
    return re.findall(r"^diff --git .* b/(.*)$", text, flags=re.MULTILINE)


def is_unchanged(run_dir: Path, info: Mapping[str, Any]) -> bool:
    """Whether the uncommitted code that a record keeps has the hash that the run began with."""
    state, patch, kept = info.get("git") or {}, run_dir / PATCH, untracked_files(run_dir)
    known = state.get("diff_sha256")
    return _changes_hash(patch, _hashes(kept, state)) == known if known else not kept and not patch.exists()


def _hashes(kept: Mapping[str, Path], state: Mapping[str, Any]) -> dict[str, str | None]:
    return dict(state.get("untracked") or {}) | {name: sha256(file) for name, file in kept.items()}


def _doubts(patch: Path, hashes: Mapping[str, str | None], state: Mapping[str, Any]) -> Iterator[str]:
    if redacted := state.get("redacted"):
        yield f"the record hides a secret in {', '.join(redacted)}: what is restored is not quite what ran"
    if state.get("diff_sha256") not in (None, _changes_hash(patch, hashes)):
        yield f"{PATCH} and {UNTRACKED}/ were changed, or are not complete: they do not have the hash that the run began with"


def _find_left_out(hashes: Mapping[str, str | None], tree: Path, root: Path) -> None:
    """Files that were hashed, not copied: taken from the user's checkout if they are there still.

    Raises:
        RecordError: naming those that are not.
    """
    missing = []
    for name, known in sorted(hashes.items()):
        if known is None:
            continue  # a repository inside the checkout, of which nothing is known
        if (root / name).is_file() and _hash(root / name) == known:
            _copy(root / name, tree, name)
        else:
            missing.append(f"  {name} (SHA-256 {known[:16]})")
    if missing:
        listed = "\n".join(missing)
        raise RecordError(f"These files were part of the code, but the record kept only their hashes; put them back into {root}:\n{listed}")


def _hash(file: Path) -> str:
    """As records have it: a link counts as the path that it holds."""
    return hashlib.sha256(os.fsencode(file.readlink())).hexdigest() if file.is_symlink() else sha256(file)


def _copy(source: Path, tree: Path, name: str) -> None:
    target = tree / name
    if not target.resolve().is_relative_to(tree):
        raise RecordError(
            f"{name!r}, an untracked file of the record, would leave the restored code: this record is not as gptshake writes it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _changes_hash(patch: Path, untracked: Mapping[str, str | None]) -> str:
    return changes_sha256(patch.read_bytes() if patch.exists() else b"", untracked)


def _git(folder: Path, *command: str) -> None:
    """Run git; no hook of the user's, no question, no variable that points elsewhere."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith("GIT_CONFIG")}
    env |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    arguments = ["git", "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", *command]
    try:
        done = subprocess.run(arguments, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Refused(f"git did not answer: {error}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _Refused(lines[-1].removeprefix("error: ").rstrip(".") if lines else f"exit code {done.returncode}")
