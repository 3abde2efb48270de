"""Values that cannot work, told before anything heavy is imported: ranges, words, and combinations of keys.

Takes the composed config; raises on the first thing that is wrong. What needs the corpus is checked when it is opened.
"""

from collections.abc import Callable, Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.suggest import list_options, nearest
from gptshake.errors import ConfigError
from gptshake.estimate.budget import AUTO, parse_max_time
from gptshake.estimate.words import parse_bytes
from gptshake.hardware import KNOWN_GPUS, check_precision
from gptshake.model.config import GPTConfig, check_shape
from gptshake.training.config import PASSED_ON, REPLACED, TrainerConfig

Rule = tuple[str, Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < float("inf")


def _not_negative(value: Any) -> bool:
    return _is_number(value) and 0 <= value < float("inf")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _count_or_auto(value: Any) -> bool:
    return value == AUTO or _count(value)


def _share(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


RULES: tuple[Rule, ...] = (
    ("optimizer.lr", _positive, "a learning rate is a number above 0, such as 3e-4"),
    ("optimizer.beta1", _share, "it lies between 0 and 1, such as 0.9"),
    ("optimizer.beta2", _share, "it lies between 0 and 1, such as 0.95"),
    ("optimizer.eps", _positive, "it is a small number above 0, such as 1e-8"),
    ("optimizer.weight_decay", _not_negative, "it is a number from 0 up, such as 0.1"),
    ("data.batch_size", _count_or_auto, "it counts sequences per optimizer step: a whole number from 1 up, or auto"),
    ("data.batch_tokens", _count, "it counts tokens per optimizer step: a whole number from 1 up"),
    ("data.micro_batch_size", _count_or_auto, "it counts sequences per forward pass: a whole number from 1 up, or auto"),
    (
        "data.workers",
        lambda value: _count_or_auto(value) or (value == 0 and value is not False),
        "it counts processes: a whole number from 0 up, or auto",
    ),
    ("data.limit_blocks", _count, "it counts training blocks: a whole number from 1 up"),
    ("data.n_documents", _count, "it counts documents: a whole number from 1 up"),
    ("data.max_bytes", _count, "it counts bytes of text: a whole number from 1 up, such as 100000000"),
    ("data.order_seed", lambda value: isinstance(value, int) and value >= 0, "it is a whole number from 0 up"),
    (
        "data.val_fraction",
        lambda value: _share(value) and value > 0,
        "validation needs a share of the text above 0 and below 1, such as 0.05",
    ),
    ("data.test_fraction", _share, "the test's share of the text lies between 0 and 1, such as 0.05"),
    ("task.passes", lambda value: _count(value) and value >= 16, "it counts passes at each checkpoint: a whole number from 16 up"),
    ("trainer.devices", _count_or_auto, "it counts devices: a whole number from 1 up, or auto"),
    ("trainer.threads", _count_or_auto, "it counts CPU threads: a whole number from 1 up, or auto"),
    ("trainer.max_steps", _count, "it counts optimizer steps: a whole number from 1 up"),
    ("trainer.max_epochs", _positive, "it counts passes over the training split: a number above 0"),
    ("trainer.max_tokens", _count, "it counts target tokens: a whole number from 1 up"),
    ("trainer.hours", _positive, "it is the length of the run in hours, a number above 0, such as 8"),
    ("trainer.val_check_interval", _count_or_auto, "it counts optimizer steps: a whole number from 1 up, or auto"),
    ("trainer.limit_val_batches", _count, "it counts batches: a whole number from 1 up"),
    ("trainer.gradient_clip_val", _positive, "it is a gradient norm above 0, or null for no clipping"),
    ("trainer.patience", _count, "it counts validations: a whole number from 1 up, or null"),
    ("trainer.save_minutes", _positive, "it counts minutes between checkpoints: a number above 0"),
    ("task.num_samples", _count, "it counts continuations: a whole number from 1 up"),
    ("task.limit", _count, "it counts lines: a whole number from 1 up, or null for all"),
    ("trainer.price_per_hour", _not_negative, "it is the price of an hour on this machine: a number from 0 up, or null"),
    ("task.steps", _count, "it counts optimizer steps: a whole number from 1 up, or null for all"),
    ("task.tolerance", _not_negative, "it is a share of the loss from 0 up, such as 0.01"),
    ("task.warmup", _count, "it counts steps: a whole number from 1 up"),
    ("task.seconds", _positive, "it counts seconds: a number above 0"),
    ("task.hours", _positive, "it counts hours: a number above 0, such as 8"),
    ("task.price_per_hour", _not_negative, "it is what an hour of the device costs: a number from 0 up"),
    (
        "task.mfu",
        lambda value: _share(value) and value > 0,
        "it is the share of the device's peak that training reaches: above 0 and below 1, such as 0.3",
    ),
    ("task.repeats", _count, "it counts seeds: a whole number from 1 up"),
    ("task.low", _positive, "it is the learning rate with which the range test begins, such as 1e-6"),
    ("task.high", _positive, "it is the learning rate at which the range test ends, such as 1"),
    ("task.confirm", lambda value: _count(value) or (value == 0 and value is not False), "it counts runs: a whole number from 0 up"),
    ("task.confirm_steps", _count, "it counts optimizer steps of a run: a whole number from 1 up"),
    ("seed", lambda value: isinstance(value, int) and 0 <= value < 2**63, "it is a whole number from 0 up"),
)

WORDS: dict[str, tuple[str, ...]] = {
    "trainer.accelerator": ("auto", "cpu", "gpu", "mps"),
    "trainer.strategy": ("ddp", "fsdp"),
    "trainer.precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "task.device": tuple(KNOWN_GPUS),
    "data.source": ("auto", "excerpt", "hub"),
    "data.offset": ("none", "random"),
    "data.order": ("first", "spread", "shuffle"),
    "data.split": ("documents", "position"),
    "logger.mode": ("auto", "online", "offline"),
    "logger.artifacts": ("none", "best"),
}


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
            f"Say which {' and which '.join(missing)}, as in {example}.\n" + "\n".join(f"  {list_options(g)}" for g in missing)
        )


def check(cfg: DictConfig) -> None:
    """Refuse values and combinations that cannot work.

    Raises:
        ConfigError: one sentence about the first of them.
    """
    for key, fits, advice in RULES:
        value = OmegaConf.select(cfg, key)
        if value is not None and not fits(value):
            raise ConfigError(f"{key}={value} cannot work: {advice}.")
    for key, words in WORDS.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value not in words:
            raise ConfigError(f"{key}={value} is not known{nearest(str(value), words)} It is one of {', '.join(words)}.")
    _check_model(cfg)
    _check_passed_on(cfg)
    _check_combinations(cfg)


def check_one_device(cfg: DictConfig, who: str) -> None:
    """Refuse several devices where each run has one.

    Raises:
        ConfigError: with the way out.
    """
    devices = OmegaConf.select(cfg, "trainer.devices")
    if devices not in (None, 1):
        raise ConfigError(f"{who} trains on one device: leave trainer.devices={devices} out, or say trainer.devices=1.")


def check_torchrun(cfg: DictConfig, processes: int, *, multirun: bool) -> None:
    """Refuse what several processes, begun by torchrun, cannot do together.

    Raises:
        ConfigError: everything but one run with ``trainer=ddp`` or ``trainer=fsdp`` on this machine.
    """
    if processes > 1 and (multirun or not str(cfg.task.get("_target_")).endswith(".train.run") or not cfg.trainer.get("strategy")):
        raise ConfigError(
            f"torchrun has begun {processes} processes, which can only train one run together: say trainer=ddp or trainer=fsdp, "
            "without -m and task=, or start gptshake without torchrun."
        )


def _check_model(cfg: DictConfig) -> None:
    if cfg.model is not None and OmegaConf.get_type(cfg.model) is GPTConfig:
        check_shape(GPTConfig(**{str(key): value for key, value in cfg.model.items()}))


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
            raise ConfigError(f"trainer.{key} is no key of trainer{nearest(str(key), (*TrainerConfig.__dataclass_fields__, *PASSED_ON))}")
        elif not isinstance(value, bool):
            raise ConfigError(f"trainer.{key}={value} cannot work: it is true or false.")


def _check_combinations(cfg: DictConfig) -> None:
    val, test = OmegaConf.select(cfg, "data.val_fraction", default=0), OmegaConf.select(cfg, "data.test_fraction", default=0)
    if val + test >= 1:
        raise ConfigError(f"data.val_fraction={val} and data.test_fraction={test} leave nothing to train on: make their sum less than 1.")
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
