"""Refuses values that cannot work before anything heavy is imported: ranges, words, combinations of keys, this machine's limits.

Takes the composed config; raises on the first thing that is wrong. What needs the corpus is checked when it is opened.
"""

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gptshake.config.compose_errors import in_plain_words
from gptshake.config.layout import GROUPS, packaged_conf
from gptshake.config.schemas import MAY_BE_NULL, RULES, WORDS
from gptshake.config.suggestions import VALUES, list_options
from gptshake.data.config import DataConfig
from gptshake.errors import ConfigError, did_you_mean, first_line, nearest
from gptshake.estimate.budget import parse_max_time, whole_sequences
from gptshake.estimate.formatting import parse_bytes, short_bytes
from gptshake.files import expanded
from gptshake.hardware import check_precision, logical_cores, memory_bytes
from gptshake.model.config import GPTConfig, check_shape
from gptshake.record.index import flat
from gptshake.redaction import add_secret
from gptshake.training.config import PASSED_ON, REPLACED, TrainerConfig

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_EXAMPLES = {"model": "tiny", "data": "wiki_char", "tokenizer": "char"}
_WRITTEN = ("folder", "file", "html", "csv", "jsonl", "pictures")  # keys of tasks that say where a result goes
MOST_PER_CORE = 16  # threads or processes; a record from a larger machine may ask for more than there are


def trains(cfg: DictConfig) -> bool:
    """Whether the task trains, which needs a model, data and the guard; one that is given a finished run with ``task.run`` only reads it."""
    return bool(cfg.task.get("trains", True)) and not cfg.task.get("run")


def check_groups(cfg: DictConfig, needed: Iterable[str] = ("model", "data", "tokenizer")) -> None:
    """Refuse a run that leaves open what to train, or on what."""
    missing = [group for group in needed if cfg.get(group) is None]
    if "data" in missing and "tokenizer" in missing:
        missing.remove("tokenizer")  # data=wiki_char brings its own
    if missing:
        named = " and ".join("a data set" if group == "data" else f"a {group}" for group in missing)
        example = " ".join(f"{group}={_EXAMPLES[group]}" for group in missing)
        listed = "\n".join(f"  {list_options(group)}" for group in missing)
        raise ConfigError(f"Choose {named}, as in {example}.\n{listed}")


def check(cfg: DictConfig) -> None:
    _check_missing(cfg)
    _check_parts(cfg)
    if isinstance(url := OmegaConf.select(cfg, "callbacks.notify.url"), str):
        add_secret("WEBHOOK", url)  # its path is often a secret
    for key in (*RULES, *WORDS):
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if isinstance(node, DictConfig) and name in node and (sentence := invalid_value(key, node.get(name))):
            raise ConfigError(sentence)
    shape = None
    if cfg.model is not None and OmegaConf.get_type(cfg.model) is GPTConfig:
        shape = GPTConfig(**{str(key): value for key, value in cfg.model.items() if key in GPTConfig.__dataclass_fields__})
        check_shape(shape)
        if shape.vocab_size is not None:
            raise ConfigError(
                f"model.vocab_size={shape.vocab_size} is not for a run: its tokenizer decides (tokenizer=, tokenizer.vocab_size=)."
            )
    if cfg.trainer is not None and cfg.trainer.get("_target_") == TrainerConfig._target_:
        _check_passed_on(cfg.trainer)
    _check_combinations(cfg)
    if not trains(cfg):
        return
    # This machine: weights that do not fit into its memory, more threads or processes than its cores can serve are mistyped numbers.
    most = MOST_PER_CORE * logical_cores()
    slots = ("hydra.sweeper.executor.threads", "hydra.sweeper.executor.slots") if sweeps_here(cfg) else ()
    for key in ("data.workers", "trainer.threads", "trainer.devices", *slots):
        wanted = OmegaConf.select(cfg, key)
        if isinstance(wanted, int) and wanted > most:
            raise ConfigError(f"{key}={wanted} is more than this machine can serve with {logical_cores()} cores: at most {most} work.")
    if shape and (weights := 4 * shape.num_params()) > (there := memory_bytes()):
        raise ConfigError(
            f"The weights of this model alone take {short_bytes(weights)} and this machine has {short_bytes(there)} of memory: "
            "choose a smaller model, or see what it needs with task=plan."
        )


def invalid_value(key: str, value: Any) -> str | None:
    """A sentence about a value that its key cannot have; None where it may, or where no rule is known."""
    if value is None and key.replace("data.documents.", "data.") in MAY_BE_NULL:
        return None
    word = "null" if value is None else str(value)
    if key in RULES:
        fits, advice = RULES[key]
        return None if fits(value) else f"{key}={word} cannot work: {advice}."
    if value in (words := WORDS[key]):
        return None
    near = did_you_mean(known) if (known := VALUES.get(key, {}).get(word)) else nearest(word.lower(), words)
    return f"{key}={word} is not known{near} It is one of {', '.join(words)}."


def _check_missing(cfg: DictConfig) -> None:
    """Refuse what has no value: ``???``, and interpolations of what is not there."""
    for name in map(str, cfg):
        try:  # of Hydra's own node the sweeper alone: other values of it are known only when a job runs
            node = cfg[name] if name != "hydra" else OmegaConf.select(cfg, "hydra.sweeper")
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            key = error.full_key
            raise ConfigError(f"{key}=??? has no value: ??? means that one must be given, so give {key}= one.") from None
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"{error.full_key}: its value holds an interpolation that means nothing here: {in_plain_words(first_line(error))} Where a dollar and "
                "a brace are meant as they are, write \\${ for ${."
            ) from None


def _check_parts(cfg: DictConfig) -> None:
    """Refuse a part that names nothing to build, and Hydra's own keys (``_partial_``) where a packaged part has them otherwise."""
    sweeper = OmegaConf.select(cfg, "hydra.sweeper") or {}
    if "hydra" in cfg and not str(sweeper.get("_target_")).startswith(("hydra_plugins.", "hydra._internal.")):
        raise ConfigError(f"hydra.sweeper._target_={sweeper.get('_target_')} is no sweeper: choose one with hydra/sweeper=study or basic.")
    parts = [f"callbacks.{name}" for name in cfg.callbacks or {}]
    parts += [f"logger.{name}" for name in cfg.logger or {} if "_target_" not in cfg.logger]  # of several trackers
    parts += [f"hydra.sweeper.{name}" for name in ("sampler", "pruner", "executor") if name in sweeper]
    for path in (*(name for name in GROUPS if OmegaConf.is_config(cfg.get(name))), *parts, "data.documents"):
        node = OmegaConf.select(cfg, path)
        is_mapping = isinstance(node, DictConfig)
        if node is None or (
            is_mapping and "_target_" not in node and not path.startswith(("hydra.", "optimizer", "scheduler", "tokenizer"))
        ):
            continue  # no part, or keys that a recipe sets for a callback that is left out
        if not is_mapping or "_target_" not in node:
            raise ConfigError(f"{path}={node} is not a part: it must be null or have a _target_ that names a class or a function.")
        target, schema = node.get("_target_"), OmegaConf.get_type(node)
        if not isinstance(target, str) or not _DOTTED.fullmatch(target):
            raise ConfigError(f"{path}._target_={target} names nothing to call: write package.module.name.")
        if not isinstance(node.get("_partial_", False), bool):
            raise ConfigError(f"{path}._partial_={node.get('_partial_')}: it must be true or false.")
        defaults = {field.name: field.default for field in fields(schema)} if is_dataclass(schema) else {}
        for key in ("_partial_", "_args_", "_recursive_", "_convert_") if defaults.get("_target_") == target else ():
            if key in node and node[key] != defaults.get(key):
                raise ConfigError(f"{path}.{key}={node[key]}: this key is Hydra's, and cannot be changed for {target}.")


def _check_passed_on(trainer: DictConfig) -> None:
    """Keys for Lightning's Trainer, added with ``+trainer.key=``: those that would do nothing, or harm, have a sentence of their own."""
    ours = TrainerConfig.__dataclass_fields__
    for key, value in ((str(key), value) for key, value in trainer.items() if key not in ours):
        if key in REPLACED:
            harmless, instead = REPLACED[key]
            if value != harmless:
                raise ConfigError(f"trainer.{key}={value} is not for Lightning's Trainer here: {instead}.")
        elif key not in PASSED_ON:
            raise ConfigError(f"trainer.{key} is not a key of trainer{nearest(key, (*ours, *PASSED_ON))}")
        elif not isinstance(value, bool):
            raise ConfigError(f"trainer.{key}={value} cannot work: it must be true or false.")


def _check_combinations(cfg: DictConfig) -> None:
    for group in ("task", "paths", "optimizer", "scheduler", "trainer"):
        if cfg.get(group) is None or (group == "task" and "_target_" not in cfg.task):
            raise ConfigError(f"{group}= needs an option: {list_options(group)}")
    for group in ("sampler", "pruner", "executor", "experiment", "debug"):  # an option leaves nothing under this name
        if cfg.get(group) is not None:
            raise ConfigError(f"{group}={cfg[group]} is no option: {list_options(group)}")
    if lacking := [name for name in ("runs", "multirun", "cache", "run_dir") if name not in cfg.paths]:
        raise ConfigError(f"paths.{lacking[0]} has no value: begin a file of your own in conf/paths with defaults: [default, _self_].")
    places = {f"paths.{name}": value for name, value in cfg.paths.items()} | {f"task.{name}": cfg.task.get(name) for name in _WRITTEN}
    for key, folder in ((key, expanded(value)) for key, value in places.items() if isinstance(value, str)):
        if any(part.name == ".." and not part.exists() for part in (folder, *folder.parents)):
            raise ConfigError(f"{key}={folder} leads through a folder that is not there: write {key}={os.path.normpath(folder)} instead.")
        if trains(cfg) and (name := os.fsencode(folder.absolute())) != name.decode(errors="ignore").encode():
            raise ConfigError(
                f"{key}={folder.absolute()} is not UTF-8, and weights cannot be read from there: rename it, or choose another place."
            )
        if re.search(r"[\x00-\x1f\x7f]", str(folder.absolute())):
            raise ConfigError(f"{key}={str(folder.absolute())!r} holds a line end, a tab or the like: rename it, or choose another place.")
    data: Any = cfg.data or {}
    model: Any = cfg.model or {}
    val, test = data.get("val_fraction", 0), data.get("test_fraction", 0)
    if val + test >= 1:
        raise ConfigError(f"data.val_fraction={val} and data.test_fraction={test} leave nothing to train on: make their sum less than 1.")
    if isinstance(data.get("batch_tokens"), int) and isinstance(model.get("block_size"), int):
        whole_sequences(data.batch_tokens, model.block_size)
    check_precision(cfg.trainer.get("accelerator"), cfg.trainer.get("precision"))
    if (max_time := cfg.trainer.get("max_time")) is not None:
        parse_max_time(max_time)
    if (memory := cfg.task.get("memory")) is not None:
        parse_bytes("task.memory", str(memory))


def sweeps_here(cfg: DictConfig) -> bool:
    """Whether the trials of a sweep run on this machine."""
    return str(OmegaConf.select(cfg, "hydra.sweeper.executor._target_")) in ("None", "gptshake.sweep.executor.local.LocalSlots")


def targets(cfg: DictConfig) -> dict[str, str]:
    values = flat(OmegaConf.to_container(cfg, resolve=True))
    return {key.removesuffix("._target_"): str(value) for key, value in values.items() if key.endswith("._target_")}


def check_targets(cfg: DictConfig, *, extended: bool) -> None:
    """Refuse a ``_target_`` in a module that is not there, before a run begins that would find out late.

    Args:
        extended: refuse keys, too, that a packaged part does not take: those added with ``+`` and those of a user's own files.
    """
    for path, target in targets(cfg).items():
        module, node = target.partition(".")[0], OmegaConf.select(cfg, path)
        if module not in sys.modules and find_spec(module) is None:
            raise ConfigError(f"{path}._target_: there is no module {module!r}. Your own files are searched in the working directory.")
        if not extended or path == "trainer" or module != "gptshake" or not isinstance(node, DictConfig):
            continue  # keys may be Lightning's; only a part of the user's own knows them
        # Keys of the part's schema, and of the packaged options that name the same target.
        schemas = (OmegaConf.get_type(node), DataConfig if path == "data" else None)
        found = {field.name for schema in schemas if is_dataclass(schema) for field in fields(schema)}
        for file in (packaged_conf() / path.partition(".")[0]).glob("*.yaml"):
            content = flat(yaml.safe_load(file.read_text(encoding="utf-8")))
            for prefix in (key.removesuffix("_target_") for key, value in content.items() if key.endswith("_target_") and value == target):
                found |= {key.removeprefix(prefix).partition(".")[0] for key in content if key.startswith(prefix)}
        found |= {"trains", "sweeps"} if path == "task" and found else set()
        known = {key for key in found if not key.startswith("_") and key != "defaults"}
        unknown = sorted({str(key) for key in node if not str(key).startswith("_")} - known)
        if known and unknown:
            names = ", ".join(sorted(known))
            raise ConfigError(f"{path}.{unknown[0]}: there is no such key{nearest(unknown[0], known)} {path} takes: {names}.")


def check_one_device(cfg: DictConfig, who: str) -> None:
    devices = OmegaConf.select(cfg, "trainer.devices")
    if devices not in (None, 1):
        raise ConfigError(f"{who} trains on one device: leave trainer.devices={devices} out, or use trainer.devices=1.")


def check_torchrun(cfg: DictConfig, processes: int, *, multirun: bool) -> None:
    """Refuse what several processes, begun by torchrun or srun, cannot do together."""
    if processes > 1 and (multirun or not str(cfg.task.get("_target_")).endswith(".train.run") or not cfg.trainer.get("strategy")):
        raise ConfigError(
            f"torchrun or srun started {processes} processes, which can only train one run together: use trainer=ddp or trainer=fsdp, "
            "without -m and task=, or start one process."
        )
