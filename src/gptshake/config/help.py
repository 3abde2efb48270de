"""The help page, made from the config folders alone, so that it appears at once."""

import textwrap
from typing import Any

from gptshake import __version__
from gptshake.config.layout import GROUPS, options
from gptshake.console import Console

WIDEST = 140  # columns; longer lines are hard to read
_COMMANDS = (
    ("gptshake model=tiny data=wiki_char", "train a small GPT on Wikipedia's characters"),
    ("gptshake experiment=demo", "the same in a minute, with samples"),
    ("gptshake model=gpt3_small data=wiki_char", "GPT-3 small; the plan line says how long it takes here"),
    ("gptshake model=baby data=text_char data.path=book.txt", "train on your own text"),
    ("gptshake task=inspect data=text_char data.path=book.txt", "see what a model would see of it"),
    ("gptshake task=profile model=tiny data=wiki_char", "see where the time of a step goes"),
    ("gptshake model=tiny data=wiki_bpe tokenizer.vocab_size=8192", "byte pairs instead of characters"),
    ("gptshake model=tiny data=wiki_char optimizer.lr=3e-3 scheduler=one_cycle", "change any hyperparameter"),
    ("gptshake model=tiny data=wiki_char trainer.max_steps=500", "or max_epochs, max_tokens, max_time=00:01:00:00"),
    ("gptshake task=plan model=baby data=wiki_char task.hours=8", "what a run would cost; trainer.hours=8 trains that long"),
    ("gptshake task=find_lr model=tiny data=wiki_char", "a learning rate before the run; then optimizer.lr=from:<run>"),
    ("gptshake -m model=tiny data=wiki_char optimizer.lr=range", "find the learning rate; data.batch_size=range too"),
    ("gptshake -m model=tiny,baby data=wiki_char seed=1,2", "one run for each combination, side by side"),
    ("gptshake task=report study=<name>", "what a sweep has found, at any time"),
    ("gptshake resume=<run>", "continue a stopped or killed run, bit for bit"),
    ("gptshake task=runs task.sort=val/bpb", "all runs, the best first; task.filter='model=tiny lr>1e-3'"),
    ("gptshake task=clean", "what caches, checkpoints and studies take on the disk"),
    ("gptshake task=diff task.runs=[<run>,<run>]", "what differs between runs, from config and code to curves"),
    ("gptshake task=sample task.run=<run> task.prompt='The '", "write text with a trained model"),
    ("gptshake task=journal", "a research journal of all runs, around your own words"),
    ("gptshake task=reproduce task.run=<run> task.steps=50", "run it once more with its own code, and compare bit for bit"),
    ("gptshake model=gpt3_small data=wiki_char --cfg job", "show the whole config and run nothing"),
    ("gptshake model=gpt3_small data=wiki_char debug=smoke", "a few steps through everything"),
)


def help_page(columns: int | None = None) -> str:
    """The page as text: what it is, everyday commands, tasks and groups with their options.

    Args:
        columns: of the widest line; by default those of the terminal, of a file 80.
    """
    columns = columns or columns_here()
    texts = [
        f"gptshake {__version__}: train small GPTs from scratch and find the learning rate and batch size that work.",
        "",
        "Usage: gptshake [flags] key=value ...    (or python -m gptshake)",
        "",
        "Everyday commands:",
        *_commands(columns),
        "",
        "Groups and their options:",
        *(wrapped(f"  {f'{group}=':<13} {', '.join(options(group))}", columns, indent=16) for group in GROUPS if options(group)),
        "",
        "Any key of the config can be set: gptshake model=tiny data=wiki_char --cfg job prints them all.",
        "Flags: -m several runs | --dirty run with uncommitted changes | --cfg job show the config | --info | --help | --version",
        "Your own options go into ./conf/<group>/<name>.yaml. HYDRA_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(wrapped(text, columns) for text in texts)


def columns_here() -> int:
    """Columns of the widest line of help: those of the terminal, of a file 80."""
    console = Console()
    return min(WIDEST, console.size().columns - 1 if console.terminal else 80)


def _commands(columns: int) -> list[str]:
    """Each with what it does beside it, or below it where both do not fit."""
    width = max(len(command) for command, _ in _COMMANDS) + 2
    if columns >= width + max(len(what) for _, what in _COMMANDS) + 2:
        return [f"  {command:<{width}}{what}" for command, what in _COMMANDS]
    return [wrapped(text, columns, indent=6) for command, what in _COMMANDS for text in (f"  {command}", f"      {what}")]


def wrapped(text: str, columns: int, indent: int = 0) -> str:
    """The lines of a text, each broken at spaces where it is too long; what follows begins after ``indent`` spaces."""
    look: dict[str, Any] = {"subsequent_indent": " " * indent, "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(line if len(line) <= columns else textwrap.fill(line, columns, **look) for line in text.split("\n"))
