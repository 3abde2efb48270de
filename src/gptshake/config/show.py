"""What Hydra prints while nothing runs: ``--cfg``, ``--info``, ``--hydra-help``, and what a shell asks for when Tab is pressed.

A completion is Hydra's, of the line in COMP_LINE as Hydra can read it, without our internals. Which keys and options there are depends on
the chosen options alone, so only those are handed on; free text, ranges and flags are not.
"""

import io
import os
import shlex
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress

from gptshake.config.arguments import Arguments
from gptshake.config.compose import call_hydra
from gptshake.config.compose_errors import COMPOSITION_ERRORS, checked_compose, parse_overrides
from gptshake.config.experiments import expand_experiment_files
from gptshake.config.layout import GROUPS
from gptshake.config.multirun import first_choice, single_run_overrides
from gptshake.config.overrides import resolve_lr_from, with_pretrained_shape
from gptshake.keys import key_of
from gptshake.redaction import redact


def show(arguments: Arguments) -> None:
    """Let Hydra print what was asked for; only if it cannot, look at the overrides one by one."""
    arguments.overrides, _ = resolve_lr_from(expand_experiment_files(arguments.overrides))
    if asked(arguments):
        complete(lambda: call_hydra(arguments.argv(), lambda cfg: None))
        return
    # Hydra's own help is about none of our options.
    arguments.overrides = [] if "--hydra-help" in arguments.flags else with_pretrained_shape(arguments.overrides)
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            call_hydra(arguments.argv(), lambda cfg: None)
    except COMPOSITION_ERRORS:
        checked_compose(single_run_overrides(arguments))
        raise
    finally:
        print(redact(shown.getvalue()), end="")


def asked(arguments: Arguments) -> bool:
    """Whether a shell asks, as with ``-sc query=bash``."""
    return any("query=" in word for word in arguments.flags)


def complete(ask_hydra: Callable[[], None]) -> None:
    """Print what may stand where the line ends, without keys that are not for users, separated as Hydra does for the shell."""
    proposals = io.StringIO()
    with suppress(Exception), redirect_stdout(proposals), redirect_stderr(io.StringIO()):  # nothing else may land in the line being typed
        if (line := readable(os.environ.get("COMP_LINE", ""))) is not None:
            os.environ["COMP_LINE"] = line
            ask_hydra()
    words = proposals.getvalue().strip()
    separator = "\n" if "\n" in words else " "
    print(separator.join(word for word in words.split(separator) if not ("._" in word or "=_" in word)))


def readable(line: str) -> str | None:
    """The line with those finished words that decide what may follow; None if it ends inside quotes, or in a flag."""
    done, _, last = line.rpartition(" ")
    try:
        program, *finished = shlex.split(done) or [""]
    except ValueError:
        return None
    if last.startswith("-"):
        return None
    chosen = parse_overrides([word for word in finished if key_of(word) in GROUPS and "=" in word])
    return " ".join([program, *filter(None, map(first_choice, chosen)), last])
