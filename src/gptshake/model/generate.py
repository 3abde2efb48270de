"""Text from a network: continue token ids one by one, with cached keys and values.

Random numbers come from a generator of its own on the CPU, so sampling never changes what the training draws next; the same
seed continues the same prompt in the same way on every device. Beyond ``block_size`` the context is cut to its last half and
read anew: once in block_size / 2 tokens, where a window that slides by one would read anew at every token.
"""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from gptshake.errors import ConfigError, TrainingError
from gptshake.model.attention import Cache
from gptshake.model.gpt import GPT


def generate(model: GPT, prompt_ids: Tensor, n_tokens: int, **options: Any) -> Tensor:
    """Continue every row of ``prompt_ids``: (B, T + n_tokens), the prompt included; arguments and errors as in ``stream``."""
    return torch.cat([prompt_ids, *stream(model, prompt_ids, n_tokens, **options)], dim=1)


def stream(
    model: GPT,
    prompt_ids: Tensor,
    n_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """The tokens that continue every row of ``prompt_ids``, (B, 1) each, as soon as they are drawn.

    When prompt and continuation outgrow ``block_size``, the context becomes their last ``max(1, block_size // 2)`` tokens,
    and grows again from there.

    Args:
        model: left in the mode (train or eval) in which it came.
        prompt_ids: (B, T), int64, T >= 1, on the model's device.
        n_tokens: tokens to add; >= 0.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens only.
        top_p: sample among the fewest tokens that together have this probability (nucleus; Holtzman et al. 2020).
        repetition_penalty: makes tokens of the context less likely (Keskar et al. 2019, section 4.1); 1 does nothing.
        seed: of the generator; a whole number of 64 bits.
    Raises:
        ConfigError: a prompt without a token, or an option out of its range; before the first token. The network gives no logits.
        TrainingError: the network's output is not finite.
    """
    if prompt_ids.shape[1] == 0:
        raise ConfigError("An empty prompt gives the network nothing to continue: give it at least one token, such as a line break.")
    _check(n_tokens, temperature, top_k, top_p, repetition_penalty, seed)
    generator = torch.Generator().manual_seed(int(seed))
    was_training, block_size = model.training, model.config.block_size
    n_layer = getattr(model.config, "n_layer", 0)  # a network without layers of keys fills no cache
    model.eval()
    try:
        ids, unread, cache = prompt_ids, prompt_ids, Cache(n_layer, block_size)
        for _ in range(n_tokens):
            with torch.no_grad():
                if cache.length + unread.shape[1] > block_size:
                    unread, cache = ids[:, -max(1, block_size // 2) :], Cache(n_layer, block_size)
                logits = penalized(_logits(model, unread, cache)[:, -1].cpu(), ids[:, -block_size:].cpu(), repetition_penalty)
                probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
                if probabilities.isnan().any():
                    raise TrainingError("The output of the network is not finite: its training diverged, so it cannot be sampled from.")
                drawn = torch.multinomial(probabilities, 1, generator=generator).to(ids.device)
                unread = drawn if cache.length else torch.cat((unread, drawn), dim=1)  # without a cache all of it is read anew
                ids = torch.cat((ids[:, -block_size:], drawn), dim=1)
            yield drawn
    finally:
        model.train(was_training)


def _logits(model: GPT, ids: Tensor, cache: Cache) -> Tensor:
    """What the network says after each token, (B, T, V); a network of a user's own is checked for that."""
    logits: Tensor = model(ids, cache)
    expected = (*ids.shape, model.config.vocab_size)
    if (shape := getattr(logits, "shape", None)) != expected:
        what = type(logits).__name__ if shape is None else f"the shape {tuple(shape)}"
        raise ConfigError(
            f"forward() of {type(model).__name__} gave {what} for ids of {tuple(ids.shape)}: logits (B, T, V) are {expected}."
        )
    return logits


def penalized(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) with those of the tokens in ``ids`` (B, T) divided by the penalty where positive, multiplied by it where negative."""
    if penalty == 1.0:
        return logits
    seen = logits.gather(1, ids)
    return logits.scatter(1, ids, torch.where(seen > 0, seen / penalty, seen * penalty))


def next_token_probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The distribution that a token is drawn from: temperature first, then top-k, then top-p of what is left.

    Temperature 0 is all on the likeliest token. Of equal logits the smaller id counts as likelier.

    Args:
        logits: (B, V), finite.
    Returns:
        Probabilities (B, V) in fp32; rows sum to 1.
    """
    ordered, order = logits.float().sort(dim=-1, descending=True, stable=True)
    if temperature < torch.finfo(ordered.dtype).tiny:  # in fp32 it would be 0
        top_k, temperature = 1, 1.0
    ordered = (ordered - ordered[:, :1]) / temperature  # the largest becomes 0: a tiny temperature cannot overflow
    if top_k is not None:
        ordered[:, min(top_k, ordered.shape[1]) :] = -torch.inf
    probabilities = ordered.softmax(dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities  # of all likelier tokens
        left_out = before >= top_p
        left_out[:, 0] = False  # the likeliest token stays, however small top_p is
        probabilities = probabilities.masked_fill(left_out, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


def _check(n_tokens: int, temperature: float, top_k: int | None, top_p: float | None, repetition_penalty: float, seed: int) -> None:
    """Refuse what cannot be sampled, each with its sentence."""

    def is_number(value: Any, kind: type = Real) -> bool:  # NumPy's are, too
        return isinstance(value, kind) and not isinstance(value, bool)

    if not (is_number(n_tokens, Integral) and n_tokens >= 0):
        raise ConfigError(f"n_tokens={n_tokens} cannot be generated: write a whole number from 0 up.")
    if not (is_number(temperature) and temperature >= 0):
        raise ConfigError(
            f"temperature={temperature} must be a number from 0 up: 0 for the likeliest token, 1 for the network's own distribution."
        )
    if top_k is not None and not (is_number(top_k, Integral) and top_k >= 1):
        raise ConfigError(f"top_k={top_k} must be a whole number from 1 up, or null for all tokens.")
    if top_p is not None and not (is_number(top_p) and 0 < top_p <= 1):
        raise ConfigError(f"top_p={top_p} is not a probability: write one above 0 and at most 1, or null for all tokens.")
    if not (is_number(repetition_penalty) and 1e-6 <= repetition_penalty <= 1e6):  # further away fp32 would overflow
        raise ConfigError(
            f"repetition_penalty={repetition_penalty} must be a number from 0.000001 to 1000000; 1 does nothing, 1.2 avoids repetitions."
        )
    if not (is_number(seed, Integral) and -(2**63) <= seed < 2**64):
        raise ConfigError(f"seed={seed} must be a whole number of at most 64 bits, such as 0.")
