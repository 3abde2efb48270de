"""A node of the config becomes an object: the one place that instantiates; and a run becomes a network with its weights.

From the record of an earlier run only values are taken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from inspect import getattr_static, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from gptshake import distributed
from gptshake.data.source.protocol import Source
from gptshake.data.store import TokenStore
from gptshake.errors import CheckpointError, ConfigError, GptshakeError, RecordError, UserError, closest, first_line
from gptshake.estimate.budget import Budget
from gptshake.export.hub import HF
from gptshake.files import place
from gptshake.model.config import GPTConfig, check_shape
from gptshake.record.index import flat, read_entry
from gptshake.record.run import find_run, refuse_twice, run_roots
from gptshake.tokenizer.protocol import Tokenizer, TokenizerTrainer, load_tokenizer

if TYPE_CHECKING:
    from gptshake.data.module import TokenDataModule
    from gptshake.model.gpt import GPT
    from gptshake.training.step import Step


DATA_MODULE = ("train_dataloader", "val_dataloader", "sample_block")  # what ``data=`` must have


def make(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config node; our own errors come out as they were raised, not in Hydra's wrapping."""
    try:
        return instantiate(node, **objects)
    except InstantiationException as error:
        if isinstance(error.__cause__, GptshakeError):
            raise error.__cause__ from None
        target, cause = node.get("_target_"), error.__cause__ or error
        if isinstance(cause, ImportError):
            reason = _why_not_imported(str(target), cause.__cause__ or cause)
            raise ConfigError(
                f"_target_: {target} cannot be imported ({reason}). Your own files are searched in the working directory."
            ) from error
        where = f" ({own})" if (own := place(cause)) else ""
        raise GptshakeError(
            f"{target} cannot be built with its keys: {' '.join(str(cause).split())}{where}{_against_hints(node)}"
        ) from error


def to_be_called(node: DictConfig, when: str) -> Any:
    """As ``make``; without ``_partial_`` a function may lack what it is called with ``when``."""
    try:
        return make(node)
    except GptshakeError as error:
        if node.get("_partial_") or isinstance(error, UserError):
            raise
        raise ConfigError(f"{error}. With _partial_: true it is called {when}.") from error


def _why_not_imported(target: str, reason: BaseException) -> str:
    module, _, name = target.rpartition(".")
    if not (isinstance(reason, ModuleNotFoundError) and reason.name == target and module in sys.modules):
        return str(reason)
    near = closest(name, vars(sys.modules[module]))
    return f"{module} has no {name}{f'; did you mean {near}?' if near else ''}"


def _against_hints(node: DictConfig) -> str:
    """A sentence about the values of a node that its target has a type hint against, a plain one such as ``int``; empty without any."""
    kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str}
    try:
        hints = {name: one.annotation for name, one in signature(get_object(node._target_)).parameters.items()}
    except (TypeError, ValueError):  # a built-in has no signature to read
        return ""
    names = {key: hint if isinstance(hint, str) else getattr(hint, "__name__", "") for key, hint in hints.items()}
    wrong = [
        f"{key}: {names[key]}, not {node[key]}" for key in names if key in node and not isinstance(node[key], kinds.get(names[key], object))
    ]
    return f". Its type hints ask for {', '.join(wrong)}" if wrong else ""


def builder(node: DictConfig) -> Any:
    """The node's target alone, to be called with objects (Hydra would turn dataclasses among them into config)."""
    return make(OmegaConf.create({"_target_": node._target_, "_partial_": True}))


def made(key: str, node: DictConfig, needs: Iterable[str], **objects: Any) -> Any:
    """What the node of a key makes, which must have these attributes; otherwise as ``make``."""
    part = make(node, **objects)
    check_attributes(f"{key}._target_: {node._target_}", part, needs)
    return part


def check_attributes(what: str, part: Any, needs: Iterable[str]) -> None:
    """Refuse what lacks one of these attributes; ``part`` may be the class that it will be made of."""
    kind = part.__name__ if isinstance(part, type) else type(part).__name__
    for name in needs:
        try:
            getattr(part, name)
        except AttributeError as error:
            if getattr_static(part, name, None) is not None:  # a property, in which something else is missing
                raise ConfigError(f"{what} cannot stand here: {name} of the {kind} cannot be read ({first_line(error)}).") from error
            raise ConfigError(f"{what} cannot stand here: a {kind} has no {name} (docs/extending.md).") from None


def check_class(node: DictConfig, needs: Iterable[str]) -> None:
    """Refuse a class whose objects cannot have these attributes, before one is made; what a function makes shows when it is called."""
    target = get_object(node._target_)
    if isinstance(target, type) and not hasattr(target, "__getattr__"):  # by which a wrapper has those of what it wraps
        check_attributes(f"_target_: {node._target_}", target, needs)


def check_importable(cfg: DictConfig) -> None:
    """Refuse a ``_target_`` that cannot be imported, before anything is written; imports what a training needs."""
    for key, value in flat(OmegaConf.to_container(cfg, resolve=True)).items():
        if key.endswith("._target_"):
            builder(OmegaConf.create({"_target_": value}))


def check_call(node: DictConfig, names: Iterable[str] | None = None, *, first: Sequence[str] = ()) -> None:
    """Refuse a target that does not take the arguments that it will be called with; one without a signature, as ``dict``, is not checked.

    Args:
        names: arguments by keyword; the node's keys if not given.
        first: arguments before them, by position.
    """
    given = [str(key) for key in node if not str(key).startswith("_")] if names is None else names
    before = (*node.get("_args_", ()), *first)
    try:
        signature(get_object(node._target_)).bind(*before, **dict.fromkeys(given))
    except TypeError as error:
        called = ", ".join(map(str, (*before, *given))) or "no arguments"
        raise ConfigError(f"_target_: {node._target_} cannot stand here: it is called with {called} ({first_line(error)}).") from error
    except ValueError:
        pass  # a built-in has no signature to read; what it is called with shows when it is made


def optimizer_of(cfg: DictConfig) -> Any:
    """What makes the optimizer of the network's parameters."""
    return to_be_called(cfg.optimizer, "later, with the network's parameters")


def check_optimizer(cfg: DictConfig, store: TokenStore) -> None:
    """Refuse a target that makes no optimizer of the network's parameters; tried on the meta device, where nothing is stored or computed."""
    import torch

    with torch.device("meta"):
        parameters = network(cfg, store).named_parameters()
    build = optimizer_of(cfg)
    try:
        optimizer = build(parameters)
        if "lr" in getattr(optimizer, "defaults", ()):
            return
        reason = "its defaults have no lr" if hasattr(optimizer, "param_groups") else "it has no param_groups"
    except TypeError as error:
        reason = first_line(error)
    except Exception:  # it may need values, which the meta device has not; a real fault raises again where the optimizer is made
        return
    raise ConfigError(f"optimizer._target_: {cfg.optimizer._target_} makes no optimizer of named parameters and its keys ({reason}).")


def trainer_of(cfg: DictConfig) -> TokenizerTrainer:
    """The trainer of the chosen option, whatever ``tokenizer.path`` says."""
    options: Any = OmegaConf.to_container(cfg.tokenizer, resolve=True)
    options.pop("path", None)
    trainer: TokenizerTrainer = made("tokenizer", OmegaConf.create(options), ("settings", "train"))
    if "kind" not in trainer.settings():
        raise ConfigError(f"{options['_target_']}: settings() must name the tokenizer's kind, as {{'kind': 'mine'}}: one word, its name.")
    return trainer


def source_of(data: DictConfig) -> Source:
    """Where the documents of ``data=`` come from."""
    source: Source = made("data.documents", data.documents, ("label", "fingerprint", "documents", "resolved"))
    return source


def set_torch(cfg: DictConfig) -> None:
    """Threads and determinism of this process, before a GPU is used."""
    import torch

    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not; it is read when CUDA starts
    torch.set_num_threads(cfg.trainer.threads)
    torch.use_deterministic_algorithms(cfg.deterministic, warn_only=True)


def device_of(cfg: DictConfig) -> str:
    return {"gpu": "cuda"}.get(cfg.trainer.accelerator, str(cfg.trainer.accelerator))


def network(cfg: DictConfig, store: TokenStore) -> Any:
    """The network with its first weights, which are those of the seed."""
    import torch

    torch.manual_seed(cfg.seed)
    return built(cfg, store.tokenizer.vocab_size)


def built(cfg: DictConfig, vocab_size: int) -> Any:
    """The network with random weights."""
    return made("model", cfg.model, ("parameters", "config", "loss"), vocab_size=vocab_size)


def training_step(cfg: DictConfig, model: Any, budget: Budget, schedule: Any = None, **options: Any) -> Step:
    """The training step of a resolved config; without a schedule at the peak rate."""
    from gptshake.optim.schedule import Factors
    from gptshake.training.step import Step

    trainer = cfg.trainer
    options = {"seed": cfg.seed, "clip": trainer.gradient_clip_val, "precision": trainer.precision, "compile": trainer.compile} | options
    return Step(model, optimizer_of(cfg), schedule or (lambda tokens, total: Factors(1.0)), budget, **options)


def data_module(cfg: DictConfig, store: TokenStore, budget: Budget, group: distributed.Ranks = distributed.ALONE) -> TokenDataModule:
    """Batches of the run's seed and budget, this rank's part of them."""
    module: TokenDataModule = builder(cfg.data)(**data_arguments(cfg, store, budget, group))
    check_attributes(f"data._target_: {cfg.data._target_}", module, DATA_MODULE)
    return module


def data_arguments(cfg: DictConfig, store: TokenStore, budget: Budget, group: distributed.Ranks = distributed.ALONE) -> dict[str, Any]:
    shard = {"rank": group.rank, "world_size": group.size} if group.size > 1 else {}  # a data module of a user's own may not have it
    return {
        "store": store,
        "block_size": cfg.model.block_size,
        "batch_size": budget.batch_size,
        "micro_batch_size": budget.micro_batch_size,
        "seed": cfg.seed,
        "offset": cfg.data.get("offset", "none"),
        "limit_blocks": cfg.data.get("limit_blocks"),
        "workers": cfg.data.get("workers", 0),
        **shard,
    }


def trained(path: Path, recompose: Callable[[], DictConfig], folder: Path | None = None) -> tuple[GPT, Tokenizer]:
    """The network of a run with its best weights, and its tokenizer; only values are taken from the record.

    Args:
        path: run directory.
        recompose: composes the run's config from today's files, where the network or the tokenizer is the user's own.
        folder: another checkpoint than the best.
    """
    from gptshake.model.gpt import GPT
    from gptshake.training.checkpoint import best_checkpoint, load_weights, weights_bytes

    stored, tokenizer = read_entry(path).config, tokenizer_of(path, recompose)
    folder = folder or best_checkpoint(path)[0]
    if stored.get("model._target_") == GPTConfig._target_:  # values of a record, which somebody may have edited
        shape: dict[str, Any] = {key: stored.get(f"model.{key}") for key in GPTConfig.__dataclass_fields__ if not key.startswith("_")}
        shape["vocab_size"] = tokenizer.vocab_size
        try:
            config = GPTConfig(**shape)
            check_shape(config)
            fits = config.num_params() <= weights_bytes(folder)  # far more values than bytes would take all memory
        except (TypeError, ConfigError) as error:
            raise RecordError(f"{path / 'config.yaml'} holds no shape of a network: {first_line(error)}.") from error
        if not fits:
            raise RecordError(f"{path / 'config.yaml'} is of a larger network than the weights beside it.")
        model = GPT(**shape)
    else:
        model = built(recompose(), tokenizer.vocab_size)
    try:
        model.load_state_dict(load_weights(folder))
    except RuntimeError as error:
        raise CheckpointError(f"The weights of {path.name} do not fit the network of its config.yaml.") from error
    return model, tokenizer


def tokenizer_of(path: Path, recompose: Callable[[], DictConfig]) -> Tokenizer:
    """The tokenizer of a run; arguments as of ``trained``."""
    ours = str(read_entry(path).config.get("tokenizer._target_")).startswith("gptshake.")
    return load_tokenizer(path / "tokenizer", None if ours else trainer_of(recompose()))


def chosen_run(cfg: DictConfig) -> Path:
    if not cfg.task.run:
        raise ConfigError("Choose a run: task.run=<name, id or path>.")
    if str(cfg.task.run).startswith(HF):
        raise ConfigError(
            f"This task reads runs of gptshake, and task.run={cfg.task.run} is none: task=evaluate, task=sample and init_from= take it."
        )
    if isinstance(cfg.task.run, ListConfig):
        raise ConfigError("This task takes one run: task.run=<name, id or path>.")
    return find_run(cfg.task.run, run_roots(cfg.paths))


def chosen_runs(cfg: DictConfig) -> list[Path | str]:
    names = [str(name) for name in (cfg.task.run if isinstance(cfg.task.run, ListConfig) else [cfg.task.run]) if name]
    found = [name if name.startswith(HF) else find_run(name, run_roots(cfg.paths)) for name in names]
    refuse_twice("task.run", names, found)
    return found or [chosen_run(cfg)]
