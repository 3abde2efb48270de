"""An earlier run, a study or an experiment file becomes overrides, which today's config files compose.

    resume=<run>              the stored overrides and frozen ``auto`` values of the run, before the new ones
    optimizer.lr=from:<run>   the rate that ``task=find_lr`` or a sweep found, as a number; its origin is kept in the record
    experiment=<path>.yaml    what the file says, so that the run can be repeated without it
    logger=[wandb,mlflow]     a node for each, logger.wandb and logger.mlflow
    task.run=<run>            the config of a run, for a task that reads it or runs it once more

A stored config.yaml is only compared with the result, never instantiated. From a record come values only (``values.py``).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptshake.config.arguments import override_value, quote, swept_values
from gptshake.config.compose_errors import checked_compose, parse_overrides
from gptshake.config.layout import local_files
from gptshake.config.values import sets_output_path, unsafe_reason
from gptshake.errors import CheckpointError, ConfigError, RecordError, first_line
from gptshake.export.hub import HF, read_shape
from gptshake.files import expanded, yaml_text
from gptshake.keys import RESULT, RESUME, is_free, key_of, not_free
from gptshake.model.config import HF_SIZES
from gptshake.record.index import BROKEN, STUDY_FILE, flat, is_number, read_entry, read_study
from gptshake.record.run import LATEST, find_run, is_made_here, read_run, run_dirs
from gptshake.redaction import SECRET, redact, redacted

EXPERIMENT = "experiment"
SUFFIXES = (".yaml", ".yml")
LIMITS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens", "trainer.hours")
LR, FROM = "optimizer.lr", "from:"
# What a rate depends on; lengths do, too, but little from some hundred steps on.
RATE_DEPENDS_ON = (
    *("model", "tokenizer", "scheduler", "optimizer", "data.batch_size", "data.batch_tokens", "data.documents", "data.path"),
    "trainer.gradient_clip_val",
)
# A repetition takes these from today: places, trackers, remarks, what is about a sweep as a whole, a limit in seconds.
NOT_REPEATED = ("paths", "logger", "note", "study", "sampler", "pruner", "executor", "trainer.max_time", "callbacks.notify")
# Where something lies may differ as long as it is the same thing, which its fingerprint says.
MOVED = ("init_from", "tokenizer.path", "data.path", "data.documents.path")
_LATER_OF_TEXTS = {"cleaning": 1, "text_key": "text", "order": "first", "order_seed": 0}
# Keys that came later, with what a record without them meant.
LATER = {
    **{"optimizer.embedding_lr_mult": 1.0, "optimizer.groups": [], "data.offset": "none"},
    **{f"{place}.{key}": value for place in ("data", "data.documents") for key, value in _LATER_OF_TEXTS.items()},
}
_CLEANING_SOURCES = ("gptshake.data.source.wiki.Wiki", "gptshake.data.source.files.TextFiles")
_ONLY_VALUES = "From a record come values only. If you trust this one,"


def typed_value(overrides: list[str], key: str) -> str:
    """What was typed for a key of free text, without Hydra's quotes; empty if nothing was, or ``null``."""
    texts = [text for text in overrides if key_of(text) == key]
    return str(parse_overrides(texts[-1:])[0].value() or "") if texts else ""


def locate(name: str, overrides: list[str]) -> Path:
    """The directory of a run by name, id or path; looked up in the folders of runs that the overrides name."""
    return find_run(name, [expanded(typed_value(overrides, f"paths.{key}") or key) for key in ("runs", "multirun")])


def unfinished(overrides: list[str]) -> Path | None:
    """The run that the same command began and that has not ended well, for ``resume=auto``; None if there is none.

    The same command: its overrides, without those that cannot change a result. Looked for in ``paths.run_dir`` if that was typed, else
    below ``paths.runs``; one that has no whole checkpoint, as it ended early or is the first half of a copy, has nothing to resume.

    Raises:
        RecordError: there are several, or the one is at work.
    """
    place, found = typed_value(overrides, "paths.run_dir"), []
    for path in [expanded(place)] if place else run_dirs([expanded(typed_value(overrides, "paths.runs") or "runs")]):
        entry = read_entry(path)
        same = entry.status not in (BROKEN, "ok") and _asked_for(entry.info.get("overrides") or ()) == _asked_for(overrides)
        if same and (entry.status == "running" or _can_continue(path)):
            found.append(entry)
    if len(found) > 1:
        raise RecordError(
            f"This command began several unfinished runs: {', '.join(one.path.name for one in found)}. Name one: resume=<run>."
        )
    if found and found[0].status == "running":
        raise RecordError(f"The run that this command began is at work: {found[0].path.name}. Wait for its end, or stop it.")
    return found[0].path if found else None


def _can_continue(run_dir: Path) -> bool:
    from gptshake.training.checkpoint import newest  # imports torch

    try:
        return bool(newest(run_dir))
    except CheckpointError as error:
        print(error)
        return False


def _asked_for(overrides: Iterable[str]) -> dict[str, str]:
    return {key_of(text): redact(text) for text in not_free(overrides, RESULT)}


def resolve_latest(overrides: list[str]) -> list[str]:
    """The overrides with the id of the run that ``latest`` names now: the new run would soon be the latest, and its record must say which."""
    return [
        f"{text.partition('=')[0]}={read_run(locate(LATEST, overrides))['id']}"
        if key_of(text) in ("init_from", "tokenizer.path") and text.partition("=")[2] in (LATEST, quote(LATEST))
        else text
        for text in overrides
    ]


def with_pretrained_shape(overrides: list[str]) -> list[str]:
    """The overrides with the sizes of the network that ``init_from=hf:`` names, where no model was chosen."""
    source = typed_value(overrides, "init_from")
    resumes = typed_value(overrides, "resume") not in ("", "auto")
    if not source.startswith(HF) or resumes or {"model", EXPERIMENT} & {key_of(text) for text in overrides}:
        return overrides
    preset, shape = checked_compose(["model=gpt2"]).model, read_shape(source)
    sizes = {key: getattr(shape, key) for key in HF_SIZES if key != "vocab_size"}
    return ["model=gpt2", *(f"model.{key}={size}" for key, size in sizes.items() if size != preset[key]), *overrides]


# --- a run


def stored_overrides(run_dir: Path, new: Sequence[str] = (), *, trusted: bool = False) -> list[str]:
    """The overrides that give a run's config again, its ``auto`` values frozen to what they were.

    What runs code is refused by name unless it is among the new ones, and so is, in a record that was not made by this user on this
    machine, what reads the environment; where such a record would write is left out.

    Args:
        new: overrides, or keys, that will be put behind them.
        trusted: take everything, as the code of the record is run anyway.
    """
    record, new_keys, kept = _record(run_dir), {key_of(text) for text in new}, []
    ours = trusted or is_made_here(record)
    for text in map(str, record["overrides"]):
        key = key_of(text)
        group = key.partition(".")[0]
        of_option = group in ("callbacks", "logger") and not text.startswith(f"{group}=")
        if key in ("dirty", "resume", "paths.run_dir", "model.vocab_size") or (of_option and group in new_keys):
            continue  # of that run alone, or without effect; or another option of the group was typed, which may not have the key
        if key.startswith("callbacks.notify.") and not ours:
            continue  # it runs or calls something, of which no number depends
        if SECRET in text:
            if key not in new_keys and (not is_free(key, RESUME) or key.startswith("data.")):
                raise RecordError(f"The record of {run_dir.name} has {text}: secrets are not stored. Give {key}= again to resume.")
        elif trusted or ((ours or not sets_output_path(text)) and _is_value(text, run_dir, new_keys, resolvers=ours)):
            kept.append(text)
    frozen = _texts(record["resolved"])
    return kept + (frozen if trusted else _values(frozen, run_dir, new_keys))


def resumed_overrides(run_dir: Path, new: Sequence[str] = ()) -> list[str]:
    """``stored_overrides`` between what the run began with, where today's defaults may be others, and what it got on a resume.

    Recommendations for optimizer, schedule and presets change; a run that began under them keeps its own.
    """
    record, new_keys, began = _record(run_dir), {key_of(text) for text in new}, dict[str, Any]()
    added = {key_of(text) for text in map(str, record["overrides"]) if text.startswith("+")}  # not there before their override
    kept = [group for group in ("optimizer", "scheduler") if group not in new_keys]
    with suppress(RecordError):  # reported where the config is compared
        stored, chosen = stored_config(run_dir), record.get("choices") or {}
        began = {group: chosen[group] for group in kept if chosen.get(group) is not None}
        began |= {
            key: value
            for key, value in stored.items()
            if key.partition(".")[0] in (*kept, "preset") and key not in added and "._" not in key and isinstance(value, str | int | float)
        }
    later = _values(_texts(record.get("extended") or {}), run_dir)
    return [*_values(_texts(began), run_dir, new_keys), *stored_overrides(run_dir, new), *later, *_texts(_cleaning(run_dir))]


def recomposed(run_dir: Path, own: Sequence[str]) -> DictConfig:
    """The config of a run, composed from today's files for a task that reads it; the task's overrides of other keys have the last word."""
    new = [text for text in own if key_of(text).partition(".")[0] not in ("task", "paths")]
    return checked_compose([*resumed_overrides(run_dir, new), *new])


def repeated(run_dir: Path, own: Mapping[str, str | list[str]]) -> list[str]:
    """The overrides that give a run once more, without trackers, with values that the repetition says itself; the caller trusts the record."""
    kept = [text for text in stored_overrides(run_dir, list(own), trusted=True) if not _is_one_of(key_of(text), NOT_REPEATED)]
    return [*kept, "logger=none", "trainer.max_time=null", *_texts(own)]


def freeze(cfg: DictConfig, run_dir: Path) -> None:
    """Give a composed config the values that ``auto`` meant when the run began, and its version of the cleaning."""
    for key, value in (read_run(run_dir).get("resolved", {}) | _cleaning(run_dir)).items():
        if _values(_texts({key: value}), run_dir):
            OmegaConf.update(cfg, key, value)


def _record(run_dir: Path) -> dict[str, Any]:
    try:
        record = read_run(run_dir)
        return record | {"overrides": list(record["overrides"]), "resolved": record.get("resolved") or {}}
    except (RecordError, KeyError, TypeError) as error:
        raise RecordError(f"{run_dir} is not a run that can be continued: its run.json is missing or damaged ({error}).") from error


def _cleaning(run_dir: Path) -> dict[str, int]:
    """The version of the cleaning of a run whose text may be cleaned; 1 before there was a key for it."""
    with suppress(RecordError, ValueError, TypeError):  # reported where the config is compared
        stored = stored_config(run_dir)
        if stored.get("data.documents._target_") in _CLEANING_SOURCES:
            return {"data.cleaning": int(stored.get("data.cleaning") or 1)}
    return {}


def _texts(values: Mapping[str, Any]) -> list[str]:
    """Values of a record as overrides, without hidden secrets."""
    return [f"{key}={override_value(value)}" for key, value in values.items() if SECRET not in str(value)]


def _values(texts: Iterable[str], run_dir: Path, typed_keys: Collection[str] = ()) -> list[str]:
    """Those overrides of a record that are plain values and do not say where a run writes; raises as ``_is_value``."""
    return [text for text in texts if _is_value(text, run_dir, typed_keys) and not sets_output_path(text)]


def _is_value(text: str, run_dir: Path, typed_keys: Collection[str], *, resolvers: bool = False) -> bool:
    """Whether an override of a record is a plain value or a known option; False if it is not, but its key was typed again."""
    why = unsafe_reason(text, resolvers=resolvers)
    if why and key_of(text) not in typed_keys:
        raise RecordError(f"The record of {run_dir.name} has {text}: {why}. {_ONLY_VALUES} type it again to use it.")
    return not why


# --- comparison with the stored config


def stored_config(run_dir: Path) -> dict[str, Any]:
    """config.yaml by dotted keys; errors as of ``stored_groups``."""
    return flat(stored_groups(run_dir))


def stored_groups(run_dir: Path) -> dict[str, Any]:
    """config.yaml as it is nested there.

    Raises:
        RecordError: it is missing or damaged.
    """
    try:
        if not (content := _content(run_dir / "config.yaml")):
            raise ValueError("it is empty")
        return content
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise RecordError(f"{run_dir / 'config.yaml'} is missing or damaged ({first_line(error)}).") from error


def _content(path: Path) -> dict[str, Any]:
    """A file of YAML as plain values, interpolations as they are written."""
    try:
        content = OmegaConf.to_container(OmegaConf.create(yaml_text(path)), resolve=False)
    except AssertionError:  # OmegaConf's, for a number
        content = None
    if not isinstance(content, dict):
        raise ValueError("it has no keys")
    return {str(key): value for key, value in content.items()}


def refuse_differences(cfg: DictConfig, run_dir: Path) -> None:
    """Refuse a recomposed config that differs from the stored one outside the free keys."""
    ways_out = f"start a new run from its weights: init_from={run_dir.name}"
    try:
        stored = stored_config(run_dir)
    except RecordError as error:
        raise RecordError(f"{str(error).rstrip('.')}, so {run_dir.name} cannot be resumed. Put the file back, or {ways_out}") from error
    if listed := _differences(_with_later(stored, now := _plain(cfg)), now):
        raise RecordError(f"{run_dir.name} cannot be continued with another config:\n{listed}\nLeave these as they were, or {ways_out}")


def refuse_other_defaults(cfg: DictConfig, run_dir: Path, study: str) -> None:
    """Refuse to continue a study where the config of one of its runs is another one now than it was."""
    freeze(cfg, run_dir)
    if listed := _differences(_with_later(stored_config(run_dir), now := _plain(cfg)), now):
        raise RecordError(
            f"The study {study} was started with other defaults than those of today:\n{listed}\n"
            f"Continue it with the version that started it, or start a new one: study=<name>. task=report study={study} shows what it found."
        )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return flat(redacted(OmegaConf.to_container(cfg, resolve=True)))


def _with_later(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config with the keys that came later."""
    return {key: value for key, value in LATER.items() if key in now} | dict(stored)


def refuse_another_config(run_dir: Path, repetition: Path) -> None:
    """Refuse a repetition whose config differs from that of its run in what can change a number."""
    then = stored_config(run_dir)
    secret = [key for key, value in then.items() if SECRET in str(value)]
    if listed := _differences(then, stored_config(repetition), but=(*MOVED, *secret)):
        raise RecordError(
            f"The overrides of {run_dir.name} do not give the config that it had; nothing was trained:\n{listed}\n"
            "Did its config.yaml, your ./conf or a variable of the environment change since?"
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], but: tuple[str, ...] = ()) -> str:
    """One line for each key that may not change on a resume and has another value; ``but`` are left out."""
    keys = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key) and not _is_one_of(key, but)]
    return "\n".join(f"  {key}: was {then.get(key)}, would be {now.get(key)}" for key in keys if not is_free(key, RESUME, then, now))


def _is_one_of(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


# --- a study's trials


def check_trial_overrides(overrides: Sequence[str], folder: Path, typed: Collection[str]) -> None:
    """Refuse overrides of a study's trial that are more than values, unless they were typed."""
    for text in overrides:
        if text not in typed and _is_value(text, folder, ()) and sets_output_path(text):
            raise RecordError(f"The study {folder.name} has {text}, which was not typed: where a run writes is not taken from its files.")


# --- a learning rate that was found


def resolve_lr_from(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The overrides with the number in the place of ``from:<run or study>``, and for the record where it is from: nothing, or ``lr_from``."""
    written, origin = [], dict[str, Any]()
    for text in overrides:
        key, _, value = text.partition("=")
        if key.lstrip("+") == LR and (name := value.strip("'\"")).startswith(FROM):
            rate, path = _rate_of(name.removeprefix(FROM), overrides)
            info = read_run(path)
            length = {key: (info.get("budget") or {}).get(key) for key in ("tokens", "warmup_tokens")}
            text, origin = f"{key}={rate:g}", {"lr_from": {"run": info["id"], "path": str(path), **length}}
        written.append(text)
    return written, origin


def _rate_of(name: str, overrides: list[str]) -> tuple[float, Path]:
    """The rate of a study's best trial and the directory of that trial's first run, or what a finder's run recommends and its directory."""
    multirun = expanded(typed_value(overrides, "paths.multirun") or "multirun")
    study = next((place for place in (expanded(name), multirun / name) if name and (place / STUDY_FILE).exists()), None)
    if study:
        from gptshake.report.study_stats import best

        name = f"{LR}={FROM}{study.name}"
        if (winner := best(read_study(study))) is None:
            raise RecordError(f"{name}: no trial of that study has ended yet.")
        if LR not in winner.trial["params"]:
            raise RecordError(f"{name}: that study did not vary {LR}.")
        rate, path = winner.trial["params"][LR], study / winner.trial["runs"][0]["path"]
    else:
        path = locate(name, overrides)
        info = read_run(path)
        name, found = f"{LR}={FROM}{info['id']}", info.get("find_lr") or {}
        if not isinstance(found, dict) or (rate := found.get("lr")) is None:
            why = f"has not found a rate ({info['status']})" if found else "is not a run of task=find_lr"
            raise RecordError(f"{name}: {path.name} {why}. Find one with: gptshake task=find_lr model=... data=...")
    if not is_number(rate) or rate <= 0:
        raise RecordError(f"{name}: its record holds the rate {str(rate)[:40]!r}, which is not a number above 0. Give the rate itself.")
    return float(rate), path


def lr_mismatch_note(origin: dict[str, Any], cfg: DictConfig) -> str | None:
    """A sentence if the rate was found for another model, data or optimizer than what is to be trained; None if for the same."""
    if not origin:
        return None

    def plain(key: str, value: Any) -> Any:  # a study keeps a path as an absolute one
        return expanded(value).absolute() if key.endswith(".path") and isinstance(value, str) else value

    then, now = read_entry(Path(origin["lr_from"]["path"])).config, flat(OmegaConf.to_container(cfg, resolve=True))
    keys = [key for key in sorted({*then, *now}) if key.startswith(RATE_DEPENDS_ON) and key not in (LR, "data.documents.cache")]
    differing = [key for key in keys if plain(key, then.get(key)) != plain(key, now.get(key)) and now.get(key) != "auto"]
    if not differing:
        return None
    shown = ", ".join(f"{key} {then.get(key)}, here {now.get(key)}" for key in differing[:3])
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f"note: {LR}={now[LR]:g} was found by {origin['lr_from']['run']} for other terms: {shown}{more}."


# --- an experiment file by its path


def expand_experiment_files(overrides: list[str]) -> list[str]:
    """The overrides with every ``experiment=<path>.yaml`` replaced by what the file says; other experiments stay.

    A limit that was typed replaces the limits of the files.
    """
    named = [text for text in overrides if key_of(text) == EXPERIMENT and not text.endswith("=null")]
    files = [text for text in named if text.endswith(SUFFIXES) and not swept_values(text.partition("=")[2])]
    rest = [text for text in overrides if text not in files]
    lines = [line for text in files for line in _lines(expanded(text.partition("=")[2]))]
    limits = {key_of(text) for text in rest if key_of(text) in LIMITS and not text.endswith("=null")}
    if limits:
        lines = [line for line in lines if key_of(line) not in LIMITS]
        if len(named) > len(files):
            lines += [f"{limit}=null" for limit in LIMITS if limit not in limits]
    if any(text.startswith("logger=") for text in rest):  # the nodes of a file's list would outlive another choice
        lines = [line for line in lines if key_of(line) != "logger"]
    found = list[str]()
    for text in lines + rest:
        if key_of(text) == "logger" and text.partition("=")[2].startswith("["):  # a node for each tracker: Hydra would mix their keys
            names: Any = parse_overrides([text])[0].value()
            nodes = {re.sub(r"\W", "_", str(name)): name for name in names if name != "none"}
            found += ["logger=none", *(f"+logger@logger.{node}={name}" for node, name in nodes.items())]
        else:
            found.append(text)
    return found


def experiment_files_as_options(overrides: list[str], folder: Path) -> list[str]:
    """The overrides of a multirun with the files that ``experiment=`` names in a list as options of the group, copied into a folder of config."""
    found = []
    for text in overrides:
        names = [name.strip("'\"") for name in swept_values(text.partition("=")[2])] if key_of(text) == EXPERIMENT else []
        files = [name for name in names if name.endswith(SUFFIXES)]
        for name in files:
            _lines(expanded(name))  # refuses what is none
            plain = str(expanded(name).absolute()) if name.startswith("~") or ".." in Path(name).parts else name
            copy = folder / EXPERIMENT / plain.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(f"# @package _global_\n{yaml_text(expanded(name))}", encoding="utf-8")
            names[names.index(name)] = quote(plain)
        found.append(f"{EXPERIMENT}=choice({','.join(names)})" if files else text)
    return found


def _lines(path: Path, via: tuple[Path, ...] = ()) -> list[str]:
    what = f"{EXPERIMENT}={path}"
    if path in via:
        raise ConfigError(f"{what} includes itself by its defaults list.")
    try:
        content = _content(path)
    except OSError as error:
        raise ConfigError(f"{what}: there is no such file.") from error
    except Exception as error:  # whatever the reader of YAML makes of a file that is none
        raise ConfigError(f"{what} is not a config: {first_line(error)}.") from error
    lines, defaults = [], content.pop("defaults", None) or []
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if entry == "_self_":
            continue
        if isinstance(entry, str) and entry.startswith("/") and (entry.count("/") == 2 or entry.endswith(SUFFIXES)):
            group, _, option = entry[1:].partition("/")
        else:
            (name, option), *more = entry.items() if entry and isinstance(entry, dict) else [("", entry)]
            group = str(name).removeprefix("override /")
            if more or group == str(name):
                raise ConfigError(
                    f"{what}: in a file given by its path, defaults are written `override /group: option` or `/group/option`, not {entry}."
                )
        nested = group == EXPERIMENT and str(option).endswith(SUFFIXES)  # in the best.yaml of a study over such files
        lines += _lines(expanded(option), (*via, path)) if nested else [f"{group}={option}"]
    chosen = dict(line.split("=", 1) for line in lines)
    lines += [f"{_sign(key, chosen)}{key}={override_value(value)}" for key, value in flat(content).items()]
    if any((path.parent / name).exists() for name in ("study.json", "run.json")):  # may be somebody else's
        for text in lines:
            if why := unsafe_reason(text) or (sets_output_path(text) and "it says where a run writes"):
                raise RecordError(f"{path} has {text}: {why}. {_ONLY_VALUES} copy the file elsewhere.")
    return lines


def _sign(key: str, chosen: Mapping[str, str]) -> str:
    """``+`` for a key of an option of the user's own whose yaml does not name it: so it is typed, too."""
    group, _, inside = key.partition(".")
    file = local_files().get(f"{group}/{chosen.get(group)}.yaml")
    named = _content(file) if file else {"defaults": ()}
    return "" if "defaults" in named or {key, inside} & {*flat(named)} else "+"
