"""The network: token ids in, logits of the next tokens out, in GPT-2's layout (Radford et al. 2019, Brown et al. 2020).

Learned positions, pre-LN blocks, one fused projection for queries, keys and values, tanh-GELU, the head tied to the token
embedding. Read it from top to bottom in the order of the data: ``GPT``, ``Block``, ``Attention``, ``MLP``.

It knows nothing of optimizers, devices or training. The names inside are GPT-2's own: with ``blocks`` read as
``transformer.h`` and the linear weights transposed, the state dict is that of ``GPT2LMHeadModel`` in transformers.
Shapes in comments: B sequences, T tokens, C = n_embd, V = vocab_size, H heads of D = C / H.
"""

from collections.abc import Mapping
from dataclasses import asdict
from math import sqrt
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptshake.errors import ConfigError
from gptshake.model.attention import Cache, LayerCache, causal_attention
from gptshake.model.config import HF_FIXED, HF_SIZES, GPTConfig, check_shape

INIT_STD = 0.02


class GPT(nn.Module):
    """A decoder-only transformer.

    The weights come from torch's global random numbers: seed them outside. Under ``torch.device("meta")`` it is built
    without memory.

    Raises:
        ConfigError: if the shape cannot be built (``check_shape``).
    """

    def __init__(
        self, *, n_layer: int, n_head: int, n_embd: int, block_size: int, vocab_size: int, dropout: float = 0.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.config = GPTConfig(n_layer, n_head, n_embd, block_size, vocab_size, dropout, bias)
        check_shape(self.config)
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(block_size, n_embd)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(n_head, n_embd, dropout, bias) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd, bias=bias)
        self.init_weights()

    def forward(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits of the token that follows each position.

        Args:
            idx: token ids (B, T), int64; with ``cache``, the T tokens after those it holds.
            cache: filled in place; without one, ``idx`` is the whole context.
        Returns:
            Logits (B, T, V); those at position t depend on tokens 0..t only.
        Raises:
            ValueError: if the context is longer than ``block_size``.
        """
        start = 0 if cache is None else cache.length
        end = start + idx.shape[1]
        if end > self.config.block_size:
            raise ValueError(f"a context of {end} tokens does not fit a network with block_size={self.config.block_size}")
        x = self.drop(self.wte(idx) + self.wpe.weight[start:end])  # (B, T, C)
        for layer, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache.layers[layer])
        return F.linear(self.ln_f(x), self.wte.weight)  # (B, T, V): the head is the embedding

    def loss(self, idx: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Cross-entropy of the next tokens, in nats; in fp32 even under autocast.

        Args:
            idx: token ids (B, T), int64.
            targets: the ids that follow them (B, T).
            reduction: ``mean`` over the B x T targets, or their ``sum``.
        Returns:
            A scalar.
        """
        logits = self(idx)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)

    @torch.no_grad()
    def init_weights(self) -> None:
        """GPT-2's start: matrices N(0, 0.02), those that write into the residual stream smaller by sqrt(2 n_layer), biases 0, gains 1.

        Each block adds two branches to the stream, so that its variance at the top does not grow with depth.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                n_branches = 2 * self.config.n_layer if name.endswith("c_proj.weight") else 1
                parameter.normal_(0.0, INIT_STD / sqrt(n_branches))
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


class Block(nn.Module):
    """Attention moves information between positions, the MLP works on each; both add to the residual stream, (B, T, C)."""

    def __init__(self, n_head: int, n_embd: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, bias=bias)
        self.attn = Attention(n_head, n_embd, dropout, bias)
        self.ln_2 = nn.LayerNorm(n_embd, bias=bias)
        self.mlp = MLP(n_embd, dropout, bias)

    def forward(self, x: Tensor, cache: LayerCache | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal self-attention with H heads."""

    def __init__(self, n_head: int, n_embd: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.n_head = n_head
        self.dropout = dropout  # on the attention weights
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=bias)
        self.c_proj = nn.Linear(n_embd, n_embd, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: LayerCache | None) -> Tensor:
        """(B, T, C) to (B, T, C); with ``cache`` the T positions also see those it holds."""
        batch, time, width = x.shape
        qkv = self.c_attn(x).view(batch, time, 3, self.n_head, width // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, H, T, D) each
        mask = None
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, cached + T, D)
            mask = cache.mask(time)  # (T, cached + T)
        dropout = self.dropout if self.training else 0.0
        if mask is None and q.device.type == "cpu" and q.dtype == torch.bfloat16:
            y = causal_attention(q, k, v, dropout)  # the same, and several times faster there
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None)
        return self.drop(self.c_proj(y.transpose(1, 2).reshape(batch, time, width)))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, n_embd: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.c_proj = nn.Linear(4 * n_embd, n_embd, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))  # type: ignore[no-any-return]


def to_hf(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network as transformers' ``GPT2LMHeadModel``: the content of its config.json, and its tensors by name.

    Its linear layers are ``Conv1D``, with transposed weights, and always have a bias: a missing one is written as zeros.
    """
    shape, state = model.config, model.state_dict()
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": shape.block_size} | HF_FIXED
    config |= {theirs: getattr(shape, ours) for ours, theirs in HF_SIZES.items()}
    config |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), shape.dropout)
    tensors = {}
    for name, (there, transposed) in _hf_names(model).items():
        tensor = state[name] if name in state else torch.zeros(len(state[name.replace("bias", "weight")]))
        tensors[there] = tensor.T.contiguous() if transposed else tensor
    return config, tensors


def from_hf(shape: GPTConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict, in fp32, of a network of this shape, with its first positions, from the tensors of a ``GPT2LMHeadModel`` or ``GPT2Model``.

    A ConfigError says which tensor is missing, has another shape or no place here, or is not made of finite floating-point numbers.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}  # masks
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and tensor.float().isfinite().all()):
            raise ConfigError(
                f"{name} of the weights holds whole numbers, NaN or infinity: use weights in floating point that are not damaged."
            )
    with torch.device("meta"):
        model = GPT(**{key: value for key, value in asdict(shape).items() if key != "_target_"})
    left = {f"transformer.{name.removeprefix('transformer.')}": tensor.float() for name, tensor in tensors.items()}
    head = left.pop("transformer.lm_head.weight", None)
    names = {name: (there, transposed) for name, (there, transposed) in _hf_names(model).items() if there in left}
    state = {name: left.pop(there).T if transposed else left.pop(there) for name, (there, transposed) in names.items()}
    state["wpe.weight"] = state.get("wpe.weight", torch.empty(0))[: shape.block_size]
    if head is not None and not torch.equal(head, state.get("wte.weight", head)):
        raise ConfigError("The weights have a head of their own (lm_head), and here it is tied to the embedding.")
    if any(state.pop(name).any() for name in state.keys() - model.state_dict().keys()):
        raise ConfigError("The weights have biases, which model.bias=false leaves out: use model.bias=true.")
    state |= left
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ConfigError(
            f"The weights are not those of the network in config.json: {str(error).splitlines()[1].strip().rstrip('.')[:200]}."
        ) from error
    return state


def _hf_names(model: GPT) -> dict[str, tuple[str, bool]]:
    """Of each weight and bias its name in ``GPT2LMHeadModel``, and whether it is transposed there; biases also where this network has none."""
    return {
        f"{name}.{part}": (f"transformer.{name.replace('blocks.', 'h.')}.{part}", isinstance(module, nn.Linear) and part == "weight")
        for name, module in model.named_modules()
        for part in ("weight", "bias")
        if isinstance(module, nn.Linear | nn.LayerNorm) or (isinstance(module, nn.Embedding) and part == "weight")
    }
