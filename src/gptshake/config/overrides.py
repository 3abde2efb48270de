"""An earlier run or a study becomes overrides, which today's config files compose.

    resume=<run>              the stored overrides and frozen ``auto`` values of the run, before the new ones
    optimizer.lr=from:<run>   the rate that ``task=find_lr`` or a sweep found, as a number; its origin is kept in the record
    task.run=<run>            the config of a run, for a task that reads it or runs it once more

A stored config.yaml is only compared with the result, never instantiated. From a record come values only (``values.py``).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptshake.config.arguments import override_value, quote
from gptshake.config.compose_errors import checked_compose, parse_overrides
from gptshake.config.experiments import EXPERIMENT
from gptshake.config.values import ONLY_VALUES, plain_yaml, sets_output_path, unsafe_reason
from gptshake.errors import CheckpointError, RecordError, first_line
from gptshake.export.hub import HF, read_shape
from gptshake.files import expanded
from gptshake.keys import RESULT, RESUME, is_free, key_of, not_free
from gptshake.model.config import HF_SIZES
from gptshake.record.index import BROKEN, STUDY_FILE, flat, is_number, read_entry, read_study
from gptshake.record.run import LATEST, find_run, is_made_here, read_run, run_dirs
from gptshake.redaction import SECRET, redact, redacted

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
        raise RecordError(f"The record of {run_dir.name} has {text}: {why}. {ONLY_VALUES} type it again to use it.")
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
        if not (content := plain_yaml(run_dir / "config.yaml")):
            raise ValueError("it is empty")
        return content
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise RecordError(f"{run_dir / 'config.yaml'} is missing or damaged ({first_line(error)}).") from error


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
