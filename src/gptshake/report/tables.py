"""Tables of text for terminals, pipes and files: the one writer of all tasks.

Not rich's: its Table takes 2 s for 1,000 runs where this takes 0.07 s, and a table here is text without colours or wrapping.
"""

from collections.abc import Sequence

from gptshake.console import width


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Cells in columns: numbers to the right, the columns ``left`` and the last one to the left; empty columns are left out."""
    last = len(rows[0]) - 1
    used = [column for column in range(last + 1) if any(row[column] for row in rows[1:])]
    widths = {column: max(width(row[column]) for row in rows) for column in used}
    lines = []
    for row in rows:
        gaps = {column: " " * (widths[column] - width(row[column])) for column in used}
        cells = [row[column] + gaps[column] if column in left or column == last else gaps[column] + row[column] for column in used]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
