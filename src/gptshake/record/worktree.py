"""The code of a run, restored: its commit in a temporary git worktree, with its patch and its untracked files on top.

The user's checkout, index and branches are only read. Code that git does not know cannot be restored: then the installation at hand
must have the same hash.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from gptshake.errors import RecordError
from gptshake.files import lock_file, sha256
from gptshake.record.git import GitRefused, changes_sha256, checkout_root, is_commit, link_sha256, run_git
from gptshake.record.provenance import code_sha256

PATCH, UNTRACKED = "diff.patch", "untracked"
PREFIX, TREE = "gptshake-code-", "code"  # of the temporary folder, and the worktree in it
TIMEOUT_S = 300.0  # of one git command; a large checkout on a slow disk takes a while


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
    for dead in Path(gettempdir()).glob(f"{PREFIX}*"):  # left by a killed reproduction
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
                way = f"git fetch {remote} {commit}" if remote else "fetch it from where the run was made"
                said = f"Commit {commit}, which made {info['id']}, cannot be restored from {root}: {refusal}."
                raise RecordError(f"{said} If it is not there, {way}, and run the same command again.") from refusal
            changed, notes = _put_changes(run_dir, tree, root, state)
            yield RestoredCode(tree / "src", commit, f"commit {commit[:10]}{changed}", notes, own_conf)
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


def _put_changes(run_dir: Path, tree: Path, root: Path, state: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Bring back what was not committed; files that were hashed, not copied, are taken from the user's checkout if they are there still.

    Returns:
        It in words, and sentences about what is doubtful.
    """
    patch, kept, hashes, missing = run_dir / PATCH, untracked_files(run_dir), _hashes(run_dir, state), list[str]()
    if state.get("dirty") and not patch.is_file() and not (run_dir / UNTRACKED).exists() and not state.get("untracked"):
        raise RecordError(f"{run_dir} was made with uncommitted changes, but holds neither {PATCH} nor {UNTRACKED}/: they are lost.")
    redacted = ", ".join(state.get("redacted") or ())
    if patch.is_file():
        try:
            run_git(tree, "apply", "--whitespace=nowarn", str(patch.absolute()), seconds=TIMEOUT_S)
        except GitRefused as refusal:
            hidden = f" (the record hides a secret in {redacted})" if redacted else ""
            raise RecordError(f"{patch} does not apply to commit {state['commit'][:10]}: {refusal}{hidden}.") from refusal
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
    parts = [PATCH] * patch.is_file() + [f"{len(hashes)} untracked file{'s' if len(hashes) > 1 else ''}"] * bool(hashes)
    doubts = [f"the record hides a secret in {redacted}: what is restored is not quite what ran"] if redacted else []
    if state.get("diff_sha256") and not is_unchanged(run_dir, state):
        doubts += [f"{PATCH} and {UNTRACKED}/ were changed, or are not complete: they do not have the hash that the run began with"]
    return f" with {' and '.join(parts)}" if parts else "", tuple(doubts)


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
