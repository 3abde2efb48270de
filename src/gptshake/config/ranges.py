"""What each key of the packaged options may be: one table of ranges, kinds and words, and the check of one value.

A key with ``?`` may be null: it is left out, or filled in later. What combinations of keys mean is in ``validate.py``.
"""

import math
from collections.abc import Callable
from typing import Any

from omegaconf import ListConfig

from gptshake.config.suggestions import VALUES, meant, nearest
from gptshake.estimate.budget import AUTO
from gptshake.hardware import KNOWN_GPUS

Rule = tuple[Callable[[Any], bool], str]  # whether a value is fine; what it should be


def _number(low: float, high: float = math.inf, *, open: str = "", whole: bool = False, auto: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a number from ``low`` to ``high`` and finite; an end in ``open`` (``low``, ``high``) does not belong to it."""

    def fits(value: Any) -> bool:
        if auto and value == AUTO:
            return True
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value < math.inf:
            return False
        return (value > low if "low" in open else value >= low) and (value < high if "high" in open else value <= high)

    return fits


def _counts(what: str, low: int = 1, *, auto: bool = False, more: str = "") -> Rule:
    advice = f"it counts {what}: a whole number from {low} up{', or auto' if auto else ''}{more}"
    return _number(low, 2**63 - 1, whole=True, auto=auto), advice


def _text(value: Any) -> bool:
    return (
        bool(value.strip()) if isinstance(value, str) else isinstance(value, int | float) and not isinstance(value, bool) and value == value
    )


def _texts(value: Any) -> bool:
    return all(map(_text, value)) and bool(value) if isinstance(value, ListConfig) else _text(value)


def _prompts(value: Any) -> bool:
    return isinstance(value, ListConfig) and all(isinstance(text, str) for text in value)


def _folder_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= 200 and "/" not in value and value not in (".", "..")


_positive, _not_negative = _number(0, open="low"), _number(0)
_share = _number(0, 1, open="high")  # of a whole that something must be left of
_inside, _part = _number(0, 1, open="low high"), _number(0, 1, open="low")
_seed = _number(0, 2**63 - 1, whole=True), "it is a whole number from 0 up"
_text_length = _number(1, 10**6, whole=True)

_RULES: dict[str, Rule] = {
    "seed data.order_seed hydra.sweeper.seed": _seed,
    "study?": (_folder_name, "it is the name of a folder below paths.multirun: 1 to 200 bytes, without /"),
    "optimizer.lr": (_positive, "a learning rate is a number above 0, such as 3e-4"),
    "optimizer.beta1 optimizer.momentum": (_share, "it lies between 0 and 1, such as 0.9"),
    "optimizer.beta2": (_share, "it lies between 0 and 1, such as 0.95"),
    "optimizer.eps": (_positive, "it is a small number above 0, such as 1e-8"),
    "optimizer.weight_decay": (_not_negative, "it is a number from 0 up, such as 0.1"),
    "optimizer.embedding_lr_mult": (_positive, "it is a multiple of optimizer.lr above 0, such as 1"),
    "optimizer.fused": (lambda value: value == AUTO or isinstance(value, bool), "it is auto, true or false"),
    "data.batch_size?": _counts("sequences per optimizer step", auto=True),
    "data.batch_tokens?": _counts("tokens per optimizer step"),
    "data.micro_batch_size": _counts("sequences per forward pass", auto=True),
    "data.workers": _counts("processes", 0, auto=True),
    "data.limit_blocks?": _counts("training blocks"),
    "data.n_documents?": _counts("documents"),
    "data.max_bytes?": _counts("bytes of text", more=", such as 100000000"),
    "data.val_fraction": (_inside, "validation needs a share of the text above 0 and below 1, such as 0.05"),
    "data.test_fraction": (_share, "the test's share of the text lies between 0 and 1, such as 0.05"),
    "data.path?": (_texts, "it is a file, a folder, a pattern, or a list of these in brackets"),
    "data.text_key": (_text, "it is the name of a field or column, such as text"),
    "data.encoding": (_text, "it is a name of Python's, such as utf-8"),
    "data.dataset?": (_text, "it is the name of a data set, such as user/name"),
    "data.documents.cache paths.cache": (_text, "it is a folder, such as ~/.cache/gptshake"),
    "paths.runs": (_text, "it is a folder, such as ./runs"),
    "paths.multirun": (_text, "it is a folder, such as ./multirun"),
    "paths.run_dir": (_text, "it is a folder, such as runs/first"),
    "trainer.devices": _counts("devices", auto=True),
    "trainer.threads hydra.sweeper.executor.threads": _counts("CPU threads", auto=True),
    "trainer.max_steps? logger.every callbacks.noise_scale.split_every": _counts("optimizer steps"),
    "trainer.max_epochs?": (_positive, "it counts passes over the training split: a number above 0"),
    "trainer.max_tokens?": _counts("target tokens"),
    "trainer.hours?": (_positive, "it is the length of the run in hours, a number above 0, such as 8"),
    "trainer.val_check_interval task.confirm_steps": _counts("optimizer steps", auto=True),
    "trainer.limit_val_batches?": _counts("batches"),
    "trainer.gradient_clip_val?": (_positive, "it is a gradient norm above 0, or null for no clipping"),
    "trainer.patience?": _counts("validations", more=", or null"),
    "trainer.save_minutes": (_positive, "it counts minutes between checkpoints: a number above 0"),
    "trainer.price_per_hour?": (_not_negative, "it is the price of an hour on this machine: a number from 0 up, or null"),
    "logger.project?": (_text, "it is the name of a W&B project"),
    "callbacks.progress.every_s": (_positive, "it counts seconds between lines: a number above 0"),
    "callbacks.samples.prompts": (_prompts, "it is a list of texts, such as ['The ','In ']"),
    "callbacks.samples.n_tokens": (_text_length, "it counts generated tokens: a whole number from 1 to a million"),
    "callbacks.samples.temperature task.temperature": (_not_negative, "it is a number from 0 up, such as 0.8"),
    "callbacks.samples.top_k? task.top_k?": _counts("tokens to choose from", more=", or null"),
    "callbacks.samples.top_p? task.top_p?": (_part, "it is a probability above 0 and at most 1, such as 0.9, or null"),
    "callbacks.samples.times": _counts("samples in a run", 0),
    "task.passes": _counts("passes at each checkpoint", 16),
    "task.num_samples": _counts("continuations"),
    "task.limit?": _counts("lines", more=", or null for all"),
    "task.steps?": _counts("optimizer steps", more=", or null for all"),
    "task.tolerance": (_not_negative, "it is a share of the loss from 0 up, such as 0.01"),
    "task.warmup": _counts("steps"),
    "task.seconds hydra.sweeper.timeout? hydra.sweeper.trial_timeout?": (_positive, "it counts seconds: a number above 0"),
    "task.hours? hydra.sweeper.hours?": (_positive, "it counts hours: a number above 0, such as 8"),
    "task.price_per_hour?": (_not_negative, "it is what an hour of the device costs: a number from 0 up"),
    "task.mfu": (_inside, "it is the share of the device's peak that training reaches: above 0 and below 1, such as 0.3"),
    "task.repeats": _counts("seeds"),
    "task.low": (_positive, "it is the learning rate with which the range test begins, such as 1e-6"),
    "task.high": (_positive, "it is the learning rate at which the range test ends, such as 1"),
    "task.confirm": _counts("runs", 0, auto=True),
    "task.run?": (_text, "it is the name, id or path of a run, or latest"),
    "task.runs?": (_texts, "it names two or more runs, as in [first,second]"),
    "task.remove?": (_texts, "it names lines of the list, as checkpoints/x3k9a2pq, or several in brackets"),
    "task.text": (lambda value: value == "" or _text(value), "it is a text"),
    "task.folder": (_text, "it is a folder"),
    "task.file": (_text, "it is a file, such as JOURNAL.md"),
    "task.pictures": (_text, "it is a folder, such as docs/journal"),
    "task.html?": (_text, "it is a file, such as runs.html"),
    "task.csv?": (_text, "it is a file, such as runs.csv, or - for the screen"),
    "task.json?": (_text, "it is a file, such as runs.json, or - for the screen"),
    "task.latex?": (_text, "it is a file, such as runs.tex, or - for the screen"),
    "task.data_path?": (_text, "it is a file or a folder"),
    "task.sort": (_text, "it is a figure or a key, such as val/bpb"),
    "task.filter?": (_text, "it is a text of comparisons, such as 'model=tiny lr>1e-3'"),
    "task.prompt?": (lambda value: isinstance(value, str | int | float), "it is a text, such as 'The '"),
    "task.n_tokens": (_text_length, "it counts tokens: a whole number from 1 to a million"),
    "task.block_size": _counts("tokens of context"),
    "task.n_blocks": _counts("blocks", 0),
    "task.trains task.sweeps task.range_test task.trust task.yes task.trials hydra.sweeper.sampler.multivariate "
    "hydra.sweeper.sampler.constant_liar hydra.sweeper.sampler.scramble": (lambda value: isinstance(value, bool), "it is true or false"),
    "hydra.sweeper.pruner.patience": _counts("validations"),
    "hydra.sweeper.pruner.after": (_number(0, 1), "it is a share of the run from 0 to 1, such as 0.5"),
    "hydra.sweeper.pruner.n_startup_trials": _counts("finished trials", 0),
    "hydra.sweeper.pruner.n_warmup_steps": _counts("tokens", 0),
    "hydra.sweeper.pruner.min_resource hydra.sweeper.pruner.max_resource": _counts("tokens", auto=True),
    "hydra.sweeper.pruner.reduction_factor": (_number(2, whole=True), "it is a whole number from 2 up"),
    "hydra.sweeper.sampler.n_startup_trials": _counts("trials", 0),
    "hydra.sweeper.executor.slots": _counts("runs at once", auto=True),
    "hydra.sweeper.executor.slots_per_gpu": _counts("runs that share a GPU"),
    "hydra.sweeper.n_trials?": _counts("finished trials", more=", or null"),
    "hydra.sweeper.repeats": _counts("runs of every point"),
    "hydra.sweeper.confirm": _counts("runs with fresh seeds", 0),
    "hydra.sweeper.keep": _counts("trials whose weights are kept"),
    "hydra.sweeper.max_failures": _counts("failed trials"),
}
_WORDS = {
    "trainer.accelerator": ("auto", "cpu", "gpu", "mps"),
    "trainer.strategy?": ("ddp", "fsdp"),
    "trainer.extend?": ("redecay",),
    "trainer.precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "task.device?": tuple(KNOWN_GPUS),
    "data.source": ("auto", "excerpt", "hub"),
    "data.offset": ("none", "random"),
    "data.order": ("first", "spread", "shuffle"),
    "data.split": ("documents", "position"),
    "logger.mode": ("auto", "online", "offline"),
    "logger.artifacts": ("none", "best"),
}
RULES = {key.rstrip("?"): rule for names, rule in _RULES.items() for key in names.split()}
WORDS = {key.rstrip("?"): words for key, words in _WORDS.items()}
RULES |= {f"data.documents.{key[5:]}": rule for key, rule in RULES.items() if key.startswith("data.")}  # the source's own
_MAY_BE_NULL = {key[:-1] for names in (*_RULES, *_WORDS) for key in names.split() if key.endswith("?")}


def fault(key: str, value: Any) -> str | None:
    """A sentence about a value that its key cannot have; None where it may, or where no rule is known."""
    if value is None and key.replace("data.documents.", "data.") in _MAY_BE_NULL:
        return None
    word = "null" if value is None else str(value)
    if key in RULES:
        fits, advice = RULES[key]
        return None if fits(value) else f"{key}={word} cannot work: {advice}."
    if value in (words := WORDS.get(key, (value,))):
        return None
    near = meant(VALUES.get(key, {}).get(word)) if word in VALUES.get(key, {}) else nearest(word, words)
    return f"{key}={word} is not known{near} It is one of {', '.join(words)}."
