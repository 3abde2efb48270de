"""The shape of a GPT: the one schema that Hydra, the network and the checkpoint share. Imports no torch.

Takes the keys of ``conf/model``; gives typed values and, through ``check_shape``, a sentence for a shape that cannot be built.
"""

from dataclasses import dataclass

from gptshake.errors import ConfigError


@dataclass
class GPTConfig:
    """Shape of the network; the names are GPT-2's."""

    n_layer: int  # transformer blocks
    n_head: int  # attention heads; must divide n_embd
    n_embd: int  # width of the residual stream
    block_size: int  # context length, in tokens
    vocab_size: int | None = None  # tokens of the tokenizer; None until the token store is open
    dropout: float = 0.0  # on the embedding, the attention weights and both residual branches; 0 <= dropout < 1
    bias: bool = True  # biases in linear layers and norms, as GPT-2 has them
    _target_: str = "gptshake.model.gpt.GPT"


def check_shape(config: GPTConfig) -> None:
    """Refuse a shape that no network can have.

    Raises:
        ConfigError: a size below 1, a dropout outside [0, 1), or heads that do not divide the width.
    """
    for key in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size"):
        size = getattr(config, key)
        if size is not None and size < 1:
            raise ConfigError(f"model.{key}={size} cannot be built: it must be at least 1.")
    if not 0 <= config.dropout < 1:
        raise ConfigError(f"model.dropout={config.dropout} is not a share of values to drop: write one from 0 up to, not including, 1.")
    if config.n_embd % config.n_head:
        below = config.n_embd // config.n_head * config.n_head
        nearest = " or ".join(str(width) for width in (below, below + config.n_head) if width)
        raise ConfigError(
            f"model.n_embd={config.n_embd} cannot be shared equally by model.n_head={config.n_head} heads: try model.n_embd={nearest}."
        )
