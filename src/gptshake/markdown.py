"""Text as Markdown: what people, networks and records wrote is shown as it is, and commands nothing.

It cannot become HTML, a heading, a list, a link or a cell of a table; characters that have no shape of their own are written out.
"""

import re
from collections.abc import Sequence

from gptshake.console import visible

_LONGEST = 4000  # characters of a text on one line


def table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int = 24) -> str:
    """A table of cells that are Markdown already; columns without any cell are left out."""
    used = [column for column in range(len(head)) if any(row[column] for row in rows[:most])]
    lines = [[head[column] for column in used], ["---"] * len(used), *([row[column] for column in used] for row in rows[:most])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + (f"\n\n… and {len(rows) - most} more." if len(rows) > most else "")


def prose(text: str) -> str:
    """A text as one line of Markdown that reads as it is, also where a line begins with it, as in a list."""
    from html import escape  # only here, as every command imports this module

    line = re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)", r"\\\g<0>", _line(text))
    return re.sub(r"^(\d*)((?<!\d)[-+#=]|(?<=\d)[.)](?=\s|$))", r"\1\\\2", escape(line, quote=False))


def code(text: str) -> str:
    line = _line(text) or " "
    ticks, pad = "`" * (1 + max(map(len, re.findall("`*", line)))), " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def cell(text: str) -> str:
    """A code span in a table, whose rows even code may not divide."""
    return code(text).replace("|", "\\|")


def fenced(text: str) -> str:
    """A text of several lines as a block in a fence that is longer than any run of backticks in it."""
    ticks = fence(text)
    return "\n".join([f"{ticks}text", visible(text, "\n\t"), ticks])


def fence(text: str) -> str:
    """Backticks that no run of them in a text can be taken for, three at least."""
    return "`" * max(3, 1 + max(map(len, re.findall("`*", text))))


def _line(text: str) -> str:
    return visible(" ".join(text[: _LONGEST + 1].split()) + (" …" if len(text) > _LONGEST else ""))
