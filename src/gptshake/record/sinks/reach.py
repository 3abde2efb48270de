"""Whether W&B can be had: the mode that is wanted, a key, a server that answers. Takes seconds at most."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

from gptshake.errors import ConfigError

_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}  # of WANDB_MODE
PROBE_SECONDS = 2.0  # for a first word of the server


def mode_to_try(mode: str) -> tuple[str, str]:
    """The mode to try (``auto`` is WANDB_MODE or online), and what stands against being online.

    Raises:
        ConfigError: ``online`` and no key, or WANDB_MODE is not known.
    """
    named = os.environ.get("WANDB_MODE") or "online"
    if mode == "auto" and named not in _MODES:
        raise ConfigError(f"WANDB_MODE={named} is not known; it is one of {', '.join(_MODES)}.")
    wanted = mode if mode != "auto" else _MODES[named]
    if wanted != "online":
        return wanted, ""
    no_key = key_problem()
    if no_key and mode == "online":
        raise ConfigError(f"logger.mode=online, but {no_key}: set WANDB_API_KEY, run `wandb login`, or leave it at logger.mode=auto.")
    return wanted, no_key or answers()


def answers(seconds: float = PROBE_SECONDS) -> str:
    """Why the W&B server cannot be had, or an empty text: whatever it says within ``seconds`` is an answer, but for its own failure."""
    import wandb

    url, told = f"{wandb.setup().settings.base_url}/graphql", ["no answer from the server"]

    def ask() -> None:
        request = urllib.request.Request(url, b'{"query":"query{__typename}"}', {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                told[0] = ""
        except urllib.error.HTTPError as error:
            told[0] = f"the server failed with {error.code}" if error.code >= 500 else ""
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            told[0] = "" if "CERTIFICATE" in str(reason) else f"no network ({reason})"  # wandb has its own certificates

    within(seconds, ask)  # a name server that hangs heeds no limit of a request
    return told[0]


def key_problem() -> str:
    """Why wandb has no key (variable, netrc), without asking anybody; empty if it has one."""
    import wandb

    try:
        return "" if wandb.login(prompt=False, verify=False) else "no key"
    except Exception as error:  # a key that cannot be one
        return short(error)


def within(seconds: float, call: Callable[[], None]) -> None:
    """Make a call and wait for it so long at most; what hangs longer is left behind."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)


def short(error: BaseException) -> str:
    """What an error says, in one line of at most 200 letters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
