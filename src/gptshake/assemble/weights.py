"""Weights of an earlier run: to begin from, or to write text with. Only values are taken from its record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from gptshake.assemble.parts import make
from gptshake.assemble.settle import initial_run, trainer_of
from gptshake.data.store import TokenStore
from gptshake.errors import ConfigError
from gptshake.model.config import GPTConfig
from gptshake.record.catalogue import read_entry
from gptshake.record.run import Run, find_run, run_roots
from gptshake.tokenizer.protocol import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from gptshake.model.gpt import GPT


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
