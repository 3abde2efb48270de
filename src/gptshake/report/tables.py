"""Tables of text for terminals, pipes and files."""

from collections.abc import Sequence

from gptshake.console import pad, width


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Cells in columns: numbers to the right, the columns ``left`` and the last one to the left; empty columns are left out."""
    last = len(rows[0]) - 1
    used = [column for column in range(last + 1) if any(row[column] for row in rows[1:])]
    widths = {column: max(width(row[column]) for row in rows) for column in used}
    lines = []
    for row in rows:
        cells = [pad(row[c], widths[c], left=c in left or c == last) for c in used]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
