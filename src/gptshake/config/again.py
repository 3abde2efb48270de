"""A run becomes a config again: its stored overrides and frozen ``auto`` values before the new ones, recomposed from today's conf.

The stored config.yaml is only ever compared with the result, never instantiated.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptshake.config.argv import key_of, override_value, quote
from gptshake.config.suggest import checked_compose, parse_overrides
from gptshake.config.values import more_than_a_value, names_place
from gptshake.errors import RecordError, first_line
from gptshake.files import expanded, yaml_text
from gptshake.keys import RESUME, is_free
from gptshake.record.catalogue import flat
from gptshake.record.run import LATEST, find_run, read_run
from gptshake.record.seal import is_made_here
from gptshake.redaction import SECRET, redacted

_CLEANING_SOURCES = ("gptshake.data.source.wiki.Wiki", "gptshake.data.source.files.TextFiles")


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


def stored_overrides(run_dir: Path, new: Sequence[str] = (), *, trusted: bool = False) -> list[str]:
    """The overrides that give a run's config again, its ``auto`` values frozen to what they were.

    From the record come values only: what runs code is refused by name unless it is among the new ones, and so is, in a record that
    was not made by this user on this machine, what reads the environment; where such a record would write is left out.

    Args:
        run_dir: of the run.
        new: overrides, or keys, that will be put behind them.
        trusted: take everything, as the code of the record is run anyway.
    Raises:
        RecordError: the record is not readable, or something in it must be typed again and is not among the new ones.
    """
    record = _record(run_dir)
    ours = trusted or is_made_here(record)
    again = {key_of(text) for text in new}
    kept = []
    for text in map(str, record["overrides"]):
        key = key_of(text)
        if key in ("dirty", "resume", "paths.run_dir"):
            continue
        if (group := key.partition(".")[0]) in ("callbacks", "logger") and group in again and key != group:
            continue  # another option of the group may not have the key
        if SECRET in text:
            if key not in again and (not is_free(key, RESUME) or key.startswith("data.")):
                raise RecordError(f"The record of {run_dir.name} has {text}: a secret is kept nowhere. Give {key}= again to go on.")
        elif trusted or ((ours or not names_place(text)) and _is_value(text, run_dir, again, resolvers=ours)):
            kept.append(text)
    frozen = [f"{key}={override_value(value)}" for key, value in record["resolved"].items() if SECRET not in str(value)]
    return kept + [text for text in frozen if trusted or (_is_value(text, run_dir, again) and not names_place(text))]


def extended(run_dir: Path) -> list[str]:
    """The limits and the place of the text that a run got on a resume, which hold for the next ones, too.

    Raises:
        RecordError: one of them is more than a value.
    """
    later = _record(run_dir).get("extended") or {}
    texts = [f"{key}={override_value(value)}" for key, value in later.items()]
    return [text for text in texts if _is_value(text, run_dir, ()) and not names_place(text)]


def _record(run_dir: Path) -> dict[str, Any]:
    try:
        record = read_run(run_dir)
        record["overrides"], record["resolved"] = list(record["overrides"]), record.get("resolved") or {}
    except (RecordError, KeyError, TypeError) as error:
        raise RecordError(f"{run_dir} is not a run that can be continued: its run.json is missing or damaged ({error}).") from error
    return record


def _is_value(text: str, run_dir: Path, again: Collection[str], *, resolvers: bool = False) -> bool:
    """Whether an override of a record is a plain value or a known option; False if it is not, but its key is among ``again``.

    Raises:
        RecordError: it is not, and nobody typed it again.
    """
    why = more_than_a_value(text, resolvers=resolvers)
    if why and key_of(text) not in again:
        raise RecordError(
            f"The record of {run_dir.name} has {text}: {why}. From a record come values only. If you trust this one, type it again to use it."
        )
    return not why


def typed_values(overrides: Sequence[Override], changes: Sequence[str]) -> set[str]:
    """Every override that a sweep's command line itself says, one for each value of a list.

    Args:
        overrides: of the command, parsed.
        changes: of ``ablate=``.
    """
    texts = set(changes)
    for override in overrides:
        key = override.get_key_element()
        if override.is_choice_sweep():
            texts |= {f"{key}={value}" for value in override.sweep_string_iterator()}
        elif not override.is_sweep_override():
            texts |= {override.input_line or "", f"{key}={override.get_value_element_as_str()}"}
    return texts


def refuse_code(overrides: Sequence[str], folder: Path, typed: Collection[str]) -> None:
    """Refuse overrides of a study's trial that are more than values, unless they were typed.

    Raises:
        RecordError: naming the first.
    """
    for text in overrides:
        if text not in typed and _is_value(text, folder, ()) and names_place(text):
            raise RecordError(f"The study {folder.name} has {text}, which was not typed: where a run writes is not taken from its files.")


def resumed_overrides(run_dir: Path, new: Sequence[str] = ()) -> list[str]:
    """``stored_overrides``, with what the run got on a resume, and what it began with where today's defaults may be others."""
    cleaning = [f"{key}={value}" for key, value in _cleaning(run_dir).items()]
    return [*_defaults_of_its_time(run_dir, new), *stored_overrides(run_dir, new), *extended(run_dir), *cleaning]


def _defaults_of_its_time(run_dir: Path, new: Sequence[str]) -> list[str]:
    """Optimizer and schedule that a run had, and the preset's values: recommendations change, a run that began under them does not."""
    again = {key_of(text) for text in new}
    kept = [group for group in ("optimizer", "scheduler") if group not in again]
    try:
        choices, stored = _record(run_dir).get("choices") or {}, stored_config(run_dir)
    except RecordError:
        return []  # said where the config is compared
    texts = [f"{group}={override_value(choices[group])}" for group in kept if choices.get(group) is not None]
    for key, value in stored.items():
        group, _, name = key.partition(".")
        if group in (*kept, "preset") and isinstance(value, str | int | float) and not name.startswith("_") and SECRET not in str(value):
            texts.append(f"{key}={override_value(value)}")
    return [text for text in texts if _is_value(text, run_dir, again) and not names_place(text)]


def _cleaning(run_dir: Path) -> dict[str, int]:
    """The version of the cleaning of a run whose text may be cleaned; 1 before there was a key for it."""
    try:
        stored = stored_config(run_dir)
        cleans = stored.get("data.documents._target_") in _CLEANING_SOURCES
        return {"data.cleaning": int(stored.get("data.cleaning") or 1)} if cleans else {}
    except (RecordError, ValueError, TypeError):
        return {}  # said where the config is compared


def freeze(cfg: DictConfig, run_dir: Path) -> None:
    """Give a composed config the values that ``auto`` meant when the run began, and its version of the cleaning.

    Raises:
        RecordError: one of them is more than a value.
    """
    for key, value in (read_run(run_dir).get("resolved", {}) | _cleaning(run_dir)).items():
        text = f"{key}={override_value(value)}"
        if SECRET not in str(value) and _is_value(text, run_dir, ()) and not names_place(text):
            OmegaConf.update(cfg, key, value)


def recomposed(run_dir: Path, typed: Sequence[str]) -> DictConfig:
    """The config of a run, composed from today's files for a task that reads it.

    Args:
        run_dir: of the run.
        typed: the task's own overrides; those that are not about the task itself have the last word.
    Raises:
        RecordError, ConfigError: as ``stored_overrides``, or the config cannot be composed any more.
    """
    new = [text for text in typed if key_of(text).partition(".")[0] not in ("task", "paths")]
    return checked_compose([*resumed_overrides(run_dir, new), *new])


def stored_config(run_dir: Path) -> dict[str, Any]:
    """A run's config.yaml as dotted keys and plain values.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        return flat(OmegaConf.to_container(OmegaConf.create(yaml_text(run_dir / "config.yaml")), resolve=False))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise RecordError(f"{run_dir / 'config.yaml'} is missing or damaged ({first_line(error)}).") from error


def refuse_differences(cfg: DictConfig, run_dir: Path) -> None:
    """Compare the recomposed config with the stored one.

    Raises:
        RecordError: listing what differs outside the free keys; or config.yaml cannot be read.
    """
    try:
        stored = stored_config(run_dir)
    except RecordError as error:
        raise RecordError(
            f"{str(error).rstrip('.')}, so {run_dir.name} cannot be resumed. "
            f"Put the file back, or start a new run from its weights: init_from={run_dir.name}"
        ) from error
    stored = {key: 1 for key in ("data.cleaning", "data.documents.cleaning") if _cleaning(run_dir)} | stored
    today = flat(redacted(OmegaConf.to_container(cfg, resolve=True)))
    differing = [key for key in sorted({*stored, *today}) if stored.get(key) != today.get(key) and not is_free(key, RESUME, stored, today)]
    if differing:
        lines = "\n".join(f"  {key}: was {stored.get(key)}, would be {today.get(key)}" for key in differing)
        raise RecordError(
            f"{run_dir.name} cannot be continued with another config:\n{lines}\n"
            f"Leave these as they were, or start a new run from its weights: init_from={run_dir.name}"
        )
