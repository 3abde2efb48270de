"""The commits of the package's own checkout, read with one call of git, so that many questions about them cost nothing."""

from collections.abc import Iterable

from gptshake.record import commits


class History:
    """Subjects of all commits that lead to some.

    Args:
        ends: commits as run.json holds them; those that this checkout does not know, and what is no commit, count for nothing.
    """

    def __init__(self, ends: Iterable[str]) -> None:
        hashes = sorted({end for end in ends if commits.is_commit(end)})
        answer = commits._ask("log", "--ignore-missing", "--format=%H%x09%P%x09%s", *hashes, "--") if hashes else None
        lines = [line.split("\t", 2) for line in (answer or "").split("\n") if line.count("\t") >= 2]
        self._parents = {commit: parents.split() for commit, parents, _ in lines}
        self._subjects = {commit: subject for commit, _, subject in lines}

    def between(self, old: str, new: str) -> list[str]:
        """Subjects of the commits that ``new`` has and ``old`` has not, the newest first; none where one of them is not known."""
        if old not in self._parents or new not in self._parents:
            return []
        theirs = self._ancestors(old)
        ours = self._ancestors(new, without=theirs)
        return [subject for commit, subject in self._subjects.items() if commit in ours]

    def _ancestors(self, commit: str, without: Iterable[str] = ()) -> set[str]:
        """The commit and all before it, but for those of ``without``."""
        found, stop, waiting = set[str](), set(without), [commit]
        while waiting:
            one = waiting.pop()
            if one not in found and one not in stop:
                found.add(one)
                waiting += self._parents.get(one, [])
        return found
