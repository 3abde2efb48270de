"""Foreign text inside Markdown: notes, names, overrides, reasons, what a model wrote. It is shown, never obeyed.

Whatever the text holds, it cannot become HTML, a heading, a link, a cell of a table, or one of the journal's own marks, and
characters that have no shape of their own are written out.
"""

import re

from gptshake.console import visible

MARK = r" {0,3}<!--[ \t]*gptshake[ \t]*:"  # begins whatever could be taken for one of the journal's own marks
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)")
_STARTS = re.compile(r"^([-+#=]|\d+(?=[.)]))")  # a list, a heading, a rule
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def prose(text: str) -> str:
    """A text as one line of Markdown that reads as it is."""
    line = visible(" ".join(text.split()))
    line = _SPECIAL.sub(lambda found: f"\\{found[0]}", line)
    return re.sub("[&<>]", lambda found: _HTML[found[0]], line)


def item(text: str) -> str:
    """The same where a line begins with the text, as in a list."""
    line = prose(text)
    return _STARTS.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def code(text: str) -> str:
    """A text as a code span of one line."""
    line = visible(" ".join(text.split())) or " "
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def cell(text: str) -> str:
    """A code span in a table, whose rows even code may not divide."""
    return code(text).replace("|", "\\|")


def fenced(text: str) -> str:
    """A text of several lines as a block in a fence that is longer than any run of backticks in it."""
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = [f"    {line}" if re.match(MARK, line) else line for line in visible(text, "\n\t").split("\n")]
    return "\n".join([f"{fence}text", *lines, fence])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
