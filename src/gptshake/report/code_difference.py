"""How the code of two runs differs: the commits between them, the files they touch, and the uncommitted changes that each has kept.

Takes entries; what the record or git cannot say is told in a sentence.
"""

import re
from pathlib import Path
from typing import Any

from gptshake.console import visible
from gptshake.files import sha256
from gptshake.record.catalogue import Entry
from gptshake.record.commits import commits_between, stat_between
from gptshake.report.outcome import one_line

_MOST_COMMITS, _MOST_LINES = 20, 12  # shown of a list of commits, of a file's changes


def code_differences(a: Entry, b: Entry) -> list[str]:
    """Lines that lead from the code of ``a`` to that of ``b``."""
    return [*_committed(a, b), *_uncommitted(a, b)]


def _committed(a: Entry, b: Entry) -> list[str]:
    old, new = _git(a).get("commit"), _git(b).get("commit")
    if not a.info or not b.info:
        return ["unknown: the record cannot be read"]
    if not old or not new:
        return [_unversioned(a, b)]
    if old == new:
        return [f"the same commit {old[:8]}"]
    there, back, stat = commits_between(old, new), commits_between(new, old), stat_between(old, new)
    if there is None or back is None or stat is None:
        return [f"{old[:8]} and {new[:8]}; this checkout does not know both, so the commits between cannot be listed."]
    return [
        f"{old[:8]} → {new[:8]}" + ("" if there or back or stat else "; no commit between them touches source or config"),
        *_listed(there, f"{len(there)} commits more" if len(there) != 1 else "1 commit more"),
        *_listed(back, f"and without {len(back)}"),
        *(f"  {one_line(line)}" for line in stat),
    ]


def _unversioned(a: Entry, b: Entry) -> str:
    """Without two commits the version, and the hash of the package's files if it was kept."""
    texts = []
    for entry in (a, b):
        code = _git(entry).get("commit") or _git(entry).get("code_sha256")
        why = _git(entry).get("unversioned")
        texts.append(
            f"version {entry.info.get('version', 'unknown')}" + (f", {str(code)[:8]}" if code else "") + (f" ({why})" if why else "")
        )
    hashes = [_git(entry).get("code_sha256") for entry in (a, b)]
    same = "the same files: " if hashes[0] and hashes[0] == hashes[1] else ""
    return one_line(f"{same}{texts[0]}" if texts[0] == texts[1] else f"{same}{texts[0]} → {texts[1]}")


def _listed(commits: list[str], title: str) -> list[str]:
    more = [f"    … and {len(commits) - _MOST_COMMITS} more"] if len(commits) > _MOST_COMMITS else []
    return [f"  {title}:", *(f"    {one_line(commit)}" for commit in commits[:_MOST_COMMITS]), *more] if commits else []


def _uncommitted(a: Entry, b: Entry) -> list[str]:
    """The files whose uncommitted changes are not the same, with the lines that only one of the runs has."""
    one, two = changes_kept(a), changes_kept(b)
    if not one and not two:
        return ["nothing uncommitted"]
    if one == two:
        return [f"the same uncommitted changes in {', '.join(map(one_line, one))}"]
    lines = []
    for file in sorted({*one, *two}):
        if one.get(file) != two.get(file):
            lines.append(f"uncommitted in {one_line(file)}:")
            lines += _only(a, one.get(file), two.get(file)) + _only(b, two.get(file), one.get(file))
    return lines


def _only(entry: Entry, own: list[str] | None, other: list[str] | None) -> list[str]:
    if own is None:
        return [f"  {one_line(entry.id)}: unchanged"]
    lines = [line for line in own if line not in (other or [])]
    more = [f"  {one_line(entry.id)}: … and {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    return [f"  {one_line(entry.id)}: {visible(line.expandtabs(1))}" for line in lines[:_MOST_LINES]] + more


def changes_kept(entry: Entry) -> dict[str, list[str]]:
    """What a run directory keeps of uncommitted changes: of diff.patch the lines, of untracked files the lines or, if binary, the hash."""
    patch = entry.path / "diff.patch"
    found = _of_patch(patch.read_text(encoding="utf-8", errors="replace")) if patch.is_file() else {}
    folder = entry.path / "untracked"
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            found[file.relative_to(folder).as_posix()] = _of_file(file)
    untracked = _git(entry).get("untracked")
    for name, digest in (untracked if isinstance(untracked, dict) else {}).items():  # too large to be copied
        found.setdefault(str(name), [f"+ a file of SHA-256 {str(digest)[:12]}"])
    return found


def _of_patch(text: str) -> dict[str, list[str]]:
    parts = re.split(r"^diff --git .* b/(.*)$", text, flags=re.MULTILINE)[1:]
    return {
        file: re.findall(r"^(?:[+-](?!\+\+ |-- ).*|Binary files .*|GIT binary patch)$", body, re.MULTILINE)
        for file, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _of_file(file: Path) -> list[str]:
    try:
        return [f"+{line}" for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        return [f"+ a file of SHA-256 {sha256(file)[:12]}"]


def _git(entry: Entry) -> dict[str, Any]:
    node = entry.info.get("git")
    return node if isinstance(node, dict) else {}
