"""What users of nanoGPT, Hugging Face, Lightning, Hydra and Optuna type, and what it is called here; for the rest the nearest name."""

import difflib
from dataclasses import fields
from pathlib import Path

from gptshake.config.layout import GROUPS, options
from gptshake.config.schemas import SCHEMAS, RootConfig
from gptshake.errors import closest, did_you_mean, nearest

_CALLED = {  # key or group here: what other programs call it
    **{"optimizer.lr": "learning_rate max_lr peak_lr lr", "optimizer.weight_decay": "wd decay", "optimizer.beta1": "adam_beta1"},
    **{"optimizer.beta2": "adam_beta2", "optimizer.eps": "adam_epsilon", "scheduler.floor": "min_lr"},
    "scheduler.warmup": "warmup_iters warmup_steps warmup_ratio",
    "data.batch_size": "bs batch train_batch_size",
    "data.micro_batch_size": "per_device_train_batch_size gradient_accumulation_steps accumulate_grad_batches",
    **{"data": "dataset", "data.path": "data_path path file text", "data.val_fraction": "val_split"},
    "tokenizer.vocab_size": "vocab vocab_size",
    "trainer.max_steps": "max_iters iters steps n_steps num_steps train_steps",
    "trainer.max_epochs": "epochs num_epochs num_train_epochs n_epochs",
    **{"trainer.max_tokens": "tokens", "trainer.max_time": "time", "trainer.patience": "early_stopping", "trainer.precision": "dtype"},
    **{"trainer.val_check_interval": "eval_interval eval_steps val_interval", "trainer.limit_val_batches": "eval_iters"},
    **{"trainer": "device", "trainer.devices": "num_gpus n_gpus gpus world_size"},
    "trainer.gradient_clip_val": "grad_clip max_grad_norm clip",
    **{"model.n_layer": "layers num_layers num_hidden_layers depth", "model.n_head": "heads num_heads num_attention_heads"},
    "model.n_embd": "d_model dim hidden_size embed_dim",
    "model.block_size": "context context_length ctx_len seq_len max_length sequence_length",
    **{"model": "model_name arch", "paths.runs": "out_dir output_dir save_dir logdir", "seed": "random_seed", "note": "name run_name"},
    **{"logger": "report_to", "logger.project": "wandb_project project", "init_from": "pretrained weights"},
    "resume": "checkpoint ckpt ckpt_path resume_from resume_from_checkpoint",
    **{"task.n_tokens": "max_new_tokens", "task.prompt": "start", "sampler": "algorithm", "experiment": "config recipe"},
    **{"hydra.sweeper.n_trials": "trials n_iter", "hydra.sweeper.executor.slots": "n_jobs jobs"},
}
KEYS = {word: key for key, words in _CALLED.items() for word in words.split()}
WHOLE = {  # what a whole override means, whatever its key would
    **{"device=cuda": "trainer=gpu", "device=mps": "trainer=auto", "gpus=0": "trainer=cpu", "gpus=1": "trainer=gpu"},
    **{"fp16=true": "trainer.precision=16-mixed", "bf16=true": "trainer.precision=bf16-mixed"},
    **{"gpu=": "trainer=gpu", "gpu=1": "trainer=gpu", "gpu=true": "trainer=gpu", "cuda=": "trainer=gpu", "cpu=": "trainer=cpu"},
    **{"no_wandb=": "logger=none", "dry_run=": "task=plan", "dry_run=true": "task=plan", "verbose=": "debug=default"},
    **{"wandb=true": "logger=wandb", "wandb=false": "logger=none", "wandb_log=true": "logger=wandb", "wandb_log=false": "logger=none"},
    **{"init_from=scratch": "leave init_from= out", "init_from=resume": "resume=latest"},
}
OPTIONS = {
    "model": {"gpt": "gpt3_small", "gpt3": "gpt3_small", "small": "gpt3_small", "medium": "gpt3_medium"}
    | {"large": "gpt3_large", "xl": "gpt3_xl", "gpt2-medium": "gpt3_medium", "gpt2-large": "gpt3_large", "gpt2-xl": "gpt3_xl"}
    | {"nano": "tiny", "nanogpt": "baby", "mini": "baby", "gpt-nano": "tiny", "gpt-mini": "baby", "124m": "gpt3_small"},
    "data": {"wikipedia": "wiki_char", "enwik8": "wiki tokenizer=byte", "tinyshakespeare": "shakespeare_char", "custom": "text_char"}
    | {"file": "text_char", "char": "text_char", "openwebtext": "hf tokenizer=gpt2"}
    | dict.fromkeys(("huggingface", "hub", "tinystories"), "hf tokenizer=bpe"),
    "tokenizer": {"tiktoken": "gpt2", "character": "char", "chars": "char", "bytes": "byte", "utf8": "byte", "spm": "sentencepiece"}
    | {"unigram": "sentencepiece", "huggingface": "hf_bpe", "hf": "hf_bpe", "gpt4": "bpe"},
    "optimizer": {"adam": "adamw", "momentum": "sgd", "nesterov": "sgd"},
    "scheduler": {"none": "constant", "warmup": "constant", "cosine_annealing": "cosine", "onecyclelr": "one_cycle", "trapezoidal": "wsd"},
    "trainer": {"cuda": "gpu", "mps": "auto", "single": "auto", "default": "auto", "multi_gpu": "ddp", "tpu": "auto", "deepspeed": "fsdp"},
    "logger": {"tb": "tensorboard", "csv": "none", "false": "none", "off": "none", "null": "none", "wb": "wandb"},
    "sampler": {"bayes": "tpe", "bayesian": "tpe", "optuna": "tpe", "gaussian": "gp", "botorch": "gp", "sobol": "qmc", "halton": "qmc"}
    | {"cma": "cmaes", "evolution": "cmaes", "uniform": "random"},
    "pruner": {"asha": "hyperband", "successive_halving": "hyperband", "false": "none", "nop": "none", "default": "patient"},
    "task": {"generate": "sample", "inference": "sample", "fit": "train", "pretrain": "train", "list": "runs", "ls": "runs"}
    | {"compare": "diff", "lr_find": "find_lr", "lr_finder": "find_lr", "batch_size_finder": "fit_batch", "upload": "sync"}
    | {"estimate": "plan", "cost": "plan", "replay": "reproduce", "benchmark": "profile", "show": "inspect"}
    | {"delete": "clean", "remove": "clean", "rent": "cloud", "sky": "cloud", "skypilot": "cloud", "vast": "cloud"},
}
VALUES = {
    "trainer.precision": {"fp16": "16-mixed", "16": "16-mixed", "half": "16-mixed", "float16": "16-mixed", "bf16": "bf16-mixed"}
    | {"bfloat16": "bf16-mixed", "fp32": "32-true", "32": "32-true", "float32": "32-true", "full": "32-true", "amp": "16-mixed"},
    "trainer.accelerator": {"cuda": "gpu"},
    "data.source": {"hf": "hub", "huggingface": "hub", "local": "excerpt"},
}
COMMANDS = {
    **dict.fromkeys(("sweep", "tune", "search"), "-m model=tiny data=wiki_char optimizer.lr=range"),
    **dict.fromkeys(("resume", "continue"), "resume=latest"),
    **dict.fromkeys(("debug", "test"), "debug=smoke"),
    **{"help": "--help", "version": "--version", "config": "model=tiny data=wiki_char --cfg job"},
}
_OF_A_TASK = {"prompt": "sample", "n_tokens": "sample", "temperature": "sample", "top_k": "sample", "top_p": "sample", "filter": "runs"}
_FLAGS = ("--dirty", "--help", "--version", "--cfg", "--multirun", "--config-dir")


def list_options(group: str) -> str:
    """``"model is one of baby, gpt3_small, ..."``."""
    return f"{group} is one of {', '.join(options(group))}."


def no_such_option(group: str, name: str) -> str:
    """The sentence about an option that is not there, with what it is called here, or the nearest."""
    return f"{group}={name}: there is no such {group}{_known_option(group, name)} There are: {', '.join(options(group))}."


def suggest_for_key(key: str, value: str) -> str | None:
    """What a key of another program is called here, with its value where that has another name, too."""
    word, plain = key.rpartition(".")[2].lower().replace("-", "_"), value.strip("'\"")
    if whole := WHOLE.get(f"{word}={plain.lower().partition(':')[0]}"):
        return whole
    if word == "run":
        return f"resume={plain} to continue it, or task=sample task.run={plain} to write text with it"
    if word in ("study", "resume"):  # keys of no group
        return f"{word}={plain}"
    if word in _OF_A_TASK:
        return f"task={_OF_A_TASK[word]} task.{word}={plain}"
    if word in ("gpus", "n_gpus", "num_gpus", "world_size"):
        return f"trainer=ddp trainer.devices={plain}"
    here = KEYS.get(word, next((name for name in VALUES if name.endswith(f".{word}")), ""))
    if here in GROUPS and plain:
        return f"{here}={plain if plain in options(here) else OPTIONS.get(here, {}).get(plain.lower(), '<option>')}"
    other = VALUES.get(here, {}).get(plain.lower())
    return f"{here}={other}" if other else here or None


def _known_option(group: str, name: str) -> str:
    plain = name.strip("'\"")
    if group == "data" and (plain.endswith((".txt", ".md", ".jsonl", ".parquet", ".gz")) or "/" in plain or Path(plain).is_file()):
        return did_you_mean(f"data=text_char data.path={plain}")
    if group == "sampler" and plain == "grid":
        return did_you_mean("lists, whose whole grid is run, as in -m optimizer.lr=1e-3,3e-3 seed=1,2")
    if group == "task" and plain in COMMANDS:
        return did_you_mean(f"gptshake {COMMANDS[plain]}")
    known = OPTIONS.get(group, {}).get(plain.lower().replace(" ", "_"))
    return did_you_mean(f"{group}={known}") if known else nearest(name.lower(), options(group))


def suggest_for_word(word: str) -> str:
    """The end of a sentence about a bare word, where ``key=value`` is expected."""
    if word in COMMANDS:
        return did_you_mean(f"gptshake {COMMANDS[word]}")
    if word in options("task") or word.lower() in OPTIONS["task"]:
        return did_you_mean(f"task={OPTIONS['task'].get(word.lower(), word)}")
    if group := next((group for group in GROUPS if word in options(group)), None):
        return did_you_mean(f"{group}={word}")
    if Path(word).is_file():
        return did_you_mean(f"experiment={word}" if word.endswith((".yaml", ".yml")) else f"data=text_char data.path={word}")
    if close := difflib.get_close_matches(word, options("task"), n=1, cutoff=0.75):
        return did_you_mean(f"task={close[0]}")
    return did_you_mean(f"{known}=..." if (known := closest(word, all_keys())) else None)


def all_keys() -> list[str]:
    """Groups, root keys, and keys of the packaged parts, chosen or not."""
    found = (f"{group}.{field.name}" for group, schemas in SCHEMAS.items() for schema in schemas.values() for field in fields(schema))
    return [*GROUPS, *(field.name for field in fields(RootConfig)), *found]


def suggest_for_flag(word: str, following: str) -> str:
    """The end of a sentence about a flag that does not exist, such as ``--lr=1e-3``; the word that follows it may be its value."""
    key, equals, value = word.lstrip("-").partition("=")
    if not equals and not following.startswith("-") and "=" not in following:
        value = following
    key = key.replace("-", "_")
    if close := difflib.get_close_matches(word, _FLAGS, n=1, cutoff=0.75):
        return did_you_mean(close[0])
    if key in GROUPS and value:
        return did_you_mean(f"{key}={value}") if value in options(key) else _known_option(key, value)
    if here := suggest_for_key(key, value):
        return did_you_mean(here if "=" in here or not value else f"{here}={value}")
    if key in COMMANDS or key in options("task"):
        return suggest_for_word(key)
    if len(key) == 1:
        return "."
    return did_you_mean(f"{known}={value or '...'}" if (known := closest(key, all_keys())) else None)
