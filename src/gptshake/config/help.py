"""The help page, made from the config folders alone, so that it appears at once."""

import textwrap

from gptshake import __version__
from gptshake.config.layout import GROUPS, options

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
    ("gptshake task=diff task.runs=[<run>,<run>]", "what differs between runs, from config and code to curves"),
    ("gptshake task=sample task.run=<run> task.prompt='The '", "write text with a trained model"),
    ("gptshake task=journal", "a research journal of all runs, around your own words"),
    ("gptshake task=reproduce task.run=<run> task.steps=50", "run it once more with its own code, and compare bit for bit"),
    ("gptshake model=gpt3_small data=wiki_char --cfg job", "show the whole config and run nothing"),
    ("gptshake model=gpt3_small data=wiki_char debug=smoke", "a few steps through everything"),
)


def help_page() -> str:
    """The page as text: what it is, everyday commands, tasks and groups with their options."""
    width = max(len(command) for command, _ in _COMMANDS) + 2
    lines = [
        f"gptshake {__version__}: train small GPTs from scratch and find the learning rate and batch size that work.",
        "",
        "Usage: gptshake [flags] key=value ...    (or python -m gptshake)",
        "",
        "Everyday commands:",
        *(f"  {command:<{width}}{what}" for command, what in _COMMANDS),
        "",
        "Groups and their options:",
        *(_group_line(group) for group in GROUPS if options(group)),
        "",
        "Any key of the config can be set: gptshake model=tiny data=wiki_char --cfg job prints them all.",
        "Flags: -m several runs | --dirty run with uncommitted changes | --cfg job show the config | --info | --help | --version",
        "Your own options go into ./conf/<group>/<name>.yaml. HYDRA_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(lines)


def _group_line(group: str) -> str:
    return textwrap.fill(", ".join(options(group)), width=118, initial_indent=f"  {group + '=':<11} ", subsequent_indent=" " * 14)
