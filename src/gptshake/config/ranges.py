"""What each key of the packaged options may be: ranges and words, each with advice.

A key is null only where its option is null by default or the advice says so; what combinations of keys mean is in ``check``.
"""

import math
from collections.abc import Callable
from typing import Any

from omegaconf import ListConfig

from gptshake.estimate.budget import AUTO
from gptshake.hardware import KNOWN_GPUS

Rule = tuple[str, Callable[[Any], bool], str]


def _number(low: float, high: float = math.inf, *, open: str = "", whole: bool = False, auto: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a number from ``low`` to ``high`` and finite; an end in ``open`` (``low``, ``high``) does not belong to it."""

    def fits(value: Any) -> bool:
        if auto and value == AUTO:
            return True
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value < math.inf:
            return False
        return (value > low if "low" in open else value >= low) and (value < high if "high" in open else value <= high)

    return fits


_positive = _number(0, open="low")
_not_negative = _number(0)
_share = _number(0, 1, open="high")  # of a whole that something must be left of
_inside = _number(0, 1, open="low high")
_part = _number(0, 1, open="low")
_part_or_none = _number(0, 1)
_natural = _number(0, 2**63 - 1, whole=True)
_natural_or_auto = _number(0, 2**63 - 1, whole=True, auto=True)
_count = _number(1, 2**63 - 1, whole=True)
_count_or_auto = _number(1, 2**63 - 1, whole=True, auto=True)
_text_length = _number(1, 10**6, whole=True)


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _bool_or_auto(value: Any) -> bool:
    return value == AUTO or _bool(value)


def _text(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or (isinstance(value, int | float) and not _bool(value) and value == value)


def _texts(value: Any) -> bool:
    return all(map(_text, value)) and bool(value) if isinstance(value, ListConfig) else _text(value)


def _prompts(value: Any) -> bool:
    return isinstance(value, ListConfig) and all(isinstance(text, str) for text in value)


RULES: tuple[Rule, ...] = (
    ("optimizer.lr", _positive, "a learning rate is a number above 0, such as 3e-4"),
    ("optimizer.beta1", _share, "it lies between 0 and 1, such as 0.9"),
    ("optimizer.beta2", _share, "it lies between 0 and 1, such as 0.95"),
    ("optimizer.eps", _positive, "it is a small number above 0, such as 1e-8"),
    ("optimizer.weight_decay", _not_negative, "it is a number from 0 up, such as 0.1"),
    ("data.batch_size", _count_or_auto, "it counts sequences per optimizer step: a whole number from 1 up, or auto"),
    ("data.batch_tokens", _count, "it counts tokens per optimizer step: a whole number from 1 up"),
    ("data.micro_batch_size", _count_or_auto, "it counts sequences per forward pass: a whole number from 1 up, or auto"),
    ("data.workers", _natural_or_auto, "it counts processes: a whole number from 0 up, or auto"),
    ("data.limit_blocks", _count, "it counts training blocks: a whole number from 1 up"),
    ("data.n_documents", _count, "it counts documents: a whole number from 1 up"),
    ("data.max_bytes", _count, "it counts bytes of text: a whole number from 1 up, such as 100000000"),
    ("data.order_seed", _natural, "it is a whole number from 0 up"),
    ("data.val_fraction", _inside, "validation needs a share of the text above 0 and below 1, such as 0.05"),
    ("data.test_fraction", _share, "the test's share of the text lies between 0 and 1, such as 0.05"),
    ("task.passes", _number(16, whole=True), "it counts passes at each checkpoint: a whole number from 16 up"),
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
    ("task.mfu", _inside, "it is the share of the device's peak that training reaches: above 0 and below 1, such as 0.3"),
    ("task.repeats", _count, "it counts seeds: a whole number from 1 up"),
    ("task.low", _positive, "it is the learning rate with which the range test begins, such as 1e-6"),
    ("task.high", _positive, "it is the learning rate at which the range test ends, such as 1"),
    ("task.confirm", _natural_or_auto, "it counts runs: a whole number from 0 up, or auto"),
    ("task.confirm_steps", _count_or_auto, "it counts optimizer steps of a run: a whole number from 1 up, or auto"),
    ("seed", _natural, "it is a whole number from 0 up"),
    ("optimizer.momentum", _share, "it lies between 0 and 1, such as 0.9"),
    ("optimizer.embedding_lr_mult", _positive, "it is a multiple of optimizer.lr above 0, such as 1"),
    ("optimizer.fused", _bool_or_auto, "it is auto, true or false"),
    ("data.path", _texts, "it is a file, a folder, a pattern, or a list of these in brackets"),
    ("data.text_key", _text, "it is the name of a field or column, such as text"),
    ("data.encoding", _text, "it is a name of Python's, such as utf-8"),
    ("data.dataset", _text, "it is the name of a data set, such as user/name"),
    ("logger.project", _text, "it is the name of a W&B project"),
    ("logger.every", _count, "it counts optimizer steps: a whole number from 1 up"),
    ("callbacks.progress.every_s", _positive, "it counts seconds between lines: a number above 0"),
    ("callbacks.samples.prompts", _prompts, "it is a list of texts, such as ['The ','In ']"),
    ("callbacks.samples.n_tokens", _text_length, "it counts generated tokens: a whole number from 1 to a million"),
    ("callbacks.samples.temperature", _not_negative, "it is a number from 0 up, such as 0.8"),
    ("callbacks.samples.top_k", _count, "it counts tokens to choose from: a whole number from 1 up, or null"),
    ("callbacks.samples.top_p", _part, "it is a probability above 0 and at most 1, such as 0.9, or null"),
    ("callbacks.samples.times", _natural, "it counts samples in a run: a whole number from 0 up"),
    ("callbacks.noise_scale.split_every", _count, "it counts optimizer steps: a whole number from 1 up"),
    ("data.documents.cache", _text, "it is a folder, such as ~/.cache/gptshake"),
    ("paths.runs", _text, "it is a folder, such as ./runs"),
    ("paths.multirun", _text, "it is a folder, such as ./multirun"),
    ("paths.cache", _text, "it is a folder, such as ~/.cache/gptshake"),
    ("paths.run_dir", _text, "it is a folder, such as runs/first"),
    ("task.trains", _bool, "it is true or false"),
    ("task.sweeps", _bool, "it is true or false"),
    ("task.run", _text, "it is the name, id or path of a run, or latest"),
    ("task.remove", _texts, "it names lines of the list, as checkpoints/x3k9a2pq, or several in brackets"),
    ("task.text", lambda value: value == "" or _text(value), "it is a text"),
    ("task.runs", _texts, "it names two or more runs, as in [first,second]"),
    ("task.folder", _text, "it is a folder"),
    ("task.file", _text, "it is a file, such as JOURNAL.md"),
    ("task.pictures", _text, "it is a folder, such as docs/journal"),
    ("task.html", _text, "it is a file, such as runs.html"),
    ("task.csv", _text, "it is a file, such as runs.csv, or - for the screen"),
    ("task.json", _text, "it is a file, such as runs.json, or - for the screen"),
    ("task.latex", _text, "it is a file, such as runs.tex, or - for the screen"),
    ("task.range_test", _bool, "it is true or false"),
    ("task.trust", _bool, "it is true or false"),
    ("task.yes", _bool, "it is true or false"),
    ("task.data_path", _text, "it is a file or a folder"),
    ("task.sort", _text, "it is a figure or a key, such as val/bpb"),
    ("task.filter", _text, "it is a text of comparisons, such as 'model=tiny lr>1e-3'"),
    ("task.trials", _bool, "it is true or false"),
    ("task.prompt", lambda value: isinstance(value, (str, int, float)), "it is a text, such as 'The '"),
    ("task.temperature", _not_negative, "it is a number from 0 up, such as 0.8"),
    ("task.top_k", _count, "it counts tokens to choose from: a whole number from 1 up, or null"),
    ("task.top_p", _part, "it is a probability above 0 and at most 1, such as 0.9, or null"),
    ("task.n_tokens", _text_length, "it counts tokens: a whole number from 1 to a million"),
    ("task.block_size", _count, "it is the context length in tokens: a whole number from 1 up"),
    ("task.n_blocks", _natural, "it counts blocks: a whole number from 0 up"),
    ("hydra.sweeper.pruner.patience", _count, "it counts validations: a whole number from 1 up"),
    ("hydra.sweeper.pruner.after", _part_or_none, "it is a share of the run from 0 to 1, such as 0.5"),
    ("hydra.sweeper.pruner.n_startup_trials", _natural, "it counts finished trials: a whole number from 0 up"),
    ("hydra.sweeper.pruner.n_warmup_steps", _natural, "it counts tokens: a whole number from 0 up"),
    ("hydra.sweeper.pruner.min_resource", _count_or_auto, "it counts tokens: a whole number from 1 up, or auto"),
    ("hydra.sweeper.pruner.max_resource", _count_or_auto, "it counts tokens: a whole number from 1 up, or auto"),
    ("hydra.sweeper.pruner.reduction_factor", _number(2, whole=True), "it is a whole number from 2 up"),
    ("hydra.sweeper.sampler.n_startup_trials", _natural, "it counts trials: a whole number from 0 up"),
    ("hydra.sweeper.sampler.multivariate", _bool, "it is true or false"),
    ("hydra.sweeper.sampler.constant_liar", _bool, "it is true or false"),
    ("hydra.sweeper.sampler.scramble", _bool, "it is true or false"),
    ("hydra.sweeper.executor.slots", _count_or_auto, "it counts runs at once: a whole number from 1 up, or auto"),
    ("hydra.sweeper.executor.slots_per_gpu", _count, "it counts runs that share a GPU: a whole number from 1 up"),
    ("hydra.sweeper.executor.threads", _count_or_auto, "it counts CPU threads: a whole number from 1 up, or auto"),
    ("hydra.sweeper.n_trials", _count, "it counts finished trials: a whole number from 1 up, or null"),
    ("hydra.sweeper.hours", _positive, "it counts hours: a number above 0"),
    ("hydra.sweeper.timeout", _positive, "it counts seconds: a number above 0"),
    ("hydra.sweeper.trial_timeout", _positive, "it counts seconds: a number above 0"),
    (
        "study",
        lambda value: isinstance(value, str) and 0 < len(value.encode()) <= 200 and "/" not in value and value not in (".", ".."),
        "it is the name of a folder below paths.multirun: 1 to 200 bytes, without /",
    ),
    ("hydra.sweeper.seed", _natural, "it is a whole number from 0 up"),
    ("hydra.sweeper.repeats", _count, "it counts runs of every point: a whole number from 1 up"),
    ("hydra.sweeper.confirm", _natural, "it counts runs with fresh seeds: a whole number from 0 up"),
    ("hydra.sweeper.keep", _count, "it counts trials whose weights are kept: a whole number from 1 up"),
    ("hydra.sweeper.max_failures", _count, "it counts failed trials: a whole number from 1 up"),
)

WORDS: dict[str, tuple[str, ...]] = {
    "trainer.accelerator": ("auto", "cpu", "gpu", "mps"),
    "trainer.strategy": ("ddp", "fsdp"),
    "trainer.extend": ("redecay",),
    "trainer.precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "task.device": tuple(KNOWN_GPUS),
    "data.source": ("auto", "excerpt", "hub"),
    "data.offset": ("none", "random"),
    "data.order": ("first", "spread", "shuffle"),
    "data.split": ("documents", "position"),
    "logger.mode": ("auto", "online", "offline"),
    "logger.artifacts": ("none", "best"),
}
# Keys that may be null although they have a rule or words: left out, or filled in later.
NULL = {
    *("data.batch_size", "data.batch_tokens", "data.limit_blocks", "data.n_documents", "data.max_bytes", "data.path", "data.dataset"),
    *("trainer.strategy", "trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens", "trainer.hours", "trainer.limit_val_batches"),
    *("trainer.extend", "trainer.gradient_clip_val", "trainer.patience", "trainer.price_per_hour"),
    *("callbacks.samples.top_k", "callbacks.samples.top_p", "logger.project"),
    *("task.run", "task.runs", "task.html", "task.data_path", "task.filter", "task.limit", "task.steps", "task.top_k", "task.top_p"),
    *("task.csv", "task.json", "task.latex", "task.device", "task.hours", "task.price_per_hour", "task.prompt", "study", "task.remove"),
    *("hydra.sweeper.n_trials", "hydra.sweeper.hours", "hydra.sweeper.timeout", "hydra.sweeper.trial_timeout"),
}
