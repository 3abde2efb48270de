"""samples.md: what the model wrote, for people to read from top to bottom and for a resumed run to cut.

Every sample is a heading that names the step and a fenced block, so that the generated text cannot be taken for
Markdown, whatever it holds.
"""

import re
from pathlib import Path
from typing import NamedTuple

from gptshake.files import write_atomic

TITLE = "sample"  # of a text that the network wrote along the run
_SECTION = re.compile(r"^## step ([\d,]+) · ([\d,]+) tokens · ([^\n]*)\n\n(`{3,})text\n(.*?)\n\4\n\n", re.DOTALL | re.MULTILINE)


class Sample(NamedTuple):
    """One text, written after ``step`` optimizer steps and ``tokens`` training tokens."""

    step: int
    tokens: int
    title: str
    text: str


def append_sample(path: Path, sample: Sample) -> None:
    """Add one section at the end of the file."""
    with path.open("a", encoding="utf-8", errors="replace", newline="\n") as file:  # replace: a lone surrogate must not stop a run
        file.write(_section(sample))


def read_samples(path: Path) -> list[Sample]:
    """All whole sections in order; a section that a kill tore is left out, a missing file has none."""
    if not path.exists():
        return []
    content = path.read_bytes().decode(errors="replace")  # not read_text: it would turn a sample's \r into \n
    return [Sample(_int(step), _int(tokens), title, text) for step, tokens, title, _, text in _SECTION.findall(content)]


def cut_samples(path: Path, step: int) -> None:
    """Keep the samples up to ``step``: a resumed run writes the later ones again."""
    samples = read_samples(path)
    if path.exists():
        write_atomic(path, "".join(_section(sample) for sample in samples if sample.step <= step))


def _section(sample: Sample) -> str:
    longest = max((len(ticks) for ticks in re.findall("`+", sample.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"## step {sample.step:,} · {sample.tokens:,} tokens · {sample.title}\n\n{fence}text\n{sample.text}\n{fence}\n\n"


def _int(text: str) -> int:
    return int(text.replace(",", ""))
