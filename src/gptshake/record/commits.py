"""What lies between two commits of the package's own checkout: subjects and sizes of the changes that can move a number.

Takes commits as run.json holds them. Git's answers only; nothing is fetched, and what it does not know is told as None.
"""

import re

from gptshake.record import git


def commits_between(old: str, new: str) -> list[str] | None:
    """``1a2b3c4 subject`` of every commit that ``new`` has, ``old`` has not, and that touches source or config; the newest first.

    Returns:
        None if there is no checkout, or it does not hold both commits.
    """
    answer = _ask("log", "--format=%h %s", f"{old}..{new}", "--", *git.GUARDED) if is_commit(old) and is_commit(new) else None
    return None if answer is None else answer.splitlines()


def stat_between(old: str, new: str) -> list[str] | None:
    """``git diff --stat`` of source and config from one commit to another, with the line of sums at the end; None as above."""
    if not (is_commit(old) and is_commit(new)):
        return None
    answer = _ask("diff", "--stat=100", "--no-ext-diff", "--no-textconv", "--no-color", old, new, "--", *git.GUARDED)
    return None if answer is None else [line.strip() for line in answer.splitlines()]


def is_commit(text: str) -> bool:
    """Whether a text out of a record is a commit's hash; anything else might be an option of git's."""
    return re.fullmatch("[0-9a-f]{7,64}", text) is not None


def _ask(*command: str) -> str | None:
    root = git.checkout_root()
    if root is None:
        return None
    try:
        return git._git(root, *command).decode(errors="replace")
    except git._Refused:
        return None
