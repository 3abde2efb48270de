"""``task=sample``: write text with the best weights of a run, or with a model in GPT-2's layout.

The seed is the root's: the same command writes the same text.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from typing import Any

from omegaconf import OmegaConf

from gptshake import hardware
from gptshake.config.overrides import recomposed
from gptshake.console import Console, printable
from gptshake.context import Context
from gptshake.errors import ConfigError, DataError
from gptshake.export.hub import HF
from gptshake.files import expanded, read_text, storing
from gptshake.report.tables import check_targets
from gptshake.setup import instantiate
from gptshake.setup.initial import pretrained_network, pretrained_tokenizer
from gptshake.tokenizer.unknown import prompt_note

STANDARD = "-"  # the name of the standard input and output
_LARGEST = 1 << 24  # bytes of a file with prompts


def run(context: Context) -> None:
    """Print continuations, drawn on the device of ``trainer``, as they come; without a prompt, of the end of a text.

    Raises:
        ConfigError: options that exclude each other, or a file without a prompt.
        RecordError: there is no such run.
    """
    cfg, task = context.config, context.config.task
    if task.interactive and (task.prompt_file or task.jsonl):
        raise ConfigError(
            "task.interactive=true reads prompts from the terminal and writes there: leave task.prompt_file and task.jsonl out."
        )
    check_targets({"task.jsonl": task.jsonl})
    source = str(task.run or "")
    if source.startswith(HF):
        prompts, tokenizer = _prompts(task), pretrained_tokenizer(source)
        model = pretrained_network(source, tokenizer.vocab_size)  # what has no token is not drawn
    else:
        path = instantiate.chosen_run(cfg)
        prompts = _prompts(task)
        model, tokenizer = instantiate.trained(path, lambda: recomposed(path, context.spec.overrides))
    from gptshake.training.sampling import continuation

    device = hardware.pick_device(cfg.trainer.accelerator)
    model.to(device)
    options = {key: task[key] for key in ("n_tokens", "temperature", "top_k", "top_p", "repetition_penalty")}
    stop: Any = OmegaConf.to_container(OmegaConf.create([task.stop] if isinstance(task.stop, str) else list(task.stop or [])))

    def write(prompt: str, seed: int, *, echo: bool = True) -> Iterator[str]:
        return continuation(model, tokenizer, prompt, stop=stop, echo=echo, seed=seed, **options)

    if task.interactive:
        _talk(cfg.seed, write)
        return
    for prompt in prompts:
        if note := prompt_note(tokenizer, prompt):
            print(f"note: {printable(note)}", file=sys.stderr, flush=True)
    seeds = range(cfg.seed, cfg.seed + task.num_samples)
    if task.jsonl:
        _write_lines(str(task.jsonl), prompts, seeds, write)
        return
    for number, (prompt, seed) in enumerate(product(prompts, seeds)):
        if number:
            _show("---\n")
        for part in write(prompt, seed):
            _show(part)
        _show("\n")


def _show(text: str) -> None:
    """Print at once: as it is to a file or a pipe, without control characters to a terminal."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = printable(text) if Console().terminal else text
    print(shown.encode(encoding, "replace").decode(encoding), end="", flush=True)


def _prompts(task: Any) -> list[str]:
    if not task.prompt_file:
        return [str(task.prompt or "")]
    name = str(task.prompt_file)
    try:
        text = sys.stdin.read(_LARGEST) if name == STANDARD else read_text(expanded(name), _LARGEST)
    except (OSError, ValueError) as error:
        raise DataError(f"task.prompt_file={name} cannot be read as text: {getattr(error, 'strerror', None) or error}.") from error
    if not name.endswith(".jsonl"):
        return [text]
    prompts = list[str]()
    for number, line in enumerate(text.split("\n"), start=1):  # a text may hold U+2028
        if line.strip():
            try:
                prompts.append("" + json.loads(line)["prompt"])  # a text, or a TypeError
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                why = f"{type(error).__name__}: {error}"
                raise DataError(f'Line {number} of {name} is not of the form {{"prompt": "..."}}: {why}.') from error
    if not prompts:
        raise DataError(f'{name} has no prompt: each line is {{"prompt": "..."}}.')
    return prompts


def _write_lines(target: str, prompts: list[str], seeds: range, write: Callable[..., Iterator[str]]) -> None:
    """One JSON object per continuation, flushed at once, so that what was generated is kept if the command is stopped.

    UTF-8 cannot write a lone surrogate of a prompt; as a backslash replaces it, it is JSON's escape.
    """
    if target != STANDARD:
        expanded(target).parent.mkdir(parents=True, exist_ok=True)
    with (
        storing(expanded(target)),
        nullcontext(sys.stdout)
        if target == STANDARD
        else expanded(target).open("w", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        for prompt, seed in product(prompts, seeds):
            line = {"prompt": prompt, "text": "".join(write(prompt, seed)), "seed": seed}
            print(json.dumps(line, ensure_ascii=False), file=stream, flush=True)


def _talk(seed: int, write: Callable[..., Iterator[str]]) -> None:
    """Continue all that was typed and written so far with every line, until the input ends."""
    text = ""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        text += line.rstrip("\n")
        for part in write(text, seed, echo=False):
            _show(part)
            text += part
        _show("\n")
        text, seed = text + "\n", seed + 1
