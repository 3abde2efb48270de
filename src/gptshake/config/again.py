"""A run becomes a config again: its stored overrides and frozen ``auto`` values before the new ones, recomposed from today's conf.

The stored config.yaml is only ever compared with the result, never instantiated.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.argv import key_of, override_value, quote
from gptshake.config.suggest import parse_overrides
from gptshake.errors import RecordError
from gptshake.files import expanded
from gptshake.keys import RESUME, is_free
from gptshake.record.catalogue import flat
from gptshake.record.run import LATEST, find_run, read_run
from gptshake.redaction import SECRET, redacted


def locate(name: str, overrides: list[str]) -> Path:
    """The directory of a run by name, id or path; looked up in the folders of runs that the overrides name.

    Raises:
        RecordError: no such run.
    """
    roots = [expanded(typed(overrides, f"paths.{key}") or key) for key in ("runs", "multirun")]
    return find_run(name, roots)


def without_latest(overrides: list[str]) -> list[str]:
    """The overrides with the id of the run that ``latest`` names now: the new run would soon be the latest, and its record must say which.

    Raises:
        RecordError: there is no run yet.
    """
    return [
        f"{text.partition('=')[0]}={read_run(locate(LATEST, overrides))['id']}"
        if key_of(text) in ("init_from", "tokenizer.path") and text.partition("=")[2] in (LATEST, quote(LATEST))
        else text
        for text in overrides
    ]


def typed(overrides: list[str], key: str) -> str:
    """What was typed for a key of free text, without Hydra's quotes; empty if nothing was, or ``null``."""
    texts = [text for text in overrides if key_of(text) == key]
    return str(parse_overrides(texts[-1:])[0].value() or "") if texts else ""


def stored_overrides(run_dir: Path, new: Sequence[str] = ()) -> list[str]:
    """The overrides that give a run's config again, its ``auto`` values frozen to what they were.

    Args:
        run_dir: of the run.
        new: overrides that will be put behind them.
    Raises:
        RecordError: the record is not readable, or a value in it was a secret and is not among the new ones.
    """
    try:
        record: dict[str, Any] = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        typed = [str(text) for text in record["overrides"]]
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"{run_dir} is not a run that can be continued: its run.json is missing or damaged ({error}).") from error
    frozen = [f"{key}={override_value(value)}" for key, value in record.get("resolved", {}).items() if SECRET not in str(value)]
    again = {key_of(text) for text in new}
    for text in typed:
        if SECRET in text and not is_free(key_of(text), RESUME) and key_of(text) not in again:
            raise RecordError(f"The record of {run_dir.name} has {text}: a secret is kept nowhere. Give {key_of(text)}= again to go on.")
    return [text for text in typed if key_of(text) not in ("dirty", "resume") and SECRET not in text] + frozen


def freeze(cfg: DictConfig, run_dir: Path) -> None:
    """Give a composed config the values that ``auto`` meant when the run began."""
    for key, value in read_run(run_dir).get("resolved", {}).items():
        if SECRET not in str(value):
            OmegaConf.update(cfg, key, value)


def refuse_differences(cfg: DictConfig, run_dir: Path) -> None:
    """Compare the recomposed config with the stored one.

    Raises:
        RecordError: listing what differs outside the free keys.
    """
    stored = flat(OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"), resolve=False))
    today = flat(redacted(OmegaConf.to_container(cfg, resolve=True)))
    differing = [key for key in sorted({*stored, *today}) if stored.get(key) != today.get(key) and not is_free(key, RESUME, stored, today)]
    if differing:
        lines = "\n".join(f"  {key}: was {stored.get(key)}, would be {today.get(key)}" for key in differing)
        raise RecordError(
            f"{run_dir.name} cannot be continued with another config:\n{lines}\n"
            f"Leave these as they were, or start a new run from its weights: init_from={run_dir.name}"
        )
