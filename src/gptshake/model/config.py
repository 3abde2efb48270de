"""The shape of a GPT and what it costs: the one schema that Hydra, the network and the checkpoint share. Imports no torch.

Takes the keys of ``conf/model``; gives typed values, a sentence for a shape that cannot be built, and closed forms of parameters,
FLOPs and activation memory. Another architecture brings a dataclass with the methods of ``Costs`` (docs/extending.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gptshake.errors import ConfigError

# Values that a block keeps for the backward pass, per token and channel: two of the residual stream, which stay in fp32, and 15 in the
# precision of the products (two norms, q, k, v, attention's sum, 4 + 4 of the MLP). Held against measured peaks in tests/model/test_config.py.
STREAM_VALUES, PRODUCT_VALUES = 2, 15
BACKWARD_VALUES = 10  # of one block, once, in fp32: gradients in flight
LOGIT_BYTES = 12  # per token and entry of the vocabulary: logits, log-probabilities and their gradient
DROPOUT_VALUES = 7  # more of a block on a CPU: masks of its activations' dtype, and q, k, v copied
DROPOUT_SQUARES = 3  # T x T matrices of each head in fp32, where attention with dropout is not fused; in bf16 half of one, in bytes
# config.json of GPT-2 in transformers: its names of our sizes, and what makes its function ours (each is its default, too).
HF_SIZES = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "block_size": "n_positions", "vocab_size": "vocab_size"}
HF_FIXED: dict[str, Any] = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": None, "tie_word_embeddings": True}
HF_FIXED |= {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}


class Costs(Protocol):
    """What the config of a network says about its costs; nothing outside ``model/`` knows a closed form of an architecture."""

    block_size: int

    def num_params(self, non_embedding: bool = False) -> int:
        """Trained values, a tied matrix once; with ``non_embedding`` without the tables of tokens and positions."""

    def flops_per_token(self) -> int | None:
        """Floating-point operations per training token, forward and backward, at full context; None: not known."""

    def activation_bytes(self, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False) -> int | None:
        """Bytes held for the backward pass of so many sequences, logits included; None: not known.

        Args:
            micro_batch_size: sequences in one forward pass.
            value_bytes: of one activation: 2 under bf16 autocast, 4 in fp32.
            on_cpu: attention with dropout is not fused there.
        """


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

    def num_params(self, non_embedding: bool = False) -> int:
        """All trained values; the head is the token embedding and counts once."""
        parts = self.params_by_part()
        return sum(n for part, n in parts.items() if not (non_embedding and part in ("token embedding and head", "positions")))

    def params_by_part(self) -> dict[str, int]:
        """Trained values of the embedding (the head too), positions, attention, MLP and norms."""
        layers, width, bias = self.n_layer, self.n_embd, int(self.bias)
        return {
            "token embedding and head": (self.vocab_size or 0) * width,
            "positions": self.block_size * width,
            "attention": layers * (4 * width * width + bias * 4 * width),
            "MLP": layers * (8 * width * width + bias * 5 * width),
            "norms": (2 * layers + 1) * (1 + bias) * width,
        }

    def flops_per_token(self) -> int:
        """6 per value of a matrix (the head's too) and 12 n_layer n_embd T for attention, T = block_size without the causal half.

        Source: Chowdhery et al. 2022 (PaLM), appendix B.
        """
        matrices = 12 * self.n_layer * self.n_embd**2 + (self.vocab_size or 0) * self.n_embd
        return 6 * matrices + 12 * self.n_layer * self.n_embd * self.block_size

    def activation_bytes(self, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False) -> int:
        """As in ``Costs``. Attention is taken to be fused (no T x T matrix is kept), but on a CPU not with dropout in fp32."""
        width, squares = float(STREAM_VALUES * 4 + PRODUCT_VALUES * value_bytes), 0.0
        if self.dropout and on_cpu:
            square = DROPOUT_SQUARES * 4 if value_bytes == 4 else 0.5
            width, squares = width + DROPOUT_VALUES * value_bytes, square * self.n_head * self.block_size
        elif self.dropout:
            width += 2  # two masks of a byte
        per_token = self.n_layer * (self.n_embd * width + squares) + 4 * BACKWARD_VALUES * self.n_embd
        return int(micro_batch_size * self.block_size * (per_token + LOGIT_BYTES * (self.vocab_size or 0)))


def check_shape(config: GPTConfig) -> None:
    """Refuse a size below 1, a dropout outside [0, 1), and heads that do not divide the width, with a ConfigError."""
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


def shape_from_hf(config: Mapping[str, Any]) -> GPTConfig:
    """The shape of a network from the content of its config.json in transformers; ConfigError if it is no GPT-2, or computes something else."""
    if config.get("model_type") != "gpt2":
        raise ConfigError(f"The network of config.json is of the type {config.get('model_type')}; only GPT-2's layout can be read.")
    if missing := [key for key in HF_SIZES.values() if not isinstance(config.get(key), int)]:
        raise ConfigError(f"The config.json does not give {missing[0]} as a whole number.")
    same = {"activation_function": ["gelu_pytorch_tanh"], "n_inner": [4 * config["n_embd"]]}  # other names of the same
    for key, value in HF_FIXED.items():
        if config.get(key, value) not in [value, *same.get(key, [])]:
            raise ConfigError(f"The config.json has {key}={config[key]}, which the network here cannot express: its own is {value}.")
    return GPTConfig(**{ours: config[theirs] for ours, theirs in HF_SIZES.items()})
