"""The trial step: every figure is there, and it is the real step's."""

import time
from functools import partial
from typing import Any

import torch

from gptshake.estimate.budget import Budget
from gptshake.estimate.forecast import Speed
from gptshake.model.gpt import GPT
from gptshake.optim.adamw import adamw
from gptshake.optim.schedule import Factors
from gptshake.training import probe
from gptshake.training.step import Step

BUDGET = Budget(8, 4, 2, 16, 10, 128, 1280, 1.0, "max_steps", ())


def measure(model: Any, budget: Budget = BUDGET, lr: float = 1e-3, **how: Any) -> Speed:
    def make() -> Step:
        return Step(model(), partial(adamw, lr=lr), lambda tokens, total: Factors(1.0), budget, seed=1, **how)

    return probe.measure(make, "cpu")


def test_every_part_is_measured_on_one_network_that_stays_whole(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    networks = []

    def model() -> GPT:
        networks.append(GPT(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=30))
        return networks[-1]

    speed = measure(model, clip=1.0)
    assert all(0 < seconds < 60 for seconds in (speed.micro_batch, speed.update, speed.evaluation, speed.sampled_token))
    assert speed.base_bytes > 2**20 and speed.held_bytes is not None and speed.held_bytes >= 0
    assert len(networks) == 1 and all(torch.isfinite(parameter).all() for parameter in networks[0].parameters())


def test_passes_are_timed_in_training_and_evaluations_without_dropout(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    seen = []

    class Watched(GPT):
        def loss(self, *args, **options):  # type: ignore[no-untyped-def]
            seen.append((self.training, torch.is_grad_enabled()))
            return super().loss(*args, **options)

    def model() -> GPT:
        return Watched(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=30, dropout=0.2)

    measure(model, clip=1.0)
    assert set(seen) == {(True, True), (False, False)}


def test_a_second_network_is_measured_as_being_slower(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    small, large = (
        measure(
            partial(GPT, n_layer=layers, n_head=2, n_embd=width, block_size=64, vocab_size=30),
            Budget(8, 8, 1, 64, 10, 512, 5120, 1.0, "max_steps", ()),
        )
        for layers, width in ((1, 16), (8, 128))
    )
    assert large.micro_batch > 3 * small.micro_batch


def test_a_compiled_network_is_what_is_timed_and_compiling_counts_once(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    calls = []

    def compile(loss):  # type: ignore[no-untyped-def]
        time.sleep(0.2)

        def compiled(*args):  # type: ignore[no-untyped-def]
            calls.append(torch.is_autocast_enabled("cpu"))
            time.sleep(0.05)
            return loss(*args)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    model = partial(GPT, n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=30)
    eager = measure(model, clip=1.0, precision="bf16-mixed")
    assert not calls and eager.compiling < 0.2
    speed = measure(model, clip=1.0, precision="bf16-mixed", compile=True)
    assert speed.micro_batch >= 0.05 > speed.evaluation and len(calls) >= 1 + probe.FEWEST and all(calls)
    assert speed.compiling >= 0.2


def test_a_rate_at_which_training_diverges_is_timed_too(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    assert measure(lambda: GPT(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=30), lr=1e30, clip=1.0).sampled_token > 0
