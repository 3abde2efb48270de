"""Text from a network: continue token ids one by one, with cached keys and values.

Random numbers come from a generator of its own on the CPU, so sampling never changes what the training draws next; the same
seed continues the same prompt in the same way on every device. Beyond ``block_size`` the context is cut to its last half and
read anew: once in block_size / 2 tokens, where a window that slides by one would read anew at every token.
"""

import torch
from torch import Tensor

from gptshake.errors import ConfigError, TrainingError
from gptshake.model.cache import Cache
from gptshake.model.gpt import GPT


@torch.no_grad()
def generate(
    model: GPT,
    prompt_ids: Tensor,
    n_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Continue every row of ``prompt_ids`` by ``n_tokens`` tokens.

    When prompt and continuation outgrow ``block_size``, the context becomes their last ``max(1, block_size // 2)`` tokens,
    and grows again from there.

    Args:
        model: left in the mode (train or eval) in which it came.
        prompt_ids: (B, T), int64, T >= 1, on the model's device.
        n_tokens: tokens to add; >= 0.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: sample among the k likeliest tokens only.
        top_p: sample among the fewest tokens that together have this probability (nucleus; Holtzman et al. 2020).
        seed: of the generator.
    Returns:
        (B, T + n_tokens), the prompt included.
    Raises:
        ConfigError: a prompt without a token, or an option out of its range.
        TrainingError: the network's output is not finite.
    """
    _check(prompt_ids, n_tokens, temperature, top_k, top_p)
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        ids, unread, cache = prompt_ids, prompt_ids, _empty_cache(model)
        for _ in range(n_tokens):
            if cache.length + unread.shape[1] > model.config.block_size:
                unread, cache = ids[:, -max(1, model.config.block_size // 2) :], _empty_cache(model)
            probabilities = next_token_probabilities(model(unread, cache)[:, -1].cpu(), temperature, top_k, top_p)
            if probabilities.isnan().any():
                raise TrainingError("The output of the network is not finite: its training diverged, so it cannot be sampled from.")
            drawn = torch.multinomial(probabilities, 1, generator=generator).to(ids.device)
            unread = drawn if cache.length else torch.cat((unread, drawn), dim=1)  # a network that fills no cache reads all of it anew
            ids = torch.cat((ids, drawn), dim=1)
        return ids
    finally:
        model.train(was_training)


def next_token_probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The distribution that a token is drawn from: temperature first, then top-k, then top-p of what is left.

    Temperature 0 is all on the likeliest token. Of equal logits the smaller id counts as likelier.

    Args:
        logits: (B, V), finite.
    Returns:
        Probabilities (B, V) in fp32; rows sum to 1.
    """
    ordered, order = logits.float().sort(dim=-1, descending=True, stable=True)
    if temperature == 0:
        top_k, temperature = 1, 1.0
    ordered = (ordered - ordered[:, :1]) / temperature  # the largest becomes 0: a tiny temperature cannot overflow
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    probabilities = ordered.softmax(dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities  # of all likelier tokens
        before[:, 0] = 0.0
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


def _empty_cache(model: GPT) -> Cache:
    return Cache(model.config.n_layer, model.config.block_size)


def _check(prompt_ids: Tensor, n_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuse what cannot be sampled, each with its sentence."""
    if prompt_ids.shape[1] == 0:
        raise ConfigError("An empty prompt gives the network nothing to continue: give it at least one token, such as a line break.")
    if n_tokens < 0:
        raise ConfigError(f"n_tokens={n_tokens} cannot be generated: write 0 or more.")
    if not temperature >= 0:
        raise ConfigError(f"temperature={temperature} is below 0: write 0 for the likeliest token, 1 for the network's own distribution.")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k={top_k} leaves no token to choose: write 1 or more, or null for all tokens.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p={top_p} is not a probability: write one above 0 and at most 1, or null for all tokens.")
