"""Boxes of the journal, ``- [ ] try a higher rate``: which are open, where they stand, and what somebody has ticked.

The file is their only home. A box of a note is written into its entry; every open one, those that people wrote between the
entries too, is repeated in one list at the top, and may be ticked there or in its place.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

HEADING = "## To do"
EMPTY = "Nothing is open."
_BOX = re.compile(r"\s*[-*+] \[([ xX])\] +(\S.*?)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
_OWNER = re.compile(r"^(.*) · \[[^\]]*\]\(#([^)\s]+)\)$")


class Box(NamedTuple):
    """One box."""

    owner: str  # id of the entry that it belongs to; empty where it belongs to none
    text: str  # Markdown of one line
    ticked: bool


def boxes(text: str, owner: str) -> Iterator[Box]:
    """Boxes of a piece of Markdown, those inside of code left out."""
    for line in _outside_code(text.split("\n")):
        if found := _BOX.match(line):
            yield Box(owner, found[2], found[1] != " ")


def box_line(text: str, ticked: bool) -> str:
    """A box as a line of Markdown."""
    return f"- [{'x' if ticked else ' '}] {text}"


def listed(body: str) -> tuple[list[Box], list[str]]:
    """The boxes that the list at the top took from elsewhere, and the lines that people wrote into it themselves."""
    carried, own = [], []
    for line in body.split("\n"):
        found = _BOX.match(line)
        origin = _OWNER.match(found[2]) if found else None
        if found and origin:
            carried.append(Box(origin[2], origin[1], found[1] != " "))
        elif line.strip() not in ("", HEADING, EMPTY):
            own.append(line)
    return carried, own


def to_do(found: Iterable[Box], done: set[tuple[str, str]], own: list[str]) -> str:
    """The list at the top.

    Args:
        found: all boxes of the journal, in order.
        done: owner and text of those that were ticked in the list; where people wrote the box themselves it stays there, ticked,
            for their line is not ours to change.
        own: lines that people wrote into the list.
    """
    still = list(dict.fromkeys((box.owner, box.text) for box in found if not box.ticked and box.owner))
    lines = [box_line(f"{text} · [{owner}](#{owner})", (owner, text) in done) for owner, text in still]
    return "\n".join([HEADING, "", *own, *(lines or ([] if own else [EMPTY]))])


def _outside_code(lines: Iterable[str]) -> Iterator[str]:
    fence = ""
    for line in lines:
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not found[2].strip():
                fence = ""
        elif found:
            fence = found[1]
        else:
            yield line
