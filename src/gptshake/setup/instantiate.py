"""A node of the config becomes an object: the one place that instantiates; and a run becomes a network with its weights.

From the record of an earlier run only values are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError, GptshakeError
from gptshake.model.config import GPTConfig
from gptshake.record.index import read_entry
from gptshake.record.run import Run, find_run, run_roots
from gptshake.tokenizer.protocol import Tokenizer, TokenizerTrainer, load_tokenizer

if TYPE_CHECKING:
    from gptshake.model.gpt import GPT


def make(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config node; our own errors come out as they were raised, not in Hydra's wrapping.

    Raises:
        ConfigError: what the node names as its target cannot be imported.
        GptshakeError: it cannot be built.
    """
    try:
        return instantiate(node, **objects)
    except InstantiationException as error:
        if isinstance(error.__cause__, GptshakeError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, ImportError):
            reason = error.__cause__.__cause__ or error.__cause__
            raise ConfigError(
                f"_target_: {node.get('_target_')} cannot be imported ({reason}). Your own files are searched in the working directory."
            ) from error
        raise GptshakeError(
            f"{node.get('_target_')} cannot be built with its keys: {' '.join(str(error.__cause__ or error).split())}"
        ) from error


def builder(node: DictConfig) -> Any:
    """The node's target alone, to be called with objects (Hydra would turn dataclasses among them into config)."""
    return instantiate({"_target_": node._target_, "_partial_": True})


def initial_run(cfg: DictConfig) -> Path:
    """The directory of the run whose weights ``init_from`` names.

    Raises:
        RecordError: there is none.
    """
    return find_run(cfg.init_from, run_roots(cfg.paths)).absolute()


def trainer_of(cfg: DictConfig) -> TokenizerTrainer:
    """The trainer of the chosen option, whatever ``tokenizer.path`` says.

    Raises:
        ConfigError: a trainer of the user's own does not name its kind.
    """
    options: Any = OmegaConf.to_container(cfg.tokenizer, resolve=True)
    options.pop("path", None)
    trainer: TokenizerTrainer = make(OmegaConf.create(options))
    if "kind" not in trainer.settings():
        raise ConfigError(f"{options['_target_']}: settings() must name the tokenizer's kind, as {{'kind': 'mine'}}: one word, its name.")
    return trainer


def load_initial_weights(cfg: DictConfig, model: Any, store: TokenStore, run: Run) -> None:
    """Give the network the best weights of the run ``init_from``, and let the record say so.

    Raises:
        ConfigError: it had another tokenizer or another shape.
    """
    parent = give_initial_weights(cfg, model, store)
    run.update(parent=parent.id)
    run.say(f"weights from {parent.name}")


def give_initial_weights(cfg: DictConfig, model: Any, store: TokenStore) -> Run:
    """The same without a record; gives the run that they come from."""
    from gptshake.training.checkpoint import best_weights, load_weights

    source = initial_run(cfg)
    parent = Run.open(source)
    if parent.info["data"]["tokenizer"] != store.tokenizer.digest:
        raise ConfigError(f"init_from={parent.name} was trained with another tokenizer; its weights would be read as other characters.")
    path, _ = best_weights(source)
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise ConfigError(
            f"init_from={parent.name} has another shape, and its weights do not fit this network: make the sizes of model= equal."
        ) from error
    return parent


def trained(cfg: DictConfig, again: Callable[[Path], DictConfig]) -> tuple[GPT, Tokenizer]:
    """The network with the best weights of the run ``task.run``, and its tokenizer; only values are taken from the record.

    Args:
        cfg: of the task.
        again: composes a run's config from today's files; asked for what a network or a tokenizer of the user's own is.
    Raises:
        ConfigError: no run was named.
        RecordError: there is no such run, or it has no checkpoint.
    """
    if not cfg.task.run:
        raise ConfigError("Choose a run: task.run=<name, id or path>.")
    path = find_run(cfg.task.run, run_roots(cfg.paths))
    from gptshake.model.gpt import GPT
    from gptshake.training.checkpoint import best_weights, load_weights

    stored = read_entry(path).config
    ours = str(stored.get("tokenizer._target_")).startswith("gptshake.")
    tokenizer = load_tokenizer(path / "tokenizer", None if ours else trainer_of(again(path)))
    if stored.get("model._target_") == GPTConfig._target_:
        shape = {key: stored[f"model.{key}"] for key in GPTConfig.__dataclass_fields__ if not key.startswith("_") and key != "vocab_size"}
        model = GPT(**shape, vocab_size=tokenizer.vocab_size)
    else:
        model = make(again(path).model, vocab_size=tokenizer.vocab_size)
    model.load_state_dict(load_weights(best_weights(path)[0]))
    return model, tokenizer
