"""A run becomes a config again: its stored overrides and frozen ``auto`` values before the new ones, recomposed from today's conf.

The stored config.yaml is only ever compared with the result, never instantiated.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptshake.config.argv import key_of, quote
from gptshake.config.suggest import parse_overrides
from gptshake.errors import RecordError
from gptshake.record.run import find_run, read_run

# Keys that may differ between a run and its continuation: where it is kept and shown, how long it lasts, who fetches its batches.
FREE = (
    "paths",
    "data.documents.cache",
    "logger",
    "callbacks",
    "note",
    "dirty",
    "resume",
    "conf_shadow",
    "task",
    "debug",
    "study",
    "search_space",
    "sampler",
    "pruner",
    "executor",
    "data.verify",
    "data.workers",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.max_tokens",
    "trainer.max_time",
    "trainer.patience",
    "trainer.save_minutes",
)


# Of these a reproduction takes today's, not the record's: places, the mirror, remarks, what is about a sweep as a whole.
NOT_REPEATED = ("paths", "logger", "note", "study", "sampler", "pruner", "executor", "trainer.max_time")
# Where something lies may differ as long as it is the same thing, which its fingerprint says.
MOVED = ("init_from", "tokenizer.path", "data.path", "data.documents.path")


def locate(name: str, overrides: list[str]) -> Path:
    """The directory of a run by name, id or path; looked up in the folders of runs that the overrides name.

    Raises:
        RecordError: no such run.
    """
    roots = [Path(typed(overrides, f"paths.{key}") or key).expanduser() for key in ("runs", "multirun")]
    return find_run(name, roots)


def typed(overrides: list[str], key: str) -> str:
    """What was typed for a key of free text, without Hydra's quotes; empty if nothing was, or ``null``."""
    texts = [text for text in overrides if key_of(text) == key]
    return str(parse_overrides(texts[-1:])[0].value() or "") if texts else ""


def stored_overrides(run_dir: Path) -> list[str]:
    """The overrides that give a run's config again, its ``auto`` values frozen to what they were.

    Raises:
        RecordError: the record is not readable.
    """
    try:
        record: dict[str, Any] = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        typed = [str(text) for text in record["overrides"]]
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"{run_dir} is not a run that can be continued: its run.json is missing or damaged ({error}).") from error
    frozen = [f"{key}={value}" for key, value in record.get("resolved", {}).items()]
    return [text for text in typed if key_of(text) not in ("dirty", "resume")] + frozen


def repeated_overrides(run_dir: Path, own: Mapping[str, str]) -> list[str]:
    """The overrides that give a run once more, in another place.

    Args:
        run_dir: of the run to repeat.
        own: what the repetition says itself, as plain text: key -> value.
    Raises:
        RecordError: the record is not readable.
    """
    kept = [text for text in stored_overrides(run_dir) if not _is_one_of(key_of(text), NOT_REPEATED)]
    return [*kept, "logger=none", *(f"{key}={quote(value)}" for key, value in own.items())]


def freeze(cfg: DictConfig, run_dir: Path) -> None:
    """Give a composed config the values that ``auto`` meant when the run began."""
    for key, value in read_run(run_dir).get("resolved", {}).items():
        OmegaConf.update(cfg, key, value)


def refuse_differences(cfg: DictConfig, run_dir: Path) -> None:
    """Compare the recomposed config with the stored one.

    Raises:
        RecordError: listing what differs outside the free keys.
    """
    today = _flat(OmegaConf.to_container(cfg, resolve=True))
    if lines := _differences(_stored_config(run_dir), today, FREE):
        raise RecordError(
            f"{run_dir.name} cannot be continued with another config:\n{lines}\n"
            f"Leave these as they were, or start a new run from its weights: init_from={run_dir.name}"
        )


def refuse_another_config(run_dir: Path, repetition: Path) -> None:
    """Compare the stored configs of a run and its repetition.

    Raises:
        RecordError: listing what differs outside the free keys; or a config that cannot be read.
    """
    if lines := _differences(_stored_config(run_dir), _stored_config(repetition), (*FREE, *MOVED)):
        raise RecordError(
            f"{run_dir.name} does not become the config again that it was:\n{lines}\nIts overrides, ./conf or code are others now."
        )


def stored_value(run_dir: Path, key: str) -> Any:
    """What a run's config.yaml says for a dotted key, or None.

    Raises:
        RecordError: it cannot be read.
    """
    return _stored_config(run_dir).get(key)


def _stored_config(run_dir: Path) -> dict[str, Any]:
    try:
        return _flat(OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"), resolve=False))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise RecordError(f"{run_dir / 'config.yaml'} is missing or damaged ({str(error).splitlines()[0]}).") from error


def _differences(then: dict[str, Any], now: dict[str, Any], free: tuple[str, ...]) -> str:
    """One line for every key that differs; empty if none does."""
    differing = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key) and not _is_one_of(key, free)]
    return "\n".join(f"  {key}: was {then.get(key)}, would be {now.get(key)}" for key in differing)


def _is_one_of(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    return {key: value for name, child in node.items() for key, value in _flat(child, f"{prefix}{name}.").items()}
