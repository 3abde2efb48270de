"""The weights that a run starts from (``init_from=``): the best of an earlier run, or those of a model in GPT-2's layout (``hf:``).

Shapes are compared before torch is imported, weights and tokenizers before the run has a directory.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from gptshake.context import Context
from gptshake.errors import ConfigError, DataError, RecordError
from gptshake.export import hub
from gptshake.files import sha256
from gptshake.model.config import GPTConfig
from gptshake.record.index import read_entry
from gptshake.record.run import Run, find_run, run_roots
from gptshake.tokenizer.protocol import Tokenizer

if TYPE_CHECKING:
    from gptshake.model.gpt import GPT

BLOCK_SIZE, EMBEDDING = "model.block_size", "wte.weight"
SHAPE = ("model.n_layer", "model.n_head", "model.n_embd", BLOCK_SIZE, "model.bias")


class Initial(NamedTuple):
    """Weights to start from."""

    name: str  # of the run, or the model
    weights: dict[str, Any]  # state dict
    facts: dict[str, Any]  # for the record

    def load(self, model: Any) -> None:
        """Give the weights to a network; ConfigError: they do not fit."""
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ConfigError(
                f"init_from={self.name} has another shape, and its weights do not fit this network: make the sizes of model= equal."
            ) from error


def initial_run(cfg: DictConfig) -> Path | None:
    """The directory of the run whose weights ``init_from`` names; None if it is no run."""
    if str(cfg.init_from).startswith(hub.HF):
        return None
    try:
        return find_run(cfg.init_from, run_roots(cfg.paths)).absolute()
    except RecordError as error:
        raise RecordError(f"{error} For GPT-2's layout, from the hub or a folder: init_from=hf:<name or folder>.") from error


def check_initial_shape(cfg: DictConfig) -> None:
    """Compare the sizes of the network with those of ``init_from``; its weights are checked when they are read."""
    if parent := initial_run(cfg):
        name, config = parent.name, read_entry(parent).config
        stored = {key: config[key] for key in SHAPE if key in config}
    else:
        name, config = cfg.init_from, {f"model.{key}": value for key, value in asdict(hub.read_shape(cfg.init_from)).items()}
        shorter = (OmegaConf.select(cfg, BLOCK_SIZE) or 0) < config[BLOCK_SIZE]  # takes the first positions
        stored = {key: config[key] for key in (*SHAPE[:3], "model._target_", *([] if shorter else [BLOCK_SIZE]))}
    differing = [f"{key}={value}" for key, value in stored.items() if OmegaConf.select(cfg, key) not in (None, value)]
    if differing:
        raise ConfigError(f"init_from={name} has another shape; its weights fit with {' '.join(differing)}.")


def read_initial_weights(context: Context) -> None:
    """Read what a new run starts from before its record begins: weights that are refused leave no directory behind."""
    if context.config.init_from and not context.spec.resumes:
        context.initial = initial_weights(context.config, context.store.tokenizer, {})
        if "pretrained" in context.initial.facts:
            context.config.init_from = context.initial.name


def initial_weights(cfg: DictConfig, tokenizer: Tokenizer, record: Mapping[str, Any]) -> Initial:
    """Read the weights of ``init_from``, verified.

    Args:
        tokenizer: of the new run.
        record: run.json, of a run that is resumed before its first checkpoint; else empty.
    """
    from gptshake.training.checkpoint import best_checkpoint, load_tensors, load_weights

    if path := initial_run(cfg):
        parent = Run.open(path)
        if (parent.info.get("data") or {}).get("tokenizer") != tokenizer.digest:
            raise ConfigError(f"init_from={parent.name} was trained with another tokenizer; its weights would be read as other characters.")
        return Initial(parent.name, load_weights(best_checkpoint(path)[0]), {"parent": parent.id, "parent_path": str(path)})
    from gptshake.export.tokenizers import gives_same_ids
    from gptshake.model.gpt import from_hf

    source = hub.pinned(cfg.init_from)
    shape, files = hub.read_shape(source), hub.weights_files(source)
    if not _has_rows_of(shape, tokenizer) or not gives_same_ids(tokenizer, files[0].with_name(hub.TOKENIZER)):
        raise ConfigError(
            f"init_from={source} has other ids than tokenizer={tokenizer.name} ({shape.vocab_size:,}, here {tokenizer.vocab_size:,}): use the "
            "tokenizer that it was trained with, tokenizer=gpt2 for GPT-2's."
        )
    facts = {"source": source, "sha256": sha256(*files)}
    if record.get("pretrained", facts)["sha256"] != facts["sha256"]:
        raise RecordError(f"init_from={source} holds other weights than when the run began: restore them, or start a new run.")
    shape.block_size, shape.bias = cfg.model.block_size, cfg.model.bias
    weights = from_hf(shape, load_tensors(*files))
    weights[EMBEDDING] = weights[EMBEDDING][: tokenizer.vocab_size]
    return Initial(source, weights, {"pretrained": facts})


def _has_rows_of(shape: GPTConfig, tokenizer: Tokenizer) -> bool:
    """Whether the embedding has a row for each token, or is padded: as many as round their number up to a multiple of 8, 64 or 128."""
    return any(shape.vocab_size == -(-tokenizer.vocab_size // size) * size for size in (1, 8, 64, 128))


def pretrained_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a model in GPT-2's layout, ``hf:folder`` or ``hf:name``.

    Raises:
        GptshakeError: it cannot be had or used, or is not that of the weights.
    """
    from gptshake.export.tokenizers import read_tokenizer

    shape, file = hub.read_shape(source), hub.weights_files(source)[0].with_name(hub.TOKENIZER)
    if not file.is_file():
        raise DataError(f"{source} has no {hub.TOKENIZER}: save its tokenizer there, too, with transformers' save_pretrained.")
    if not _has_rows_of(shape, tokenizer := read_tokenizer(file)):
        raise DataError(
            f"{source} has {shape.vocab_size:,} rows in its embedding and {tokenizer.vocab_size:,} tokens: they are not of one model."
        )
    return tokenizer


def pretrained_network(source: str, vocab_size: int | None = None) -> "GPT":
    """The network of a model in GPT-2's layout, with its weights, of which only so many tokens; errors as in ``initial_weights``."""
    from gptshake.model.gpt import GPT, from_hf
    from gptshake.training.checkpoint import load_tensors

    shape, files = hub.read_shape(source), hub.weights_files(source)
    if shape.num_params() > sum(file.stat().st_size for file in files):  # far more values than bytes would take all memory
        raise DataError(f"{source}: its {hub.CONFIG} is of a larger network than its weights. Copy all files of one model.")
    weights = from_hf(shape, load_tensors(*files))
    weights[EMBEDDING] = weights[EMBEDDING][:vocab_size]
    shape.vocab_size = len(weights[EMBEDDING])
    model = GPT(**{key: value for key, value in asdict(shape).items() if key != "_target_"})
    model.load_state_dict(weights)
    return model
