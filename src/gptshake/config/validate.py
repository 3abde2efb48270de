"""Refuses values that cannot work before anything heavy is imported: ranges, words, combinations of keys, this machine's limits.

Takes the composed config; raises on the first thing that is wrong. What needs the corpus is checked when it is opened.
"""

import ast
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gptshake.config.arguments import SWEPT_TEXT_KEYS
from gptshake.config.compose_errors import COMPOSITION_ERRORS, checked_compose, keys, list_options, parse_overrides
from gptshake.config.layout import GROUPS, packaged_conf
from gptshake.config.ranges import RULES, WORDS, fault
from gptshake.config.suggestions import nearest
from gptshake.data.config import DataConfig
from gptshake.errors import ConfigError, first_line
from gptshake.estimate.budget import parse_max_time, whole_sequences
from gptshake.estimate.formatting import parse_bytes, short_bytes
from gptshake.hardware import check_precision, logical_cores, memory_bytes
from gptshake.keys import key_of
from gptshake.model.config import GPTConfig, check_shape
from gptshake.sweep.space import axis_of, is_declared_range, texts_of
from gptshake.training.config import PASSED_ON, REPLACED, TrainerConfig

_PARTS = ("sampler", "pruner", "executor")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_OF_HYDRA = ("_partial_", "_args_", "_recursive_", "_convert_")
WORDED = {"data": "a data set"}
MOST_COMPOSED, MOST_SET = 64, 256  # combinations of groups, and of values in each; beyond, one axis at a time
MOST_PER_CORE = 16  # threads or processes; a record from a larger machine may ask for more than there are


def trains(cfg: DictConfig) -> bool:
    """Whether the task trains, which needs a model, data and the guard; one that is given a finished run with ``task.run`` only reads it."""
    return bool(cfg.task.get("trains", True)) and not cfg.task.get("run")


def check_groups(cfg: DictConfig, needed: Iterable[str] = ("model", "data", "tokenizer")) -> None:
    """Refuse a run that leaves open what to train, or on what.

    Raises:
        ConfigError: naming every missing group, with its options.
    """
    missing = [group for group in needed if cfg.get(group) is None]
    if "data" in missing and "tokenizer" in missing:
        missing.remove("tokenizer")  # data=wiki_char brings its own
    if missing:
        example = " ".join(f"{group}={'wiki_char' if group == 'data' else 'char' if group == 'tokenizer' else 'tiny'}" for group in missing)
        raise ConfigError(
            f"Choose {' and '.join(WORDED.get(group, f'a {group}') for group in missing)}, as in {example}.\n"
            + "\n".join(f"  {list_options(g)}" for g in missing)
        )


def check(cfg: DictConfig) -> None:
    """Refuse values and combinations that cannot work.

    Raises:
        ConfigError: one sentence about the first of them.
    """
    _check_missing(cfg)
    _check_parts(cfg)
    for key in (*RULES, *WORDS):
        node = OmegaConf.select(cfg, parent) if (parent := key.rpartition(".")[0]) else cfg
        name = key.rpartition(".")[2]
        if isinstance(node, DictConfig) and name in node and (sentence := fault(key, node.get(name))):
            raise ConfigError(sentence)
    if cfg.model is not None and OmegaConf.get_type(cfg.model) is GPTConfig:
        check_shape(GPTConfig(**{str(key): value for key, value in cfg.model.items()}))
    _check_passed_on(cfg)
    _check_combinations(cfg)
    if trains(cfg):
        _check_machine(cfg)


def _check_parts(cfg: DictConfig) -> None:
    """Refuse a part that names nothing to build, and Hydra's own keys (``_partial_``) where a packaged part has them otherwise."""
    lists = [(path, OmegaConf.select(cfg, path)) for path in ("callbacks", "hydra.sweeper")]
    parts = {f"{path}.{name}" for path, node in lists if node for name in node if path == "callbacks" or name in _PARTS}
    for path in (*(name for name in GROUPS if OmegaConf.is_dict(cfg.get(name))), *sorted(parts), "data.documents"):
        node = OmegaConf.select(cfg, path)
        if node is None or not (path in parts or "_target_" in node):
            continue
        if path.startswith("callbacks.") and isinstance(node, DictConfig) and "_target_" not in node:
            continue  # keys that a recipe sets for a callback that is left out
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise ConfigError(f"{path}={node} is not a part: it must be null or have a _target_ that names a class or a function.")
        target = node.get("_target_")
        if not isinstance(target, str) or not _DOTTED.fullmatch(target):
            raise ConfigError(f"{path}._target_={target} names nothing to call: write package.module.name.")
        schema = OmegaConf.get_type(node)
        defaults = {field.name: field.default for field in fields(schema)} if is_dataclass(schema) else {}
        for key in _OF_HYDRA if defaults.get("_target_") == target else ():
            if key in node and node[key] != defaults.get(key):
                raise ConfigError(f"{path}.{key}={node[key]}: this key is Hydra's, and cannot be changed for {target}.")


def _check_missing(cfg: DictConfig) -> None:
    """Refuse what has no value: ``???``, and interpolations of what is not there."""
    for key in keys(cfg):
        if key.startswith("hydra."):
            continue  # knows some of its values only when a job runs
        try:
            value = OmegaConf.select(cfg, key, throw_on_missing=True)
            if isinstance(value, ListConfig):
                OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue:
            raise ConfigError(f"{key}=??? has no value: ??? means that one must be given, so give {key}= one.") from None
        except OmegaConfBaseException as error:
            raise ConfigError(
                f"{key}: its value holds an interpolation that means nothing here: {first_line(error)}. Where a dollar and a brace are "
                f"meant as they are, write \\${{ for ${{."
            ) from None


def check_modules(cfg: DictConfig) -> None:
    """Refuse a ``_target_`` in a module that is not there, before a run begins that would find out late.

    Raises:
        ConfigError: naming the key and the module.
    """
    for key in keys(cfg):
        module = str(OmegaConf.select(cfg, key)).partition(".")[0] if key.endswith("._target_") else "sys"
        if module not in sys.modules and find_spec(module) is None:
            raise ConfigError(f"{key}: there is no module {module!r}. Your own files are searched in the working directory.")


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that a packaged part does not take: those added with ``+`` and those of a user's own files.

    Raises:
        ConfigError: naming the first of them and the nearest that there is.
    """
    for path in keys(cfg):
        node = OmegaConf.select(cfg, path, throw_on_missing=False)
        target = str(node.get("_target_")) if isinstance(node, DictConfig) else ""
        if path == "trainer" or not target.startswith("gptshake.") or (there := _taken(path, target, node)) is None:
            continue
        for key in sorted({str(key) for key in node if not str(key).startswith("_")} - there):
            names = ", ".join(sorted(there - {"self"}))
            raise ConfigError(f"{path}.{key}: there is no such key{nearest(key, there)} {path} takes: {names}.")


def _taken(path: str, target: str, node: DictConfig) -> set[str] | None:
    """Keys that a packaged part takes; None if only the part itself knows."""
    if path == "task":
        files = (OmegaConf.load(file) for file in (packaged_conf() / "task").glob("*.yaml"))
        nodes = (file.get("task", file) for file in files if isinstance(file, DictConfig))
        return {str(key) for one in nodes if one.get("_target_") == target for key in one} | {"trains", "sweeps"}
    schema = OmegaConf.get_type(node)
    own = {field.name for field in fields(schema)} if is_dataclass(schema) else set[str]()
    shared = {"data": {field.name for field in fields(DataConfig)}, "tokenizer": {"path"}}.get(path, set())
    known = _parameters(target)
    return None if known is None else own | known | shared


@lru_cache
def _parameters(target: str) -> frozenset[str] | None:
    """Names of the parameters of a module's own class or function, read from its source; None where that does not say them all."""
    module, _, name = target.rpartition(".")
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    place = Path(next(iter(spec.submodule_search_locations)), *rest)
    file = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
    tree = ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module([], [])
    kinds = (ast.ClassDef, ast.FunctionDef)
    node = next((node for node in tree.body if isinstance(node, kinds) and node.name == name), None)
    if isinstance(node, ast.ClassDef):
        init = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if init is None:
            fields = [one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
            return frozenset(fields if node.decorator_list else ())
        node = init
    if node is None or node.args.kwarg:
        return None
    return frozenset(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))


def check_one_device(cfg: DictConfig, who: str) -> None:
    """Refuse several devices where each run has one.

    Raises:
        ConfigError: with the way out.
    """
    devices = OmegaConf.select(cfg, "trainer.devices")
    if devices not in (None, 1):
        raise ConfigError(f"{who} trains on one device: leave trainer.devices={devices} out, or use trainer.devices=1.")


def check_torchrun(cfg: DictConfig, processes: int, *, multirun: bool) -> None:
    """Refuse what several processes, begun by torchrun, cannot do together.

    Raises:
        ConfigError: everything but one run with ``trainer=ddp`` or ``trainer=fsdp`` on this machine.
    """
    if processes > 1 and (multirun or not str(cfg.task.get("_target_")).endswith(".train.run") or not cfg.trainer.get("strategy")):
        raise ConfigError(
            f"torchrun started {processes} processes, which can only train one run together: use trainer=ddp or trainer=fsdp, "
            "without -m and task=, or start gptshake without torchrun."
        )


def _check_passed_on(cfg: DictConfig) -> None:
    """Keys for Lightning's Trainer, added with ``+trainer.key=``: those that would do nothing, or harm, have a sentence of their own."""
    if cfg.trainer is None or cfg.trainer.get("_target_") != TrainerConfig._target_:
        return
    for key, value in cfg.trainer.items():
        if key in TrainerConfig.__dataclass_fields__:
            continue
        if key in REPLACED:
            harmless, instead = REPLACED[key]
            if value != harmless:
                raise ConfigError(f"trainer.{key}={value} is not for Lightning's Trainer here: {instead}.")
        elif key not in PASSED_ON:
            raise ConfigError(
                f"trainer.{key} is not a key of trainer{nearest(str(key), (*TrainerConfig.__dataclass_fields__, *PASSED_ON))}"
            )
        elif not isinstance(value, bool):
            raise ConfigError(f"trainer.{key}={value} cannot work: it is true or false.")


def _check_combinations(cfg: DictConfig) -> None:
    val, test = OmegaConf.select(cfg, "data.val_fraction", default=0), OmegaConf.select(cfg, "data.test_fraction", default=0)
    if val + test >= 1:
        raise ConfigError(f"data.val_fraction={val} and data.test_fraction={test} leave nothing to train on: make their sum less than 1.")
    batch_tokens, block_size = (OmegaConf.select(cfg, key) for key in ("data.batch_tokens", "model.block_size"))
    if isinstance(batch_tokens, int) and isinstance(block_size, int):
        whole_sequences(batch_tokens, block_size)
    check_precision(OmegaConf.select(cfg, "trainer.accelerator"), OmegaConf.select(cfg, "trainer.precision"))
    max_time = OmegaConf.select(cfg, "trainer.max_time")
    if max_time is not None:
        parse_max_time(max_time)
    memory = OmegaConf.select(cfg, "task.memory")
    if memory is not None:
        parse_bytes("task.memory", str(memory))
    for group in ("task", "paths", "optimizer", "scheduler", "trainer"):
        if cfg.get(group) is None:
            raise ConfigError(f"{group}= needs an option: {list_options(group)}")
    if "_target_" not in cfg.task:
        raise ConfigError(f"task= needs an option: {list_options('task')}")


def _check_machine(cfg: DictConfig) -> None:
    """Refuse weights that do not fit into main memory, and more threads or processes than the cores can serve: a mistyped number."""
    most = MOST_PER_CORE * logical_cores()
    for key in ("data.workers", "trainer.threads", "trainer.devices", "hydra.sweeper.executor.threads"):
        wanted = OmegaConf.select(cfg, key)
        if isinstance(wanted, int) and wanted > most:
            raise ConfigError(f"{key}={wanted} is more than this machine can serve with {logical_cores()} cores: at most {most} work.")
    if cfg.model is None or OmegaConf.get_type(cfg.model) is not GPTConfig:
        return
    shape = GPTConfig(**{str(key): value for key, value in cfg.model.items()})
    weights, there = 4 * shape.num_params(), memory_bytes()
    if weights > there:
        raise ConfigError(
            f"The weights of this model alone take {short_bytes(weights)} and this machine has {short_bytes(there)} of memory: "
            "choose a smaller model, or see what it needs with task=plan."
        )


# --- a multirun, before its first run begins


def check_points(single: list[str], parsed: Sequence[Override], cfg: DictConfig, look: Callable[[DictConfig], Any]) -> None:
    """Refuse a multirun one of whose runs cannot work: every value of a list, both ends of a range, every enqueued point.

    Composes each combination of swept groups and sets the values in it, which is quick.

    Args:
        single: overrides of its first run.
        parsed: all overrides.
        cfg: composed from ``single``.
        look: checks a config.
    Raises:
        ConfigError: about the first value that is wrong.
    """
    swept = [override for override in parsed if override.is_sweep_override() and not override.key_or_group.startswith("hydra")]
    whole = [override for override in swept if override.key_or_group in (*GROUPS, *SWEPT_TEXT_KEYS) or override.is_add()]
    values = [override for override in swept if override not in whole]
    for point in _points([_texts(override, cfg) for override in whole], MOST_COMPOSED):
        overrides = _with(single, point)
        composed = checked_compose(overrides) if point else cfg
        look(composed)
        for chosen in filter(None, _points([_texts(override, cfg) for override in values], MOST_SET)):
            changed = composed.copy()
            try:
                for override in parse_overrides(list(chosen)):
                    OmegaConf.update(changed, override.key_or_group, override.value())
            except COMPOSITION_ERRORS:  # composed, for the reason
                changed = checked_compose(_with(overrides, chosen))
            look(changed)
    for override in parsed:
        entries = override.value() if override.key_or_group == "hydra.sweeper.enqueue" else ()
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                look(checked_compose(_with(single, [f"{key}={value}" for key, value in entry.items()])))


def _points(axes: Sequence[Sequence[str]], most: int) -> Iterator[Sequence[str]]:
    """Every combination; of too many every value once, beside the first ones of the others."""
    if math.prod(map(len, axes)) <= most:
        yield from itertools.product(*axes)
        return
    first = [texts[0] for texts in axes]
    yield first
    for place, texts in enumerate(axes):
        yield from ([*first[:place], text, *first[place + 1 :]] for text in texts[1:])


def _with(overrides: Iterable[str], point: Sequence[str]) -> list[str]:
    keys = {key_of(text) for text in point}
    return [*(text for text in overrides if key_of(text) not in keys), *point]


def _texts(override: Override, cfg: DictConfig) -> list[str]:
    """The values of a list, or both ends of a range, as overrides."""
    key = override.get_key_element()
    if not (override.is_interval_sweep() or is_declared_range(override)):
        return [f"{key}={text}" for text in texts_of(override)]

    def declared(name: str) -> tuple[Any, bool]:
        value = OmegaConf.select(cfg, name, throw_on_resolution_failure=False)
        return value, isinstance(value, int) and not isinstance(value, bool)

    axis = axis_of(override, {str(name): str(text) for name, text in (cfg.search_space or {}).items()}, declared)
    if not axis.numeric:
        return [f"{key}={value}" for value in axis.choices]
    low, high = (axis.finite[0], axis.finite[-1]) if axis.finite else axis.bounds
    return [f"{key}={int(end) if float(end).is_integer() else repr(float(end))}" for end in (low, high)]
