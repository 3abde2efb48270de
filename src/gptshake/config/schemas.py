"""What a config may hold: the type of each key (a field of a light dataclass beside its part), its range or its words, and the keys of the root.

Value and comment of a key stand in its yaml, whose defaults list names the dataclass (``adamw_schema``). Imports no Hydra: help is instant.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gptshake.data.config import HubConfig, ShakespeareConfig, TextConfig, WikiConfig
from gptshake.hardware import KNOWN_GPUS
from gptshake.keys import AUTO
from gptshake.model.config import GPTConfig
from gptshake.optim.config import AdamWConfig, ConstantConfig, CosineConfig, GPT3Config, LinearConfig, OneCycleConfig, SGDConfig, WSDConfig
from gptshake.record.trackers.config import MlflowConfig, TensorBoardConfig, TrackioConfig, WandbConfig
from gptshake.tokenizer.config import BPEConfig, ByteConfig, CharConfig, GPT2Config, HFBPEConfig, SentencePieceConfig
from gptshake.training.config import TrainerConfig

Rule = tuple[Callable[[Any], bool], str]  # whether a value is fine; what it should be
SCHEMAS: dict[str, dict[str, Any]] = {
    "model": {"gpt": GPTConfig},
    "data": {"wiki": WikiConfig, "shakespeare": ShakespeareConfig, "text": TextConfig, "hf": HubConfig},
    "tokenizer": {"char": CharConfig, "byte": ByteConfig, "bpe": BPEConfig, "hf_bpe": HFBPEConfig, "gpt2": GPT2Config}
    | {"sentencepiece": SentencePieceConfig},
    "optimizer": {"adamw": AdamWConfig, "sgd": SGDConfig},
    "scheduler": {"gpt3": GPT3Config, "one_cycle": OneCycleConfig, "cosine": CosineConfig, "constant": ConstantConfig}
    | {"linear": LinearConfig, "wsd": WSDConfig},
    "trainer": {"trainer": TrainerConfig},
    "logger": {"wandb": WandbConfig, "tensorboard": TensorBoardConfig, "mlflow": MlflowConfig, "trackio": TrackioConfig},
}


@dataclass(init=False, repr=False, eq=False)
class RootConfig:
    """Root keys; anything else at the root needs a ``+``."""

    seed: int = 1337  # of initial weights, order of blocks, dropout
    note: str = ""  # free text for the record
    dirty: bool = False  # run although sources or config are not committed (also --dirty)
    resume: str | None = None  # run directory, name or id to continue; auto: the unfinished run that this command began, if there is one
    init_from: str | None = None  # run whose best weights to start from
    study: str | None = None  # a sweep's name, below multirun/; null: what is swept names it
    deterministic: bool = False  # ask torch for deterministic algorithms (slower on a GPU)
    conf_shadow: bool = False  # allow files in ./conf to replace packaged options of the same name
    preset: Any = None  # what a model recommends: lr, batch_size or batch_tokens
    paths: Any = None
    tokenizer: Any = None
    optimizer: Any = None
    scheduler: Any = None
    data: Any = None
    model: Any = None
    trainer: Any = None
    logger: Any = None
    callbacks: Any = None
    search_space: Any = None
    sampler: Any = None
    pruner: Any = None
    executor: Any = None
    task: Any = None
    experiment: Any = None
    debug: Any = None


def _number(low: float, high: float = math.inf, *, open: str = "", whole: bool = False, auto: bool = False) -> Rule:
    """A finite number from ``low`` to ``high``; an end in ``open`` (``low``, ``high``) does not belong to it."""

    def fits(value: Any) -> bool:
        if auto and value == AUTO:
            return True
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value < (2**63 if whole else math.inf):
            return False
        return (value > low if "low" in open else value >= low) and (value < high if "high" in open else value <= high)

    advice = f"it must be a {'whole number' if whole else 'number'} {f'above {low}' if 'low' in open else f'from {low} up'}"
    end = "" if high == math.inf else f" and below {high}" if "high" in open else f" and at most {high:,}"
    return fits, f"{advice}{end}{', or auto' if auto else ''}"


def _is_text(value: Any) -> bool:
    return (
        bool(value.strip()) if isinstance(value, str) else isinstance(value, int | float) and not isinstance(value, bool) and value == value
    )


def _is_name(value: str) -> bool:
    name = value.encode(errors="ignore")  # bytes of an argument that are not UTF-8
    return 0 < len(name) <= 200 and not re.search(r"[/\x00-\x1f\x7f]", value) and name.decode() == value


def _are_texts(value: Any, fits: Callable[[Any], bool] = _is_text) -> bool:
    """Whether each text of a list fits, or the only one."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return bool(value) and all(map(fits, value)) if several else fits(value)


def _matches(pattern: str, what: str) -> Rule:
    return lambda value: type(value) in (str, int) and bool(re.fullmatch(pattern, str(value))), what


def _list_of(kind: type, what: str) -> Rule:
    return (
        lambda value: isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(part, kind) for part in value),
        f"it must be a list of {what}",
    )


_TEXT: Rule = _is_text, "it must be a text, which is not empty"
_ANY_TEXT: Rule = lambda value: isinstance(value, str | int | float), "it must be a text, which may be empty"
_TEXTS: Rule = _are_texts, "it must be a text, or a list of texts in brackets"
_ADDRESS: Rule = lambda value: str(value).startswith(("http://", "https://")), "it must be an address that begins with http:// or https://"
_STOPS: Rule = (
    lambda value: _are_texts(value, lambda text: isinstance(text, str) and text != ""),
    "it must be a text, or a list of texts in brackets, none of them empty",
)
# Keys, and what their values must be; a key with ``?`` may be null: it is left out, or filled in later.
_RANGES: dict[str, Rule] = {
    "seed data.order_seed hydra.sweeper.seed": _number(0, 2**63 - 1, whole=True),
    "callbacks.samples.times task.n_blocks task.worst "
    "hydra.sweeper.pruner.n_startup_trials hydra.sweeper.pruner.n_warmup_steps hydra.sweeper.sampler.n_startup_trials": _number(
        0, whole=True
    ),
    "hydra.sweeper.confirm": _number(0, 1000, whole=True),
    "hydra.sweeper.repeats": _number(1, 1000, whole=True),
    "data.workers task.confirm": _number(0, whole=True, auto=True),
    "data.batch_tokens? data.limit_blocks? data.n_documents? data.max_bytes? trainer.max_steps? trainer.max_tokens? trainer.patience? "
    "trainer.limit_val_batches? logger.every callbacks.noise_scale.split_every callbacks.samples.top_k? task.top_k? task.num_samples "
    "task.limit? task.stride? task.steps? task.warmup task.repeats task.block_size task.idle_minutes hydra.sweeper.pruner.patience "
    "hydra.sweeper.n_trials? hydra.sweeper.keep hydra.sweeper.max_failures hydra.sweeper.executor.slots_per_gpu "
    "hydra.sweeper.executor.cpus": _number(1, whole=True),
    "data.batch_size? data.micro_batch_size trainer.devices trainer.threads trainer.val_check_interval task.confirm_steps "
    "hydra.sweeper.executor.threads hydra.sweeper.executor.slots hydra.sweeper.pruner.min_resource "
    "hydra.sweeper.pruner.max_resource": _number(1, whole=True, auto=True),
    "hydra.sweeper.pruner.reduction_factor": _number(2, whole=True),
    "task.passes": _number(16, whole=True),
    "callbacks.samples.n_tokens task.n_tokens": _number(1, 10**6, whole=True),
    "optimizer.lr optimizer.eps optimizer.embedding_lr_mult trainer.max_epochs? trainer.hours? trainer.gradient_clip_val? "
    "trainer.save_minutes callbacks.progress.every_s callbacks.notify.timeout task.seconds task.sync_minutes task.repetition_penalty task.hours? "
    "task.low task.high "
    "hydra.sweeper.hours? hydra.sweeper.timeout? hydra.sweeper.trial_timeout?": _number(0, open="low"),
    "optimizer.weight_decay trainer.price_per_hour? callbacks.samples.temperature task.temperature task.tolerance "
    "task.price_per_hour?": _number(0),
    "optimizer.beta1 optimizer.beta2 optimizer.momentum data.test_fraction": _number(0, 1, open="high"),
    "data.val_fraction task.mfu": _number(0, 1, open="low high"),
    "callbacks.samples.top_p? task.top_p?": _number(0, 1, open="low"),
    "hydra.sweeper.pruner.after": _number(0, 1),
    "task.trains task.sweeps task.writes_command task.launch task.private task.range_test task.trust task.yes task.trials task.interactive task.rolling "
    "task.spot hydra.sweeper.sampler.multivariate hydra.sweeper.sampler.constant_liar hydra.sweeper.sampler.scramble": (
        lambda value: isinstance(value, bool),
        "it must be true or false",
    ),
    "optimizer.fused": (lambda value: value == AUTO or isinstance(value, bool), "it must be auto, true or false"),
    "paths.cache data.text_key data.encoding data.dataset? data.documents.cache paths.runs paths.multirun paths.run_dir paths.node_cache? "
    "logger.project? logger.experiment? logger.uri? callbacks.notify.command? "
    "task.prompt_file? task.jsonl? task.push? task.folder task.file task.pictures task.html? task.csv? task.json? task.latex? task.data_path? task.sort "
    "task.cloud? task.gpu? task.sync? task.sync_key? "
    "task.filter? hydra.sweeper.objective": _TEXT,
    "note resume? init_from? tokenizer.path? data.revision? task.text task.prompt?": _ANY_TEXT,
    "data.path? task.run? task.runs? task.checkpoints task.remove?": _TEXTS,
    "task.stop?": _STOPS,
    "callbacks.notify.url?": _ADDRESS,
    "hydra.sweeper.executor.address": _matches(r"auto|local|\S+:\d+", "it must be auto, local, or the <host>:<port> of a cluster's head"),
    "hydra.sweeper.executor.partition? hydra.sweeper.executor.account?": _TEXT,
    "hydra.sweeper.executor.time?": _matches(
        r"\d+|(\d+-)?\d+(:\d\d){1,2}|\d+-\d+", "it must be a time as Slurm takes it: minutes, 4:00:00 or 2-12"
    ),
    "hydra.sweeper.executor.gpus?": _matches(r"([\w.-]+:)?[1-9]\d*", "it must be a number of GPUs, or a type and a number, as in a100:1"),
    "hydra.sweeper.executor.memory?": _matches(r"[1-9]\d*[KMGT]?", "it must be a size as Slurm takes it: megabytes, or 16G"),
    "hydra.sweeper.executor.flags": (
        lambda value: isinstance(value, Sequence) and not isinstance(value, str) and all(str(flag).startswith("-") for flag in value),
        "it must be a list of options of sbatch, as in [--qos=high,--exclude=node7]",
    ),
    "hydra.sweeper.search_space?": (
        lambda value: isinstance(value, Mapping),
        "it must map keys to ranges, as in {optimizer.lr: 'interval(1e-4,1e-2)'}",
    ),
    "callbacks.samples.prompts": _list_of(str, "texts, such as ['The ','In ']"),
    "hydra.sweeper.enqueue": _list_of(Mapping, "points, as in [{optimizer.lr: 1e-3}]"),
    "optimizer.groups": _list_of(Mapping, "rules, as in [{pattern: 'wte.*', lr_mult: 0.5}]"),
    "study?": (
        lambda value: isinstance(value, str) and value not in (".", "..") and _is_name(value),
        "it must be the name of a folder below paths.multirun: 1 to 200 bytes of UTF-8, without / and line ends",
    ),
}
_WORDS = {
    "trainer.accelerator": ("auto", "cpu", "gpu", "mps"),
    "trainer.strategy?": ("ddp", "fsdp"),
    "trainer.extend?": ("redecay",),
    "trainer.precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "task.device?": tuple(KNOWN_GPUS),
    **dict.fromkeys(("data.source", "data.documents.source"), ("auto", "excerpt", "hub")),
    "data.offset": ("none", "random"),
    **dict.fromkeys(("data.order", "data.documents.order"), ("first", "spread", "shuffle")),
    "data.split": ("documents", "position"),
    "logger.mode": ("auto", "online", "offline"),
    "logger.artifacts": ("none", "best"),
    "task.split": ("auto", "all", "train", "val", "test"),
    "task.to": ("hf", "gguf", "torch_export", "onnx"),
}
RULES = {name.rstrip("?"): rule for names, rule in _RANGES.items() for name in names.split()}
WORDS = {name.rstrip("?"): words for name, words in _WORDS.items()}
MAY_BE_NULL = {name[:-1] for names in (*_RANGES, *_WORDS) for name in names.split() if name.endswith("?")}
_EACH = {f"logger.{name}.{field.name}": f"logger.{field.name}" for name, schema in SCHEMAS["logger"].items() for field in fields(schema)}
RULES |= {each: RULES[key] for each, key in _EACH.items() if key in RULES}  # one of several trackers has the keys of the only one
WORDS |= {each: WORDS[key] for each, key in _EACH.items() if key in WORDS}
MAY_BE_NULL |= {each for each, key in _EACH.items() if key in MAY_BE_NULL}
TEXT_KEYS = tuple(
    key for key, rule in RULES.items() if rule in (_TEXT, _ANY_TEXT, _TEXTS, _STOPS, _ADDRESS) or key == "study"
)  # quoted as they are typed
LIST_KEYS = tuple(key for key, rule in RULES.items() if rule in (_TEXTS, _STOPS))  # take several texts, in brackets
RULES |= {f"data.documents.{key[5:]}": rule for key, rule in RULES.items() if key.startswith("data.")}  # the source's own
